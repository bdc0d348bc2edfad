"""What every pretraining task does with its images."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn


class ImageModel(nn.Module):
    """A model that sees images of one size through a backbone's last feature map.

    Args:
        backbone: has a feature "res5".
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is; inputs are moved there."""
        return self.pixel_mean.device

    def visual_grid(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        """Return features (images, channels, height, width) of each example's "image", a (3, S, S) tensor."""
        images = torch.stack([example["image"] for example in batched_inputs]).to(self.device)
        return self.backbone((images - self.pixel_mean) / self.pixel_std)["res5"]
