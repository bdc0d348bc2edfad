"""A one-line error for a missing package; other failed imports keep their traceback."""

import sys
from types import TracebackType

from virtex_det_commands import as_called

_TORCH = "pip install torch torchvision (the build that fits your GPU: pytorch.org)"
_COMMANDS = {
    "detectron2": "python tools/install_detectron2.py",
    "torch": _TORCH,
    "torchvision": _TORCH,
    "pkg_resources": "pip install 'setuptools<81'",
}
_OURS = "pip install -e . (in a clone of virtex_det), or pip install virtex_det-*.whl"
_NAMES = {"detectron2": "Detectron2", "torch": "PyTorch"}


class MissingPackage(ImportError):
    """A package that virtex_det needs is not installed; the message says how to install it."""


def explain_missing(error: ModuleNotFoundError) -> ImportError:
    """Return the error to raise for a module that was not found.

    For a missing package it is a MissingPackage; if nobody catches it, only its message is shown.
    If the package lacks the module, or the module is virtex_det's, the installation is broken
    or there is a bug: then it is the error itself, with its traceback.
    """
    name = error.name or ""
    if not name or "." in name or name == "virtex_det":
        return error
    sys.excepthook = _show
    command = as_called(_COMMANDS.get(name, _OURS))
    needed = _NAMES.get(name, name)
    return MissingPackage(
        f"virtex_det needs {needed}, which cannot be imported here ({error}); install it with: "
        f"{command}"
    )


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, MissingPackage):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
