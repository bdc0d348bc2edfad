"""The fusion heads of ICMLM: equal to the formulas written out, for one masked token at a time."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.textual.fusion import (
    AttentionFusion,
    Masked,
    TransformerFusion,
    build_fusion_head,
)

SIZES = {
    "visual_feature_size": 6,
    "text_size": 8,
    "vocab_size": 11,
    "num_layers": 2,
    "feedforward_size": 12,
}
LENGTHS = (5, 3)
HEADS = ["tfm", "att_fc"]


def make(head: str) -> nn.Module:
    torch.manual_seed(0)
    return build_fusion_head(head, **SIZES, attention_heads=2, dropout=0.0).double()


def inputs(*, more_padding: int = 0) -> tuple[Tensor, Masked]:
    """Two images of 2 x 3 cells, captions of 5 and 3 tokens; two tokens of the first masked, and
    one of the second.
    """
    generator = torch.Generator().manual_seed(1)
    grid = torch.randn(2, 6, 2, 3, generator=generator, dtype=torch.float64)
    text = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    text = torch.cat([text, torch.full((2, more_padding, 8), 9.0, dtype=torch.float64)], dim=1)
    padding = torch.arange(5 + more_padding) >= torch.tensor(LENGTHS)[:, None]
    return grid, Masked(
        text, padding, torch.arange(2), torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    )


def cells_of(head: nn.Module, grid: Tensor) -> list[Tensor]:
    linear, norm = head.visual_projection
    cells = [
        linear.weight @ grid[:, row, column] + linear.bias
        for row in range(2)
        for column in range(3)
    ]
    return [F.layer_norm(cell, (8,), norm.weight, norm.bias) for cell in cells]


def attend(attention: nn.MultiheadAttention, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-head attention of vectors (n, 8) to each other, head by head; and the weights, mean
    over heads.
    """
    query, key, value = (vectors @ attention.in_proj_weight.T + attention.in_proj_bias).split(
        8, dim=1
    )
    found, weights = [], []
    for part in (slice(0, 4), slice(4, 8)):
        weights.append((query[:, part] @ key[:, part].T / 4**0.5).softmax(dim=1))
        found.append(weights[-1] @ value[:, part])
    return attention.out_proj(torch.cat(found, dim=1)), torch.stack(weights).mean(dim=0)


def slow_tfm(
    head: TransformerFusion, grid: Tensor, text: Tensor, position: int
) -> tuple[Tensor, Tensor]:
    """Logits of one masked token of an unpadded caption, and its attention to the cells in the last
    layer.
    """
    vectors = torch.stack([*text, *cells_of(head, grid)])
    for layer in head.transformer.layers:
        found, weights = attend(layer.self_attn, vectors)
        vectors = layer.norm1(vectors + found)
        vectors = layer.norm2(vectors + layer.linear2(F.gelu(layer.linear1(vectors))))
    to_cells = weights[position, len(text) :]
    return head.output(vectors[position]), to_cells / to_cells.sum()


def slow_att_fc(
    head: AttentionFusion, grid: Tensor, text: Tensor, position: int
) -> tuple[Tensor, Tensor]:
    query, cells = text[position], cells_of(head, grid)
    scores = torch.stack([torch.dot(query, cell) / 8**0.5 for cell in cells])
    weights = scores.exp() / scores.exp().sum()
    found = sum(weight * cell for weight, cell in zip(weights, cells, strict=True))
    first, second, last = head.hidden
    hidden = F.gelu(first[0](found))
    return head.output(head.norm(last(F.gelu(second[0](hidden))))), weights


SLOW = {"tfm": slow_tfm, "att_fc": slow_att_fc}


@pytest.mark.parametrize("mode", ["train", "eval", "inference"])
@pytest.mark.parametrize("name", HEADS)
def test_logits_and_attention_are_those_of_the_formulas_caption_by_caption(name, mode):
    head, (grid, masked) = make(name).train(mode == "train"), inputs()
    with torch.inference_mode(mode == "inference"):
        logits, attention = head(grid, masked), head.attention(grid, masked)
    assert logits.shape == (3, 11) and attention.shape == (3, 2, 3)
    for target, (caption, position) in enumerate([(0, 1), (0, 3), (1, 1)]):
        text = masked.text[caption, : LENGTHS[caption]]
        expected, weights = SLOW[name](head, grid[caption], text, position)
        torch.testing.assert_close(logits[target], expected)
        torch.testing.assert_close(attention[target], weights.view(2, 3))
        assert attention[target].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", HEADS)
def test_padding_makes_no_difference(name):
    head = make(name)
    torch.testing.assert_close(head(*inputs(more_padding=4)), head(*inputs()))
    torch.testing.assert_close(head.attention(*inputs(more_padding=4)), head.attention(*inputs()))


@pytest.mark.parametrize("name", HEADS)
def test_gradients_of_the_loss_are_those_of_finite_differences(name):
    head, (grid, masked) = make(name), inputs()

    def loss(grid: Tensor, text: Tensor) -> Tensor:
        return F.cross_entropy(
            head(grid, masked._replace(text=text)), torch.tensor([4, 5, 6]), reduction="none"
        )

    assert torch.autograd.gradcheck(loss, (grid.requires_grad_(), masked.text.requires_grad_()))


@pytest.mark.parametrize("name", HEADS)
def test_no_masked_token_at_all_gives_no_logits(name):
    grid, masked = inputs()
    nothing = torch.empty(0, dtype=torch.int64)
    none_masked = masked._replace(captions=nothing, positions=nothing)
    assert make(name)(grid, none_masked).shape == (0, 11)
    assert make(name).attention(grid, none_masked).shape == (0, 2, 3)


def test_another_head_is_refused():
    with pytest.raises(UserError, match='MODEL.ICMLM.HEAD is \'fc\'; expected "tfm" or "att_fc"'):
        make("fc")


def test_heads_that_do_not_divide_the_width_of_the_text_are_refused_where_there_are_several():
    sizes = {
        "visual_feature_size": 4,
        "text_size": 10,
        "vocab_size": 9,
        "num_layers": 1,
        "feedforward_size": 8,
    }
    with pytest.raises(
        UserError, match=r"MODEL.ICMLM.ATTENTION_HEADS is 4.*vector, 10(?s:.*)such as 10\."
    ):
        build_fusion_head("tfm", **sizes, attention_heads=4, dropout=0.0)
    build_fusion_head("att_fc", **sizes, attention_heads=4, dropout=0.0)
