"""ICMLM: the loss of masked concepts and of tags, what learns, and where a masked word looks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.modeling.pretraining.conftest import (
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    images,
    with_targets,
)
from tests.tiny_bert import make_bert
from virtex_det.errors import UserError
from virtex_det.modeling.textual.fusion import Masked

# The first has an unknown token, whose id is padding's; the last no concept.
MASKED = [[1, 3, 9, 0, 3, 2], [1, 3, 2], [1, 8, 2]]
LABELS = [[0, 5, 0, 0, 6, 0], [0, 11, 0], [0, 0, 0]]
TAGS = [[0, 2], [1], []]
HEADS = ["tfm", "att_fc"]

SMALL = (
    *("MODEL.TEXTUAL.HIDDEN_SIZE", 16, "MODEL.TEXTUAL.ATTENTION_HEADS", 2),
    *("MODEL.TEXTUAL.FEEDFORWARD_SIZE", 32, "MODEL.TEXTUAL.NUM_LAYERS", 1),
    *("MODEL.TEXTUAL.DROPOUT", 0.0),
    *("MODEL.ICMLM.ATTENTION_HEADS", 2, "MODEL.ICMLM.FEEDFORWARD_SIZE", 32),
    *("MODEL.ICMLM.DROPOUT", 0.0),
)
WITH_TAGS = ("MODEL.ICMLM.TAG_WEIGHT", 0.5, "MODEL.TAG_PREDICTION.NUM_TAGS", 3)


def batch():
    return [
        example
        | {"masked_labels": torch.tensor(labels), "tags": torch.tensor(tags, dtype=torch.int64)}
        for example, labels, tags in zip(
            with_targets("caption_tokens", MASKED), LABELS, TAGS, strict=True
        )
    ]


@pytest.fixture(params=HEADS)
def model(request, build) -> nn.Module:
    return build("ICMLMModel", *SMALL, "MODEL.ICMLM.HEAD", request.param)


def alone(model: nn.Module, example: dict) -> tuple[torch.Tensor, Masked]:
    """The image grid of one example, and its caption, which nothing pads."""
    tokens, labels = example["caption_tokens"][None], example["masked_labels"][None]
    no_padding = torch.zeros_like(tokens, dtype=torch.bool)
    return model.visual_grid([example]), Masked(
        model.text_encoder(tokens, no_padding),
        no_padding,
        torch.tensor([0]),
        *labels.nonzero(as_tuple=True),
    )


def test_the_loss_is_the_mean_of_minus_the_log_probability_of_each_masked_token(model):
    model.eval()
    losses = [output["losses"]["loss_masked_concept"] for output in model(batch())]
    assert [float(count) for _, count in losses] == [2, 1, 0]
    total = 0.0
    for example, (value, _) in zip(batch(), losses, strict=True):
        true = example["masked_labels"][example["masked_labels"] > 0]
        probabilities = model.fusion(*alone(model, example)).softmax(dim=1)
        expected = -sum(row[token].log() for row, token in zip(probabilities, true, strict=True))
        torch.testing.assert_close(value, torch.as_tensor(expected, dtype=torch.float32))
        total += float(expected)
    model.train().backbone.eval()
    losses = model(batch())
    assert list(losses) == ["loss_masked_concept"]
    assert float(losses["loss_masked_concept"]) == pytest.approx(total / 3, rel=1e-5)


def test_a_tag_weight_below_zero_is_refused(build):
    with pytest.raises(UserError, match="TAG_WEIGHT is -1.0"):
        build("ICMLMModel", *SMALL, "MODEL.ICMLM.TAG_WEIGHT", -1.0)


def test_the_tag_loss_has_its_weight_and_sees_the_image_alone(build):
    model = build("ICMLMModel", *SMALL, *WITH_TAGS)
    model.backbone.eval()
    logs = model.tag_head(model.visual_grid(batch())).log_softmax(dim=1)
    expected = 0.5 * (-logs[0, [0, 2]].mean() - logs[1, 1]) / 2
    torch.testing.assert_close(model(batch())["loss_tag_prediction"], expected)
    tags = [output["losses"]["loss_tag_prediction"] for output in model.eval()(batch())]
    assert [float(count) for _, count in tags] == [1, 1, 0]


@torch.no_grad()
def test_attention_is_that_of_the_masked_tokens_and_zero_elsewhere(model):
    for example, output in zip(batch(), model.eval()(batch()), strict=True):
        found, is_masked = output["attention"], example["masked_labels"] > 0
        assert (
            found.shape == (len(example["caption_tokens"]), 2, 2) and found.dtype == torch.float32
        )
        torch.testing.assert_close(found[is_masked], model.fusion.attention(*alone(model, example)))
        torch.testing.assert_close(found.sum(dim=(1, 2)), is_masked.float())


def test_plain_images_have_neither_losses_nor_attention(model):
    assert model.eval()(images()) == [{}] * 3
    (first, second) = model([*batch()[:1], *images(1)])
    assert set(first) == {"losses", "attention"} and second == {}


def test_a_batch_without_a_masked_token_has_no_loss_and_no_gradient(model):
    loss = model(batch()[2:] * 2)["loss_masked_concept"]
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision_gives_the_losses_of_full_precision(build, head):
    model = build("ICMLMModel", *SMALL, *WITH_TAGS, "MODEL.ICMLM.HEAD", head)
    full = model(batch())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch())
        attention = model.eval()(batch())[0]["attention"]
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01, check_dtype=False)
    torch.testing.assert_close(attention[1].sum(), torch.tensor(1.0), rtol=0.01, atol=0)
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns(build, head):
    assert_every_parameter_learns(
        build("ICMLMModel", *SMALL, *WITH_TAGS, "MODEL.ICMLM.HEAD", head), batch()
    )


def test_a_few_steps_lower_the_loss(model):
    assert_a_few_steps_lower_the_loss(model, batch()[:2])


def test_a_few_steps_lower_the_tag_loss(build):
    model = build("ICMLMModel", *SMALL, *WITH_TAGS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        losses.append(model(batch())["loss_tag_prediction"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    least = 0.5 * torch.tensor(2.0).log() / 2  # of the two equal shares of the first image
    assert losses[-1] - least < (losses[0] - least) / 2


@pytest.mark.parametrize("head", HEADS)
def test_a_frozen_bert_stays_as_it_is_while_the_rest_learns(build, tmp_path, head):
    bert = make_bert(tmp_path / "bert")
    options = ("MODEL.TEXTUAL.VOCAB_SIZE", 22, "MODEL.ICMLM.HEAD", head)
    model = build("ICMLMModel", *SMALL, "MODEL.TEXT_ENCODER.WEIGHTS", str(bert), *options)
    tokens = torch.tensor([[1, 3, 9, 2]])
    before = model.text_encoder(tokens)
    assert_every_parameter_learns(model, batch())
    assert not any(name.startswith("text_encoder") for name, _ in model.named_parameters())
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert torch.equal(model.text_encoder(tokens), before)
    assert not any(name.startswith("text_encoder.bert") for name in model.state_dict())


def test_gradients_of_both_losses_are_those_of_finite_differences(build):
    model = build("ICMLMModel", *SMALL, *WITH_TAGS).double().eval()
    examples, grid = batch(), torch.rand(3, 64, 1, 2, dtype=torch.float64, requires_grad=True)
    model.visual_grid = lambda _: grid

    def losses(_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(loss.values for loss in model.target_losses(examples).values())

    assert torch.autograd.gradcheck(losses, grid, fast_mode=True)


def test_a_target_belongs_to_its_image_also_where_the_first_image_has_none(model):
    reordered = [batch()[2], batch()[0]]
    model.eval()
    losses = model.target_losses(reordered)["loss_masked_concept"]
    logits = model.fusion(*alone(model, reordered[1]))
    assert losses.images.tolist() == [1, 1]
    torch.testing.assert_close(
        losses.values, F.cross_entropy(logits, torch.tensor([5, 6]), reduction="none")
    )
