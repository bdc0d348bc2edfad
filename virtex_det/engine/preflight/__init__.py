"""Checks that find a run's errors before it begins."""

from virtex_det.engine.preflight.model import check_successor, check_weights
from virtex_det.engine.preflight.probe import check_probe, check_probe_data
from virtex_det.engine.preflight.run import check_evaluation, check_training, check_trainings
from virtex_det.engine.preflight.settings import (
    check_data,
    check_devices,
    check_schedule,
    check_settings,
    check_tokenizer,
)

__all__ = [
    "check_data",
    "check_devices",
    "check_evaluation",
    "check_probe",
    "check_probe_data",
    "check_schedule",
    "check_settings",
    "check_successor",
    "check_tokenizer",
    "check_training",
    "check_trainings",
    "check_weights",
]
