"""The textual head that ignores word order: a linear classifier over the average image feature."""

from torch import Tensor, nn


class LinearTextualHead(nn.Module):
    """A linear classifier over the average of an image grid's cells.

    Args:
        visual_feature_size: channels of the image grid.
        num_labels: labels to predict.

    Example:
        >>> import torch
        >>> LinearTextualHead(512, num_labels=80)(torch.zeros(2, 512, 7, 7)).shape
        torch.Size([2, 80])
    """

    def __init__(self, visual_feature_size: int, num_labels: int):
        super().__init__()
        self.output = nn.Linear(visual_feature_size, num_labels)

    def forward(self, visual_grid: Tensor) -> Tensor:
        """Map a grid (images, channels, height, width) to logits (images, num_labels)."""
        return self.output(visual_grid.mean(dim=(2, 3)))
