"""Optimizers, and their hooks around a step."""

from virtex_det.solver.build import build_optimizer, parameter_groups
from virtex_det.solver.lookahead import add_lookahead

__all__ = ["add_lookahead", "build_optimizer", "parameter_groups"]
