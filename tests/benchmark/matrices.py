"""Comparisons with known numbers."""

import dataclasses
from collections.abc import Callable, Mapping

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.records import ResultRecord

Scores = Mapping[tuple[str, float], tuple[float | None, ...]]


def compare(
    make_record: Callable[..., ResultRecord], scores: Scores, *, protocol: str = "scenes-segm"
) -> Comparison:
    """Return a comparison of box AP by (start, fraction) and seed; mask AP is half of it. The baseline is "random"."""
    records = {}
    for (start, fraction), values in scores.items():
        for seed, box in enumerate(values):
            record = make_record(box or 0.0, (box or 0.0) / 2, seed=seed, fraction=fraction)
            metrics = (
                record.metrics if box is not None else {"bbox": {"AP": None}, "segm": {"AP": None}}
            )
            records[Cell(start, protocol, fraction, seed)] = dataclasses.replace(
                record, protocol=protocol, metrics=metrics
            )
    return Comparison("Known numbers", "random", records)


def mixed(
    make_record: Callable[..., ResultRecord], scores: Scores, protocols: tuple[str, ...]
) -> Comparison:
    """Return the same numbers under several protocols."""
    each = [compare(make_record, scores, protocol=protocol).records for protocol in protocols]
    return Comparison(
        "Mixed", "random", {cell: record for one in each for cell, record in one.items()}, mix=True
    )
