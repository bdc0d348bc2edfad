"""The config: its keys with their defaults, and loading it from a file and overrides."""

from virtex_det.config.defaults import add_virtex_det_config, get_cfg
from virtex_det.config.loading import (
    Overrides,
    load_config,
    override,
    override_pairs,
    scale_schedule,
    with_options,
)
from virtex_det.config.nodes import leaves, plain_leaves
from virtex_det.config.registration import register_config
from virtex_det.config.roles import Role

__all__ = [
    "Overrides",
    "Role",
    "add_virtex_det_config",
    "get_cfg",
    "leaves",
    "load_config",
    "override",
    "override_pairs",
    "plain_leaves",
    "register_config",
    "scale_schedule",
    "with_options",
]
