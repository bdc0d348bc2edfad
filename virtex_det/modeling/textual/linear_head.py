"""The textual head without an order of words: a linear classifier over the average image feature."""

from torch import Tensor, nn


class LinearTextualHead(nn.Module):
    """Logits of labels from an image grid, which is averaged over its cells.

    Args:
        visual_feature_size: channels of the image grid.
        num_labels: logits.
    """

    def __init__(self, visual_feature_size: int, num_labels: int):
        super().__init__()
        self.output = nn.Linear(visual_feature_size, num_labels)

    def forward(self, visual_grid: Tensor) -> Tensor:
        """Turn a grid (images, channels, height, width) into logits (images, num_labels)."""
        return self.output(visual_grid.mean(dim=(2, 3)))
