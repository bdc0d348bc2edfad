"""The linear head: its output does not depend on positions in the image."""

import torch

from virtex_det.modeling.textual import LinearTextualHead


def test_logits_are_linear_in_the_average_feature():
    head, grid = LinearTextualHead(6, 4), torch.randn(2, 6, 3, 5)
    expected = grid.flatten(2).mean(dim=2) @ head.output.weight.T + head.output.bias
    torch.testing.assert_close(head(grid), expected)


def test_its_names_are_those_of_published_checkpoints():
    assert list(LinearTextualHead(6, 4).state_dict()) == ["output.weight", "output.bias"]
