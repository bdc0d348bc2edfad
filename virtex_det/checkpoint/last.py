"""The file of a run folder that names the checkpoint to go on from."""

from pathlib import Path

from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.utils import write_atomically

LAST_CHECKPOINT = "last_checkpoint"
_FINAL = "model_final.pth"
_LONGEST_NAME = 255  # bytes, of most file systems
_MAX_TAG = 1 << 16  # bytes


def find_last(folder: str | Path) -> str:
    """Return the path of a run's last checkpoint, "" where its folder names none, or there is no folder.

    Raises:
        UserError: ``last_checkpoint`` names no file of the folder, or is none itself.
    """
    tag = Path(folder) / LAST_CHECKPOINT
    if folder == "" or not tag.exists():
        return ""
    name = read_regular(tag, _MAX_TAG).decode(errors="replace").strip()
    is_name = Path(name).name == name and len(name.encode()) <= _LONGEST_NAME
    if not (name and is_name and tag.with_name(name).is_file()):
        raise UserError(
            f"{tag} names {name[:_LONGEST_NAME]!r}, which is no file of this folder. "
            f"{other_checkpoints(folder, name)}"
        )
    return str(tag.with_name(name))


def run_weights(folder: str | Path) -> str:
    """Return the path of a run's trained weights: its last checkpoint, else its ``model_final.pth``.

    Raises:
        UserError: the folder has neither.
    """
    final = Path(folder) / _FINAL
    found = find_last(folder) or (str(final) if final.is_file() else "")
    if not found:
        others = sorted(path.name for path in Path(folder).glob("[!.]*.pth"))
        there = f"; it has {', '.join(others[-5:])}" if others else ""
        raise UserError(
            f"{folder} holds no trained weights: neither {LAST_CHECKPOINT} nor {_FINAL}{there}.\n"
            "Train the run to its end, or name a weights file."
        )
    return found


def name_last(folder: str | Path, name: str) -> None:
    """Write, whole or not at all, which file of a run folder to go on from."""
    write_atomically(Path(folder) / LAST_CHECKPOINT, name)


def adopt_last(folder: str | Path) -> None:
    """Name the checkpoint of a run folder that has lost its ``last_checkpoint``, or in which a kill came before it.

    Without it the run would begin anew, and write over its checkpoints.

    Raises:
        UserError: there are several, and nothing tells which is the last one.
    """
    found = sorted(path.name for path in Path(folder).glob("model_*.pth") if path.is_file())
    if not found or (Path(folder) / LAST_CHECKPOINT).exists():
        return
    if len(found) > 1:
        raise UserError(
            f"{Path(folder) / LAST_CHECKPOINT} is missing. {other_checkpoints(folder)}\n"
            "To begin anew, name another OUTPUT_DIR."
        )
    name_last(folder, found[0])


def other_checkpoints(folder: str | Path, name: str = "") -> str:
    """Return what to do where a checkpoint cannot be used: which others the folder has.

    Args:
        folder: of the run.
        name: of the checkpoint.
    """
    others = sorted(path.name for path in Path(folder).glob("[!.]*.pth") if path.name != name)
    if not others:
        return f"There is no other checkpoint in {folder}; start anew in another OUTPUT_DIR."
    tag = Path(folder) / LAST_CHECKPOINT
    kind = "Other checkpoints" if name else "Checkpoints"
    return f"{kind} there: {', '.join(others[-5:])}. To go on from one, write its name into {tag}."
