"""Result records: what was measured, on what, from which weights, by which code.

Tables, plots and pages are made from records alone.
"""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from virtex_det.errors import UserError
from virtex_det.utils import write_atomically

SCHEMA = 2
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "pycocotools",
    "hotcoco",
    "lvis",
    "sal-detectron2",
    "detectron2",
    "virtex_det",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """One evaluation of one model on one dataset.

    Attributes:
        protocol: id of the protocol that the run's config follows, with its departures.
        dataset: name of the dataset evaluated on.
        dataset_version: its number of ``images`` and the ``sha256`` of its annotations.
        train_datasets: names of the datasets trained on.
        train_versions: the version of each; empty if the training data are missing.
        train_fraction: fraction of the training images used, in (0, 1].
        subset_seed: seed that drew them.
        train_images: number of images trained on; None if the training data are missing.
        manifest_sha256: hash of their ids.
        empty_categories: categories without an instance among them.
        seed: seed of the run; negative for none.
        iteration: training iterations of the evaluated model; None if unknown.
        training_seconds: time in training steps, over all resumed parts; None if unknown.
        metrics: in percent, nested as Detectron2 does, e.g. ``{"bbox": {"AP": 12.3, ...}}``; None
            for a metric that is not defined.
        weights: ``path``, ``sha256`` and ``format`` of the weights that the run started from; and
            ``text_encoder``, the name of the pretrained one that it or they learned with.
        evaluated: the same of the evaluated file; empty for the model in training.
        config_sha256: hash of the config without what depends on place and machine; in earlier
            records, of the text of ``config.yaml``.
        wall_seconds: time since the run, or an evaluation by itself, began.
        plugins: the sha256 of each plugin that the process had imported, by name; a record without
            plugins has no such field in its file.
        sha256: hash of all other fields, which reveals edits by hand.
    """

    protocol: str
    dataset: str
    dataset_version: dict[str, Any]
    train_datasets: tuple[str, ...]
    train_versions: dict[str, dict[str, Any]]
    train_fraction: float
    subset_seed: int
    train_images: int | None
    manifest_sha256: str
    empty_categories: tuple[str, ...]
    seed: int
    iteration: int | None
    training_seconds: float | None
    metrics: dict[str, dict[str, float | None]]
    weights: dict[str, str]
    evaluated: dict[str, str]
    config_sha256: str
    wall_seconds: float
    plugins: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware: dict[str, Any] = dataclasses.field(default_factory=lambda: describe_hardware())
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    code_revision: str = dataclasses.field(default_factory=lambda: code_revision())
    created: str = dataclasses.field(default_factory=lambda: _now())
    schema: int = SCHEMA
    sha256: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self) if field.init]
        sha256 = _fingerprint({name: getattr(self, name) for name in names})
        object.__setattr__(self, "sha256", sha256)

    def data_versions(self) -> dict[str, dict[str, Any]]:
        """Return the versions of the data trained and evaluated on, by name of the dataset."""
        return self.train_versions | {self.dataset: self.dataset_version}

    def flat_metrics(self) -> dict[str, float | None]:
        """Return the metrics by names such as "bbox/AP"."""
        values: dict[str, float | None] = {}
        for task, of_task in self.metrics.items():
            values |= {f"{task}/{name}": value for name, value in of_task.items()}
        return values

    def write(self, run_folder: str | Path) -> None:
        """Write the record to ``results.json``, and append it to ``results.jsonl``."""
        _append_line(Path(run_folder) / "results.jsonl", self._as_json())
        self._write_as_last(run_folder)

    def _as_json(self, indent: int | None = None) -> str:
        return json.dumps(_without_empty(dataclasses.asdict(self)), allow_nan=False, indent=indent)

    def _write_as_last(self, run_folder: str | Path) -> None:
        write_atomically(Path(run_folder) / "results.json", self._as_json(indent=2) + "\n")


def read_records(run_folder: str | Path) -> list[ResultRecord]:
    """Return every record of a run folder, oldest first; empty where there is none.

    A last line that a crash left half-written is skipped with a warning.

    Raises:
        UserError: a line is not a record of this schema, or has changed since it was written.
    """
    path = Path(run_folder) / "results.jsonl"
    if not path.exists():
        return []
    whole, half = _whole_lines(path.read_bytes())
    if half:
        logging.getLogger(__name__).warning(
            f"{path}: the last line is half-written and skipped; evaluate again."
        )
    records = []
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), start=1):
        where = f"{path}, line {number}"
        records.append(record_from(_parse(line, where), where))
    return records


def rewrite_records(run_folder: str | Path, records: list[ResultRecord]) -> None:
    """Replace the records of a run folder; a line that a crash left half-written goes, too."""
    folder = Path(run_folder)
    path = folder / "results.jsonl"
    if not path.exists():
        return
    text = "".join(f"{record._as_json()}\n" for record in records)
    if path.read_text(errors="replace") != text:
        write_atomically(path, text)
    if records:
        records[-1]._write_as_last(folder)
    else:
        (folder / "results.json").unlink(missing_ok=True)


def record_from(content: Any, where: str) -> ResultRecord:
    """Return the record with the fields of a JSON object.

    Args:
        content: the decoded JSON.
        where: file and line, for errors.

    Raises:
        UserError: it is not a record of this schema, or has changed since it was written.
    """
    if not isinstance(content, Mapping) or "schema" not in content:
        raise UserError(f"{where} is not a result record. Remove the line, or evaluate again.")
    if content["schema"] != SCHEMA:
        raise UserError(
            f"{where}: the record has schema {content['schema']}, but this version of virtex_det "
            f"reads {SCHEMA}.\nMove the file away and evaluate again: "
            "tools/train_net.py --eval-only --resume."
        )
    names = {field.name for field in dataclasses.fields(ResultRecord)}
    if odd := sorted(names ^ {*content, "plugins"}):
        raise UserError(f"{where}: unknown or missing fields: {', '.join(odd)}. Evaluate again.")
    fields = {name: content[name] for name in content if name != "sha256"}
    if _fingerprint(fields) != content["sha256"]:
        raise UserError(
            f"{where}: the record has changed since it was written: edited by hand or damaged. "
            "Evaluate again."
        )
    try:
        msgspec.convert(content, ResultRecord)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}. Evaluate again.") from error
    for found in (fields["dataset_version"], *fields["train_versions"].values()):
        if "images" not in found or not isinstance(found.get("sha256"), str):
            raise UserError(
                f"{where}: the version of a data set is {json.dumps(found)[:200]}, but must have "
                "images and sha256. Evaluate again."
            )
    tuples = {name: tuple(fields[name]) for name in ("train_datasets", "empty_categories")}
    return ResultRecord(**fields | tuples)


def _append_line(path: Path, line: str) -> None:
    """Append a line to a file; it replaces a last line that a crash left half-written."""
    with path.open("a+b") as file:
        file.seek(0)
        whole, _ = _whole_lines(file.read())
        file.truncate(len(whole))
        file.write((b"" if not whole or whole.endswith(b"\n") else b"\n") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(content: bytes) -> tuple[bytes, bytes]:
    """Split off a half-written last line; one that only lacks its line feed is whole."""
    end = content.rfind(b"\n") + 1
    try:
        json.loads(content[end:].decode())
    except (ValueError, RecursionError):
        return content[:end], content[end:]
    return content, b""


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not JSON: {error}. Remove the line, or evaluate again."
        ) from error


def _fingerprint(fields: Mapping[str, Any]) -> str:
    return sha256_of(json.dumps(_without_empty(fields), sort_keys=True, separators=(",", ":")))


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out ``plugins`` if there are none: records of earlier versions have no such field."""
    return {name: value for name, value in fields.items() if value or name != "plugins"}


def sha256_of(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that affect results."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def describe_hardware() -> dict[str, Any]:
    """Return the processor, its cores, and the GPU if PyTorch finds one."""
    import torch

    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_available():
        hardware |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()}
    return hardware


def code_revision() -> str:
    """Return the git commit of this package, "unknown" outside a clone.

    It ends with ``-dirty`` if the package or its configs differ from that commit, in new files
    too. Other files may differ, as records that a matrix adds to ``results/`` do.
    """
    try:
        # Fails if the package is installed inside another repository.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        revision = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--", "..", "../../configs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{revision}-dirty" if changes else revision


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
