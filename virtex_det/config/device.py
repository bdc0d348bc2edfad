"""MODEL.DEVICE: the default on this machine, and a check that the named device is available."""

import logging

import torch

from virtex_det.errors import UserError
from virtex_det.yaml_files import shortened

logger = logging.getLogger(__name__)


def default_device() -> str:
    """Return "cuda" where PyTorch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of_file(named: str, config_file: str) -> str:
    """Return the device of a config file or, if this machine does not have it, the default device.

    A run on a GPU writes ``cuda`` into its config, and users evaluate such a run on a laptop.

    Raises:
        UserError: the name in the file is not a device.
    """
    if _reason_against(_parsed(named)) == "":
        return named
    logger.warning(
        f"{config_file} sets MODEL.DEVICE {named}, which is not available here; "
        f"{default_device()} is used instead."
    )
    return default_device()


def check_device(named: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        UserError: the device is unknown or not available; the message says why and what to set.
    """
    if reason := _reason_against(_parsed(named)):
        raise UserError(
            f"MODEL.DEVICE is {named!r}, but {reason}.\n"
            f"Leave MODEL.DEVICE out, which takes {default_device()} here, or set an available one."
        )


def _parsed(named: str) -> torch.device:
    try:
        return torch.device(named)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"MODEL.DEVICE is {shortened(named)}, which is not a device. Set cpu, cuda, cuda:1 "
            f"(the second GPU) or mps, or leave it out, which takes {default_device()} here."
        ) from error


def _reason_against(device: torch.device) -> str:
    """Return why PyTorch cannot use a device here; "" if it can."""
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found > (device.index or 0):
            return ""
        return f"PyTorch {torch.__version__} finds {found} GPU(s) here" + (
            "; the first is cuda:0" if found else ""
        )
    if device.type == "cpu" and device.index is not None:
        return "PyTorch has a single CPU device, which is named cpu"
    if device.type in ("cpu", "meta"):
        return ""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        return (
            f"PyTorch {torch.__version__} cannot use it here ({str(error).splitlines()[0][:100]})"
        )
    return ""
