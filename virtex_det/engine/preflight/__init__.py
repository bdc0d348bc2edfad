"""What can be wrong with a run, found before it begins."""

from virtex_det.engine.preflight.settings import check_data, check_devices, check_schedule, check_tokenizer

__all__ = ["check_data", "check_devices", "check_schedule", "check_tokenizer"]
