"""Result records: what was measured, on what, from which weights, by which code. Tables are made from these alone."""

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from virtex_det.utils import write_atomically

SCHEMA = 1
LIBRARIES = ("torch", "torchvision", "numpy", "pycocotools", "sal-detectron2", "detectron2", "virtex_det")


@dataclasses.dataclass(frozen=True)
class ResultRecord:
    """One evaluation of one model on one dataset.

    Attributes:
        protocol: identifier of the recipe, empty when none is claimed.
        dataset: name of the dataset evaluated on.
        train_datasets: names of the datasets trained on.
        train_fraction: part of the training images used, in (0, 1].
        subset_seed: which part.
        seed: seed of the run; negative when it had none.
        iteration: training iterations behind the model evaluated; None where it is not known.
        metrics: as Detectron2 nests them, for example ``{"bbox": {"AP": 12.3, ...}, "segm": {...}}``, in
            percent; None where a metric is not defined.
        weights: what the run started from: ``path``, ``sha256`` and ``format`` of the weights file.
        evaluated: the same of the file evaluated, when it is not the model in training.
        config_sha256: of the full config, as ``config.yaml`` in the run folder shows it.
        wall_seconds: time since the run (or this evaluation alone) began.
    """

    protocol: str
    dataset: str
    train_datasets: tuple[str, ...]
    train_fraction: float
    subset_seed: int
    seed: int
    iteration: int | None
    metrics: dict[str, dict[str, float | None]]
    weights: dict[str, str]
    evaluated: dict[str, str]
    config_sha256: str
    wall_seconds: float
    hardware: dict[str, Any] = dataclasses.field(default_factory=lambda: describe_hardware())
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    code_revision: str = dataclasses.field(default_factory=lambda: code_revision())
    created: str = dataclasses.field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    schema: int = SCHEMA

    def write(self, run_folder: str | Path) -> None:
        """Make this the folder's ``results.json`` and add it to ``results.jsonl``, which keeps every evaluation."""
        folder = Path(run_folder)
        line = json.dumps(dataclasses.asdict(self))
        with (folder / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        write_atomically(folder / "results.json", json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def read_records(run_folder: str | Path) -> list[ResultRecord]:
    """Return every record of a run folder, oldest first; empty where there is none."""
    path = Path(run_folder) / "results.jsonl"
    if not path.exists():
        return []
    return [ResultRecord(**json.loads(line)) for line in path.read_text().splitlines()]


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

    hardware: dict[str, Any] = {"machine": platform.machine(), "cpu": _cpu_name(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        hardware |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()}
    return hardware


def code_revision() -> str:
    """Return the git commit of this package, with ``-dirty`` after uncommitted changes; "unknown" outside a clone."""
    root = Path(__file__).resolve().parents[2]
    try:
        return subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
