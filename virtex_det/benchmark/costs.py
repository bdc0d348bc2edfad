"""What a run has cost, as a file of its folder."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from virtex_det.errors import UserError
from virtex_det.text_files import read_bytes
from virtex_det.utils import write_atomically

COST = "cost.json"

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class RunCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the training steps of a complete run have cost, over all resumed parts.

    Evaluations, precise batch norm and checkpoints do not count.

    Attributes:
        iterations: of the run.
        images: seen by all processes, each as often as it was drawn.
        captions_per_image: in one step; None for a run without captions.
        training_seconds: by the clock; None if unknown.
        cpu_seconds: of the processor, summed over all processes and the workers of their loaders;
            None if unknown.
        processes: of the run's last part, without workers.
    """

    iterations: _Count
    images: _Count
    captions_per_image: _Count | None
    training_seconds: _Seconds | None
    cpu_seconds: _Seconds | None
    processes: _Count

    def as_json(self) -> dict[str, Any]:
        """Return the fields, as ``cost_from`` takes them."""
        return msgspec.structs.asdict(self)

    def write(self, run_folder: str | Path) -> None:
        """Write ``cost.json``."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=1).decode()
        write_atomically(Path(run_folder) / COST, text + "\n")


def read_cost(run_folder: str | Path) -> RunCost | None:
    """Return what a complete run has cost, None if its folder does not say.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(run_folder) / COST
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(read_bytes(path), type=RunCost)
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path} is damaged: {error}\nPut it back from a copy, or delete it: pages then do not "
            "say what the run has cost."
        ) from error


def cost_from(content: Any, where: str) -> RunCost:
    """Return the cost with the fields of a JSON object.

    Args:
        content: the decoded JSON.
        where: file and line, for errors.

    Raises:
        UserError: it is not a cost.
    """
    try:
        return msgspec.convert(content, RunCost)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{where}: the cost of its pretraining is damaged: {error}\nPut the line back from a "
            "copy, or make the file again from the runs."
        ) from error
