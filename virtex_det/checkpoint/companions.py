"""Facts that tensors do not show, such as pools and pixels: read beside the file, or assumed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtex_det.checkpoint.architecture import Architecture
from virtex_det.checkpoint.formats import Pixels
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.text_files import parse_json

# timm's names of the ResNets that this package can build: without blur pools, attention, other
# activations or other stems.
_SAME_IN_TIMM = re.compile(
    r"(?:(?:tv|gluon|ssl|swsl|ig)_)?(?P<wide>wide_)?resne(?P<groups>x)?t(?P<depth>[0-9]{2,3})(?:_v1)?"
    r"(?:b|(?P<deep>[cds]))?(?:_[0-9]+x[0-9]+d|_2|_gn)?"
    r"|resnet[0-9]{2,3}(?:x[0-9]+)?(?P<clip>_clip)(?:_gap)?"
)
_ZOO = "virtex://"
_ZOO_FACTS = {
    "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
    "MODEL.CAPTION_RESNET.STEM": "stem",
    "MODEL.CAPTION_RESNET.DOWNSAMPLE": "downsample",
}
_MAX_CONFIG = 4 << 20  # bytes
_HARMLESS_ARGUMENTS = (
    "num_classes",
    "in_chans",
    "zero_init_last",
    "global_pool",
    "img_size",
    "pretrained",
)


def told_beside(file: Path, weights: Weights, path: str) -> Weights:
    """Return weights with the facts in timm's or transformers' ``config.json`` beside the file.

    Facts that are still unknown are assumed; ``Weights.assumed`` names them.

    Args:
        file: the weights file on disk.
        weights: the network in it.
        path: the file's name in messages.

    Raises:
        UserError: ``config.json`` names a network that computes something else with these tensors.
    """
    if not weights.is_resnet:
        return weights
    if path.startswith(_ZOO):
        return _from_zoo(path, weights)
    config = _read(file.with_name("config.json"))
    if config is None:
        return weights._replace(
            assumed=f"{_assumed(weights)} (config.json beside the file cannot be read)"
        )
    pretrained = _at(config, "pretrained_cfg")
    names = [
        each["architecture"]
        for each in (config, pretrained)
        if isinstance(each.get("architecture"), str)
    ]
    if names:
        return _from_timm(config, pretrained, names, weights, path)
    if tower := _open_clip_tower(file):
        return _from_timm({}, *tower, weights, path)
    if config.get("model_type") == "resnet" and weights.format.name == "transformers":
        return _from_transformers(
            config, _read(file.with_name("preprocessor_config.json")) or {}, weights, path
        )
    if unusual := _unusual_backbone(config):
        raise UserError(
            _refusal(path, f"config.json beside it has {unusual}, which no tensor shows")
        )
    return weights._replace(assumed=_assumed(weights))


def _from_zoo(path: str, weights: Weights) -> Weights:
    """Take pixels, strides and pools from the zoo's record, and the rest from the family."""
    from virtex_det.model_zoo.catalog import find  # needed only for names of the zoo

    stated = find(path.removeprefix(_ZOO)).network
    facts: dict[str, Any] = {}
    if "MODEL.PIXEL_MEAN" in stated and "MODEL.PIXEL_STD" in stated:
        mean, std = (tuple(stated[f"MODEL.PIXEL_{name}"]) for name in ("MEAN", "STD"))
        facts["pixels"] = (Pixels(stated.get("INPUT.FORMAT", "RGB"), mean, std),)
    facts |= {fact: stated[key] for key, fact in _ZOO_FACTS.items() if key in stated}
    entry = weights.format._replace(**facts)
    return weights._replace(format=entry, assumed=_assumed(weights._replace(format=entry)))


def _open_clip_tower(file: Path) -> tuple[dict[str, Any], list[str]] | None:
    """Return pixels and name of the timm network that open_clip's config gives for images."""
    config = _read(file.with_name("open_clip_config.json")) or {}
    vision = _at(config, "model_cfg", "vision_cfg")
    name = vision.get("timm_model_name")
    return (_at(config, "preprocess_cfg"), [name]) if isinstance(name, str) else None


def _unusual_backbone(config: Mapping[str, Any]) -> str:
    """Return what makes the backbone of a transformers detector another network; "" for nothing."""
    if config.get("dilation") is True:
        return "dilation true (DC5)"
    stride = _at(config, "backbone_kwargs").get("output_stride", 32)
    if stride != 32:
        return f"output_stride {stride}"
    backbone = config.get("backbone")
    if (
        isinstance(backbone, str)
        and "resne" in backbone
        and not _SAME_IN_TIMM.fullmatch(backbone.partition(".")[0])
    ):
        return f"backbone {backbone}"
    for each in (config, _at(config, "backbone_config")):
        activation = each.get("hidden_act", "relu")
        if str(each.get("model_type")).endswith("resnet") and activation != "relu":
            return f"hidden_act {activation}"
    return ""


def _at(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the object under nested keys; an empty one if there is none."""
    found: Any = config
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _from_timm(
    config: Mapping[str, Any],
    pretrained: Mapping[str, Any],
    names: Sequence[str],
    weights: Weights,
    path: str,
) -> Weights:
    # timm names a network as ARCHITECTURE.TRAINING_TAG.
    kinds = [_SAME_IN_TIMM.fullmatch(name.partition(".")[0]) for name in names]
    unusual = [
        f"{key}={value!r}"
        for key, value in _at(config, "model_args").items()
        if key not in _HARMLESS_ARGUMENTS
        and not key.startswith("drop_")
        and (key, value) != ("output_stride", 32)
    ]
    for name, kind in zip(names, kinds, strict=True):
        if kind and not _is_of(kind, weights.architecture):
            return weights._replace(
                assumed=f"{_assumed(weights)} (config.json beside the file is that of another "
                f"network, {name})"
            )
        if not kind or unusual:
            network = " ".join([name, *unusual])
            raise UserError(
                _refusal(
                    path,
                    f"config.json beside it names timm's {network}",
                )
            )
    facts: dict[str, Any] = {"note": f"config.json beside the file names timm's {names[0]}"}
    given = [pretrained.get(name, config.get(name)) for name in ("mean", "std")]
    if pixels := _pixels(*given):
        facts["pixels"] = (pixels,)
    elif given != [None, None]:
        facts["note"] += ", with an invalid mean and std"
    return weights._replace(format=weights.format._replace(**facts))


def _is_of(kind: re.Match[str], network: Architecture) -> bool:
    """Whether the shapes of tensors agree with the network that timm's name describes."""
    if kind["clip"] or network.stem == "clip":
        return bool(kind["clip"]) and network.stem == "clip"
    facts = [
        network.depth in (None, int(kind["depth"])),
        bool(kind["deep"]) == (network.stem == "deep"),
    ]
    if (
        network.has_bottlenecks
        and network.num_groups
        and network.width_per_group
        and network.res2_out_channels
    ):
        facts.append(bool(kind["groups"]) == (network.num_groups > 1))
        facts.append(
            bool(kind["groups"])
            or bool(kind["wide"]) == (network.width_per_group * 2 == network.res2_out_channels)
        )
    return all(facts)


def _from_transformers(
    config: Mapping[str, Any], processor: Mapping[str, Any], weights: Weights, path: str
) -> Weights:
    activation = config.get("hidden_act", "relu")
    if activation != "relu":
        raise UserError(
            _refusal(path, f"config.json beside it has hidden_act {activation!r}, not relu")
        )
    if config.get("downsample_in_first_stage"):
        raise UserError(_refusal(path, "config.json beside it has downsample_in_first_stage true"))
    facts: dict[str, Any] = {
        "stride_in_1x1": bool(config.get("downsample_in_bottleneck")),
        "note": "config.json beside the file names transformers' ResNet",
    }
    if pixels := _pixels(processor.get("image_mean"), processor.get("image_std")):
        facts["pixels"] = (pixels,)
    return weights._replace(format=weights.format._replace(**facts))


def _refusal(path: str, what: str) -> str:
    return (
        f"{path} is a network that this package cannot build: {what}.\n"
        "Its features would be wrong; nothing was loaded. If config.json belongs to another file, "
        "move the weights into a folder of their own."
    )


def _pixels(mean: Any, std: Any) -> Pixels | None:
    values = []
    for given in (mean, std):
        if not isinstance(given, list | tuple) or len(given) != 3 or not all(map(_is_share, given)):
            return None
        values.append(tuple(round(255 * value, 3) for value in given))
    return Pixels("RGB", *values) if all(values[1]) else None


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _assumed(weights: Weights) -> str:
    entry = weights.format
    if entry.stride_in_1x1 is None and entry.stem is None:
        return "ReLU; pools, strides and dilation as in this config"
    pools = {"clip": "an average pool after the stem", "basic": "a 3x3 max pool after the stem"}
    parts = [
        "ReLU",
        pools.get(entry.stem or "", "a 3x3 max pool after the stem"),
        "no blur pools",
        "no dilation",
    ]
    if entry.downsample == "clip":
        parts.append("average pools in place of strides")
    elif weights.architecture.has_bottlenecks:
        parts.append(f"strides in the {'1x1' if entry.stride_in_1x1 else '3x3'} convolutions")
    return ", ".join(parts)


def _read(file: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; an empty one without a file, None if it is invalid."""
    try:
        content = parse_json(read_regular(file, _MAX_CONFIG), str(file)) if file.is_file() else {}
    except UserError:
        return None
    return content if isinstance(content, dict) else None
