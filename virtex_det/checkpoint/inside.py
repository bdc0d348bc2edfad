"""Facts in a weights file besides its tensors: pixels, strides, pools, dilation."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from virtex_det.checkpoint.formats import CAFFE2, Pixels
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError

_OWN_FACTS = {
    "stem": ("basic", "deep", "clip"),
    "downsample": ("conv", "avg_shortcut", "clip"),
    "stride_in_1x1": (True, False),
}
# OpenMMLab writes its config into its files as Python code; it is searched as text.
_MAX_TEXT = 1 << 20  # characters
_MM_BACKBONE = re.compile(r"\bbackbone\s*=\s*dict\(")
_MM_STYLE = re.compile(r"\bstyle='(caffe|pytorch)'")
_MM_STEPS = re.compile(r"\b(dilations|strides)=[(\[]([0-9, ]{1,40})[)\]]")
_MM_RGB = re.compile(r"\b(?:bgr_)?to_rgb=(True|False)")
_MM_MEAN = re.compile(r"\bmean=\[([0-9., ]{1,80})\]")
_MM_STD = re.compile(r"\bstd=\[([0-9., ]{1,80})\]")
_MM_USUAL = {"dilations": [1, 1, 1, 1], "strides": [1, 2, 2, 2]}

# torchvision's FCN and DeepLab.
_LAST_OF_FCN = re.compile(r"(?:^|\.)classifier\.4\.weight$")
_OF_SEGMENTATION = re.compile(r"(?:^|\.)(?:aux_classifier|classifier\.0\.convs)\.")


def told_inside(content: Any, weights: Weights, path: str) -> Weights:
    """Return weights with the pixels, strides and pools that the file itself states.

    Args:
        content: of the file.
        weights: the network in it.
        path: the file's name in messages.

    Raises:
        UserError: the file shows that its network computes something else with these tensors.
    """
    if weights.is_resnet and (unusual := _unusual(content, weights)):
        raise UserError(
            f"{path} is a network that this package cannot build: {unusual}, which its shapes do "
            "not show.\n"
            "Its features would be wrong; nothing was loaded. To load its tensors nevertheless, "
            "save those of the backbone to a separate file."
        )
    facts: dict[str, Any] = {}
    if weights.format.detectron2_names:
        facts |= _of_detectron2(content, weights)
    if weights.is_resnet and weights.format.name == CAFFE2:
        facts |= _of_caffe2(weights)
    if text := _openmmlab_config(content):
        facts |= _of_openmmlab(text)
    return weights._replace(format=weights.format._replace(**facts))


def _unusual(content: Any, weights: Weights) -> str:
    """Return why this package cannot build a file's network; "" if it can."""
    backbone = _mm_backbone(_openmmlab_config(content))
    for name, values in _MM_STEPS.findall(backbone):
        if [int(value) for value in values.replace(" ", "").split(",") if value] != _MM_USUAL[name]:
            return f"OpenMMLab's config in it has {name}=({values})"
    for name, tensor in weights.tensors.items():
        is_last = tensor.dim() == 4 and _LAST_OF_FCN.search(name)
        if is_last or _OF_SEGMENTATION.search(name):
            return f"{name} is of torchvision's segmentation, whose last two stages are dilated"
    return ""


def own_pixels(content: Any) -> Pixels | None:
    """Return the pixel format stored in a checkpoint of virtex_det; None if there is none."""
    pixels = content.get("pixels") if isinstance(content, Mapping) else None
    if not isinstance(pixels, Mapping) or set(pixels) != set(Pixels._fields):
        return None
    if not isinstance(pixels["format"], str):
        return None
    return _pixels(pixels["format"], pixels["mean"], pixels["std"])


def _of_detectron2(content: Any, weights: Weights) -> dict[str, Any]:
    """Return the facts in a checkpoint of virtex_det, or the pixels among Detectron2's tensors."""
    facts: dict[str, Any] = {}
    if pixels := own_pixels(content) or _normalisation(weights):
        facts["pixels"] = (pixels,)
    elif isinstance(content, Mapping) and "pixels" in content:
        facts["note"] = "the pixel format in the file is invalid"
    network = content.get("network") if isinstance(content, Mapping) else None
    if isinstance(network, Mapping) and weights.is_resnet:
        plain = {key: value for key, value in network.items() if isinstance(value, str | bool)}
        facts |= {key: plain[key] for key, known in _OWN_FACTS.items() if plain.get(key) in known}
    return facts


def _normalisation(weights: Weights) -> Pixels | None:
    values = [
        weights.tensors.get(weights.rest.get(f"pixel_{name}", "")) for name in ("mean", "std")
    ]
    mean, std = ([] if value is None or value.numel() > 4 else _rounded(value) for value in values)
    return _pixels("", mean, std)  # the channel order is unknown


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in values.flatten().tolist() if isinstance(value, float)]


def _of_caffe2(weights: Weights) -> dict[str, Any]:
    """Return the stride's place: in 3x3 convolutions with groups or group norm, else in 1x1."""
    has_group_norm = any(name.endswith("_gn_s") for name in weights.tensors)
    has_groups = (weights.architecture.num_groups or 1) > 1
    return {"stride_in_1x1": False} if has_group_norm or has_groups else {}


def _openmmlab_config(content: Any) -> str:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    found = [meta.get(key) for key in ("cfg", "config")] if isinstance(meta, Mapping) else []
    return next((text for text in found if isinstance(text, str) and len(text) <= _MAX_TEXT), "")


def _of_openmmlab(text: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    styles = set(_MM_STYLE.findall(_mm_backbone(text)))
    if len(styles) == 1:
        facts["stride_in_1x1"] = styles == {"caffe"}
    orders = set(_MM_RGB.findall(text))
    mean, std = set(_MM_MEAN.findall(text)), set(_MM_STD.findall(text))
    if len(orders) == len(mean) == len(std) == 1:
        order = "RGB" if orders == {"True"} else "BGR"
        if pixels := _pixels(order, _numbers(*mean), _numbers(*std)):
            facts["pixels"] = (pixels,)
    return facts | ({"note": "OpenMMLab's config is in the file"} if facts else {})


def _mm_backbone(text: str) -> str:
    """Return the text between the parentheses of the first backbone."""
    if not (begin := _MM_BACKBONE.search(text)):
        return ""
    depth = 1
    for bracket in re.finditer(r"[()]", text[begin.end() :]):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return text[begin.end() : begin.end() + bracket.start()]
    return ""


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        return []


def _pixels(order: str, mean: Any, std: Any) -> Pixels | None:
    """Return pixels of any number of channels; None if the numbers are invalid."""
    if not all(
        isinstance(given, list | tuple) and all(map(_is_finite, given)) for given in (mean, std)
    ):
        return None
    return (
        Pixels(order, tuple(mean), tuple(std))
        if len(mean) == len(std) > 0 and min(std) > 0
        else None
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
