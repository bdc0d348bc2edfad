"""The families of published weights: how each is recognised by content, and how its names become Detectron2's."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from virtex_det.errors import UserError

_BACKBONE_NAME = re.compile(r"(?:(?:backbone\.)?(?:bottom_up\.)?|roi_heads\.)((?:stem|res[2-5]\.\d+)\..+)")
_FROM_TORCHVISION = (
    (re.compile(r"^(conv1|bn1)\."), r"stem.\1."),
    (re.compile(r"^layer1\."), "res2."),
    (re.compile(r"^layer2\."), "res3."),
    (re.compile(r"^layer3\."), "res4."),
    (re.compile(r"^layer4\."), "res5."),
    (re.compile(r"\.bn(\d)\."), r".conv\1.norm."),
    (re.compile(r"\.downsample\.0\."), ".shortcut."),
    (re.compile(r"\.downsample\.1\."), ".shortcut.norm."),
)


def from_detectron2(name: str) -> str | None:
    """Return the canonical name of a Detectron2 model's backbone tensor; None for any other tensor.

    In a C4 detector res5 lies in the ROI heads; ``roi_heads.res5.norm`` is new there and no part of the backbone.

    Example:
        >>> from_detectron2("backbone.bottom_up.res2.0.conv1.norm.bias")
        'res2.0.conv1.norm.bias'
    """
    match = _BACKBONE_NAME.fullmatch(name)
    return match[1] if match else None


def from_torchvision(name: str) -> str | None:
    """Return the canonical name of a torchvision ResNet's tensor; None for the classifier.

    Example:
        >>> from_torchvision("layer1.0.downsample.1.bias")
        'res2.0.shortcut.norm.bias'
    """
    for pattern, replacement in _FROM_TORCHVISION:
        name = pattern.sub(replacement, name)
    return from_detectron2(name)


class Pixels(NamedTuple):
    """What a network was trained to see, in Detectron2's terms."""

    format: str  # channel order
    mean: tuple[float, ...]  # in 0..255, per channel in that order
    std: tuple[float, ...]


class Format(NamedTuple):
    """A family of weights files.

    Attributes:
        name: what reports call it.
        marks: regular expressions; each is found in some tensor's name, once the file is unwrapped.
        absent: regular expressions; none is found in any tensor's name.
        prefix: what stands before the backbone's names. Names without it are no part of the backbone.
        rename: a backbone name, prefix removed, to Detectron2's; None for a tensor of something else.
        wrappers: dotted keys under which the tensors may lie; "" is the top level.
        detectron2_names: the other tensors have Detectron2's names too, so that heads can be loaded.
        pixels: what the network was trained to see; None where the file does not decide it.
        stride_in_1x1: whether a bottleneck strides in its first convolution; None where the file does not decide it.
        paper: where the family is from.
        licence: of the published weights or their code, where known.
    """

    name: str
    marks: tuple[str, ...]
    absent: tuple[str, ...] = ()
    prefix: str = ""
    rename: Callable[[str], str | None] = from_torchvision
    wrappers: tuple[str, ...] = ("", "model", "state_dict")
    detectron2_names: bool = False
    pixels: Pixels | None = None
    stride_in_1x1: bool | None = None
    paper: str = ""
    licence: str = ""


IMAGENET_RGB = Pixels("RGB", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
_RESNET_MARKS = (r"^conv1\.weight$", r"^layer1\.0\.conv1\.weight$")
_CLIP_STEM = r"^conv2\."  # CLIP's blocks have torchvision's names, but they are another network

FORMATS = (
    Format(
        name="virtex",
        marks=(r"^visual\.cnn\.conv1\.weight$",),
        prefix="visual.cnn.",
        pixels=IMAGENET_RGB,
        stride_in_1x1=False,
        paper="Desai and Johnson, VirTex: Learning Visual Representations from Textual Annotations, CVPR 2021",
        licence="MIT",
    ),
    Format(
        name="virtex_backbone",
        marks=_RESNET_MARKS,
        absent=(r"^fc\.", _CLIP_STEM),
        pixels=IMAGENET_RGB,
        stride_in_1x1=False,
        paper="Desai and Johnson, VirTex: Learning Visual Representations from Textual Annotations, CVPR 2021",
        licence="MIT",
    ),
    Format(
        name="torchvision",
        marks=(*_RESNET_MARKS, r"^fc\.weight$"),
        absent=(_CLIP_STEM,),
        pixels=IMAGENET_RGB,
        stride_in_1x1=False,
        paper="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
        licence="BSD-3-Clause",
    ),
    Format(
        name="virtex_det_pretraining",
        marks=(r"^backbone\.stem\.", r"^backbone\.res5\."),
        absent=(r"^roi_heads\.", r"^proposal_generator\."),
        rename=from_detectron2,
        detectron2_names=True,
    ),
    Format(
        name="detector",
        marks=(r"^backbone\.(bottom_up\.)?stem\.", r"^(roi_heads|proposal_generator)\."),
        rename=from_detectron2,
        detectron2_names=True,
    ),
)

# What a run saves for itself, taken by name. Not in FORMATS: a file is never recognised as this.
OWN_CHECKPOINT = Format("own checkpoint", marks=(), rename=from_detectron2, wrappers=("model",), detectron2_names=True)


class Weights(NamedTuple):
    """The tensors of a file and where its backbone is among them."""

    format: Format
    tensors: dict[str, torch.Tensor]  # by their names in the file
    backbone: dict[str, str]  # canonical name -> name in the file

    def named(self, model_name: str) -> str | None:
        """Return the file's name for a model's tensor, None if the file has none for it."""
        canonical = from_detectron2(model_name)
        if canonical is not None:
            return self.backbone.get(canonical)
        return model_name if self.format.detectron2_names and model_name in self.tensors else None


def recognise(content: Any, path: str) -> Weights:
    """Find the family of what was read from a file, by the names in it.

    Args:
        content: what `read_file` returned.
        path: for the message.

    Raises:
        UserError: it belongs to no known family.
    """
    for entry in FORMATS:
        for wrapper in entry.wrappers:
            tensors = unwrap(content, wrapper)
            if _fits(entry, tensors):
                return as_format(entry, tensors)
    raise UserError(
        f"{path} belongs to no weights family known here; nothing was loaded.\n"
        f"Its first names: {', '.join(_first_names(content)) or f'none, it is a {type(content).__name__}'}\n"
        f"Known families: {', '.join(entry.name for entry in FORMATS)}"
    )


def as_format(entry: Format, tensors: dict[str, torch.Tensor]) -> Weights:
    """Take tensors as those of the given family."""
    backbone = {}
    for name in tensors:
        canonical = entry.rename(name.removeprefix(entry.prefix)) if name.startswith(entry.prefix) else None
        if canonical is not None:
            backbone[canonical] = name
    return Weights(entry, tensors, backbone)


def unwrap(content: Any, wrapper: str) -> dict[str, torch.Tensor]:
    """Return the named tensors under a dotted key, without the ``module.`` that a file saved from DDP has."""
    for key in filter(None, wrapper.split(".")):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def contradictions(entry: Format, cfg: CfgNode) -> dict[str, Any]:
    """Return the config keys that contradict what is known of the weights, each with the value that fits."""
    wrong: dict[str, Any] = {}
    if entry.pixels is not None:
        if entry.pixels.format != cfg.INPUT.FORMAT:
            wrong["INPUT.FORMAT"] = entry.pixels.format
        if not _near(entry.pixels.mean, cfg.MODEL.PIXEL_MEAN):
            wrong["MODEL.PIXEL_MEAN"] = list(entry.pixels.mean)
        if not _near(entry.pixels.std, cfg.MODEL.PIXEL_STD):
            wrong["MODEL.PIXEL_STD"] = list(entry.pixels.std)
    has_bottlenecks = cfg.MODEL.RESNETS.DEPTH >= 50
    if has_bottlenecks and entry.stride_in_1x1 not in (None, cfg.MODEL.RESNETS.STRIDE_IN_1X1):
        wrong["MODEL.RESNETS.STRIDE_IN_1X1"] = entry.stride_in_1x1
    return wrong


def check_config(entry: Format, cfg: CfgNode, path: str) -> None:
    """Refuse weights that would see other pixels, or stride elsewhere, than in their own training.

    Raises:
        UserError: naming the keys and the values to set.
    """
    wrong = contradictions(entry, cfg)
    if wrong:
        settings = "".join(f'\n  {key} "{value}"' for key, value in wrong.items())
        raise UserError(
            f"The config contradicts the weights {path} (format {entry.name}); nothing was loaded. Set:{settings}"
        )


def _fits(entry: Format, tensors: Mapping[str, torch.Tensor]) -> bool:
    def found(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in tensors)

    return all(map(found, entry.marks)) and not any(map(found, entry.absent))


def _near(expected: tuple[float, ...], given: list[float]) -> bool:
    # One grey level: published configs round the same mean differently.
    return len(expected) == len(given) and all(abs(a - b) < 1 for a, b in zip(expected, given, strict=True))


def _first_names(content: Any) -> list[str]:
    for wrapper in ("", "model", "state_dict"):
        if tensors := unwrap(content, wrapper):
            return list(tensors)[:5]
    return [str(key) for key in content][:5] if isinstance(content, Mapping) else []
