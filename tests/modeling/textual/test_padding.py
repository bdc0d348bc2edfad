import torch

from virtex_det.modeling.textual.padding import pad_captions


def test_padding_is_told_apart_from_an_unknown_token_by_the_captions_length():
    tokens, padding = pad_captions([torch.tensor([1, 0, 2]), torch.tensor([1, 5, 0, 0, 2])])
    assert tokens.tolist() == [[1, 0, 2, 0, 0], [1, 5, 0, 0, 2]]
    assert padding.tolist() == [[False, False, False, True, True], [False] * 5]


def test_a_caption_without_tokens_is_padding():
    tokens, padding = pad_captions([torch.tensor([1, 2]), torch.empty(0, dtype=torch.int64)])
    assert tokens.shape == (2, 2) and padding.tolist() == [[False, False], [True, True]]
