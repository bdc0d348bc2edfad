"""Masked language modelling: equal to the authors' implementation; every token sees every other
one.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.golden import (
    MASKED_LM,
    assert_same_visual_features,
    golden,
    golden_examples,
    golden_model,
    mean_losses,
)
from tests.modeling.pretraining.conftest import (
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    images,
    with_targets,
)

MASKED = [[1, 3, 9, 7, 3, 2], [1, 3, 2], [1, 8, 2]]
LABELS = [[0, 5, 0, 0, 6, 0], [0, 11, 0], [0, 0, 0]]


def batch():
    masked = zip(with_targets("caption_tokens", MASKED), LABELS, strict=True)
    return [example | {"masked_labels": torch.tensor(labels)} for example, labels in masked]


@pytest.fixture
def model(build) -> nn.Module:
    return build("MaskedLanguageModel")


@torch.no_grad()
def test_features_loss_and_most_probable_tokens_are_the_authors():
    case, model, examples = golden(MASKED_LM), golden_model(MASKED_LM), golden_examples(MASKED_LM)
    grid = model.visual_grid(examples)
    assert_same_visual_features(MASKED_LM, grid)
    assert mean_losses(model(examples)) == pytest.approx({"loss_masked_lm": case["loss"]}, rel=1e-4)
    tokens, lengths = torch.tensor(case["masked_tokens"]), torch.tensor(case["lengths"])
    padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
    predicted = model.textual.output(
        model.textual.see_all(tokens, padding, model.textual.project(grid))
    ).argmax(-1)
    is_masked = torch.tensor(case["masked_labels"]) != 0
    assert predicted[is_masked].tolist() == torch.tensor(case["argmax"])[is_masked].tolist()


def test_the_loss_is_the_mean_over_the_masked_tokens(model):
    model.eval()
    losses = [output["losses"]["loss_masked_lm"] for output in model(batch())]
    assert [float(count) for _, count in losses] == [2, 1, 0]
    total = 0.0
    for example, (value, _) in zip(batch(), losses, strict=True):
        memory = model.textual.project(model.visual_grid([example]))
        tokens, labels = example["caption_tokens"], example["masked_labels"]
        padding = torch.zeros(1, len(tokens), dtype=torch.bool)
        logits = model.textual.output(model.textual.see_all(tokens[None], padding, memory))[0]
        expected = F.cross_entropy(logits[labels > 0], labels[labels > 0], reduction="sum")
        torch.testing.assert_close(value, expected)
        total += float(expected)
    model.train().backbone.eval()
    assert float(model(batch())["loss_masked_lm"]) == pytest.approx(total / 3, rel=1e-5)


def test_a_batch_without_a_masked_token_has_no_loss_and_no_gradient(model):
    loss = model(batch()[2:] * 2)["loss_masked_lm"]
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_plain_images_have_no_losses(model):
    assert model.eval()(images()) == [{}] * 3


def test_every_parameter_learns(model):
    assert_every_parameter_learns(model, batch())


def test_a_few_steps_lower_the_loss(model):
    assert_a_few_steps_lower_the_loss(model, batch())
