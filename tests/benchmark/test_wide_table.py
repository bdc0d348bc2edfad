import csv
import io
from dataclasses import replace

import pytest

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.wide_table import WIDE_FORMATS, wide_metrics, wide_table
from virtex_det.errors import UserError

# Box AP of (start, protocol, fraction) by seed; mask AP is 2 less, and APr 12 less.
SCORES = {
    ("random", "coco-segm-2x", 0.1): (10.0, 10.2),
    ("random", "coco-segm-2x", 1.0): (36.7, 36.9),
    ("random", "lvis-segm-2x", 1.0): (18.0, 18.2),
    ("random", "voc-det-24k", 1.0): (33.0, 33.4),
    ("captions", "coco-segm-2x", 0.1): (20.0, 20.2),
    ("captions", "coco-segm-2x", 1.0): (40.9, 41.1),
    ("captions", "lvis-segm-2x", 1.0): (23.0, 23.2),
}
RIVAL = PublishedResult(
    protocol="coco-segm-2x",
    start="rival",
    metrics={"bbox": {"AP": 41.5}, "segm": {"AP": 37.0}},
    paper="Doe 2026",
    source="arXiv",
    how_sure="READ",
    table="Table 5",
)
ON_LVIS = replace(
    RIVAL, protocol="lvis-segm-2x", metrics={"segm": {"AP": 24.0, "APr": 13.0}}, table="Table 6"
)


@pytest.fixture
def comparison(make_record):
    records = {}
    for (start, protocol, fraction), values in SCORES.items():
        for seed, box in enumerate(values):
            metrics = {"bbox": {"AP": box}}
            if not protocol.startswith("voc"):
                metrics["segm"] = {"AP": box - 2}
            if protocol.startswith("lvis"):
                metrics["segm"]["APr"] = box - 12
            record = replace(make_record(seed=seed, fraction=fraction), metrics=metrics)
            cell = Cell(start, protocol, fraction, seed)
            records[cell] = replace(record, protocol=protocol)
    return Comparison("Starts", "random", records, published=[RIVAL, ON_LVIS])


def written(comparison: Comparison, style: str) -> str:
    return WIDE_FORMATS[style](comparison, wide_metrics(comparison))


def test_a_row_per_start_and_a_column_per_protocol_metric_and_part_of_the_labels(comparison):
    table = wide_table(comparison, wide_metrics(comparison))
    assert table.columns == [
        "start",
        "Box AP, coco-segm-2x, 10 %",
        "Box AP, coco-segm-2x, 100 %",
        "Mask AP, coco-segm-2x, 10 %",
        "Mask AP, coco-segm-2x, 100 %",
        "Box AP, lvis-segm-2x, 100 %",
        "Mask AP, lvis-segm-2x, 100 %",
        "Mask APr, lvis-segm-2x, 100 %",
        "Box AP, voc-det-24k, 100 %",
    ]
    random, captions = table.rows[:2]
    assert [value.text for value in captions[:3]] == ["captions", "20.1 ± 0.1", "41.0 ± 0.1"]
    assert captions[-1].text == "–", "it has no run on VOC"
    assert captions[2].is_best and not random[2].is_best
    assert not random[-1].is_best, "it is the only one on VOC"


def test_published_rows_stand_below_with_all_labels_and_with_their_sources(comparison):
    table = wide_table(comparison, wide_metrics(comparison))
    rows = {row[0].text: [value.text for value in row[1:]] for row in table.rows[2:]}
    name = next(name for name in rows if name.startswith("rival"))
    assert rows[name] == ["–", "41.5", "–", "37.0", "–", "24.0", "13.0", "–"]
    numbers = [int(n) for n in name.removeprefix("rival, published [").rstrip("]").split(", ")]
    said = [table.sources[n - 1] for n in numbers]
    assert said == [
        f"[{n}] Doe 2026; arXiv, {where} (how sure: READ)"
        for n, where in zip(numbers, ("Table 5", "Table 6"), strict=True)
    ]
    moco = next(name for name in rows if name.startswith("MoCo v1, 200 epochs"))
    assert rows[moco] == [*["–"] * 7, "55.9"]
    assert not any(value.is_best for row in table.rows[2:] for value in row)


def test_two_numbers_of_one_start_and_paper_do_not_overwrite_each_other(comparison):
    other = replace(RIVAL, metrics={"bbox": {"AP": 42.0}}, table="Table 9")
    table = wide_table(replace(comparison, published=[RIVAL, other]), ["bbox/AP"])
    assert [row[2].text for row in table.rows if row[0].text.startswith("rival")] == [
        "41.5",
        "42.0",
    ]


def test_the_best_is_bold_only_where_it_prints_higher(comparison):
    records = {}
    for cell, record in comparison.records.items():
        box = 30.04 if cell.start == "captions" else 29.96  # both print 30.0
        records[cell] = replace(record, metrics={"bbox": {"AP": box}})
    table = wide_table(replace(comparison, records=records), ["bbox/AP"])
    assert not any(value.is_best for row in table.rows for value in row)


def test_latex_has_a_caption_with_the_sources_a_label_and_joined_headings(comparison):
    lines = written(comparison, "latex").splitlines()
    caption = next(line for line in lines if line.startswith(r"\caption{All protocols. [1] "))
    assert "Doe 2026; arXiv, Table 5 (how sure: READ)." in caption
    assert r"\label{tab:all-protocols}" in lines
    top, middle, last = (
        line for line in lines if line.endswith(r"\\") and "10 \\%" in line or "multicolumn" in line
    )
    assert r"\multicolumn{4}{c}{coco-segm-2x} & \multicolumn{3}{c}{lvis-segm-2x}" in top
    assert r"\multicolumn{2}{c}{Box AP} & \multicolumn{2}{c}{Mask AP} &" in middle
    assert last.startswith(r"start & 10 \% & 100 \% & 10 \%")
    assert r"\cmidrule(lr){2-5} \cmidrule(lr){6-8} \cmidrule(lr){9-9}" in lines
    assert r"captions & \textbf{20.1 $\pm$ 0.1} &" in "\n".join(lines)
    assert lines[-2].startswith(r"% Mean") or lines[-1].startswith(r"% Mean")
    assert r"\end{table}" in lines


def test_csv_has_all_digits_and_the_sources_in_words(comparison):
    rows = list(csv.DictReader(io.StringIO(written(comparison, "csv"))))
    column = "Box AP, coco-segm-2x, 100 %"
    captions = next(row for row in rows if row["start"] == "captions")
    assert float(captions[f"{column} mean"]) == pytest.approx(41.0)
    assert (captions[f"{column} seeds"], captions["source"]) == ("2", "measured")
    rival = next(row for row in rows if row["start"] == "rival")
    assert rival[f"{column} mean"] == "41.5" and rival[f"{column} seeds"] == ""
    assert "Table 5" in rival["source"] and "Table 6" in rival["source"]


def test_several_recipes_under_one_name_are_said_and_none_is_the_best(comparison):
    records = {
        cell: replace(record, protocol="other") if cell.seed else record
        for cell, record in comparison.records.items()
    }
    table = wide_table(replace(comparison, records=records, mix=True), ["bbox/AP"])
    assert "Several recipes stand under coco-segm-2x, lvis-segm-2x" in table.notes[1]
    assert not any(value.is_best for row in table.rows for value in row)


@pytest.mark.parametrize("style", WIDE_FORMATS)
def test_every_format_can_be_written_of_one_run(comparison, style):
    first = dict([next(iter(comparison.records.items()))])
    assert "random" in written(replace(comparison, records=first), style)


def test_metrics_may_be_named_and_unknown_ones_are_refused(comparison):
    assert wide_metrics(comparison) == ["bbox/AP", "segm/AP", "segm/APr"]
    assert wide_metrics(comparison, ["segm/APr"]) == ["segm/APr"]
    with pytest.raises(UserError, match="No record has a metric segm/APx"):
        wide_metrics(comparison, ["segm/APx"])
