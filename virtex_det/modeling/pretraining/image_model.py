"""What every pretraining task does with its images, and with the losses of what it predicts from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_backbone
from detectron2.utils import comm
from torch import Tensor, nn

from virtex_det.errors import UserError


class TargetLosses(NamedTuple):
    """The loss of each single thing that a model had to predict in a batch: a token, or an image's labels."""

    values: Tensor  # (targets,)
    images: Tensor  # (targets,) int64, index of the image in the batch


class ImageModel(nn.Module, ABC):
    """A model that sees images of one size through a backbone's last feature map, and predicts targets from them.

    In training it returns {loss name: mean over the targets of all processes}. In evaluation it returns a dict per
    image; of an image that has targets, "losses" are {loss name: tensor [sum over the targets, number of targets]}.

    A subclass says what an example's target is called and which mapper makes it, and implements `target_losses`.

    Attributes:
        target: the entry of an example that is predicted.
        mapper: what DATALOADER.MAPPER is where a config leaves it empty.
        other_mappers: of this package, those that make such targets, too.

    Args:
        backbone: has a feature "res5".
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

    target: str
    mapper: str
    other_mappers: tuple[str, ...] = ()
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "backbone": build_backbone(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @classmethod
    def mappers(cls, cfg: CfgNode) -> tuple[str, ...]:
        """Return the mappers whose examples a config's model can learn from, that which it takes by itself first."""
        return (cls.mapper, *cls.other_mappers)

    @property
    def device(self) -> torch.device:
        """Where the model is; inputs are moved there."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return losses in training, what `inference` returns in evaluation.

        Args:
            batched_inputs: examples, each with an "image" (3, S, S) and, in training, a target.

        Raises:
            UserError: an example to train on has no target.
        """
        if not self.training:
            return self.inference(batched_inputs)
        self._check_targets(batched_inputs)
        return mean_over_processes(self.target_losses(batched_inputs))

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return for each image its "losses"; nothing for one without a target."""
        if not any(self.target in example for example in batched_inputs):
            return [{} for _ in batched_inputs]
        return self.by_image(self.target_losses(batched_inputs), batched_inputs)

    @abstractmethod
    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return under each loss's name its values for all targets of a batch; an image may have none."""

    def visual_grid(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        """Return features (images, channels, height, width) of each example's "image", a (3, S, S) tensor."""
        return self.visual_features(batched_inputs)["res5"]

    def visual_features(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return each feature map of the backbone, as `visual_grid` returns the last."""
        images = torch.stack([example["image"] for example in batched_inputs]).to(self.device)
        return self.backbone((images - self.pixel_mean) / self.pixel_std)

    def on_device(self, batched_inputs: Sequence[dict[str, Any]], key: str) -> list[Tensor]:
        """Return one int64 tensor of each example, empty where the example has none."""
        nothing = torch.empty(0, dtype=torch.int64)
        return [example.get(key, nothing).to(self.device) for example in batched_inputs]

    def by_image(
        self, losses: Mapping[str, TargetLosses], batched_inputs: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return a dict for each image, with "losses" where the example has a target."""
        tables = {name: _table(loss, len(batched_inputs)) for name, loss in losses.items()}
        return [
            {"losses": {name: table[index] for name, table in tables.items()}} if self.target in example else {}
            for index, example in enumerate(batched_inputs)
        ]

    def _check_targets(self, batched_inputs: Sequence[dict[str, Any]]) -> None:
        without = next((example for example in batched_inputs if self.target not in example), None)
        if without is not None:
            raise UserError(
                f"{type(self).__name__} learns to predict {self.target!r}, and an example has only "
                f"{', '.join(sorted(without))}. Leave DATALOADER.MAPPER empty, or set it to "
                f"{' or '.join((self.mapper, *self.other_mappers))}."
            )


def mean_over_processes(losses: Mapping[str, TargetLosses]) -> dict[str, Tensor]:
    """Return sums divided by the mean number of targets per process; 0 where no process has any.

    DDP averages gradients over processes. A mean over each process's own targets would give those of a process with
    few of them more weight; so divided, the average is exactly that of one process with the whole batch.
    """
    counts = torch.stack([_count(loss) for loss in losses.values()])
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(counts)
    means = counts.clamp(min=1) / comm.get_world_size()
    return {name: loss.values.sum() / mean for (name, loss), mean in zip(losses.items(), means, strict=True)}


def _count(loss: TargetLosses) -> Tensor:
    return torch.tensor(loss.values.numel(), device=loss.values.device)


def _table(loss: TargetLosses, num_images: int) -> Tensor:
    """Return (images, 2): each image's sum of values, and their number."""
    pairs = torch.stack([loss.values, torch.ones_like(loss.values)], dim=1)
    return pairs.new_zeros(num_images, 2).index_add(0, loss.images, pairs).float().cpu()
