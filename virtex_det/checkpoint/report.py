"""The report of a load: the result for every tensor, logged as a table and written as JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from virtex_det.checkpoint.names import from_detectron2
from virtex_det.escaping import visible
from virtex_det.utils import write_atomically

RANDOM_INIT = "random init"
OTHER_LAYERS = "other layers"
_REPORT_NAME = "load_report.json"
_STAGES = ("stem", "res2", "res3", "res4", "res5", OTHER_LAYERS)


class Mismatch(NamedTuple):
    """A tensor whose shape in the file differs from the model's."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.name} {list(self.file_shape)} in the file, {list(self.model_shape)} in the "
            "model"
        )


class LoadReport(NamedTuple):
    """The result for every tensor when weights are loaded into a model."""

    format: str  # family of the file, such as "virtex"
    loaded: tuple[str, ...] = ()  # names in the model that received a tensor
    missing: tuple[str, ...] = ()  # required names in the model that the file lacks
    mismatched: tuple[Mismatch, ...] = ()  # names in the model with another shape in the file
    unused: tuple[str, ...] = ()  # names in the file that were not loaded
    sha256: str = ""  # of the file
    path: str = ""  # as the config gave it
    partial: bool = False  # the load is incomplete, as ALLOW_PARTIAL_WEIGHTS permits
    note: str = ""  # remark on the family
    location: str = ""  # keys and prefix of the network in the file; "." is the top level
    choice: str = ""  # which other networks the file has, and why this one was chosen
    assumed: str = ""  # facts of the network that neither the tensors nor a config show
    # statistics of frozen norms that the file folds into scales and biases; set to 0 and 1
    folded: tuple[str, ...] = ()
    # prefixes of the model's other networks, which stay unchanged
    also_in_model: tuple[str, ...] = ()
    # name of the pretrained text encoder that the model has, or that the weights learned with
    text_encoder: str = ""

    def table(self) -> str:
        """Return the numbers of tensors per stage as a short table."""
        groups = (
            by_stage(self.loaded),
            by_stage(self.missing),
            by_stage(m.name for m in self.mismatched),
        )
        rows = [[stage, *(len(group.get(stage, ())) for group in groups)] for stage in _STAGES]
        total = ["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))]
        table = tabulate(
            [*(row for row in rows if any(row[1:])), total],
            ["stage", "loaded", "missing", "other shape"],
        )
        remarks = {
            "network at": self.location,
            "choice": self.choice,
            "assumed": self.assumed,
            "note": self.note,
            "text encoder": self.text_encoder,
        }
        if self.folded:
            remarks["folded"] = (
                f"{len(self.folded)} statistics are folded into scales and biases; set to 0 and 1"
            )
        remarks["not filled"] = self.not_filled()
        lines = "".join(f"\n{title}: {text}" for title, text in remarks.items() if text)
        return visible(f"{table}\nunused tensors of the file: {some(self.unused)}{lines}")

    def not_filled(self) -> str:
        """Return a sentence on the model's other networks, which stay unchanged; "" for none."""
        places = " and ".join(self.also_in_model)
        return f"the model's other network at {places} stays as it was built" if places else ""

    def to_json(self) -> str:
        """Return every field as JSON."""
        fields = self._asdict() | {
            "mismatched": [mismatch._asdict() for mismatch in self.mismatched]
        }
        return json.dumps(fields, indent=2) + "\n"

    def write(self, run_folder: str | Path) -> None:
        """Write ``load_report.json`` into a run folder."""
        write_atomically(Path(run_folder) / _REPORT_NAME, self.to_json())


def by_stage(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the names of a model's tensors by stage of the ResNet."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stage(name), []).append(name)
    return {stage: groups[stage] for stage in _STAGES if stage in groups}


def _stage(name: str) -> str:
    layer = from_detectron2(name)
    return layer.partition(".")[0] if layer else OTHER_LAYERS


def some(items: Iterable[str], shown: int = 3) -> str:
    """Return the first few items in a line, and the number of the others."""
    items = list(items)
    more = f"; and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(items[:shown]) + more if items else "none"
