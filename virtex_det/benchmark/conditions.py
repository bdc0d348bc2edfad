"""What was equal in a comparison and what was not, in sentences: read from its records, not from intentions."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.rows import share

Records = Mapping[Cell, ResultRecord]


def conditions(comparison: Comparison) -> list[str]:
    """Return what a reader must know before believing a difference between two rows."""
    records = comparison.records
    return [
        *_evaluation(records),
        *_protocol(records),
        *_labels(records),
        *_seeds(records),
        *_compute(records),
        *_weights(records),
        *_empty_categories(records),
        *_surroundings(records),
    ]


def logged_seconds(run_folder: str | Path) -> float | None:
    """Return the time a run spent in training steps, from its ``metrics.json``; interruptions do not count.

    Lines that a crash left half-written say nothing.
    """
    path = Path(run_folder) / "metrics.json"
    if not path.exists():
        return None
    seconds, previous = 0.0, -1
    for line in path.read_text(errors="replace").splitlines():
        step, iteration = _timed(line)
        if iteration > previous:
            seconds += step * (iteration - previous)
            previous = iteration
    return seconds


def _timed(line: str) -> tuple[float, int]:
    """Return the seconds per step and the iteration of a line of the log; iteration -1 where it does not tell."""
    try:
        row = json.loads(line)
        step, iteration = row["time"], row["iteration"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0.0, -1
    return (step, iteration) if type(step) in (float, int) and type(iteration) is int else (0.0, -1)


class Cost(NamedTuple):
    """What a run of a start takes in training steps, in seconds, as a mean; None where that is not known.

    Attributes:
        pretraining: of its weights, 0 without any; how often is ``times``.
        times: sets of weights that were pretrained.
        finetuning: per run.
    """

    pretraining: float | None
    times: int
    finetuning: float | None


def costs(comparison: Comparison) -> dict[str, Cost]:
    """Return by start what it cost: pretraining from the log beside its weights, fine-tuning from the records."""
    by_start = defaultdict(list)
    for cell, record in comparison.records.items():
        by_start[cell.start].append(record)
    return {start: _cost(records) for start, records in by_start.items()}


def _cost(records: Sequence[ResultRecord]) -> Cost:
    paths = {record.weights.get("path", "") for record in records} - {""}
    pretraining = [logged_seconds(Path(path).parent) for path in paths] or [0.0]
    return Cost(_mean(pretraining), len(paths), _mean([record.training_seconds for record in records]))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Example:
        >>> duration(45), duration(540), duration(9000)
        ('45 s', '9.0 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _evaluation(records: Records) -> list[str]:
    found = {(record.dataset, record.dataset_version.get("images")) for record in records.values()}
    sets = " and ".join(f"{dataset} ({images} images)" for dataset, images in sorted(found, key=str))
    if len(found) > 1:
        return [f"Not equal: what the runs are evaluated on, {sets}."]
    return [f"Equal: what all runs are evaluated on, {sets}, in the same version."]


def _protocol(records: Records) -> list[str]:
    ids = sorted({record.protocol for record in records.values()})
    if len(ids) > 1:
        return [f"Not equal: the protocol. Numbers of {', '.join(ids)} are not to be compared with each other."]
    return [
        f"Equal: detector, schedule, batch, learning rates, augmentation and metric, all as in {ids[0]}. How pixels "
        "are normalised goes with the weights."
    ]


def _labels(records: Records) -> list[str]:
    manifests = defaultdict(set)
    for cell, record in records.items():
        manifests[cell.protocol, cell.fraction, cell.seed].add(record.manifest_sha256)
    if any("" in found for found in manifests.values()):
        return ["Not known: whether all starts saw the same labelled images; some records do not say."]
    if odd := [key for key, found in manifests.items() if len(found) > 1]:
        where = ", ".join(f"{share(fraction)} seed {seed}" for _, fraction, seed in odd)
        return [f"Not equal: the labelled images, at {where}: the starts were trained on different ones."]
    return ["Equal: the labelled images of each part and seed; the hash of their ids is the same in every start."]


def _seeds(records: Records) -> list[str]:
    groups = _seeds_of_rows(records)
    seeds = sorted({seed for found in groups.values() for seed in found})
    said = f"Seeds: {', '.join(map(str, seeds))}. One draws the labelled images, the new layers and the order of images"
    sentences = [f"{said}; it is shared by all starts."]
    if short := [row for row, found in groups.items() if len(found) < len(seeds)]:
        named = ", ".join(f"{start} at {share(fraction)}" for start, _, fraction in short)
        sentences.append(f"Not equal: the number of seeds. Fewer than {len(seeds)} have: {named}.")
    return sentences


def _compute(records: Records) -> list[str]:
    if not any(record.weights.get("path") for record in records.values()):
        return []
    return [
        "Not equal: total compute. A pretrained start has had its pretraining on top of the same fine-tune. With "
        "enough labels and iterations a random start catches up."
    ]


def _weights(records: Records) -> list[str]:
    """Say whether the spread over seeds has pretraining in it, and which start is several in truth."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell, record in records.items():
        if sha256 := record.weights.get("sha256"):
            found[cell.start][cell.seed].add(sha256)
    said = defaultdict(list)
    for start, by_seed in found.items():
        if any(len(of_seed) > 1 for of_seed in by_seed.values()):
            said["Not equal: the weights of {}. Runs of one seed began from several files."].append(start)
        elif len(set.union(*by_seed.values())) < len(by_seed):
            said["One set of weights serves several seeds of {}: the spread has no pretraining in it."].append(start)
        elif len(by_seed) > 1:
            said["Each seed of {} has weights of its own: the spread has pretraining in it."].append(start)
    return [sentence.format(", ".join(starts)) for sentence, starts in said.items()]


def _empty_categories(records: Records) -> list[str]:
    seeds = defaultdict(set)
    for cell, record in records.items():
        if record.empty_categories:
            seeds[cell.fraction, record.empty_categories].add(cell.seed)
    return [
        f"Without a single labelled instance at {share(fraction)}, seed {', '.join(map(str, sorted(found)))}: "
        f"{_shortened(categories)}. The mean over categories counts what was reached there."
        for (fraction, categories), found in sorted(seeds.items())
    ]


def _shortened(names: tuple[str, ...], most: int = 20) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _surroundings(records: Records) -> list[str]:
    sentences = []
    revisions = sorted({record.code_revision for record in records.values()})
    if len(revisions) > 1:
        sentences.append(f"Not equal: the code. Revisions: {', '.join(revisions)}.")
    processors = [record.hardware.get("gpu") or record.hardware.get("cpu") for record in records.values()]
    machines = sorted({processor or "unknown" for processor in processors})
    if len(machines) > 1:
        sentences.append(f"Not equal: the machine, so times are not to be compared: {', '.join(machines)}.")
    return sentences


def _seeds_of_rows(records: Records) -> dict[tuple[str, str, float], set[int]]:
    groups = defaultdict(set)
    for cell in records:
        groups[cell.start, cell.protocol, cell.fraction].add(cell.seed)
    return groups
