"""Word and position embedding."""

import torch

from virtex_det.modeling.textual import WordAndPositionEmbedding


def test_padding_embeds_to_zero_and_every_other_token_to_a_normalised_vector() -> None:
    embedding = WordAndPositionEmbedding(vocab_size=9, hidden_size=16, max_length=5, dropout=0.0)
    vectors = embedding(torch.tensor([[1, 4, 2, 0, 0]]))
    assert torch.equal(vectors[0, 3:], torch.zeros(2, 16))
    torch.testing.assert_close(vectors[0, :3].mean(dim=1), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(vectors[0, :3].std(dim=1, correction=0), torch.ones(3))


def test_the_same_word_differs_by_position() -> None:
    embedding = WordAndPositionEmbedding(vocab_size=9, hidden_size=16, max_length=5, dropout=0.0)
    first, second = embedding(torch.tensor([[4, 4]]))[0]
    assert not torch.allclose(first, second)


def test_dropout_acts_in_training_only() -> None:
    embedding = WordAndPositionEmbedding(vocab_size=9, hidden_size=64, max_length=5, dropout=0.5)
    tokens = torch.tensor([[1, 4, 2]])
    assert (embedding(tokens) == 0).any()
    assert not (embedding.eval()(tokens) == 0).any()
