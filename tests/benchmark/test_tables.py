import csv
import io
import re
from dataclasses import replace

import pytest

from tests.benchmark.example_comparison import make_example
from tests.benchmark.matrices import compare, mixed, rendered
from virtex_det.benchmark import statistics, tables
from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import conditions
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.statistics import AP, compare_pairs, summarize
from virtex_det.benchmark.tables import (
    Value,
    category_tables,
    details_table,
    overview_tables,
    protocol_tables,
    published_table,
)

TWO = {
    ("random", 0.1): (4.0, 6.0),
    ("random", 1.0): (20.0, 22.0),
    ("captions", 0.1): (10.0, 12.0),
    ("captions", 1.0): (30.0, 33.0),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_markdown_has_a_line_per_start_and_a_column_per_part_of_the_labels(make_record):
    _, _, head, _, random, captions, *_ = rendered(compare(make_record, TWO)).splitlines()
    assert cells(head) == ["start", "10 %", "100 %"]
    assert cells(random) == ["random", "5.0 ± 1.4", "21.0 ± 1.4"]
    assert cells(captions) == ["captions", "**11.0 ± 1.4**", "**31.5 ± 2.1**"]


def test_each_metric_has_a_table_of_its_own(make_record):
    text = rendered(compare(make_record, TWO)).split("### Mask AP by part of the labels")[1]
    assert cells(text.splitlines()[5]) == ["captions", "**5.5 ± 0.7**", "**15.8 ± 1.1**"]


def test_markdown_says_how_many_seeds_and_where_the_baseline_is_reached(make_record):
    text = rendered(compare(make_record, TWO))
    assert "Mean ± sample standard deviation over 2 seeds." in text
    assert "With all labels, random has 21.0 Box AP." in text and "captions: 30.7 %." in text


def test_each_table_names_the_pretrained_text_encoder_of_its_numbers(make_record):
    comparison = compare(make_record, TWO)
    for cell, record in comparison.records.items():
        if cell.start == "captions":
            weights = {**record.weights, "text_encoder": "MiniLM"}
            comparison.records[cell] = replace(record, weights=weights)
    note = "Pretrained text encoder of captions: MiniLM."
    tables = rendered(comparison).split("### ")[1:]
    assert len(tables) == 4 and all(table.count(note) == 1 for table in tables)
    assert note in details_table(comparison, summarize(comparison), "bbox").notes
    assert conditions(comparison).count(note) == 1
    assert "text encoder" not in rendered(compare(make_record, TWO))


def test_a_baseline_by_itself_is_reached_by_no_other_start(make_record):
    alone = {cell: values for cell, values in TWO.items() if cell[0] == "random"}
    assert "reaches it" not in rendered(compare(make_record, alone))


def test_fewer_seeds_than_the_rest_are_said_in_the_cell_and_none_is_the_best(make_record):
    text = rendered(compare(make_record, TWO | {("captions", 1.0): (30.0,)}))
    assert "| **11.0 ± 1.4** | 30.0 (1 seed) |" in text
    assert "over 2 seeds, or as many as a cell says." in text
    assert "reaches it" not in text, "from one seed it is not known"


def test_more_seeds_than_the_rest_are_said_in_the_cell(make_record):
    scores = {cell: values[:1] for cell, values in TWO.items()} | {("captions", 1.0): (30.0, 33.0)}
    text = rendered(compare(make_record, scores))
    assert "| captions | **10.0** | 31.5 ± 2.1 (2 seeds) |" in text
    assert "Mean ± sample standard deviation over 1 seed, or as many as a cell says." in text


def test_a_difference_says_its_seeds_where_others_have_more_and_needs_two(make_record):
    scores = {
        ("random", 0.1): (1.0, 2.0, 3.0),
        ("a", 0.1): (2.0, 4.0, 6.0),
        ("b", 0.1): (3.0, 5.0, 6.0),
        ("c", 0.1): (3.0, 5.0),
        ("d", 0.1): (9.0,),
    }
    text = rendered(compare(make_record, scores), "bbox/AP").split("difference from random")[1]
    lines = {line[0]: line[1] for line in map(cells, text.splitlines()) if len(line) == 2}
    assert "seed" not in lines["a"] and lines["c"].endswith(", 2 seeds)") and lines["d"] == "–"


def test_differences_come_with_the_paired_test(make_record):
    text = rendered(compare(make_record, TWO))
    head, line = text.split("### Box AP, difference from random")[1].strip().splitlines()[::2][:2]
    assert cells(head) == ["start", "10 %", "100 %"]
    assert cells(line) == ["captions", "+6.0", "+10.5 (+4.1 to +16.9, p 0.03)"]
    assert "Two-sided paired t-tests over 2 seeds at most" in text
    assert "corrected for the 1 test of this table (Holm)" in text
    assert re.search(r"A true difference of 4\.\d would be significant", text)


def test_named_pairs_have_a_table_of_their_own_with_p_corrected_for_its_tests(make_record):
    scores = {
        ("random", 1.0): (1.0, 1.0, 1.0),
        ("words", 1.0): (11.0, 22.0, 33.0),
        ("captions", 1.0): (10.0, 20.0, 30.0),
        ("traces", 1.0): (11.0, 52.0, 91.5),
    }
    pairs = [("words", "captions"), ("traces", "captions"), ("traces", "not run")]
    comparison = replace(compare(make_record, scores), pairs=pairs)
    text = rendered(comparison, "bbox/AP").split("### Box AP, difference of paired starts")[1]
    lines = text.strip().splitlines()
    assert cells(lines[2])[0] == "words - captions" and cells(lines[3])[0] == "traces - captions"
    assert len(lines) == 7, "the pair without records is left out"
    # p 0.074 and 0.21 alone: the smaller is doubled, the greater stays.
    assert cells(lines[2])[1].startswith("+2.0 (-0.5 to +4.5, p 0.15)")
    assert cells(lines[3])[1].endswith("p 0.21)")
    rows = list(csv.DictReader(io.StringIO(rendered(comparison, "bbox/AP", style="csv"))))
    assert [row["start"] for row in rows[-2:]] == ["words - captions", "traces - captions"]
    assert float(rows[-2]["Box AP p_holm"]) == pytest.approx(2 * float(rows[-2]["Box AP p"]))
    assert rows[-1]["source"] == "measured, as a pair" and not rows[-1]["Box AP mean"]


def test_a_cell_that_was_not_run_is_a_dash_and_its_rival_is_not_the_best(make_record):
    text = rendered(
        compare(make_record, {cell: v for cell, v in TWO.items() if cell != ("captions", 0.1)})
    )
    assert "| random | 5.0 ± 1.4 | 21.0 ± 1.4 |" in text
    assert (
        "| captions | – | **31.5 ± 2.1** |" in text
        and "| captions | – | +10.5 (+4.1 to +16.9, p 0.03) |" in text
    )


def test_published_numbers_stand_beside_ours_with_source_and_how_sure(make_record):
    text = rendered(compare(make_record, TWO, protocol="coco-segm-1x"))
    assert "| ImageNet supervised, published [1] |  | 38.9 |" in text
    assert "[1] SoCo (Wei et al. 2021); README of SoCo, https://github.com/hologerry/SoCo, " in text
    assert '"Results on COCO with MaskRCNN R50-FPN" (how sure: READ)' in text
    assert "| ImageNet supervised, published [1] |  | 35.4 |" in text.split("Mask AP by")[1]


def test_published_numbers_are_of_all_labels_also_where_ours_are_not(make_record):
    few = {cell: values for cell, values in TWO.items() if cell[1] < 1}
    text = rendered(compare(make_record, few, protocol="coco-segm-1x"))
    assert "| start | 10 % | 100 % |" in text and "| random | 5.0 ± 1.4 |  |" in text


def test_a_departure_from_a_protocol_has_no_published_numbers(make_record):
    assert "published" not in rendered(
        compare(make_record, TWO, protocol="coco-segm-1x+SOLVER.MAX_ITER=9")
    )


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_several_ids_of_a_protocol_have_a_column_a_warning_and_no_best(make_record, style):
    plain = compare(make_record, TWO).records
    records = {c: replace(r, protocol="other") if c.seed else r for c, r in plain.items()}
    text = rendered(Comparison("", "random", records, mix=True), style=style)
    assert "Several protocols stand in this table." in text
    assert re.search("protocol [|&] start", text)
    assert "**" not in text and "textbf" not in text


def test_p_is_corrected_for_the_tests_of_each_protocols_own_table(make_record):
    scores = {
        ("random", 1.0): (1.0, 1.0, 1.0),
        ("words", 1.0): (2.0, 3.0, 5.0),
        ("captions", 1.0): (2.0, 4.0, 7.0),
    }
    both = replace(mixed(make_record, scores, ("a", "b")), pairs=[("words", "captions")])
    alone = replace(compare(make_record, scores), pairs=[("words", "captions")])
    [found] = protocol_tables(alone, summarize(alone), compare_pairs(alone, AP))
    assert "p is corrected for the 2 tests of this table (Holm)." in found.details[0].notes[0]
    for of_protocol in protocol_tables(both, summarize(both), compare_pairs(both, AP)):
        assert of_protocol.details[0].notes == found.details[0].notes
        assert of_protocol.pairs == found.pairs


def test_a_pair_measured_by_two_recipes_names_both(make_record):
    records = compare(make_record, TWO).records
    records = {c: replace(r, protocol="other") if c.seed else r for c, r in records.items()}
    pairs = [("captions", "random")]
    found = compare_pairs(Comparison("", "", records, mix=True, pairs=pairs), ["bbox/AP"])
    assert set(found["recipe"]) == {"scenes-segm / other"}


def test_csv_has_all_digits_and_a_line_per_start_and_fraction(make_record):
    lines = list(csv.DictReader(io.StringIO(rendered(compare(make_record, TWO), style="csv"))))
    assert len(lines) == 4
    last = lines[-1]
    assert (last["start"], last["fraction"], last["seeds"]) == ("captions", "1.0", "2")
    assert float(last["Box AP mean"]) == 31.5 and float(last["Box AP deviation"]) == pytest.approx(
        2.1213203
    )
    assert float(last["Box AP difference"]) == 10.5 and float(last["Box AP p"]) == pytest.approx(
        0.0303, abs=1e-4
    )


def test_csv_marks_published_numbers(make_record):
    text = rendered(compare(make_record, TWO, protocol="coco-segm-1x"), style="csv")
    published = [line for line in csv.DictReader(io.StringIO(text)) if line["how sure"] == "READ"]
    assert published and all(line["source"] and not line["seeds"] for line in published)


def test_latex_is_escaped_and_has_as_many_columns_as_it_says(make_record):
    scores = {("50% & _x_", 0.1): (4.0, 6.0), ("random", 0.1): (1.0, 2.0)}
    text = rendered(compare(make_record, scores), style="latex")
    assert r"50\% \& \_x\_ & \textbf{5.0 $\pm$ 1.4} \\" in text
    assert (
        r"\begin{tabular}{lr}" in text
        and text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
    )


def test_latex_has_a_caption_a_label_and_true_minus_signs(make_record):
    scores = {("random", 1.0): (5.0, 6.0, 7.0), ("x-1", 1.0): (4.0, 5.1, 5.2)}
    text = rendered(compare(make_record, scores), style="latex")
    assert r"\caption{Box AP by part of the labels.}" in text
    assert r"\label{tab:box-ap-by-part-of-the-labels}" in text
    assert r"x-1 & $-$1.2 ($-$2.5 to 0.0, p 0.05) \\" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_a_difference_that_rounds_to_zero_has_no_sign(make_record, style):
    scores = {("random", 1.0): (5.0, 6.0, 7.0), ("x", 1.0): (4.99, 5.98, 6.97)}
    text = rendered(compare(make_record, scores), style=style)
    assert "0.0 (0.0 to 0.0, p 0.07)" in text


def test_latex_has_the_best_in_bold_only_where_it_prints_higher(make_record):
    tie = {("random", 1.0): (5.04,), ("captions", 1.0): (4.96,)}
    assert "textbf" not in rendered(compare(make_record, tie), style="latex").split("Mask AP")[0]
    higher = {("random", 1.0): (5.06,), ("captions", 1.0): (4.94,)}
    assert r"random & \textbf{5.1}" in rendered(compare(make_record, higher), style="latex")


def test_what_latex_and_markdown_would_read_in_a_name_is_escaped(make_record):
    name = r"a\b^2~<i> *x* _y_ max_iter"
    comparison = compare(make_record, {(name, 0.1): (4.0,), ("random", 0.1): (4.0,)})
    latex = r"a\textbackslash{}b\textasciicircum{}2\textasciitilde{}$<$i$>$ *x* \_y\_ max\_iter & "
    assert latex in rendered(comparison, style="latex")
    assert r"| a\\b^2\~\<i> \*x\* \_y\_ max_iter |" in rendered(comparison)


def test_each_protocol_has_tables_under_its_name(make_record):
    text = rendered(mixed(make_record, TWO, ("a", "b")))
    for protocol in "ab":
        table = text.split(f"### Box AP by part of the labels, {protocol}\n")[1].splitlines()
        assert cells(table[1]) == ["start", "10 %", "100 %"]
        assert cells(table[4]) == ["captions", "**11.0 ± 1.4**", "**31.5 ± 2.1**"]
    assert "Several protocols" not in text


def overview_tables_of(comparison: Comparison, metrics) -> list[tables.Table]:
    return overview_tables(comparison, statistics.overview(comparison, metrics))


def overview(make_record) -> Comparison:
    """Fine-tunes with two fractions, and a frozen detector and SVMs with all labels."""
    scores = {
        ("random", 0.1): (1.0, 2.0, 3.0),
        ("captions", 0.1): (9.0, 9.0, 9.0),
        ("random", 1.0): (20.0, 22.0, 24.0),
        ("words", 1.0): (20.0, 23.0, 26.0),
        ("captions", 1.0): (30.0, 33.0, 35.0),
    }
    all_labels = {cell: values for cell, values in scores.items() if cell[1] == 1}
    records = compare(make_record, scores, protocol="tuned").records
    for cell, record in compare(make_record, all_labels, protocol="frozen").records.items():
        half = {task: {"AP": of["AP"] / 2} for task, of in record.metrics.items()}
        records |= {cell: replace(record, metrics=half)}
    for cell, record in compare(make_record, all_labels, protocol="svm").records.items():
        if cell.start != "words":
            metrics = {"svm": {"mAP-area": 1.0, "mAP": 80 + record.metrics["bbox"]["AP"] / 2}}
            records |= {cell: replace(record, metrics=metrics, iteration=None)}
    return Comparison("", "random", records, pairs=[("captions", "words")])


def test_several_protocols_have_one_table_with_a_column_each(make_record):
    comparison = overview(make_record)
    text = rendered(comparison)
    titles = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("###")]
    assert titles == [
        *("Box AP by part of the labels, tuned", "Mask AP by part of the labels, tuned"),
        *("Box AP, difference from random, tuned", "Mask AP, difference from random, tuned"),
        "Box AP, difference of paired starts, tuned",
        "Mask AP, difference of paired starts, tuned",
        "What the features are worth",
        "What the features are worth, difference from random",
        "What the features are worth, difference of paired starts",
    ]
    _, _, head, _, random, captions, *_ = text.split("### What the features")[1].splitlines()
    assert cells(head) == ["start", "Box AP, tuned", "Box AP, frozen", "SVM mAP, svm"]
    assert cells(random) == ["random", "22.0 ± 2.0", "11.0 ± 1.0", "91.0 ± 1.0"]
    assert cells(captions)[1:] == ["**32.7 ± 2.5**", "**16.3 ± 1.3**", "**96.3 ± 1.3**"]
    assert "| words | 23.0 ± 3.0 | 11.5 ± 1.5 | – |" in text
    assert "compare the starts in it" in text and "With all labels; mean ± " in text


def test_p_of_the_overview_is_corrected_for_the_tests_of_all_its_columns(make_record):
    comparison = overview(make_record)
    _, differences, pairs = overview_tables_of(comparison, AP)
    assert "for the 5 tests of this table (Holm)" in differences.notes[0]
    # captions - random: 10, 11, 11 and half of that twice, all with p 0.00098; the smallest of
    # five equal ones is multiplied by five.
    assert differences.rows[0][0].text == "captions"
    assert [row.text for row in differences.rows[0][1:]] == [
        "+10.7 (+9.2 to +12.1, p 0.005)",
        "+5.3 (+4.6 to +6.1, p 0.005)",
        "+5.3 (+4.6 to +6.1, p 0.005)",
    ]
    assert "for the 2 tests of this table" in pairs.notes[0]
    assert [value.text for value in pairs.rows[0]][3] == "–"
    power = re.findall(r"(\d+\.\d) \((.*?)\)", differences.notes[1].split("would be")[0])
    assert [title for _, title in power] == ["Box AP, tuned", "Box AP, frozen", "SVM mAP, svm"]
    assert float(power[0][0]) == pytest.approx(2 * float(power[1][0]), abs=0.1)


def test_metrics_that_are_named_lead_the_overview_where_a_protocol_has_them(make_record):
    table, *_ = overview_tables_of(overview(make_record), ["svm/mAP-area", "segm/AP"])
    assert table.columns[1:] == ["Mask AP, tuned", "Mask AP, frozen", "SVM mAP-area, svm"]


def test_protocols_with_all_labels_alone_have_their_tables_too_where_all_are_like_that(make_record):
    alone = overview(make_record).of(["frozen", "svm"])
    text = rendered(alone)
    assert "### Mask AP by part of the labels, frozen" in text
    assert "### SVM mAP by part of the labels, svm" in text and "### What the features" in text


def test_one_protocol_or_none_with_all_labels_has_no_overview(make_record):
    assert overview_tables_of(compare(make_record, TWO), AP) == []
    few = {cell: values for cell, values in TWO.items() if cell[1] < 1}
    assert overview_tables_of(mixed(make_record, few, ("a", "b")), AP) == []
    assert "Box AP by part of the labels, b" in rendered(mixed(make_record, few, ("a", "b")))


def test_protocols_of_one_recipe_are_told_apart_by_their_names(make_record):
    records = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (5.0,)}).records
    again = {cell._replace(protocol="again"): record for cell, record in records.items()}
    comparison = Comparison("", "random", {**records, **again})
    text = rendered(comparison)
    assert "Box AP by part of the labels, scenes-segm\n" in text
    assert "Box AP by part of the labels, again\n" in text and "Several protocols" not in text
    assert "again: scenes-segm,captions,0.1" in rendered(comparison, style="csv")


def test_a_bar_in_a_name_does_not_break_the_markdown_table(make_record):
    assert r"| a\|b |" in rendered(compare(make_record, {("a|b", 0.1): (4.0,)}))


def test_one_seed_has_no_deviation_and_the_note_claims_none(make_record):
    text = rendered(compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (5.0,)}))
    assert "\nMean over 1 seed.\n" in text and "±" not in text and "difference" not in text


def test_a_metric_that_no_run_of_a_protocol_has_has_no_table(make_record):
    both = mixed(make_record, TWO, ("a", "b")).records
    records = {
        c: replace(r, metrics={"bbox": {"AP": 1.0}}) if c.protocol == "b" else r
        for c, r in both.items()
    }
    masks = rendered(Comparison("", "random", records, mix=True), "segm/AP")
    assert "Mask AP by part of the labels, a" in masks and "of the labels, b" not in masks


def test_a_cell_without_a_number_is_empty_in_csv(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    line = rendered(comparison, "bbox/AP", style="csv").splitlines()[1]
    assert line == "scenes-segm,random,0.1,1,4.0,,,,,,,measured,"


def texts(table) -> list[list[str]]:
    return [[value.text for value in row] for row in table.rows]


@pytest.fixture
def comparison(tmp_path, make_record) -> Comparison:
    return make_example(tmp_path, make_record).comparison


def test_details_carry_seeds_and_the_test_against_the_baseline(comparison):
    table = details_table(comparison, summarize(comparison), "bbox")
    assert table.columns == ["labels", "start", "seeds", "AP", "AP50", "ΔAP", "p"]
    random, captions, *_ = texts(table)
    assert random == ["10 %", "random", "2", "11.0 ± 0.7", "22.0 ± 1.4", "–", "–"]
    assert captions[:5] == ["10 %", "captions", "2", "21.0 ± 0.7", "42.0 ± 1.4"] and captions[
        -2:
    ] == ["+10.0", "–"]
    assert (
        table.rows[1][-2] == Value("+10.0", pytest.approx(10.0))
        and table.rows[0][-1].number is None
    )


def test_details_without_a_baseline_have_no_test(comparison):
    without = replace(comparison, baseline="")
    assert details_table(without, summarize(without), "bbox").columns[-1] == "AP50"


def test_details_leave_out_metrics_that_no_run_has(comparison):
    assert "AP50" not in details_table(comparison, summarize(comparison), "segm").columns


def test_details_of_mixed_protocols_say_so_and_have_no_best(make_record):
    plain = compare(make_record, TWO).records
    records = {c: replace(r, protocol="other") if c.seed else r for c, r in plain.items()}
    comparison = Comparison("", "random", records, mix=True)
    table = details_table(comparison, summarize(comparison), "bbox")
    assert "Several protocols" in table.notes[0]
    assert not any(value.is_best for row in table.rows for value in row)


def test_published_numbers_of_a_protocol_have_a_table_with_their_source(make_record):
    table = published_table(compare(make_record, TWO, protocol="coco-segm-1x"))
    metrics = [f"{task} {metric}" for task in ("Box", "Mask") for metric in ("AP", "AP50", "AP75")]
    assert table.columns == ["published start", *metrics, "paper", "source", "how sure"]
    assert texts(table)[0][:3] == ["random", "31.0", "49.5"] and texts(table)[0][-1] == "READ"
    assert texts(table)[2][2] == "–" and texts(table)[2][-2].endswith(
        "; differs: mmdetection's own 1x schedule, norms and sizes"
    )
    assert published_table(compare(make_record, TWO)) is None


def test_published_numbers_that_a_matrix_adds_stand_with_ours_everywhere(make_record):
    rival = PublishedResult(
        protocol="scenes-segm",
        start="rival",
        metrics={"bbox": {"AP": 33.3}},
        paper="Doe 2026",
        source="arXiv:2601.00001",
        how_sure="READ",
        table="Table 5",
    )
    comparison = replace(compare(make_record, TWO), published=[rival])
    text = rendered(comparison)
    assert "| rival, published [1] |  | 33.3 |" in text
    assert "[1] Doe 2026; arXiv:2601.00001, Table 5 (how sure: READ)" in text
    assert "rival" in rendered(comparison, style="csv")
    row = texts(published_table(comparison))[0]
    assert row == ["rival", "33.3", "Doe 2026", "arXiv:2601.00001, Table 5", "READ"]
    assert comparison.of(comparison.protocols).published_for("scenes-segm") == [rival]


def test_categories_are_means_over_seeds_at_the_largest_fraction(comparison):
    box, mask = category_tables(comparison)
    assert (box.title, mask.title) == ("Box AP", "Mask AP")
    assert box.columns == ["category", "random", "captions"] and box.notes == [
        "With 100 % of the labels, mean over seeds."
    ]
    assert texts(box) == [["square", "15.5", "25.5"], ["ring <1>", "16.5", "26.5"]]


def test_a_category_that_one_start_has_not_found_is_zero_there(comparison):
    records = dict(comparison.records)
    for cell in [cell for cell in records if cell.start == "random"]:
        records[cell] = replace(records[cell], metrics={"bbox": {"AP": 1.0, "AP-square": None}})
    box = category_tables(Comparison("", "random", records))[0]
    assert texts(box)[0] == ["square", "0.0", "25.5"]


def test_of_many_categories_those_are_kept_in_which_the_starts_differ_most(
    make_record, monkeypatch
):
    monkeypatch.setattr(tables, "MAX_CATEGORIES", 1)
    reached = {"random": {"AP-a": 1.0, "AP-b": 5.0}, "captions": {"AP-a": 2.0, "AP-b": 9.0}}
    records = {
        Cell(start, "scenes", 1.0, 0): replace(make_record(), metrics={"bbox": {"AP": 1.0} | table})
        for start, table in reached.items()
    }
    (table,) = category_tables(Comparison("", "random", records))
    assert texts(table) == [["b", "5.0", "9.0"]]
    assert table.title == "Box AP: the 1 categories in which the starts differ most, of 2"


def test_without_categories_there_is_no_table(make_record):
    assert (
        category_tables(Comparison("", "", {Cell("random", "scenes", 1.0, 0): make_record()})) == []
    )
