"""The config: every key with its default, and reading it from a file and overrides."""

from virtex_det.config.defaults import add_virtex_det_config, get_cfg
from virtex_det.config.loading import leaves, load_config, scale_schedule, with_options

__all__ = ["add_virtex_det_config", "get_cfg", "leaves", "load_config", "scale_schedule", "with_options"]
