"""A trained backbone, with the pixel format of its training."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone
from torch import Tensor, nn

from virtex_det.checkpoint import LoadReport, load_weights
from virtex_det.checkpoint.last import run_weights
from virtex_det.checkpoint.report import RANDOM_INIT
from virtex_det.checkpoint.sources import open_weights
from virtex_det.config import Overrides, leaves, load_config, override, override_pairs
from virtex_det.config.device import default_device
from virtex_det.config.rules import whole
from virtex_det.data.images import image_tensor
from virtex_det.data.mappers.pretraining import centre_crop
from virtex_det.data.pictures import Picture, read_rgb
from virtex_det.errors import UserError
from virtex_det.files import as_name

logger = logging.getLogger(__name__)

STAGES = ("res2", "res3", "res4", "res5")
# In evaluation they compute the same as plain batch norm, from the same tensors.
_NORMS_LIKE_BN = ("FrozenBN", "SyncBN", "nnSyncBN", "naiveSyncBN")
_BATCH = (
    "expected a float batch (N, 3, H, W).\n"
    "Stack the results of transform(picture, size=224) of all pictures."
)
_PIXEL_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")


class PretrainedBackbone(nn.Module):
    """A ResNet with trained weights and the pixel format of its training.

    Attributes:
        network: Detectron2's ResNet, with the parameter names of a detector's backbone.
        channel_order: "RGB" or "BGR", the network's order of channels.
        pixel_mean: per channel in that order, in 0..255.
        pixel_std: likewise.
        report: the LoadReport; its format is "random init" for a network without weights.

    Example:
        >>> backbone = load_backbone("virtex://bicaptioning_R_50_L1_H2048")  # doctest: +SKIP
        >>> images = torch.stack([backbone.transform(p, size=224) for p in paths])  # doctest: +SKIP
        >>> backbone(images)["res5"].shape  # doctest: +SKIP
        torch.Size([2, 2048, 7, 7])
    """

    def __init__(self, network: Backbone, cfg: CfgNode, report: LoadReport) -> None:
        super().__init__()
        self.network = network
        self.channel_order: str = cfg.INPUT.FORMAT
        self.pixel_mean = tuple(cfg.MODEL.PIXEL_MEAN)
        self.pixel_std = tuple(cfg.MODEL.PIXEL_STD)
        self.report = report
        self._max_value = cfg.INPUT.MAX_VALUE

    def transform(self, picture: Picture, size: int | None = None) -> Tensor:
        """Return a picture as the network's normalised input.

        Args:
            picture: path, PIL image, or RGB pixels (H, W, 3) of uint8.
            size: resize the shorter side to this many pixels and crop the central square; None
                keeps the whole picture in its own size.

        Returns:
            (3, H, W) float32, or (3, size, size) with a size; on the CPU.

        Raises:
            UserError: the picture cannot be used, or the size is not a whole number above 0.
        """
        if size is not None and not whole(1).holds(size):
            raise UserError(f"size is {size!r:.80}; expected a whole number of pixels from 1 on.")
        image = image_tensor(read_rgb(picture, self._max_value), "RGB")
        if size is not None:
            image = centre_crop(size)(image)
        if self.channel_order == "BGR":
            image = image.flip(0)
        mean, std = (
            torch.tensor(values).view(-1, 1, 1) for values in (self.pixel_mean, self.pixel_std)
        )
        return ((image - mean) / std).contiguous()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the feature maps "res2" to "res5".

        Args:
            images: (N, 3, H, W) float, from ``transform``; moved to the network's device.

        Raises:
            UserError: the images are not a float batch of three channels.
        """
        if not isinstance(images, Tensor):
            raise UserError(f"The images are a {type(images).__name__}; {_BATCH}")
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise UserError(
                f"The images are {images.dtype} with the shape {tuple(images.shape)}; {_BATCH}"
            )
        features: dict[str, Tensor] = self.network(images.to(self.device))
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature map."""
        shapes: dict[str, ShapeSpec] = self.network.output_shape()
        return shapes

    @property
    def device(self) -> torch.device:
        """The network's device."""
        device: torch.device = self.network.stem.conv1.weight.device
        return device


def load_backbone(
    source: str | os.PathLike[str], overrides: Overrides = (), *, device: str | None = None
) -> PretrainedBackbone:
    """Build the ResNet of a weights file with its depth, widths and pixels, and load it whole.

    Args:
        source: a name such as ``virtex://clip_RN50``, a weights file or address of any known
            family, or the run folder of a pretraining model or a detector.
        overrides: config keys that the file does not show: INPUT.FORMAT, MODEL.PIXEL_MEAN and
            MODEL.PIXEL_STD, or MODEL.RESNETS.NORM "GN".
        device: by default the GPU, or the CPU without one.

    Returns:
        The backbone in evaluation mode; all parameters are trainable.

    Raises:
        UserError: the file cannot be read, is not a ResNet, does not fill the network, or its
            pixel format is unknown.
    """
    path = as_name(source, "The weights file or run folder")
    if not path:
        raise UserError(
            "The name of the weights is empty. Name a file, a run folder, or weights of the model "
            "zoo such as virtex://clip_RN50."
        )
    if (Path(path) / "config.yaml").is_file():
        weights, keys = run_weights(path), _network_of_run(Path(path))
    else:
        weights, keys = path, _network_of_file(path, overrides)
    network, cfg = _build(keys | dict(override_pairs(overrides)), device)
    report = load_weights(network, weights, cfg=cfg)
    return PretrainedBackbone(network, cfg, report).eval()


def random_backbone(cfg: CfgNode, *, device: str | None = None) -> PretrainedBackbone:
    """Return the ResNet of a config at random init, in evaluation mode."""
    network, cfg = _build(_network_keys(cfg), device)
    return PretrainedBackbone(network, cfg, LoadReport(RANDOM_INIT)).eval()


def _network_of_file(path: str, overrides: Overrides) -> dict[str, Any]:
    """Return the config keys of a weights file's network and pixels."""
    given = dict(override_pairs(overrides))
    found = open_weights(path, override(load_config(), overrides)).weights
    keys = found.network_keys()
    if all(key in given for key in _PIXEL_KEYS):
        return keys
    if not found.format.pixels or any(key in given for key in _PIXEL_KEYS):
        raise UserError(
            f"The pixel format of {path} (format {found.format.name}) is unknown or only partly "
            "set: the channel order, mean and standard deviation of its training.\n"
            f"Set all of {', '.join(_PIXEL_KEYS)} in the overrides."
        )
    if len(found.format.pixels) > 1:
        logger.info(
            "%s: its family has several pixel formats; the usual one is used: %s",
            path,
            found.format.pixels[0],
        )
    return keys | dict(zip(_PIXEL_KEYS, found.format.pixels[0], strict=True))


def _network_of_run(folder: Path) -> dict[str, Any]:
    cfg = load_config(folder / "config.yaml")
    if "resnet" not in cfg.MODEL.BACKBONE.NAME:
        raise UserError(
            f"The backbone of {folder} is {cfg.MODEL.BACKBONE.NAME}; load_backbone builds "
            "ResNets.\n"
            "Build the model of its config with virtex_det.modeling.build_model, and fill it with "
            "virtex_det.load_weights."
        )
    return _network_keys(cfg)


def _network_keys(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys that decide a config's ResNet and its pixels, with plain batch norm."""
    wanted = ("MODEL.RESNETS.", "MODEL.CAPTION_RESNET.", *_PIXEL_KEYS, "INPUT.MAX_VALUE")
    keys = {key: value for key, value in leaves(cfg) if key.startswith(wanted)}
    if keys["MODEL.RESNETS.NORM"] in _NORMS_LIKE_BN:
        keys["MODEL.RESNETS.NORM"] = "BN"
    return keys


def _build(keys: dict[str, Any], device: str | None) -> tuple[Backbone, CfgNode]:
    cfg = load_config(
        overrides={
            "MODEL.BACKBONE.NAME": "build_caption_resnet_backbone",
            "MODEL.BACKBONE.FREEZE_AT": 0,
            "MODEL.RESNETS.NORM": "BN",
            "MODEL.DEVICE": device or default_device(),
            **keys,
            "MODEL.RESNETS.OUT_FEATURES": STAGES,
        }
    )
    return build_backbone(cfg).to(cfg.MODEL.DEVICE), cfg
