"""The protocol that a config follows, and its departures, from the config's values alone."""

import json
import logging
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from virtex_det.benchmark.records import sha256_of
from virtex_det.config import get_cfg, load_config, plain_leaves, scale_schedule
from virtex_det.config.added import cached
from virtex_det.config.data_names import portable_leaves
from virtex_det.config.files import packaged_config
from virtex_det.config.mappers import mapper_name
from virtex_det.config.renames import BF16
from virtex_det.config.roles import IN_PROTOCOL, Role, is_read, keys_of
from virtex_det.errors import UserError
from virtex_det.protocols.catalog import Protocol, protocols

SHOWN = 3  # departures written out in an id

_FREE_ROLES = tuple(role for role in Role if role not in IN_PROTOCOL)
# Keys of the package that a run may set without a departure from its protocol.
FREE = frozenset(keys_of(*_FREE_ROLES))

# A config that shares none of these values with a protocol has no protocol: pretraining.
KINDS = keys_of(Role.KIND)

Settings = dict[str, Any]


class Match(NamedTuple):
    """The nearest protocol of a config.

    Attributes:
        id: as of ``protocol_id``.
        protocol: that with the fewest different settings; None for pretraining.
        departures: the config's values of these settings.
    """

    id: str
    protocol: Protocol | None
    departures: Settings


def protocol_id(cfg: CfgNode) -> str:
    """Return the id of the protocol that a config follows, with its departures.

    Args:
        cfg: the full config of a run.

    Returns:
        The id of the nearest protocol, followed by ``+KEY=VALUE`` for each departure in
        alphabetical order. Of more than three, the rest is replaced by its number and a hash of all
        departures. ``+scaled-schedule`` marks a schedule scaled with the fraction of the data,
        which is another recipe than the protocol's schedule on that fraction. "" for pretraining,
        which has no protocol.
    """
    return nearest_protocol(cfg).id


def nearest_protocol(cfg: CfgNode, own: tuple[Protocol, ...] = ()) -> Match:
    """Return the protocol with the fewest settings that differ from a config's.

    Args:
        cfg: the full config of a run.
        own: protocols of the user, beside those of the package.
    """
    ours = _read_settings(cfg)
    departures = {}
    for name, theirs in _protocol_settings(cfg.SOLVER.REFERENCE_FRACTION, own).items():
        if any(theirs[key] == ours[key] for key in KINDS):
            departures[name] = _departures(ours, theirs)
    if not departures:
        return Match("", None, {})
    name = min(departures, key=lambda name: len(departures[name]))
    found = departures[name]
    words = [f"{key}={_word(value)}" for key, value in sorted(found.items())]
    further = len(words) - SHOWN
    if further > 0:
        words = [*words[:SHOWN], f"{further}-more-{_digits(found)}"]
    if cfg.SOLVER.REFERENCE_FRACTION:
        words.append("scaled-schedule")
    return Match("+".join([name, *words]), _known(own)[name], found)


def settings_digits(cfg: CfgNode) -> str:
    """Return eight digits of a hash of a config's settings, without keys that a run may set."""
    return _digits(_departures(_read_settings(cfg), _settings(get_cfg())))


def _known(own: tuple[Protocol, ...]) -> dict[str, Protocol]:
    return {**protocols(), **{protocol.id: protocol for protocol in own}}


@cached
def _protocol_settings(fraction: float, own: tuple[Protocol, ...]) -> dict[str, Settings]:
    """Return each protocol's settings; a fraction other than 0 scales their schedules."""
    found = {}
    for name, cfg in _protocol_configs(own).items():
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN_FRACTION = fraction or 1.0
        cfg.SOLVER.REFERENCE_FRACTION = 1.0 if fraction else 0.0
        scale_schedule(cfg)
        found[name] = _settings(cfg)
    return found


@cached
def _protocol_configs(own: tuple[Protocol, ...]) -> dict[str, CfgNode]:
    """Load each protocol's config; one that is missing or was edited is left out."""
    found = {}
    for name, protocol in _known(own).items():
        try:
            cfg = load_config(str(packaged_config(protocol.config)), [])
            if settings_digits(cfg) != protocol.settings:
                raise UserError(f"{protocol.config} has been edited.")
            found[name] = cfg
        except UserError as error:
            logging.getLogger(__name__).warning(f"The protocol {name} is not used: {error}")
    return found


def _departures(ours: Settings, theirs: Settings) -> Settings:
    return {key: value for key, value in ours.items() if key not in theirs or theirs[key] != value}


def _read_settings(cfg: CfgNode) -> Settings:
    """Return a config's settings of the keys that its model and data read."""
    return {key: value for key, value in _settings(cfg).items() if is_read(cfg, key)}


def _settings(cfg: CfgNode) -> Settings:
    floats, free = _lists_of_floats(), {*keys_of(*_FREE_ROLES)}
    settings = {}
    for key, value in _under_old_names(portable_leaves(cfg)).items():
        if key not in free:
            settings[key] = _floats(value) if key in floats else value
    return settings | {"DATALOADER.MAPPER": mapper_name(cfg)}


def _under_old_names(values: Settings) -> Settings:
    """Return the settings with bfloat16 as MODEL.BF16, its name when the first ids were made."""
    dtype = values.pop("SOLVER.AMP.DTYPE")
    values[BF16] = values["SOLVER.AMP.ENABLED"] and dtype == "bfloat16"
    values["SOLVER.AMP.ENABLED"] = values["SOLVER.AMP.ENABLED"] and not values[BF16]
    return values


@cached
def _lists_of_floats() -> set[str]:
    defaults = plain_leaves(get_cfg()).items()
    return {key for key, value in defaults if isinstance(value, list) and "." in json.dumps(value)}


def _floats(value: Any) -> Any:
    """Convert the integers in a list to floats, so that (1, 1) equals (1.0, 1.0)."""
    if isinstance(value, list):
        return list(map(_floats, value))
    return float(value) if type(value) is int else value


def _word(value: Any) -> str:
    """Return a value as text for an id: without spaces, a list of one value as that value."""
    if isinstance(value, list):
        words = ",".join(map(_word, value))
        return words if len(value) == 1 else f"({words})"
    return str(value)


def _digits(settings: Settings) -> str:
    return sha256_of(json.dumps(settings, sort_keys=True))[:8]
