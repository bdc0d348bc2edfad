"""What weights ask of a config: the pixels, strides and pools that their network was trained with."""

from functools import reduce
from typing import Any

from detectron2.config import CfgNode

from virtex_det.checkpoint.formats import Format, Pixels
from virtex_det.checkpoint.inside import own_pixels
from virtex_det.checkpoint.last import find_last
from virtex_det.checkpoint.sources import named_in, open_file, open_weights
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError


def contradictions(entry: Format, cfg: CfgNode) -> dict[str, Any]:
    """Return the config keys that contradict what is known of a family, each with the value that fits."""
    return _pixel_contradictions(entry, cfg) | _network_contradictions(entry, cfg)


def check_config(weights: Weights, cfg: CfgNode, path: str) -> None:
    """Refuse weights that would see other pixels, or stride elsewhere, than in their own training.

    Raises:
        UserError: naming the keys and the values to set, those of depth and widths among them.
    """
    wrong = (
        contradictions(weights.format, cfg)
        if weights.is_resnet
        else _pixel_contradictions(weights.format, cfg)
    )
    if not wrong:
        return
    if weights.is_resnet:
        wrong |= {
            key: value
            for key, value in weights.architecture.config().items()
            if _differs(cfg, key, value)
        }
    settings = "".join(f'\n  {key} "{value}"' for key, value in wrong.items())
    raise UserError(
        f"The config contradicts the weights {path} (format {weights.format.name}); nothing was "
        f"loaded. Set:{settings}"
        + (
            "\nor, for the pixels, MODEL.FOLLOW_WEIGHTS True"
            if _pixel_contradictions(weights.format, cfg)
            else ""
        )
    )


def follow_weights(cfg: CfgNode, *, resume: bool = False) -> CfgNode:
    """Return the config with the pixels of its weights, where MODEL.FOLLOW_WEIGHTS asks for that.

    Args:
        cfg: stays as it is.
        resume: the run goes on from the last checkpoint of OUTPUT_DIR, if there is one.

    Raises:
        UserError: the weights cannot be read, or do not tell their pixels.
    """
    path, is_own = _start(cfg, resume)
    if not cfg.MODEL.FOLLOW_WEIGHTS or not path:
        return cfg
    opened = open_file(path)
    if pixels := own_pixels(opened.content):
        return _with_pixels(cfg, pixels)
    try:
        entry = opened.weights(*(("", "") if is_own else named_in(cfg))).format
    except UserError as error:
        raise _no_pixels(path, str(error).partition("\n")[0]) from error
    if not entry.pixels:
        raise _no_pixels(path, f"{path} is of format {entry.name}")
    return _with_pixels(cfg, entry.pixels[0])


def _no_pixels(path: str, why: str) -> UserError:
    return UserError(
        f"MODEL.FOLLOW_WEIGHTS is True, but {path} does not tell its pixels: {why}.\n"
        "Set MODEL.FOLLOW_WEIGHTS False, and INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD "
        "as it was trained."
    )


def backbone_keys(cfg: CfgNode) -> dict[str, Any]:
    """Return the config keys that build the network of MODEL.WEIGHTS, as far as the file tells; none without weights.

    Raises:
        UserError: the weights cannot be read.
    """
    path = cfg.MODEL.WEIGHTS
    if not path:
        return {}
    return open_weights(path, cfg).weights.network_keys()


def _pixel_contradictions(entry: Format, cfg: CfgNode) -> dict[str, Any]:
    differing = [_differing_pixels(pixels, cfg) for pixels in entry.pixels]
    return min(differing, key=len) if differing else {}


def _differing_pixels(pixels: Pixels, cfg: CfgNode) -> dict[str, Any]:
    wrong: dict[str, Any] = {}
    if pixels.format not in ("", cfg.INPUT.FORMAT):
        wrong["INPUT.FORMAT"] = pixels.format
    if not _near(pixels.mean, cfg.MODEL.PIXEL_MEAN):
        wrong["MODEL.PIXEL_MEAN"] = list(pixels.mean)
    if not _near(pixels.std, cfg.MODEL.PIXEL_STD):
        wrong["MODEL.PIXEL_STD"] = list(pixels.std)
    return wrong


def network_facts(cfg: CfgNode) -> dict[str, Any]:
    """Return what the tensors of a config's network do not show, under the names of ``Format``."""
    is_ours = cfg.MODEL.BACKBONE.NAME.startswith("build_caption_resnet")
    # Detectron2's own builder knows none of it.
    variety = cfg.MODEL.get("CAPTION_RESNET", {}) if is_ours else {}
    return {
        "stem": variety.get("STEM", "basic"),
        "downsample": variety.get("DOWNSAMPLE", "conv"),
        "stride_in_1x1": cfg.MODEL.RESNETS.STRIDE_IN_1X1,
    }


def _network_contradictions(entry: Format, cfg: CfgNode) -> dict[str, Any]:
    builder, facts = cfg.MODEL.BACKBONE.NAME, network_facts(cfg)
    wrong: dict[str, Any] = {}
    if entry.stem not in (None, facts["stem"]):
        wrong["MODEL.CAPTION_RESNET.STEM"] = entry.stem
    if entry.downsample not in (None, facts["downsample"]):
        wrong["MODEL.CAPTION_RESNET.DOWNSAMPLE"] = entry.downsample
    if wrong and not builder.startswith("build_caption_resnet"):
        wrong["MODEL.BACKBONE.NAME"] = builder.replace("build_resnet", "build_caption_resnet")
    has_bottlenecks = cfg.MODEL.RESNETS.DEPTH >= 50
    if has_bottlenecks and entry.stride_in_1x1 not in (None, facts["stride_in_1x1"]):
        wrong["MODEL.RESNETS.STRIDE_IN_1X1"] = entry.stride_in_1x1
    return wrong


def _with_pixels(cfg: CfgNode, pixels: Pixels) -> CfgNode:
    frozen = cfg.is_frozen()
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.FORMAT = pixels.format or cfg.INPUT.FORMAT
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(pixels.mean), list(pixels.std)
    if frozen:
        cfg.freeze()
    return cfg


def _start(cfg: CfgNode, resume: bool) -> tuple[str, bool]:
    """Return the file that a run will start from, and whether it is its own checkpoint."""
    last = find_last(cfg.OUTPUT_DIR) if resume else ""
    return (last, True) if last else (cfg.MODEL.WEIGHTS, False)


def _differs(cfg: CfgNode, key: str, value: Any) -> bool:
    try:
        given = reduce(lambda node, name: node[name], key.split("."), cfg)
    except KeyError:
        return False
    return (tuple(given) if isinstance(given, list | tuple) else given) != value


def _near(expected: tuple[float, ...], given: list[float]) -> bool:
    # One grey level: published configs round the same mean differently.
    return len(expected) == len(given) and all(
        abs(a - b) < 1 for a, b in zip(expected, given, strict=True)
    )
