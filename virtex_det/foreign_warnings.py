"""Silences specific warnings of other packages that users see at every start but cannot fix."""

import logging
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple


class _Warning(NamedTuple):
    """A warning of Python's ``warnings``: start of its text, category and module."""

    text: str
    kind: type[Warning]
    module: str


WARNINGS = (
    # Detectron2 scripts two functions when it is imported.
    _Warning(r".*torch\.jit\.script.* is deprecated", FutureWarning, r"torch\.jit|detectron2"),
    _Warning(r".*torch\.jit\.script.* is deprecated", DeprecationWarning, r"torch\.jit|detectron2"),
    # Detectron2's model zoo finds its files by it.
    _Warning(r"pkg_resources is deprecated", UserWarning, r"detectron2\.model_zoo|pkg_resources"),
    _Warning(r"Deprecated call to .pkg_resources", DeprecationWarning, r"pkg_resources"),
    # Detectron2's anchors.
    _Warning(r"torch\.meshgrid: in an upcoming release", UserWarning, r"torch\.functional"),
    # Detectron2 copies the masks in the next step; nothing writes to them.
    _Warning(
        r"The given NumPy array is not writable", UserWarning, r"detectron2\.data\.detection_utils"
    ),
    # Detectron2's AMPTrainer.
    _Warning(r".*torch\.cuda\.amp\.(autocast|GradScaler)", FutureWarning, r"detectron2\."),
    # With AMP the first steps are skipped until the scale fits; the schedule continues.
    _Warning(
        r"Detected call of `lr_scheduler\.step\(\)` before",
        UserWarning,
        r"torch\.optim\.lr_scheduler",
    ),
    # Pillow warns of images of half the size that it refuses.
    _Warning(r"Image size .* could be decompression bomb", RuntimeWarning, r"PIL\."),
    # Damaged EXIF or tags that affect the pixels are an error here; the rest is harmless.
    _Warning(
        r"(Corrupt|Possibly corrupt) EXIF|Metadata Warning, tag|Truncated File Read",
        UserWarning,
        r"PIL\.",
    ),
    # Channels-last weights under DDP.
    _Warning(r"Grad strides do not match bucket view strides", UserWarning, r"torch\.autograd"),
)
# Lines of PyTorch's own log, by logger.
LOG_LINES = {
    # Detectron2 asks for it when it lists the environment
    "torch.utils.cpp_extension": r"No CUDA runtime is found",
    # Detectron2's wrappers of layers
    "torch.fx._symbolic_trace": r"is_fx_tracing will return true",
}


def silence_foreign_warnings() -> None:
    """Silence them in this process and its forks; other processes import the package themselves."""
    for text, kind, module in WARNINGS:
        warnings.filterwarnings("ignore", message=text, category=kind, module=module)
    for name, text in LOG_LINES.items():
        logging.getLogger(name).addFilter(_drops(text))


def _drops(text: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: re.search(text, record.getMessage()) is None
