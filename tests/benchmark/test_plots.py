import dataclasses
import io
import re

import pytest
from matplotlib.text import Text  # an Annotation's extent has its arrow in it

from tests.benchmark.matrices import compare, drawn, mixed
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.plots import plot_history, spread_out
from virtex_det.pages.theme import DARK, LIGHT, line_colours, on_dark_ground

CURVES = {
    ("random", 0.1): (4.0, 6.0),
    ("random", 1.0): (20.0, 22.0),
    ("captions", 0.1): (10.0, 12.0),
    ("captions", 1.0): (30.0, 33.0),
}


@pytest.fixture
def comparison(make_record) -> Comparison:
    return compare(make_record, CURVES)


def lines_of(figure, number: int = 0):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in figure.axes[number].lines
    }


def test_ap_stands_against_the_part_of_the_labels_on_a_logarithmic_axis(comparison):
    figure = drawn(comparison)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Box AP", "Mask AP"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert lines_of(figure) == {
        "random": ([0.1, 1.0], [5.0, 21.0]),
        "captions": ([0.1, 1.0], [11.0, 31.5]),
    }
    assert lines_of(figure, 1)["captions"][1] == [5.5, 15.75]


def test_the_ticks_are_the_parts_that_were_measured(comparison):
    figure = drawn(comparison, "bbox/AP")
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10", "100"]
    assert figure.axes[0].get_xlabel() == "part of the labels, %"


def test_the_band_is_one_standard_deviation_wide(comparison):
    band = drawn(comparison, "bbox/AP").axes[0].collections[0]
    heights = {float(y) for x, y in band.get_paths()[0].vertices if x == pytest.approx(0.1)}
    assert (min(heights), max(heights)) == (pytest.approx(5 - 2**0.5), pytest.approx(5 + 2**0.5))


def test_one_metric_can_be_drawn_alone(comparison):
    assert [axes.get_ylabel() for axes in drawn(comparison, "segm/AP").axes] == ["Mask AP"]


def test_time_is_that_of_training_and_the_axis_says_what_it_counts(comparison):
    without = drawn(comparison, "bbox/AP", against="time")
    assert without.axes[0].get_xlabel() == "seconds of fine-tuning, without pretraining"
    assert lines_of(without)["captions"][0] == pytest.approx(
        [100.0] * 2
    )  # 0.5 s for each of 200 iterations
    added = drawn(
        comparison, "bbox/AP", against="time", pretraining={"random": 0.0, "captions": 60.0}
    )
    assert added.axes[0].get_xlabel() == "minutes of pretraining and fine-tuning"
    assert lines_of(added)["captions"][0] == pytest.approx([160 / 60] * 2)


def test_the_legend_names_starts_whose_pretraining_time_is_unknown(comparison):
    figure = drawn(comparison, "bbox/AP", against="time", pretraining={"random": 0.0})
    assert list(lines_of(figure)) == ["random", "captions (without pretraining)"]


def test_runs_that_do_not_know_their_time_are_not_drawn_against_it(comparison):
    records = {
        cell: dataclasses.replace(record, training_seconds=None) if cell.fraction < 1 else record
        for cell, record in comparison.records.items()
    }
    figure = drawn(Comparison("", "random", records), "bbox/AP", against="time")
    assert lines_of(figure)["random"][1] == [21.0]


def test_the_baseline_is_grey_and_no_two_starts_share_a_colour(make_record):
    starts = {(f"start {number}", 0.1): (1.0,) for number in range(9)}
    comparison = compare(make_record, starts | CURVES)
    colours = line_colours(comparison.starts, comparison.baseline)
    assert colours["random"] == LIGHT.baseline and len(set(colours.values())) == 11


@pytest.fixture
def many(make_record) -> Comparison:
    """Five starts, which is one more than a legend holds."""
    more = {
        (f"start {number}", fraction): (8.0, 9.0) for number in range(3) for fraction in (0.1, 1.0)
    }
    return compare(make_record, CURVES | more)


def test_up_to_four_curves_have_a_legend_and_bands(comparison):
    for figure in (drawn(comparison), drawn(comparison, against="time")):
        legend = figure.axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["random", "captions"]
        assert figure.axes[1].get_legend() is None  # one is enough for both plots
        assert [len(axes.collections) for axes in figure.axes] == [2, 2]


def test_more_than_four_curves_are_named_at_the_line_and_have_no_bands(many):
    for figure in (drawn(many), drawn(many, against="time")):
        for axes in figure.axes:
            assert axes.get_legend() is None and not axes.collections
            assert set(many.starts) <= {text.get_text() for text in axes.texts}


def test_names_at_the_lines_do_not_cover_each_other(many):
    """Three of the five starts end at the same height."""
    figure = drawn(many, "bbox/AP")
    figure.draw_without_rendering()
    boxes = sorted(
        (Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0
    )
    assert len(boxes) == 5
    for lower, upper in zip(boxes, boxes[1:], strict=False):
        assert lower.y1 <= upper.y0 + 3  # pixels of the empty rim that a line of type has
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize(
    "name", ["$" * 60, "a$b " * 20, "x" * 300, "_hidden", "two\nlines", "\\$", "  ", "星" * 90]
)
def test_a_name_of_any_kind_is_drawn_at_its_line(make_record, name):
    more = {
        (f"{name}{number}", fraction): (8.0, 9.0) for number in range(4) for fraction in (0.1, 1.0)
    }
    drawn(compare(make_record, CURVES | more)).savefig(io.BytesIO(), format="svg")


def test_labels_are_moved_just_as_far_as_they_must():
    assert spread_out([1.0, 4.0, 9.0], [2.0, 2.0, 2.0], 10.0) == [1.0, 4.0, 9.0]
    assert spread_out([1.0, 1.5, 2.0], [2.0, 2.0, 2.0], 10.0) == [1.0, 3.0, 5.0]
    assert spread_out([9.0, 9.5, 10.0], [2.0, 2.0, 2.0], 10.0) == [5.0, 7.0, 9.0]
    assert spread_out([], [], 10.0) == []


def test_points_against_time_say_their_part_of_the_labels_and_none_lies_on_the_edge(comparison):
    """Every part is trained on for as long, so the two points of a start lie above each other."""
    axes = drawn(comparison, "bbox/AP", against="time").axes[0]
    assert [text.get_text() for text in axes.texts] == ["10 %", "100 %"] * 2
    for line in axes.lines:
        assert line.get_marker() != "None" and line.get_markersize() > 5 * line.get_linewidth()
        assert 0 < min(line.get_xdata()) and max(line.get_xdata()) < 0.95 * axes.get_xlim()[1]


def test_curves_of_nothing_found_lie_on_an_axis_with_numbers(make_record):
    scores = {
        (start, fraction): (0.0, 0.0) for start in ("random", "captions") for fraction in (0.1, 1.0)
    }
    for figure in (
        drawn(compare(make_record, scores)),
        drawn(compare(make_record, scores), against="time"),
    ):
        assert figure.axes[0].get_ylim() == (0.0, 1.0)


def test_on_dark_ground_every_colour_of_a_plot_is_another(comparison):
    buffer = io.StringIO()
    drawn(comparison, "bbox/AP", against="time").savefig(buffer, format="svg")
    colours = {*re.findall(r": (#[0-9a-f]{6})", buffer.getvalue())}
    assert {
        LIGHT.ground,
        LIGHT.ink,
        LIGHT.soft,
        LIGHT.line,
        LIGHT.baseline,
        LIGHT.palette[0],
    } <= colours
    dark = {*re.findall(r": (#[0-9a-f]{6})", on_dark_ground(buffer.getvalue()))}
    assert {DARK.ground, DARK.ink, DARK.soft, DARK.line, DARK.baseline, DARK.palette[0]} <= dark
    assert not colours & dark


def test_iterations_begin_at_zero_and_every_evaluation_is_a_point(make_record):
    records = {
        "random": [
            make_record(box, box / 2, seed=seed, iteration=at)
            for at, box in ((5, 1.0), (10, 2.0))
            for seed in (0, 1)
        ]
    }
    axes = plot_history(records, "bbox/AP", {"random": LIGHT.baseline}).axes[0]
    assert [*axes.lines[0].get_xdata()] == [5, 10] and [*axes.lines[0].get_ydata()] == [1.0, 2.0]
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] >= 10


def test_protocols_are_told_apart_by_their_names(make_record):
    figure = drawn(mixed(make_record, CURVES, ("a", "b")), "bbox/AP")
    assert list(lines_of(figure)) == ["random, a", "captions, a", "random, b", "captions, b"]


def test_a_protocol_with_one_fraction_has_no_curve_beside_one_with_several(make_record):
    both = mixed(make_record, CURVES, ("a", "b")).records
    records = {c: r for c, r in both.items() if c.protocol == "a" or c.fraction == 1}
    for cell in [cell for cell in records if cell.protocol == "b"]:
        records[cell] = dataclasses.replace(records[cell], metrics={"svm": {"mAP": 50.0}})
    comparison = Comparison("", "random", records)
    figure = drawn(comparison)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Box AP", "Mask AP"]
    assert list(lines_of(figure)) == ["random", "captions"]
    alone = drawn(comparison, "svm/mAP")
    assert [axes.get_ylabel() for axes in alone.axes] == ["SVM mAP"] and lines_of(alone)
