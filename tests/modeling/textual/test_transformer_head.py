"""The textual head: which outputs depend on which inputs, and its initial weights."""

import math

import numpy as np
import pytest
import torch

from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.modeling.textual import TransformerDecoderTextualHead, build_textual_head
from virtex_det.modeling.textual.padding import pad_captions


def build_head(norm_first: bool = False, **sizes: float) -> TransformerDecoderTextualHead:
    torch.manual_seed(0)
    arguments = {
        "visual_feature_size": 12,
        "vocab_size": 50,
        "hidden_size": 64,
        "num_layers": 2,
        "attention_heads": 4,
    }
    return TransformerDecoderTextualHead(
        **{**arguments, "feedforward_size": 128, **sizes}, norm_first=norm_first
    )


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_feature_depends_on_no_later_token(norm_first: bool) -> None:
    head = build_head(norm_first).eval()
    memory = head.project(torch.randn(1, 12, 3, 3))
    short, long = (
        head(torch.tensor([[1, 7, 8]]), memory),
        head(torch.tensor([[1, 7, 8, 9, 2]]), memory),
    )
    torch.testing.assert_close(long[:, :3], short)


def test_padding_after_a_caption_changes_nothing() -> None:
    head = build_head().eval()
    memory = head.project(torch.randn(2, 12, 3, 3))
    alone = head(torch.tensor([[1, 7, 2]]), memory[:1])
    padded = head(torch.tensor([[1, 7, 2, 0, 0], [1, 5, 6, 7, 2]]), memory)
    torch.testing.assert_close(padded[:1, :3], alone)


def test_every_feature_depends_on_the_image_and_on_earlier_tokens() -> None:
    head = build_head().eval()
    grid = torch.randn(1, 12, 3, 3, requires_grad=True)
    words = head.embedding.words.weight
    feature = head(torch.tensor([[1, 7, 8]]), head.project(grid))[0, 2].square().sum()
    of_grid, of_words = torch.autograd.grad(feature, [grid, words])
    assert (of_grid.abs().sum(dim=1) > 0).all()
    assert {index for index in range(50) if of_words[index].any()} == {1, 7, 8}


def test_the_output_is_tied_to_the_words() -> None:
    head = build_head()
    assert head.output.weight is head.embedding.words.weight
    assert "output.weight" in head.state_dict() and "output.weight" not in dict(
        head.named_parameters()
    )


def test_weights_start_as_in_bert() -> None:
    head = build_head(hidden_size=256, feedforward_size=512)
    drawn = {name: p for name, p in head.named_parameters() if p.dim() == 2}
    assert any("self_attn.in_proj_weight" in name for name in drawn)
    for name, weight in drawn.items():
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05), name
    assert not head.embedding.words.weight[0].any()


def test_attention_starts_as_a_plain_average_whatever_the_deviation() -> None:
    head = build_head(hidden_size=64, init_std=0.125)
    weight = head.get_parameter("transformer.layers.0.multihead_attn.in_proj_weight")
    queries_and_keys, values = weight[:128], weight[128:]
    assert float(queries_and_keys.std()) == pytest.approx(0.02, rel=0.05)
    assert float(values.std()) == pytest.approx(0.125, rel=0.05)


def test_only_the_pre_norm_decoder_ends_in_a_norm() -> None:
    assert "transformer.norm.weight" in build_head(norm_first=True).state_dict()
    assert "transformer.norm.weight" not in build_head(norm_first=False).state_dict()


@pytest.mark.parametrize("norm_first", [True, False])
def test_seeing_all_a_feature_depends_on_every_token_of_its_caption(norm_first: bool) -> None:
    head = build_head(norm_first).eval()
    memory = head.project(torch.randn(1, 12, 3, 3))
    first = head.see_all(*pad_captions([torch.tensor([1, 7, 8, 9, 2])]), memory)
    other = head.see_all(*pad_captions([torch.tensor([1, 7, 8, 5, 2])]), memory)
    assert not torch.isclose(first, other).all(dim=-1).any()


def test_seeing_all_padding_changes_nothing_but_an_unknown_token_within_a_caption_is_seen() -> None:
    head = build_head().eval()
    memory = head.project(torch.randn(1, 12, 3, 3))
    at_the_end = torch.tensor([[False] * 4 + [True] * 2])
    alone = head.see_all(torch.tensor([[1, 7, 0, 2]]), at_the_end[:, :4], memory)
    padded = head.see_all(torch.tensor([[1, 7, 0, 2, 0, 0]]), at_the_end, memory)
    torch.testing.assert_close(padded[:, :4], alone)
    without = head.see_all(torch.tensor([[1, 7, 0, 0]]), at_the_end[:, 2:], memory)
    assert not torch.isclose(without[:, :2], alone[:, :2]).all(dim=-1).any()


def test_the_head_that_a_config_describes() -> None:
    cfg = get_cfg()
    cfg.MODEL.TEXTUAL.update(
        {"VOCAB_SIZE": 50, "HIDDEN_SIZE": 64, "ATTENTION_HEADS": 2, "FEEDFORWARD_SIZE": 96}
    )
    cfg.MODEL.TEXTUAL.update(
        {"NUM_LAYERS": 3, "NORM_FIRST": True, "DROPOUT": 0.25, "INIT_STD": 0.1}
    )
    cfg.INPUT.CAPTION.MAX_LENGTH = 17
    head = build_textual_head(cfg, visual_feature_size=12)
    layer = head.transformer.layers[2]
    assert len(head.transformer.layers) == 3 and layer.norm_first and layer.self_attn.num_heads == 2
    assert layer.dropout.p == head.embedding.dropout.p == 0.25
    assert head.visual_projection.weight.shape == (64, 12) and layer.linear1.weight.shape == (
        96,
        64,
    )
    assert head.embedding.words.weight.shape == (
        50,
        64,
    ) and head.embedding.positions.weight.shape == (17, 64)
    assert float(layer.linear1.weight.std()) == pytest.approx(0.1, rel=0.05)


def test_heads_that_do_not_divide_the_width_are_refused_by_their_key() -> None:
    cfg = get_cfg()
    cfg.MODEL.TEXTUAL.update({"HIDDEN_SIZE": 64, "ATTENTION_HEADS": 3})
    with pytest.raises(UserError, match="MODEL.TEXTUAL.ATTENTION_HEADS is 3.*vector, 64"):
        build_textual_head(cfg, visual_feature_size=12)


def normalised(values: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    mean, variance = values.mean(-1, keepdims=True), values.var(-1, keepdims=True)
    return (values - mean) / np.sqrt(variance + norm.eps) * array(norm.weight) + array(norm.bias)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def attend(
    attention: torch.nn.MultiheadAttention, readers: np.ndarray, read: np.ndarray
) -> np.ndarray:
    """What each row of readers takes from all rows of what is read, both (rows, size)."""
    weights = np.split(array(attention.in_proj_weight), 3)
    biases = np.split(array(attention.in_proj_bias), 3)
    queries, keys, values = (
        rows @ weight.T + bias
        for rows, weight, bias in zip((readers, read, read), weights, biases, strict=True)
    )
    size = queries.shape[1] // attention.num_heads
    taken = []
    for start in range(0, queries.shape[1], size):
        head = slice(start, start + size)
        scores = np.exp(queries[:, head] @ keys[:, head].T / math.sqrt(size))
        taken.append(scores / scores.sum(1, keepdims=True) @ values[:, head])
    output = attention.out_proj
    return np.concatenate(taken, axis=1) @ array(output.weight).T + array(output.bias)


def gelu(values: np.ndarray) -> np.ndarray:
    return values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))) / 2


def test_parallel_prediction_is_that_of_the_formula() -> None:
    """CapPa: as many masks as the longest caption needs, all of which see each other."""
    head = build_head(hidden_size=8, num_layers=1, feedforward_size=16, init_std=0.3, max_length=6)
    head.eval()
    memory = head.project(torch.randn(1, 12, 2, 2))
    layer, embedding = head.transformer.layers[0], head.embedding
    masks = array(embedding.words.weight)[[3]] + array(embedding.positions.weight)[:5]
    hidden = normalised(masks, embedding.layer_norm)
    hidden = normalised(hidden + attend(layer.self_attn, hidden, hidden), layer.norm1)
    cells = array(memory[0])
    hidden = normalised(hidden + attend(layer.multihead_attn, hidden, cells), layer.norm2)
    wide = gelu(hidden @ array(layer.linear1.weight).T + array(layer.linear1.bias))
    narrow = wide @ array(layer.linear2.weight).T + array(layer.linear2.bias)
    expected = normalised(hidden + narrow, layer.norm3)
    np.testing.assert_allclose(array(head.in_parallel(memory, 5)[0]), expected, atol=1e-5)
    np.testing.assert_allclose(array(head.in_parallel(memory, 2)[0]), expected[:2], atol=1e-5)
