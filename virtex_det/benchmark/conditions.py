"""What was equal in a comparison and what was not, and what it cost, from its records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.tables import Table, Value, count

MAX_NAMES = 20  # of empty categories in one sentence


def setting(comparison: Comparison) -> str:
    """Return a sentence on what was compared."""
    records = comparison.records.values()
    data = _joined(f"{r.dataset}, {r.dataset_version['images']} images" for r in records)
    starts = count(len(comparison.starts), "start")
    seeds = count(len(comparison.seeds), "seed")
    if len(comparison.protocols) > 1:
        parts = (comparison.of([protocol]) for protocol in comparison.protocols)
        labels = "; ".join(f"{_joined(part.recipes)} on {_fractions(part)}" for part in parts)
        return f"{starts} under several protocols, with {seeds}: {labels}. Evaluated on {data}."
    return (
        f"The same detector from {starts}, fine-tuned on {_fractions(comparison)} with {seeds}; "
        f"evaluated on {data}. Protocol {_joined(comparison.recipes)}."
    )


def _fractions(comparison: Comparison) -> str:
    return f"{', '.join(map(share, comparison.fractions))} of the labels"


def facts(comparison: Comparison) -> dict[str, str]:
    """Return code, libraries, hardware, data and dates, as the records name them."""
    records = comparison.records.values()
    versions: dict[str, dict[str, Any]] = {}
    for record in records:
        versions |= record.data_versions()
    data = [f"{n}: {v['images']} images, sha256 {v['sha256'][:12]}" for n, v in versions.items()]
    days = sorted(record.created.partition("T")[0] for record in records)
    return {
        "Code": _joined(record.code_revision for record in records),
        "Libraries": _joined(
            ", ".join(f"{name} {version}" for name, version in record.versions.items())
            for record in records
        ),
        "Hardware": _joined(_hardware(record.hardware) for record in records),
        "Data": ", ".join(data),
        "Evaluated": " to ".join(dict.fromkeys([days[0], days[-1]])),
    }


def conditions(comparison: Comparison) -> list[str]:
    """Return in sentences what a reader must know before believing a difference of two rows."""
    rows = []
    for cell, record in comparison.records.items():
        row = {
            "recipe": record.protocol,
            "evaluated": (record.dataset, record.dataset_version.get("images")),
            "manifest": record.manifest_sha256,
            "empty": record.empty_categories,
            "weights": record.weights.get("path", ""),
            "weights_sha256": record.weights.get("sha256", ""),
            "code": record.code_revision,
            "machine": record.hardware.get("gpu") or record.hardware.get("cpu") or "unknown",
        }
        rows.append(cell._asdict() | row)
    runs = pd.DataFrame(rows, dtype=object)
    return [
        *_evaluation(runs),
        *_protocol(runs),
        *_labels(runs),
        *_seeds(runs),
        *_compute(runs),
        *_weights(runs),
        *_empty_categories(runs),
        *_surroundings(runs),
        *comparison.text_encoders,
    ]


class Cost(NamedTuple):
    """What a start has cost.

    Attributes:
        made: what the run cost that made each set of its weights, None if unknown; empty for a
            start without weights.
        finetuning: mean time of a run of the first protocol in training steps, in seconds; None if
            unknown.
    """

    made: Sequence[RunCost | None]
    finetuning: float | None

    @property
    def pretraining(self) -> float | None:
        """Mean time of a pretraining in its steps, in seconds; 0 for none, None if unknown."""
        return self.mean("training_seconds") if self.made else 0.0

    def mean(self, name: str) -> float | None:
        """Return the mean of a number of ``RunCost`` over the sets of weights, None if unknown."""
        return _mean([None if run is None else getattr(run, name) for run in self.made])


def costs(comparison: Comparison) -> dict[str, Cost]:
    """Return each start's cost; weights that serve several runs count once."""
    found = {}
    for start in comparison.starts:
        records = {c: record for c, record in comparison.records.items() if c.start == start}
        made: dict[str, RunCost | None] = {}
        for cell, record in records.items():
            if weights := record.weights.get("sha256") or record.weights.get("path"):
                made[weights] = made.get(weights) or comparison.pretraining.get(cell)
        first = comparison.protocols[0]
        finetuning = _mean([r.training_seconds for c, r in records.items() if c.protocol == first])
        found[start] = Cost(list(made.values()), finetuning)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def cost_table(costs: Mapping[str, Cost], protocols: Sequence[str] = ()) -> Table:
    """Return a table of what pretraining and fine-tuning cost, by start.

    Args:
        costs: of ``costs``.
        protocols: of the comparison.
    """
    has_images = any(run for cost in costs.values() for run in cost.made)
    rows = []
    for start, cost in costs.items():
        number = len(cost.made)
        times = f", {number} times" if number > 1 else ""
        pretraining = _time(cost.pretraining, times) if number else Value("none", 0.0)
        row = [Value(start), pretraining, _time(cost.finetuning)]
        rows.append(row[:1] + _images_and_cpu(cost) + row[1:] if has_images else row)
    columns = ["images", "captions per image", "CPU seconds"] if has_images else []
    of = f" of {protocols[0]}" if len(protocols) > 1 else ""
    columns = ["start", *columns, "pretraining", f"fine-tuning, per run{of}"]
    notes = [_NOTE_ON_COSTS] if has_images else []
    return Table("", columns, rows, notes)


_NOTE_ON_COSTS = (
    "Images and CPU seconds are of one pretraining, in the mean over its seeds: each image counts "
    "as often as it was drawn, with so many captions each time; CPU seconds are of the training "
    "steps, in all processes."
)


def _images_and_cpu(cost: Cost) -> list[Value]:
    """Return images, captions per image and CPU seconds of a pretraining as cells."""
    if not cost.made:
        return [Value("none", 0.0), Value(), Value("none", 0.0)]
    numbers = {run.captions_per_image for run in cost.made if run}
    captions = sorted(number for number in numbers if number is not None)
    return [
        _mean_value(cost.mean("images")),
        Value(" and ".join(map(str, captions)), captions[0]) if captions else Value(),
        _mean_value(cost.mean("cpu_seconds")),
    ]


def _mean_value(mean: float | None) -> Value:
    return Value("not known") if mean is None else Value(f"{mean:.0f}", mean)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours.

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
    pairs = sorted(set(runs["evaluated"]), key=str)
    sets = [f"{dataset} ({images} images)" for dataset, images in pairs]
    if len(sets) > 1:
        return [f"Not equal: what the runs are evaluated on, {' and '.join(sets)}."]
    return [f"Equal: what all runs are evaluated on, {sets[0]}, in the same version."]


def _protocol(runs: pd.DataFrame) -> list[str]:
    ids = sorted(runs["recipe"].unique())
    if len(ids) > 1:
        numbers = f"Numbers of {', '.join(ids)} are not to be compared with each other."
        if runs.groupby("protocol")["recipe"].nunique().max() > 1:
            return [f"Not equal: the protocol. {numbers}"]
        return [
            "Equal in all runs of a protocol: detector, schedule, batch, learning rates, "
            "augmentation and metric. How pixels are normalised goes with the weights.",
            numbers,
        ]
    return [
        "Equal: detector, schedule, batch, learning rates, augmentation and metric, all as in "
        f"{ids[0]}. How pixels are normalised goes with the weights."
    ]


def _labels(runs: pd.DataFrame) -> list[str]:
    if (runs["manifest"] == "").any():
        return [
            "Not known: whether all starts saw the same labelled images; some records do not say."
        ]
    manifests = runs.groupby(["protocol", "fraction", "seed"], sort=False)["manifest"].nunique()
    if odd := list(manifests[manifests > 1].index):
        where = ", ".join(f"{share(fraction)} seed {seed}" for _, fraction, seed in odd)
        images = f"the labelled images, at {where}"
        return [f"Not equal: {images}: the starts were trained on different ones."]
    return [
        "Equal: the labelled images of each part and seed; the hash of their ids is the same in "
        "every start."
    ]


def _seeds(runs: pd.DataFrame) -> list[str]:
    seeds = sorted(runs["seed"].unique())
    sentences = [
        f"Seeds: {', '.join(map(str, seeds))}. One draws the labelled images, the new layers and "
        "the order of images; it is shared by all starts."
    ]
    if runs.groupby(["start", "protocol", "fraction"], sort=False).size().nunique() > 1:
        sentences.append(
            "Not equal: the number of seeds. The tables say how many each mean is of, and mark no "
            "start as the best where these numbers differ."
        )
    return sentences


def _compute(runs: pd.DataFrame) -> list[str]:
    if not runs["weights"].any():
        return []
    return [
        "Not equal: total compute. A pretrained start has had its pretraining on top of the same "
        "fine-tune. With enough labels and iterations a random start catches up."
    ]


def _weights(runs: pd.DataFrame) -> list[str]:
    """Return whether the spread over seeds includes that of pretraining, by start."""
    several = "Not equal: the weights of {}. Runs of one seed began from several files."
    shared = "One set of weights serves several seeds of {}: the spread has no pretraining in it."
    own = "Each seed of {} has weights of its own: the spread has pretraining in it."
    starts = defaultdict(list)
    for start, found in runs[runs["weights_sha256"] != ""].groupby("start", sort=False):
        of_seed = found.groupby("seed")["weights_sha256"].nunique()
        if of_seed.max() > 1:
            starts[several].append(start)
        elif found["weights_sha256"].nunique() < len(of_seed):
            starts[shared].append(start)
        elif len(of_seed) > 1:
            starts[own].append(start)
    return [sentence.format(", ".join(names)) for sentence, names in starts.items()]


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


def _hardware(hardware: Mapping) -> str:
    gpus = f", {hardware.get('gpus', 1)} × {hardware['gpu']}" if hardware.get("gpu") else ""
    return f"{hardware.get('cpu', 'unknown')}, {hardware.get('cores', '?')} cores{gpus}"


def _joined(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))
