"""Errors of building, reading and training as short messages that say what to do."""

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch.optim import Optimizer

from virtex_det.checkpoint.last import LAST_CHECKPOINT
from virtex_det.errors import UserError

# If set, every command shows the traceback of its error.
TRACEBACK = "VIRTEX_DET_TRACEBACK"
# The keys that determine a model most.
MODEL_KEYS = ("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.ROI_HEADS.NAME")
# No file can be written: no permission, no space, a file instead of a folder, or the reverse.
_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ELOOP,
}
_REFUSALS |= {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ESTALE,
    errno.EBUSY,
    errno.ENOTEMPTY,
}
_VIRTUAL = ("/proc", "/sys", "/dev")  # kernel folders, which report a refused file as missing
# Messages of gloo, NCCL and the process group's store after another process has ended.
_PEER_ENDED = (
    "connection (reset|closed) by peer|remote process exited|remote server shutdown|"
    "NCCL communicator was aborted|application timeout caused pair closure|"
    "TCPStore.*broken pipe|broken pipe.*TCPStore"
)
_LINES, _COLUMNS = 6, 300  # shown of a message from another library


def explain(error: BaseException | None) -> str | None:
    """Return the message for an error that a user can correct, None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return _out_of_gpu_memory(error)
    if isinstance(error, MemoryError):
        return _out_of_memory(error)
    if isinstance(error, FloatingPointError):
        return f"{_first_lines(error)}\n{_STEADIER}"
    if isinstance(error, OSError):
        return _refused_file(error)
    if isinstance(error, RuntimeError):
        return _by_its_text(error)
    return None


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error is the effect of another process's end."""
    return isinstance(error, RuntimeError) and bool(
        re.search(_PEER_ENDED, str(error), re.IGNORECASE)
    )


@contextmanager
def building(what: str, cfg: CfgNode, *keys: str) -> Iterator[None]:
    """Turn errors of building a part of a run, or of its first step, into UserErrors.

    Most of them are values that contradict each other, which checks of single keys cannot see; some
    are bugs. So the traceback goes into the run's ``log.txt``, which the message names.

    Args:
        what: the part, such as "model".
        cfg: the full config.
        keys: what decides the part; the message shows their values.
    """
    try:
        yield
    except Exception as error:
        if explain(error) is not None:
            raise
        settings = ", ".join(f"{key} {reduce(getattr, key.split('.'), cfg)}" for key in keys)
        raise UserError(
            f"The {what} does not work with this config: {type(error).__name__}: "
            f"{_first_lines(error)}\n"
            f"Check the keys that decide it, {settings}, and those of the same sections.\n"
            f"{_keep_traceback(error, cfg.OUTPUT_DIR)}"
        ) from error


def diverged(error: FloatingPointError, optimizer: Optimizer, cfg: CfgNode) -> UserError:
    """Return the error for a training whose loss became infinite or NaN."""
    rates = sorted({f"{group['lr']:.3g}" for group in optimizer.param_groups})
    last = Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT
    saved = "Nothing was saved"
    if last.is_file():
        saved = f"The last checkpoint is {last.parent / last.read_text(errors='replace').strip()}"
    return UserError(
        f"Training has diverged. {_first_lines(error)}\n"
        f"The learning rate was {', '.join(rates)} (SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}, "
        f"IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}, WARMUP_ITERS {cfg.SOLVER.WARMUP_ITERS}).\n"
        f"{_STEADIER}\n{saved}."
    )


_STEADIER = (
    "To make training stable, try in this order: a lower SOLVER.BASE_LR (half the IMS_PER_BATCH "
    "needs half the rate), a longer SOLVER.WARMUP_ITERS, SOLVER.CLIP_GRADIENTS.ENABLED True, "
    "SOLVER.AMP.ENABLED False, and the INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD that "
    "MODEL.WEIGHTS was trained with."
)


def _out_of_gpu_memory(error: BaseException) -> str:
    return (
        f"The GPU's memory is full: {_first_lines(error, 1)}\n"
        "Set a smaller SOLVER.IMS_PER_BATCH (and SOLVER.BASE_LR with it) or INPUT.MAX_SIZE_TRAIN, "
        "or SOLVER.AMP.ENABLED True; in evaluation a smaller DATALOADER.TEST_BATCH_SIZE. "
        "nvidia-smi shows who else uses the GPU."
    )


def _out_of_memory(error: BaseException) -> str:
    detail = f": {_first_lines(error, 1)}" if str(error) else ""
    return (
        f"The memory is full{detail}\n"
        "Set a smaller SOLVER.IMS_PER_BATCH, INPUT.MAX_SIZE_TRAIN or DATALOADER.NUM_WORKERS, and "
        "check that no size in the config is far too large."
    )


def _lost_worker(error: BaseException) -> str:
    return (
        f"A process that loads data has ended: {_first_lines(error, 1)}\n"
        "The usual causes are full memory (`dmesg` then shows a killed process) and, in a "
        "container, a full /dev/shm. Give it more (docker run --shm-size 8g, or --ipc host), or "
        "set a smaller DATALOADER.NUM_WORKERS. 0 loads in the main process, which shows any other "
        "cause."
    )


def _wrong_index(error: BaseException) -> str:
    return (
        f"An index on the GPU is out of range: {_first_lines(error, 1)}\n"
        "The usual cause is a class beyond the model's NUM_CLASSES or a token beyond its "
        "vocabulary. MODEL.DEVICE cpu shows where."
    )


def _no_group(error: BaseException) -> str:
    return (
        f"The processes of the run do not find each other: {_first_lines(error, 2)}\n"
        "Each needs the same --num-machines and --dist-url (tcp://ADDRESS:PORT with the address "
        "of the first machine and a free port), or under torchrun the same --rdzv-endpoint or "
        "--master-port."
    )


def _lost_peer(error: BaseException) -> str:
    return (
        f"Another process of the run has ended: {_first_lines(error, 1)}\n"
        "The last lines that it printed say why. Correct that, and go on with --resume."
    )


_WORKER_ENDED = (
    "DataLoader worker .*(exited unexpectedly|is killed by signal)|"
    "unable to (open|mmap|write to).*shared memory"
)
_NOT_CONNECTED = (
    "EADDRINUSE|address already in use|client socket has (failed|timed out)|connection.* refused"
)
# Errors that PyTorch raises as a plain RuntimeError, by their text.
_TEXTS: dict[str, Callable[[BaseException], str]] = {
    _WORKER_ENDED: _lost_worker,
    "CUDA out of memory|CUDA error: out of memory": _out_of_gpu_memory,
    "can't allocate memory|Cannot allocate memory": _out_of_memory,
    "device-side assert": _wrong_index,
    _PEER_ENDED: _lost_peer,
    _NOT_CONNECTED: _no_group,
}


def _by_its_text(error: BaseException) -> str | None:
    text = str(error)
    for pattern, message in _TEXTS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return message(error)
    return None


def _refused_file(error: OSError) -> str | None:
    place = error.filename2 or error.filename
    if error.errno == errno.ENOMEM:
        return _out_of_memory(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"Too many files are open at once: {error}.\n"
            "Raise the limit (ulimit -n 65536), or set a smaller DATALOADER.NUM_WORKERS."
        )
    is_virtual = str(place or "").startswith(_VIRTUAL)
    if error.errno in _REFUSALS or is_virtual:
        return (
            f"Cannot read or write {place or 'a file'}: {error.strerror}.\n"
            "Check the path, its permissions and the free space on the disk."
        )
    return None


def _first_lines(error: BaseException, lines: int = _LINES) -> str:
    shown = [line[:_COLUMNS] for line in str(error).strip().splitlines()[:lines]]
    return "\n".join(shown) or _place(error)


def _place(error: BaseException) -> str:
    """Return the line of code of an error without a message, such as an assertion."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{last.line} ({Path(last.filename).name}:{last.lineno})"


def _keep_traceback(error: BaseException, folder: str) -> str:
    """Write an error's traceback to the run's log, if there is one, and return where to read it."""
    log = Path(folder) / "log.txt"
    if not folder or not log.is_file():
        return f"Put {TRACEBACK}=1 before the command to see the traceback."
    with log.open("a") as file:
        file.writelines(traceback.format_exception(error))
    return f"The traceback is at the end of {log}."


def wants_traceback() -> bool:
    """Return whether the user wants tracebacks."""
    return bool(os.environ.get(TRACEBACK))
