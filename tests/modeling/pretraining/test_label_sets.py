import math

import numpy as np
import pytest
import torch
from torch import Tensor

from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.label_sets import (
    RareLabelsLoss,
    equal_share_losses,
    label_presence,
    sigmoid_losses,
    weighted_share_losses,
)

LABELS = [torch.tensor([2, 0, 2]), torch.empty(0, dtype=torch.int64), torch.tensor([3])]


@pytest.fixture
def logits():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_presence_forgets_order_and_number():
    assert label_presence(LABELS, 4).int().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_a_label_that_the_model_does_not_have_is_an_error_with_what_to_set():
    with pytest.raises(
        UserError, match=r"label 3, but the model has 3 labels(?s:.*)NUM_CLASSES(?s:.*)NUM_TAGS 0"
    ):
        label_presence(LABELS, 3)


def test_equal_shares_give_the_mean_over_the_labels_of_an_image_that_has_any(
    logits,
):
    values, images = equal_share_losses(logits, label_presence(LABELS, 4))
    log_probabilities = [
        [x - math.log(sum(map(math.exp, row))) for x in row] for row in logits.tolist()
    ]
    expected = [-(log_probabilities[0][0] + log_probabilities[0][2]) / 2, -log_probabilities[2][3]]
    assert images.tolist() == [0, 2] and values.tolist() == pytest.approx(expected)


def test_with_sigmoids_an_image_loses_the_sum_over_all_labels_also_where_it_has_none(logits):
    present = label_presence(LABELS, 4)
    values, images = sigmoid_losses(logits, present)
    probabilities = [[1 / (1 + math.exp(-x)) for x in row] for row in logits.tolist()]
    expected = [
        -sum(math.log(p if there else 1 - p) for p, there in zip(row, of_image, strict=True))
        for row, of_image in zip(probabilities, present.tolist(), strict=True)
    ]
    assert images.tolist() == [0, 1, 2] and values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [equal_share_losses, sigmoid_losses])
def test_gradients_are_those_of_finite_differences(loss, logits):
    present = label_presence(LABELS, 4)
    assert torch.autograd.gradcheck(lambda x: loss(x, present).values, logits.requires_grad_())


def test_shares_in_proportion_to_weights_give_their_weighted_mean(logits):
    weights = torch.tensor([[3.0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0.5]])
    values, images = weighted_share_losses(logits, weights)
    log_probabilities = logits.log_softmax(dim=1)
    expected = [
        -(3 * log_probabilities[0, 0] + log_probabilities[0, 2]) / 4,
        -log_probabilities[2, 3],
    ]
    assert images.tolist() == [0, 2]
    torch.testing.assert_close(values, torch.stack(expected))


def superclass(steps: list[np.ndarray], logits: np.ndarray) -> np.ndarray:
    """The loss of each image of the last step, by the formula of the authors' code.

    Args:
        steps: presence of labels (images, labels) in each batch.
        logits: (images, labels) of the last.
    """
    batch_size = len(steps[0])
    fractions = sum(present.sum(axis=0) / batch_size for present in steps)
    weights = np.log((len(steps) + 1 / batch_size) / (fractions + 1 / batch_size))
    targets = steps[-1] * weights
    shares = targets / targets.sum(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(shares * log_probabilities).sum(axis=1)


def random_presence(seed: int) -> Tensor:
    drawn = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)) < 0.4
    drawn[:, 0] = True  # as "a"
    drawn[torch.arange(4), torch.arange(1, 5)] = True  # every image has something else
    return drawn


def test_rare_labels_weigh_as_in_the_authors_code_batch_after_batch():
    loss = RareLabelsLoss(6)
    steps = [random_presence(seed) for seed in range(3)]
    for number, present in enumerate(steps, start=1):
        logits = torch.randn(4, 6, dtype=torch.float64)
        values, images = loss(logits, present)
        seen = [step.double().numpy() for step in steps[:number]]
        assert images.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(values.numpy(), superclass(seen, logits.numpy()), rtol=1e-6)
    assert loss.weights()[0] == 0


def test_evaluation_counts_nothing_and_an_image_of_weightless_labels_has_no_loss():
    loss = RareLabelsLoss(6)
    loss(torch.zeros(4, 6), random_presence(0))
    before = loss.weights()
    present = random_presence(1)
    present[2, 1:] = False
    values, images = loss.eval()(torch.zeros(4, 6), present)
    assert images.tolist() == [0, 1, 3] and len(values) == 3
    assert torch.equal(loss.weights(), before)


def test_the_counts_are_in_the_state_so_that_a_resumed_run_goes_on_with_them():
    loss, resumed = RareLabelsLoss(6), RareLabelsLoss(6)
    loss(torch.zeros(4, 6), random_presence(0))
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed.weights(), loss.weights()) and loss.images_seen == 4
