"""The base of all pretraining models: images through the backbone, losses of targets averaged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_backbone
from detectron2.utils import comm
from torch import Tensor, nn

from virtex_det.errors import UserError


def feature_channels(backbone: Backbone, name: str = "res5") -> int:
    """Return the number of channels of a backbone's feature map.

    Raises:
        UserError: the backbone does not return it, as one with an FPN does not.
    """
    features = backbone.output_shape()
    if name not in features:
        raise UserError(
            f"The model reads the feature map {name}, but the backbone returns "
            f"{', '.join(features)}.\n"
            f"A ResNet without an FPN returns it if {name} is in MODEL.RESNETS.OUT_FEATURES."
        )
    return features[name].channels


class TargetLosses(NamedTuple):
    """The loss of each target in a batch; a target is one token, or the labels of one image."""

    values: Tensor  # (targets,)
    images: Tensor  # (targets,) int64, index of the image in the batch


class ImageModel(nn.Module, ABC):
    """A model that predicts targets from a backbone's last feature map; all images have one size.

    In training it returns {loss name: mean over the targets of all processes}. In evaluation it
    returns a dict per image. Where the image has targets, its "losses" are {loss name: tensor [sum
    over the targets, number of targets]}.

    A subclass names its target and its mapper, and implements `target_losses`.

    Attributes:
        target: key of an example's target.
        mapper: mapper of training examples where DATALOADER.MAPPER is empty.
        other_mappers: this package's other mappers that make such targets.
        may_hide_words: whether it can learn with INPUT.CAPTION.HIDE_OTHER_WORDS; a model that
            predicts the words of captions cannot.

    Args:
        backbone: has a feature "res5".
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.

    Example:
        >>> class BrightnessModel(ImageModel):  # predicts one number per image
        ...     target = "brightness"
        ...     mapper = "BrightnessMapper"
        ...
        ...     def target_losses(self, batched_inputs):
        ...         predicted = self.visual_grid(batched_inputs).mean(dim=(1, 2, 3))
        ...         wanted = torch.stack([example["brightness"] for example in batched_inputs])
        ...         images = torch.arange(len(batched_inputs))
        ...         return {"loss_brightness": TargetLosses((predicted - wanted) ** 2, images)}
    """

    target: str
    mapper: str
    other_mappers: tuple[str, ...] = ()
    may_hide_words = False
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer(
            "pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False
        )
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
        """Return the mappers whose examples this model can learn from; the default comes first."""
        return (cls.mapper, *cls.other_mappers)

    @property
    def device(self) -> torch.device:
        """The model's device; inputs are moved to it."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return losses in training, and the results of `inference` in evaluation.

        Args:
            batched_inputs: examples, each with an "image" (3, S, S) and, in training, a target.

        Raises:
            UserError: a training example has no target.
        """
        if not self.training:
            return self.inference(batched_inputs)
        self._check_targets(batched_inputs)
        return mean_over_processes(self.target_losses(batched_inputs))

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a dict with "losses" per image; an empty dict for an image without a target."""
        if not any(self.target in example for example in batched_inputs):
            return [{} for _ in batched_inputs]
        return self.by_image(self.target_losses(batched_inputs), batched_inputs)

    @abstractmethod
    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return {loss name: losses of all targets of a batch}; an image may have no target."""

    def visual_grid(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        """Return the last feature map (images, channels, height, width) of the examples' images."""
        return self.visual_features(batched_inputs)["res5"]

    def visual_features(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return all feature maps of the backbone, by name.

        Args:
            batched_inputs: examples, each with an "image" (3, S, S) in the units of `pixel_mean`.
        """
        # shape: (images, 3, S, S)
        images = torch.stack([example["image"] for example in batched_inputs]).to(self.device)
        return self.backbone((images - self.pixel_mean) / self.pixel_std)

    def on_device(self, batched_inputs: Sequence[dict[str, Any]], key: str) -> list[Tensor]:
        """Return the int64 tensor under `key` of each example; an empty one where it is missing."""
        nothing = torch.empty(0, dtype=torch.int64)
        return [example.get(key, nothing).to(self.device) for example in batched_inputs]

    def by_image(
        self, losses: Mapping[str, TargetLosses], batched_inputs: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return a dict for each image, with "losses" where the example has a target."""
        tables = {name: _table(loss, len(batched_inputs)) for name, loss in losses.items()}
        outputs: list[dict[str, Any]] = []
        for index, example in enumerate(batched_inputs):
            if self.target in example:
                outputs.append({"losses": {name: table[index] for name, table in tables.items()}})
            else:
                outputs.append({})
        return outputs

    def captions_of(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return what is to be learned of each caption, and the index (captions,) of its image.

        Args:
            batched_inputs: examples of a mapper: with several captions, those are in "by_caption".
        """
        captions: list[dict[str, Any]] = []
        images: list[int] = []
        for index, example in enumerate(batched_inputs):
            of_image = example.get("by_caption", [example])
            captions += of_image
            images += [index] * len(of_image)
        return captions, torch.tensor(images, device=self.device)

    def joined(self, batched_inputs: Sequence[dict[str, Any]], key: str) -> list[Tensor]:
        """Return for each image the int64 tensors under `key` of all its captions, concatenated."""
        joined = []
        for example in batched_inputs:
            of_captions = self.on_device(example.get("by_caption", [example]), key)
            joined.append(torch.cat(of_captions))
        return joined

    def _check_targets(self, batched_inputs: Sequence[dict[str, Any]]) -> None:
        captions, _ = self.captions_of(batched_inputs)
        without = next((example for example in captions if self.target not in example), None)
        if without is not None:
            raise UserError(
                f"{type(self).__name__} learns to predict {self.target!r}, but an example has only "
                f"{', '.join(sorted(without))}. Leave DATALOADER.MAPPER empty, or set it to "
                f"{' or '.join((self.mapper, *self.other_mappers))}."
            )


def per_caption(tensor: Tensor, images: Tensor) -> Tensor:
    """Return the row of each caption's image.

    Args:
        tensor: (images, ...).
        images: (captions,), the image of each caption, in order, and each image with a caption.
    """
    return tensor if len(images) == len(tensor) else tensor[images]


def mean_over_processes(losses: Mapping[str, TargetLosses]) -> dict[str, Tensor]:
    """Return each loss as the mean over the targets of all processes; 0 where there is no target.

    DDP averages gradients over processes. A mean over each process's own targets would give the
    targets of a process with few of them more weight. So each process divides its sum by the mean
    number of targets per process, and the average is exactly that of one process with all images.
    """
    counts = torch.stack([_count(loss) for loss in losses.values()])
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(counts)
    means = counts.clamp(min=1) / comm.get_world_size()
    return {
        name: loss.values.sum() / mean
        for (name, loss), mean in zip(losses.items(), means, strict=True)
    }


def draw_for_examples(number: int, device: torch.device) -> Tensor:
    """Return a random number in [0, 1) for each example of this process.

    The main process draws for all of them, so an example gets the number that one process with the
    whole batch would draw for it. (Process r of N has the examples r, r + N, ... of a batch.)

    Args:
        number: examples of this process; equal for all processes.
        device: device of the result.

    Returns:
        (number,).
    """
    processes = comm.get_world_size()
    draws = torch.rand(number * processes).to(device)
    if processes > 1:
        torch.distributed.broadcast(draws, 0)
    return draws[comm.get_rank() :: processes]


def _count(loss: TargetLosses) -> Tensor:
    return torch.tensor(loss.values.numel(), device=loss.values.device)


def _table(loss: TargetLosses, num_images: int) -> Tensor:
    """Return (images, 2): the sum of each image's values, and their number."""
    # shape: (targets, 2)
    pairs = torch.stack([loss.values, torch.ones_like(loss.values)], dim=1)
    return pairs.new_zeros(num_images, 2).index_add(0, loss.images, pairs).float().cpu()
