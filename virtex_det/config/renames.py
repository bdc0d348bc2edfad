"""Old names of config keys, which are still read, with a line in the log that names the new ones.

While files and overrides are merged, the config holds old and new names side by side, so that the
value that is set last wins under either name. At the end the values of old names are converted to
the new ones. This needs the complete config: the backbone's rate as a multiple of the base rate,
for example, is known only after the last override of the base rate.
"""

import ast
import logging
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from virtex_det.config.precision import computes_in_bfloat16
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

BF16, BACKBONE_LR = "MODEL.BF16", "SOLVER.BACKBONE_LR"
_AMP, _DTYPE = "SOLVER.AMP.ENABLED", "SOLVER.AMP.DTYPE"
_MULTIPLIER, _BASE_LR = "SOLVER.BACKBONE_MULTIPLIER", "SOLVER.BASE_LR"
_SIZES = (
    "NUM_LAYERS",
    "HIDDEN_SIZE",
    "ATTENTION_HEADS",
    "FEEDFORWARD_SIZE",
    "DROPOUT",
    "NORM_FIRST",
    "INIT_STD",
)
# Models whose text encoder once had its own sizes; other models read MODEL.TEXTUAL's or none.
_WITH_TEXT_ENCODER = ("ICMLMModel", "LocTexModel")

# Old name -> new names with the same meaning.
OLD_NAMES: dict[str, tuple[str, ...]] = {
    BF16: (_AMP, _DTYPE),
    BACKBONE_LR: (_MULTIPLIER,),
    **{f"MODEL.TEXT_ENCODER.{size}": (f"MODEL.TEXTUAL.{size}",) for size in _SIZES},
}


def register_old_names(cfg: CfgNode) -> None:
    """Make yacs's own merging refuse old names with a message that gives the new ones."""
    for old, (new, *others) in OLD_NAMES.items():
        cfg.register_renamed_key(old, new, f"Also set {', '.join(others)}." if others else None)


def admit_old_names(cfg: CfgNode) -> None:
    """Add the old names to a config, until ``replace_old_names``; None means not set."""
    for old in OLD_NAMES:
        section, name = _place(cfg, old)
        if section is not None:
            section.setdefault(name, None)


def superseded(values: Mapping[str, Any]) -> list[str]:
    """Return the old names whose earlier values no longer count, since new names are set later."""
    return [
        old
        for old, news in OLD_NAMES.items()
        if old not in values and any(new in values for new in news)
    ]


def without_effect(values: Mapping[str, Any], where: str) -> list[str]:
    """Return the old names in one file, or in the overrides, that have no effect beside new names.

    Args:
        values: all keys that are set there, by dotted name.
        where: the file or the overrides, for the message.

    Raises:
        UserError: an old and a new name are set to different values.
    """
    found = []
    # A run of an earlier version wrote every key into its config, and read the old names.
    is_whole_config = values.keys() >= OLD_NAMES.keys()
    for old, news in OLD_NAMES.items():
        if old not in values or not any(new in values for new in news):
            continue
        if old == BACKBONE_LR and _plain(values[old]) == 0:
            found.append(old)
        elif not is_whole_config and not _agree(
            old, {key: _plain(value) for key, value in values.items()}
        ):
            contrary = ", ".join(f"{new} {values[new]}" for new in news if new in values)
            raise UserError(
                f"{old} {values[old]} is an old name of {' and '.join(news)}, and {where} sets "
                f"both, to different values: {contrary}.\n"
                f"Leave {old} out."
            )
    return found


def forget(config: dict[str, Any], names: list[str]) -> None:
    """Remove old names from a config's values, or unset them in a config that holds them."""
    for old in names:
        section, name = _place(config, old)
        if isinstance(section, CfgNode):
            section[name] = None
        elif section is not None:
            section.pop(name, None)


def replace_old_names(cfg: CfgNode) -> None:
    """Convert the values of old names to the new names, remove the old names, and log each once.

    Args:
        cfg: is changed; not frozen. All files and overrides are merged.

    Raises:
        UserError: a value cannot be converted.
    """
    given = {}
    for old in OLD_NAMES:
        section, name = _place(cfg, old)
        value = None if section is None else section.pop(name, None)
        if value is not None:
            given[old] = value
    is_whole_config = given.keys() >= OLD_NAMES.keys() - {BACKBONE_LR}
    for old, value in given.items():
        replaced = _replaced(cfg, old, value)
        changes = False
        for new, new_value in replaced.items():
            section, name = _place(cfg, new)
            if section is not None:
                changes |= section.get(name) != new_value
                section[name] = new_value
        if changes or not is_whole_config:
            read_as = ", ".join(f"{new} {new_value}" for new, new_value in replaced.items())
            _say(
                f"{old} is an old name of {' and '.join(OLD_NAMES[old])}. Read as: "
                f"{read_as or 'no change'}."
            )


def advice(old: str) -> str:
    """Return an error message for an old name that was set on a config in Python."""
    return f"{old} is an old name and has no effect. Set {' and '.join(OLD_NAMES[old])}."


def _replaced(cfg: CfgNode, old: str, value: Any) -> dict[str, Any]:
    """Return the values of the new names for an old name's value; empty if it had no effect."""
    if old == BF16:
        if not isinstance(value, bool):
            raise UserError(
                f"{BF16} is {value!r}, but must be True or False. It is an old name: set {_DTYPE} "
                "bfloat16."
            )
        if value:
            return {_AMP: True, _DTYPE: "bfloat16"}
        return {_AMP: False} if computes_in_bfloat16(cfg) else {}
    if old == BACKBONE_LR:
        return {_MULTIPLIER: _multiplier(value, cfg.SOLVER.BASE_LR)}
    if not _had_sizes_of_its_own(cfg):
        return {}
    (new,) = OLD_NAMES[old]
    is_fraction = new.endswith(("DROPOUT", "INIT_STD"))
    return {new: float(value) if is_fraction and type(value) is int else value}


def _multiplier(rate: Any, base: float) -> float:
    """Return the multiplier that gives the backbone's rate, to the last digit if one exists."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise UserError(
            f"{BACKBONE_LR} is {rate!r}, but must be a number from 0 on. It is an old name: set "
            f"{_MULTIPLIER}."
        )
    if rate == 0:
        return 1.0  # 0 meant the base rate
    if not isinstance(base, float) or not 0 < base < math.inf:
        raise UserError(
            f"{BACKBONE_LR} {rate} is an old name of {_MULTIPLIER}, a multiple of {_BASE_LR}, "
            f"which is {base}.\n"
            f"Set {_BASE_LR} above 0, and {_MULTIPLIER}."
        )
    nearest = rate / base
    for candidate in (nearest, math.nextafter(nearest, 0), math.nextafter(nearest, math.inf)):
        if candidate * base == rate:
            return candidate
    return nearest


def _had_sizes_of_its_own(cfg: CfgNode) -> bool:
    """Say whether the model's text encoder had its sizes from MODEL.TEXT_ENCODER."""
    name = cfg.MODEL.META_ARCHITECTURE
    if cfg.MODEL.TEXT_ENCODER.WEIGHTS:
        return False
    module = (
        getattr(META_ARCH_REGISTRY.get(name), "__module__", "")
        if name in META_ARCH_REGISTRY
        else ""
    )
    is_known = module.startswith(("virtex_det.", "detectron2."))
    return name in _WITH_TEXT_ENCODER or not is_known


def _agree(old: str, values: Mapping[str, Any]) -> bool:
    """Say whether the values of an old name and of its new names mean the same."""
    value = values[old]
    if old == BF16:
        enabled, dtype = values.get(_AMP, value or None), values.get(_DTYPE)
        if value:
            return enabled is True and dtype in (None, "bfloat16")
        return not (enabled and dtype == "bfloat16")
    if old == BACKBONE_LR:
        try:
            return math.isclose(values[_BASE_LR] * values[_MULTIPLIER], value)
        except (KeyError, TypeError):
            return False
    (new,) = OLD_NAMES[old]
    return value == values[new]


def _plain(value: Any) -> Any:
    """Return the Python value of text from the command line."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _place(config: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """Return a key's section, None if the config does not have it, and the key's name in it."""
    section: Any = config
    *sections, name = key.split(".")
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None, name


@cache
def _say(line: str) -> None:
    logger.warning(line)
