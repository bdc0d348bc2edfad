"""The config keys that must agree with the weights: pixels, strides and pools of their network."""

from functools import reduce
from typing import Any

from detectron2.config import CfgNode

from virtex_det.checkpoint.formats import Format, Pixels
from virtex_det.checkpoint.inside import own_pixels
from virtex_det.checkpoint.last import find_last
from virtex_det.checkpoint.reading import check_path
from virtex_det.checkpoint.sources import named_in, open_file, open_weights
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError


def contradictions(entry: Format, cfg: CfgNode) -> dict[str, Any]:
    """Return the config keys that contradict the facts of a family, each with the right value."""
    return _pixel_contradictions(entry, cfg) | _network_contradictions(entry, cfg)


def check_config(weights: Weights, cfg: CfgNode, path: str) -> None:
    """Refuse weights that were trained with other pixels, strides or pools than the config has.

    Raises:
        UserError: names the keys and the values to set, including those of depth and widths.
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
    """Return the config with the pixel format of its weights if MODEL.FOLLOW_WEIGHTS is True.

    Args:
        cfg: is not changed.
        resume: the run resumes from the last checkpoint of OUTPUT_DIR, if there is one.

    Raises:
        UserError: the weights cannot be read, or their pixel format is unknown.
    """
    path, is_own = _start(cfg, resume)
    if not cfg.MODEL.FOLLOW_WEIGHTS or not path:
        return cfg
    opened = open_file(path)
    if pixels := own_pixels(opened.content):
        return with_pixels(cfg, pixels)
    try:
        entry = opened.weights(*(("", "") if is_own else named_in(cfg))).format
    except UserError as error:
        raise _no_pixels(path, str(error).partition("\n")[0]) from error
    if not entry.pixels:
        raise _no_pixels(path, f"{path} is of format {entry.name}")
    return with_pixels(cfg, entry.pixels[0])


def check_start(cfg: CfgNode, *, resume: bool = False) -> None:
    """Refuse a MODEL.WEIGHTS that is not a weights file by ``check_path``, before data are read.

    Of addresses only names of the model zoo are checked, and nothing is downloaded. A run that
    resumes does not read MODEL.WEIGHTS.

    Args:
        cfg: config of the run.
        resume: as for ``follow_weights``.

    Raises:
        UserError: names the path and says what it is instead, or the model zoo has no such name.
    """
    path, is_own = _start(cfg, resume)
    if is_own:
        return
    if path.startswith("virtex://"):
        # imports the model zoo, which only its names need
        from virtex_det.model_zoo.catalog import find

        find(path.removeprefix("virtex://"))
    elif path and "://" not in path:
        check_path(path)


def _no_pixels(path: str, why: str) -> UserError:
    return UserError(
        f"MODEL.FOLLOW_WEIGHTS is True, but the pixel format of {path} is unknown: {why}.\n"
        "Set MODEL.FOLLOW_WEIGHTS False, and INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD "
        "to the values of its training."
    )


def backbone_keys(cfg: CfgNode) -> dict[str, Any]:
    """Return the config keys that build the network of MODEL.WEIGHTS.

    Keys that the file does not determine are missing; without weights there are no keys.

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
    """Return the facts of a config's network that tensors do not show, named as in ``Format``."""
    # Detectron2's own builder does not read CAPTION_RESNET.
    reads_variety = cfg.MODEL.BACKBONE.NAME.startswith("build_caption_resnet")
    variety = cfg.MODEL.get("CAPTION_RESNET", {}) if reads_variety else {}
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


def with_pixels(cfg: CfgNode, pixels: Pixels) -> CfgNode:
    """Return the config with a pixel format, frozen if it was."""
    frozen = cfg.is_frozen()
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.FORMAT = pixels.format or cfg.INPUT.FORMAT
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(pixels.mean), list(pixels.std)
    if frozen:
        cfg.freeze()
    return cfg


def _start(cfg: CfgNode, resume: bool) -> tuple[str, bool]:
    """Return the file that a run will start from, and whether it is the run's own checkpoint."""
    last = find_last(cfg.OUTPUT_DIR) if resume else ""
    return (last, True) if last else (cfg.MODEL.WEIGHTS, False)


def _differs(cfg: CfgNode, key: str, value: Any) -> bool:
    try:
        given = reduce(lambda node, name: node[name], key.split("."), cfg)
    except KeyError:
        return False
    return (tuple(given) if isinstance(given, list | tuple) else given) != value


def _near(expected: tuple[float, ...], given: list[float]) -> bool:
    # Within one grey level: published configs round the same mean differently.
    return len(expected) == len(given) and all(
        abs(a - b) < 1 for a, b in zip(expected, given, strict=True)
    )
