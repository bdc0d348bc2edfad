"""Old names of config keys: configs that have them are read under the new names, with a line that says so.

While a config is put together, old names stand in it beside the new ones, so that what is set later
holds whatever its name: a file over its ``_BASE_``, overrides over the file. At the end their
values go over to the new names, by what they meant: the rate of the backbone, for example, is not
known before the last override of the base rate.
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
# The models whose text encoder had sizes of its own; others read those of MODEL.TEXTUAL, or none.
_WITH_TEXT_ENCODER = ("ICMLMModel", "LocTexModel")

# Each old name, with the new ones that say the same.
OLD_NAMES: dict[str, tuple[str, ...]] = {
    BF16: (_AMP, _DTYPE),
    BACKBONE_LR: (_MULTIPLIER,),
    **{f"MODEL.TEXT_ENCODER.{size}": (f"MODEL.TEXTUAL.{size}",) for size in _SIZES},
}


def register_old_names(cfg: CfgNode) -> None:
    """Let yacs's own merging, which knows no old names, refuse them with the new ones."""
    for old, (new, *others) in OLD_NAMES.items():
        cfg.register_renamed_key(old, new, f"It goes with {', '.join(others)}." if others else None)


def admit_old_names(cfg: CfgNode) -> None:
    """Let a config hold old names until ``replace_old_names``; None stands for one that is not set."""
    for old in OLD_NAMES:
        section, name = _place(cfg, old)
        if section is not None:
            section.setdefault(name, None)


def superseded(values: Mapping[str, Any]) -> list[str]:
    """Return the old names that values set earlier under them have no say any more: these set the new names alone."""
    return [
        old
        for old, news in OLD_NAMES.items()
        if old not in values and any(new in values for new in news)
    ]


def without_effect(values: Mapping[str, Any], where: str) -> list[str]:
    """Return the old names of one file, or of the overrides, that say nothing beside the new ones there.

    Args:
        values: by dotted key, all that is set there.
        where: it is, for the message.

    Raises:
        UserError: an old and a new name are set to different values.
    """
    found = []
    # A run of an earlier version wrote every key into its config; the old ones are those that it read.
    is_whole_config = values.keys() >= OLD_NAMES.keys()
    for old, news in OLD_NAMES.items():
        if old not in values or not any(new in values for new in news):
            continue
        if old == BACKBONE_LR and _plain(values[old]) == 0:
            found.append(old)
        elif not is_whole_config and not _agree(
            old, {key: _plain(value) for key, value in values.items()}
        ):
            said = ", ".join(f"{new} {values[new]}" for new in news if new in values)
            raise UserError(
                f"{old} {values[old]} is an old name of {' and '.join(news)}, and {where} sets both, to different "
                f"values: {said}.\nLeave {old} out."
            )
    return found


def forget(config: dict[str, Any], names: list[str]) -> None:
    """Take old names out of a config's values, or out of a config that admits them."""
    for old in names:
        section, name = _place(config, old)
        if isinstance(section, CfgNode):
            section[name] = None
        elif section is not None:
            section.pop(name, None)


def replace_old_names(cfg: CfgNode) -> None:
    """Give the values of old names to the new ones, say so once each, and let the config have no old names.

    Args:
        cfg: is changed; not frozen. All its layers are merged.

    Raises:
        UserError: a value has no counterpart.
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
                f"{old} is an old name of {' and '.join(OLD_NAMES[old])}. Read as: {read_as or 'nothing to set'}."
            )


def advice(old: str) -> str:
    """Return a sentence about an old name in a config that was not read from a file or from overrides."""
    return f"{old} is an old name, which nothing reads here. Set {' and '.join(OLD_NAMES[old])}."


def _replaced(cfg: CfgNode, old: str, value: Any) -> dict[str, Any]:
    """Return what an old name's value is under the new names; nothing where it had no effect."""
    if old == BF16:
        if not isinstance(value, bool):
            raise UserError(
                f"{BF16} is {value!r}, but must be True or False. It is an old name of {_DTYPE} bfloat16."
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
    """Return by what the base rate is multiplied for the backbone's, to the last digit where there is such a number."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise UserError(
            f"{BACKBONE_LR} is {rate!r}, but must be a number from 0 on. It is an old name: {_MULTIPLIER}."
        )
    if rate == 0:
        return 1.0  # it meant the base rate
    if not isinstance(base, float) or not 0 < base < math.inf:
        raise UserError(
            f"{BACKBONE_LR} {rate} is an old name of {_MULTIPLIER}, a multiple of {_BASE_LR}, which is {base}.\n"
            f"Set {_BASE_LR} above 0, and {_MULTIPLIER}."
        )
    nearest = rate / base
    for candidate in (nearest, math.nextafter(nearest, 0), math.nextafter(nearest, math.inf)):
        if candidate * base == rate:
            return candidate
    return nearest


def _had_sizes_of_its_own(cfg: CfgNode) -> bool:
    """Say whether the model's text encoder is a transformer of the sizes that MODEL.TEXT_ENCODER had."""
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
    """Say whether an old name and the new ones, set at one place, say the same."""
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
    """Return what text of the command line stands for."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _place(config: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """Return the section that a key belongs in, None where there is none, and its name in it."""
    section: Any = config
    *sections, name = key.split(".")
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None, name


@cache
def _say(line: str) -> None:
    logger.warning(line)
