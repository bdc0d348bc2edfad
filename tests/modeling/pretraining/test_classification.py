"""Token and multi-label classification: equal to the authors' implementation, and to their loop
over images.
"""

import pytest
import torch

from tests.golden import (
    MULTILABEL_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
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
from virtex_det.errors import UserError

TASKS = ["TokenClassificationModel", "MultilabelClassificationModel"]
TOKENS = [[1, 9, 5, 9, 0, 2], [1, 3, 30, 2]]  # a repeated, an unknown, a masked one
LABELS = [[2, 5], [7]]


def batch(task: str):
    return (
        with_targets("caption_tokens", TOKENS)
        if task == TASKS[0]
        else with_targets("labels", LABELS)
    )


@torch.no_grad()
@pytest.mark.parametrize("name", [TOKEN_CLASSIFICATION, MULTILABEL_CLASSIFICATION])
def test_features_loss_and_ten_most_probable_labels_are_the_authors(name):
    case, model, examples = golden(name), golden_model(name), golden_examples(name)
    grid = model.visual_grid(examples)
    assert_same_visual_features(name, grid)
    assert sum(mean_losses(model(examples)).values()) == pytest.approx(case["loss"], rel=1e-4)
    assert model.textual(grid).topk(10).indices.tolist() == case["top10"]


@pytest.mark.parametrize(
    ("task", "different"),
    [("TokenClassificationModel", [[5, 9], [30]]), ("MultilabelClassificationModel", LABELS)],
)
def test_loss_is_the_mean_over_images_of_the_mean_over_different_labels(build, task, different):
    model = build(task).eval()
    log_probabilities = model.textual(model.visual_grid(images(2))).log_softmax(dim=1)
    expected = [-log_probabilities[image, labels].mean() for image, labels in enumerate(different)]
    found = [next(iter(output["losses"].values())) for output in model(batch(task))]
    torch.testing.assert_close(
        torch.stack(found), torch.tensor([[value, 1.0] for value in expected])
    )
    model.train().backbone.eval()
    (loss,) = model(batch(task)).values()
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_losses_have_the_names_of_their_tasks(build):
    assert list(build(TASKS[0])(batch(TASKS[0]))) == ["loss_token_classification"]
    assert list(build(TASKS[1])(batch(TASKS[1]))) == ["loss_multilabel_classification"]


@pytest.mark.parametrize("task", TASKS)
def test_an_image_without_labels_counts_for_nothing(build, task):
    model = build(task).eval()
    labelled, other = batch(task)
    key = model.target
    empty = {
        **other,
        key: torch.tensor([1, 0, 2] if key == "caption_tokens" else [], dtype=torch.int64),
    }
    first, second = model([labelled, empty])
    assert first["losses"][model.loss_name][1] == 1 and second["losses"][
        model.loss_name
    ].tolist() == [0, 0]


def test_the_background_has_an_output_that_no_label_asks_for(build):
    model = build("MultilabelClassificationModel")
    assert model.textual.output.out_features == 8
    (alone,) = model.eval()(with_targets("labels", [[3]]))
    (with_background,) = model(with_targets("labels", [[0, 3]]))
    assert torch.equal(alone["losses"][model.loss_name], with_background["losses"][model.loss_name])


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_learns(build, task):
    assert_every_parameter_learns(build(task), batch(task))


@pytest.mark.parametrize("task", TASKS)
def test_a_few_steps_come_near_the_least_loss_that_a_set_of_labels_allows(build, task):
    assert_a_few_steps_lower_the_loss(build(task), batch(task))


RARE = ("MODEL.TOKEN_CLASSIFICATION.WEIGHTING", "rare")


def test_rare_tokens_weigh_more(build):
    """Of two images both have token 9: it weighs nothing, and each image is left with its own."""
    model = build(TASKS[0], *RARE)
    examples = with_targets("caption_tokens", [[1, 9, 5, 9, 2], [1, 9, 30, 2]])
    model.backbone.eval()
    (loss,) = model(examples).values()
    log_probabilities = model.textual(model.visual_grid(examples)).log_softmax(dim=1)
    torch.testing.assert_close(loss, -(log_probabilities[0, 5] + log_probabilities[1, 30]) / 2)


def test_a_model_of_rare_tokens_learns_in_mixed_precision_too(build):
    model = build(TASKS[0], *RARE)
    assert_a_few_steps_lower_the_loss(model, batch(TASKS[0]))
    full = model(batch(TASKS[0]))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch(TASKS[0]))
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01)
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_without_the_weighting_there_are_no_counts_in_the_state(build):
    rare = {*build(TASKS[0], *RARE).state_dict()}
    equal = {*build(TASKS[0], "MODEL.TOKEN_CLASSIFICATION.WEIGHTING", "equal").state_dict()}
    assert rare - equal == {"label_set_loss.images_seen", "label_set_loss.label_counts"}


def test_an_unknown_weighting_is_refused(build):
    with pytest.raises(UserError, match="WEIGHTING is 'idf'; expected one of equal, rare"):
        build(TASKS[0], "MODEL.TOKEN_CLASSIFICATION.WEIGHTING", "idf")
