"""What was equal in a comparison and what was not, in sentences: read from its records, not from intentions."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.statistics import share
from virtex_det.benchmark.tables import Table, Value

MAX_NAMES = 20  # of empty categories in one sentence


def conditions(comparison: Comparison) -> list[str]:
    """Return what a reader must know before believing a difference between two rows."""
    rows = []
    for cell, record in comparison.records.items():
        machine = record.hardware.get("gpu") or record.hardware.get("cpu") or "unknown"
        evaluated = (record.dataset, record.dataset_version.get("images"))
        weights = (record.weights.get("path", ""), record.weights.get("sha256", ""))
        labels = (record.manifest_sha256, record.empty_categories)
        rows.append(
            [*cell, record.protocol, evaluated, *labels, *weights, record.code_revision, machine]
        )
    columns = ["start", "protocol", "fraction", "seed", "recipe", "evaluated", "manifest", "empty"]
    runs = pd.DataFrame(
        rows, columns=[*columns, "weights", "weights_sha256", "code", "machine"], dtype=object
    )
    sections = (
        _evaluation,
        _protocol,
        _labels,
        _seeds,
        _compute,
        _weights,
        _empty_categories,
        _surroundings,
    )
    sentences = [sentence for section in sections for sentence in section(runs)]
    return sentences + comparison.text_encoders


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
    found = {}
    for start in comparison.starts:
        records = [record for cell, record in comparison.records.items() if cell.start == start]
        paths = {record.weights.get("path", "") for record in records} - {""}
        pretraining = [logged_seconds(Path(path).parent) for path in paths] or [0.0]
        finetuning = [record.training_seconds for record in records]
        found[start] = Cost(_mean(pretraining), len(paths), _mean(finetuning))
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """Return by start what pretraining and a fine-tune took."""
    rows = []
    for start, cost in costs.items():
        times = f", {cost.times} times" if cost.times > 1 else ""
        pretraining = _time(cost.pretraining, times) if cost.times else Value("none", 0.0)
        rows.append([Value(start), pretraining, _time(cost.finetuning)])
    return Table("", ["start", "pretraining", "fine-tuning, per run"], rows)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Example:
        >>> duration(45), duration(540), duration(9000)
        ('45 s', '9.0 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _time(seconds: float | None, more: str = "") -> Value:
    return Value("not known") if seconds is None else Value(duration(seconds) + more, seconds)


def _evaluation(runs: pd.DataFrame) -> list[str]:
    sets = [
        f"{dataset} ({images} images)"
        for dataset, images in sorted(set(runs["evaluated"]), key=str)
    ]
    if len(sets) > 1:
        return [f"Not equal: what the runs are evaluated on, {' and '.join(sets)}."]
    return [f"Equal: what all runs are evaluated on, {sets[0]}, in the same version."]


def _protocol(runs: pd.DataFrame) -> list[str]:
    ids = sorted(runs["recipe"].unique())
    if len(ids) > 1:
        return [
            f"Not equal: the protocol. Numbers of {', '.join(ids)} are not to be compared with each other."
        ]
    return [
        f"Equal: detector, schedule, batch, learning rates, augmentation and metric, all as in {ids[0]}. How pixels "
        "are normalised goes with the weights."
    ]


def _labels(runs: pd.DataFrame) -> list[str]:
    if (runs["manifest"] == "").any():
        return [
            "Not known: whether all starts saw the same labelled images; some records do not say."
        ]
    manifests = runs.groupby(["protocol", "fraction", "seed"], sort=False)["manifest"].nunique()
    if odd := list(manifests[manifests > 1].index):
        where = ", ".join(f"{share(fraction)} seed {seed}" for _, fraction, seed in odd)
        return [
            f"Not equal: the labelled images, at {where}: the starts were trained on different ones."
        ]
    return [
        "Equal: the labelled images of each part and seed; the hash of their ids is the same in every start."
    ]


def _seeds(runs: pd.DataFrame) -> list[str]:
    seeds = sorted(runs["seed"].unique())
    said = f"Seeds: {', '.join(map(str, seeds))}. One draws the labelled images, the new layers and the order of images"
    sentences = [f"{said}; it is shared by all starts."]
    numbers = runs.groupby(["start", "protocol", "fraction"], sort=False).size()
    if short := list(numbers[numbers < len(seeds)].index):
        named = ", ".join(f"{start} at {share(fraction)}" for start, _, fraction in short)
        sentences.append(f"Not equal: the number of seeds. Fewer than {len(seeds)} have: {named}.")
    return sentences


def _compute(runs: pd.DataFrame) -> list[str]:
    if not runs["weights"].any():
        return []
    return [
        "Not equal: total compute. A pretrained start has had its pretraining on top of the same fine-tune. With "
        "enough labels and iterations a random start catches up."
    ]


def _weights(runs: pd.DataFrame) -> list[str]:
    """Say whether the spread over seeds has pretraining in it, and which start is several in truth."""
    said = defaultdict(list)
    for start, found in runs[runs["weights_sha256"] != ""].groupby("start", sort=False):
        of_seed = found.groupby("seed")["weights_sha256"].nunique()
        if of_seed.max() > 1:
            said["Not equal: the weights of {}. Runs of one seed began from several files."].append(
                start
            )
        elif found["weights_sha256"].nunique() < len(of_seed):
            said[
                "One set of weights serves several seeds of {}: the spread has no pretraining in it."
            ].append(start)
        elif len(of_seed) > 1:
            said[
                "Each seed of {} has weights of its own: the spread has pretraining in it."
            ].append(start)
    return [sentence.format(", ".join(starts)) for sentence, starts in said.items()]


def _empty_categories(runs: pd.DataFrame) -> list[str]:
    sentences = []
    for (fraction, names), found in runs[runs["empty"].astype(bool)].groupby(["fraction", "empty"]):
        seeds = ", ".join(map(str, sorted(found["seed"].unique())))
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        sentences.append(
            f"Without a single labelled instance at {share(fraction)}, seed {seeds}: "
            f"{', '.join(names[:MAX_NAMES])}{more}. Their AP counts in the mean all the same."
        )
    return sentences


def _surroundings(runs: pd.DataFrame) -> list[str]:
    sentences = []
    if len(revisions := sorted(runs["code"].unique())) > 1:
        sentences.append(f"Not equal: the code. Revisions: {', '.join(revisions)}.")
    if len(machines := sorted(runs["machine"].unique())) > 1:
        sentences.append(
            f"Not equal: the machine, so times are not to be compared: {', '.join(machines)}."
        )
    return sentences
