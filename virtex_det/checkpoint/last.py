"""``last_checkpoint``, the file in a run folder that names the checkpoint to resume from."""

import os
from pathlib import Path

from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.utils import write_atomically

LAST_CHECKPOINT = "last_checkpoint"
_FINAL = "model_final.pth"
_LONGEST_NAME = 255  # bytes, of most file systems
_MAX_TAG = 1 << 16  # bytes


def find_last(folder: str | Path) -> str:
    """Return the path of a run's last checkpoint; "" without ``last_checkpoint`` or a folder.

    Raises:
        UserError: ``last_checkpoint`` or the file that it names in the folder is not a file.
    """
    tag = Path(folder) / LAST_CHECKPOINT
    if folder == "" or not tag.exists():
        return ""
    name = read_regular(tag, _MAX_TAG).decode(errors="replace").strip()
    is_name = Path(name).name == name and len(name.encode()) <= _LONGEST_NAME
    if not (name and is_name and tag.with_name(name).is_file()):
        raise UserError(
            f"{tag} names {name[:_LONGEST_NAME]!r}, which is not a file in this folder. "
            f"{other_checkpoints(folder, name)}"
        )
    return str(tag.with_name(name))


def run_weights(folder: str | Path) -> str:
    """Return the path of a run's last checkpoint, or else of its ``model_final.pth``.

    Raises:
        UserError: the folder has neither.
    """
    final = Path(folder) / _FINAL
    found = find_last(folder) or (str(final) if final.is_file() else "")
    if not found:
        others = sorted(path.name for path in Path(folder).glob("[!.]*.pth"))
        has = f"; it has {', '.join(others[-5:])}" if others else ""
        raise UserError(
            f"{folder} has no trained weights: neither {LAST_CHECKPOINT} nor {_FINAL}{has}.\n"
            "Train the run to its end, or name a weights file."
        )
    return found


def check_finished(run: str | os.PathLike[str]) -> None:
    """Refuse a run folder whose last checkpoint is not that of the end of the training.

    Raises:
        UserError: names the checkpoint, which may be used by its own name.
    """
    last = Path(find_last(Path(run)) if Path(run).is_dir() else _FINAL)
    if last.name not in ("", _FINAL):
        raise UserError(
            f"{run} has not finished: its last checkpoint is {last.name}, not {_FINAL}.\n"
            f"Train the run to its end with --resume, or name the checkpoint: {last}"
        )


def name_last(folder: str | Path, name: str) -> None:
    """Write ``last_checkpoint``, whole or not at all."""
    write_atomically(Path(folder) / LAST_CHECKPOINT, name)


def adopt_last(folder: str | Path) -> None:
    """Write a missing ``last_checkpoint`` if the run folder has one checkpoint.

    The file is missing if it was lost or the run was killed before writing it. Without it the run
    would start again and overwrite its checkpoints.

    Raises:
        UserError: there are several checkpoints, so the last one is unknown.
    """
    found = sorted(path.name for path in Path(folder).glob("model_*.pth") if path.is_file())
    if not found or (Path(folder) / LAST_CHECKPOINT).exists():
        return
    if len(found) > 1:
        raise UserError(
            f"{Path(folder) / LAST_CHECKPOINT} is missing. {other_checkpoints(folder)}\n"
            "To start again, set another OUTPUT_DIR."
        )
    name_last(folder, found[0])


def other_checkpoints(folder: str | Path, name: str = "") -> str:
    """Return advice for a checkpoint that cannot be used: the folder's other checkpoints.

    Args:
        folder: of the run.
        name: of the unusable checkpoint; "" if ``last_checkpoint`` is missing.
    """
    others = sorted(path.name for path in Path(folder).glob("[!.]*.pth") if path.name != name)
    if not others:
        return f"There is no other checkpoint in {folder}; start again in another OUTPUT_DIR."
    tag = Path(folder) / LAST_CHECKPOINT
    kind = "Other checkpoints" if name else "Checkpoints"
    return f"{kind} there: {', '.join(others[-5:])}. To resume from one, write its name into {tag}."
