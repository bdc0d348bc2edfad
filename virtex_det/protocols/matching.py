"""The protocol that a config follows, and its departures, by the config's values alone."""

import json
import logging
from functools import cache
from typing import Any

from detectron2.config import CfgNode

from virtex_det.benchmark.records import sha256_of
from virtex_det.config import get_cfg, load_config, plain_leaves, scale_schedule
from virtex_det.config.files import packaged_config
from virtex_det.config.mappers import mapper_name
from virtex_det.config.renames import BF16
from virtex_det.config.roles import IN_PROTOCOL, Role, is_read, keys_of
from virtex_det.errors import UserError
from virtex_det.protocols.catalog import Protocol, protocols

SHOWN = 3  # departures written out in an id

# Keys that a run may set without a departure from its protocol.
FREE = frozenset(keys_of(*(role for role in Role if role not in IN_PROTOCOL)))

# A config that shares neither with any protocol is of another kind: pretraining.
KINDS = keys_of(Role.KIND)

Settings = dict[str, Any]


def protocol_id(cfg: CfgNode) -> str:
    """Return the id of the protocol that a config follows, with its departures.

    Args:
        cfg: the full config of a run.

    Returns:
        The id of the nearest protocol, followed by ``+KEY=VALUE`` for each departure in
        alphabetical order; of more than three, the rest is replaced by their number and a hash of
        all. ``+scaled-schedule`` marks a schedule scaled with the fraction of the data, which is
        another recipe than the protocol's schedule on that fraction. "" for pretraining, which has
        no protocol.
    """
    protocol, departures = nearest_protocol(cfg)
    if protocol is None:
        return ""
    words = [f"{key}={_word(value)}" for key, value in sorted(departures.items())]
    further = len(words) - SHOWN
    if further > 0:
        words = [*words[:SHOWN], f"{further}-more-{_digits(departures)}"]
    if cfg.SOLVER.REFERENCE_FRACTION:
        words.append("scaled-schedule")
    return "+".join([protocol.id, *words])


def nearest_protocol(cfg: CfgNode) -> tuple[Protocol | None, Settings]:
    """Return the protocol with the fewest different settings, and the config's values of these."""
    ours = _read_settings(cfg)
    alike = {
        name: _departures(ours, theirs)
        for name, theirs in _protocol_settings(cfg.SOLVER.REFERENCE_FRACTION).items()
        if any(theirs[key] == ours[key] for key in KINDS)
    }
    if not alike:
        return None, {}
    name = min(alike, key=lambda name: len(alike[name]))
    return protocols()[name], alike[name]


def settings_digits(cfg: CfgNode) -> str:
    """Return eight digits of a hash of a config's settings, without keys that any run may set."""
    return _digits(_departures(_read_settings(cfg), _settings(get_cfg())))


@cache
def _protocol_settings(fraction: float) -> dict[str, Settings]:
    """Return each protocol's settings; a fraction other than 0 scales their schedules."""
    found = {}
    for name, cfg in _protocol_configs().items():
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN_FRACTION, cfg.SOLVER.REFERENCE_FRACTION = (
            fraction or 1.0,
            1.0 if fraction else 0.0,
        )
        scale_schedule(cfg)
        found[name] = _settings(cfg)
    return found


@cache
def _protocol_configs() -> dict[str, CfgNode]:
    """Load each protocol's config; without one that is missing or was edited."""
    found = {}
    for name, protocol in protocols().items():
        try:
            cfg = load_config(str(packaged_config(protocol.config)), [])
            fault = (
                ""
                if settings_digits(cfg) == protocol.settings
                else f"{protocol.config} has been edited."
            )
        except UserError as error:
            fault = str(error)
        if fault:
            logging.getLogger(__name__).warning(f"The protocol {name} is not used: {fault}")
        else:
            found[name] = cfg
    return found


def _departures(ours: Settings, theirs: Settings) -> Settings:
    return {key: value for key, value in ours.items() if key not in theirs or theirs[key] != value}


def _read_settings(cfg: CfgNode) -> Settings:
    """Return a config's settings of the keys that its model and data read."""
    return {key: value for key, value in _settings(cfg).items() if is_read(cfg, key)}


def _settings(cfg: CfgNode) -> Settings:
    floats = _lists_of_floats()
    values = _under_old_names(plain_leaves(cfg)) | {"DATALOADER.MAPPER": mapper_name(cfg)}
    return {
        key: _floats(value) if key in floats else value
        for key, value in values.items()
        if key not in FREE
    }


def _under_old_names(values: Settings) -> Settings:
    """Return the settings with bfloat16 as MODEL.BF16, its name when the first ids were made."""
    dtype = values.pop("SOLVER.AMP.DTYPE")
    values[BF16] = values["SOLVER.AMP.ENABLED"] and dtype == "bfloat16"
    values["SOLVER.AMP.ENABLED"] = values["SOLVER.AMP.ENABLED"] and not values[BF16]
    return values


@cache
def _lists_of_floats() -> set[str]:
    return {
        key
        for key, value in plain_leaves(get_cfg()).items()
        if isinstance(value, list) and "." in json.dumps(value)
    }


def _floats(value: Any) -> Any:
    """Convert the integers in a list to floats, so that (1, 1) equals (1.0, 1.0)."""
    if isinstance(value, list):
        return list(map(_floats, value))
    return float(value) if type(value) is int else value


def _word(value: Any) -> str:
    """Return a value as text for an id: without spaces, a list of one as its element."""
    if isinstance(value, list):
        words = ",".join(map(_word, value))
        return words if len(value) == 1 else f"({words})"
    return str(value)


def _digits(settings: Settings) -> str:
    return sha256_of(json.dumps(settings, sort_keys=True))[:8]
