import dataclasses

import pytest

from tests.benchmark.matrices import compare, mixed
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.plots import plot_fractions, plot_time, start_colours

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
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[number].lines}


def test_ap_stands_against_the_part_of_the_labels_on_a_logarithmic_axis(comparison):
    figure = plot_fractions(comparison)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Box AP", "Mask AP"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert lines_of(figure) == {"random": ([0.1, 1.0], [5.0, 21.0]), "captions": ([0.1, 1.0], [11.0, 31.5])}
    assert lines_of(figure, 1)["captions"][1] == [5.5, 15.75]


def test_the_ticks_are_the_parts_that_were_measured(comparison):
    figure = plot_fractions(comparison, "Box AP")
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10 %", "100 %"]


def test_the_band_is_one_standard_deviation_wide(comparison):
    band = plot_fractions(comparison, "Box AP").axes[0].collections[0]
    heights = {float(y) for x, y in band.get_paths()[0].vertices if x == pytest.approx(0.1)}
    assert (min(heights), max(heights)) == (pytest.approx(5 - 2**0.5), pytest.approx(5 + 2**0.5))


def test_one_metric_can_be_drawn_alone(comparison):
    assert [axes.get_ylabel() for axes in plot_fractions(comparison, "Mask AP").axes] == ["Mask AP"]


def test_time_is_that_of_training_and_the_axis_says_what_it_counts(comparison):
    without = plot_time(comparison, "Box AP")
    assert without.axes[0].get_xlabel() == "minutes of fine-tuning, without pretraining"
    assert lines_of(without)["captions"][0] == pytest.approx([100 / 60] * 2)  # 0.5 s for each of 200 iterations
    added = plot_time(comparison, "Box AP", pretraining={"random": 0.0, "captions": 60.0})
    assert added.axes[0].get_xlabel() == "minutes of pretraining and fine-tuning"
    assert lines_of(added)["captions"][0] == pytest.approx([160 / 60] * 2)


def test_pretraining_that_nobody_timed_is_said_to_be_left_out(comparison):
    figure = plot_time(comparison, "Box AP", pretraining={"random": 0.0})
    assert list(lines_of(figure)) == ["random", "captions (without pretraining)"]


def test_runs_that_do_not_know_their_time_are_not_drawn_against_it(comparison):
    records = {
        cell: dataclasses.replace(record, training_seconds=None) if cell.fraction < 1 else record
        for cell, record in comparison.records.items()
    }
    assert lines_of(plot_time(Comparison("", "random", records), "Box AP"))["random"][1] == [21.0]


def test_the_baseline_is_grey_and_no_two_starts_share_a_colour(make_record):
    colours = start_colours(compare(make_record, {(f"start {n}", 0.1): (1.0,) for n in range(9)} | CURVES))
    assert colours["random"] == "#8c8c8c" and len(set(colours.values())) == 11


def test_protocols_are_told_apart_by_their_names(make_record):
    figure = plot_fractions(mixed(make_record, CURVES, ("a", "b")), "Box AP")
    assert list(lines_of(figure)) == ["random, a", "captions, a", "random, b", "captions, b"]
