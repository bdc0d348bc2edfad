import math

import pytest
import torch

from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.label_sets import (
    equal_share_losses,
    label_presence,
    sigmoid_losses,
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
