"""Result records: what was measured, on what, from which weights, by which code. Tables are made from these alone."""

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
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from virtex_det.errors import UserError
from virtex_det.utils import write_atomically

SCHEMA = 2
LIBRARIES = (
    *("torch", "torchvision", "numpy", "pycocotools", "hotcoco", "lvis"),
    *("sal-detectron2", "detectron2", "virtex_det"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """One evaluation of one model on one dataset.

    Attributes:
        protocol: identifier of the recipe, derived from the config; it shows where the run departs from it.
        dataset: name of the dataset evaluated on.
        dataset_version: its number of ``images`` and the ``sha256`` of its annotations.
        train_datasets: names of the datasets trained on.
        train_versions: of each, the same as ``dataset_version``; empty where the data are not at hand.
        train_fraction: part of the training images used, in (0, 1].
        subset_seed: which part.
        train_images: images trained on; None where the data are not at hand.
        manifest_sha256: of their ids.
        empty_categories: those without an instance in the training part.
        seed: seed of the run; negative when it had none.
        iteration: training iterations behind the model evaluated; None where it is not known.
        training_seconds: time that these took, over all resumed parts, without evaluations; None where not known.
        metrics: as Detectron2 nests them, for example ``{"bbox": {"AP": 12.3, ...}, "segm": {...}}``, in
            percent; None where a metric is not defined.
        weights: what the run started from: ``path``, ``sha256`` and ``format`` of the weights file; and
            ``text_encoder``, the name of the pretrained one that these learned with, or that the run learns with.
        evaluated: the same of the file evaluated, when it is not the model in training.
        config_sha256: of the config without what depends on place and machine; of the text of
            ``config.yaml`` in earlier records.
        wall_seconds: time since the run (or this evaluation alone) began.
        sha256: of all other fields, so that a number changed by hand shows.
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
    hardware: dict[str, Any] = dataclasses.field(default_factory=lambda: describe_hardware())
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    code_revision: str = dataclasses.field(default_factory=lambda: code_revision())
    created: str = dataclasses.field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )
    schema: int = SCHEMA
    sha256: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        fields = [field.name for field in dataclasses.fields(self) if field.init]
        object.__setattr__(
            self, "sha256", _fingerprint({name: getattr(self, name) for name in fields})
        )

    def write(self, run_folder: str | Path) -> None:
        """Make this the folder's ``results.json`` and add it to ``results.jsonl``, which keeps every evaluation."""
        _append_line(Path(run_folder) / "results.jsonl", self._as_json())
        self._write_as_last(run_folder)

    def _as_json(self, indent: int | None = None) -> str:
        return json.dumps(dataclasses.asdict(self), allow_nan=False, indent=indent)

    def _write_as_last(self, run_folder: str | Path) -> None:
        write_atomically(Path(run_folder) / "results.json", self._as_json(indent=2) + "\n")


def read_records(run_folder: str | Path) -> list[ResultRecord]:
    """Return every record of a run folder, oldest first; empty where there is none.

    A last line that a crash left half-written is left out, and the log says so.

    Raises:
        UserError: a line is no record of this schema, or has been changed since it was written.
    """
    path = Path(run_folder) / "results.jsonl"
    if not path.exists():
        return []
    whole, half = _whole_lines(path.read_bytes())
    if half:
        logging.getLogger(__name__).warning(
            f"{path}: the last line is half-written and left out; evaluate again."
        )
    return [record_from(_parse(line, where), where) for where, line in _numbered(path, whole)]


def rewrite_records(run_folder: str | Path, records: list[ResultRecord]) -> None:
    """Let a run folder hold these records alone, whole: what a crash left half-written is gone."""
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
    """Return the record that ``dataclasses.asdict`` of it, gone through JSON, gives back.

    Args:
        content: the decoded JSON.
        where: file and line, for errors.

    Raises:
        UserError: it is no record of this schema, or has been changed since it was written.
    """
    if not isinstance(content, Mapping) or "schema" not in content:
        raise UserError(f"{where} is no result record. Remove the line, or evaluate again.")
    if content["schema"] != SCHEMA:
        raise UserError(
            f"{where}: the record has schema {content['schema']}, this version of virtex_det reads {SCHEMA}.\n"
            "Move the file away and evaluate again: tools/train_net.py --eval-only --resume."
        )
    names = {field.name for field in dataclasses.fields(ResultRecord)}
    if odd := sorted(names ^ set(content)):
        raise UserError(
            f"{where}: fields that are unknown or missing: {', '.join(odd)}. Evaluate again."
        )
    fields = {name: content[name] for name in names - {"sha256"}}
    if _fingerprint(fields) != content["sha256"]:
        raise UserError(
            f"{where}: the record is not as it was written: edited by hand or damaged. Evaluate again."
        )
    for name, kind in get_type_hints(ResultRecord).items():
        if name in fields and not _fits(fields[name], kind):
            raise UserError(
                f"{where}: {name} is {json.dumps(fields[name])[:200]}, which no evaluation writes."
            )
    for found in (fields["dataset_version"], *fields["train_versions"].values()):
        if "images" not in found or not isinstance(found.get("sha256"), str):
            raise UserError(
                f"{where}: a data set has the version {json.dumps(found)[:200]}. Evaluate again."
            )
    tuples = {name: tuple(fields[name]) for name in ("train_datasets", "empty_categories")}
    return ResultRecord(**fields | tuples)


def _fits(value: Any, kind: Any) -> bool:
    """Say whether a value that was decoded from JSON is of the kind that a field of a record declares."""
    parts = get_args(kind)
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if kind is float:
        return type(value) in (int, float)
    return kind is Any or type(value) is kind


def _append_line(path: Path, line: str) -> None:
    """Add a line to a file, in place of a last one that a crash left half-written."""
    with path.open("a+b") as file:
        file.seek(0)
        whole, _ = _whole_lines(file.read())
        file.truncate(len(whole))
        file.write((b"" if not whole or whole.endswith(b"\n") else b"\n") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(content: bytes) -> tuple[bytes, bytes]:
    """Part the lines of a file from a half-written last one; one that lacks nothing but the line's end is whole."""
    end = content.rfind(b"\n") + 1
    try:
        json.loads(content[end:].decode())
    except (ValueError, RecursionError):
        return content[:end], content[end:]
    return content, b""


def _numbered(path: Path, lines: bytes) -> list[tuple[str, str]]:
    texts = lines.decode(errors="replace").splitlines()
    return [(f"{path}, line {number}", text) for number, text in enumerate(texts, 1)]


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not JSON: {error}. Remove the line, or evaluate again."
        ) from error


def _fingerprint(fields: Mapping[str, Any]) -> str:
    return sha256_of(json.dumps(fields, sort_keys=True, separators=(",", ":")))


def sha256_of(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def describe_hardware() -> dict[str, Any]:
    """Return the processor, its usable cores, and the GPU if PyTorch finds one."""
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
    """Return the git commit of this package, with ``-dirty`` after uncommitted changes; "unknown" outside a clone."""
    try:
        _git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # installed below another repository, it is not of it
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
