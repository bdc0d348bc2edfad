import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest
from matplotlib import rc_context

from tests.benchmark.example_comparison import make_example
from tests.benchmark.matrices import compare
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.report import write_report

CARDS = {"scenes": {"detector": "Mask R-CNN & friends"}}
COMMANDS = {"captions, 10 % of the labels": ["python tools/train_net.py A '<b>'", "second line"]}


@pytest.fixture
def page_of(tmp_path, make_record):
    """Writes the page of an example and returns its text."""

    def make(pictures: bool = True, **example: tuple) -> str:
        found = make_example(tmp_path, make_record, **example)
        files = (
            {"annotations": found.annotations, "image_root": found.image_root} if pictures else {}
        )
        write_report(
            tmp_path / "index.html",
            found.comparison,
            folders=found.folders,
            cards=CARDS,
            commands=COMMANDS,
            notes=["Captions <name> classes."],
            **files,
        )
        return (tmp_path / "index.html").read_text().replace("\u00a0", " ")

    return make


def test_the_page_is_one_file_with_tables_curves_and_pictures(page_of):
    html = page_of()
    assert "21.0 ± 0.7" in html and "25.5 ± 0.7" in html
    assert html.count('src="data:image/jpeg') == 2 * 3
    assert html.count('src="data:image/svg+xml') == 4 + 4
    assert "Bands and bars: one standard deviation over seeds." in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


def test_text_from_outside_is_escaped(page_of):
    html = page_of()
    assert "What &lt;captions&gt; are worth" in html and "ring &lt;1&gt;" in html
    assert (
        "Captions &lt;name&gt; classes." in html
        and "&#39;&lt;b&gt;&#39;" in html
        and "R-CNN &amp; friends" in html
    )
    assert "<captions>" not in html and "<b>'" not in html


def test_numbers_of_cells_are_what_they_are_sorted_by(page_of):
    assert '<td data-value="21.0" class="best">21.0 ± 0.7</td>' in page_of()


def test_what_the_records_say_of_their_making_is_on_the_page(page_of):
    html = page_of()
    assert "scenes_val: 4 images, sha256 111111111111" in html and "python 3" in html
    assert re.search(r"<dt>Code</dt><dd>\w+", html) and "Equal: the labelled images" in html


def test_one_start_and_one_fraction_make_a_page(page_of):
    html = page_of(starts=("random",), fractions=(1.0,), seeds=(0,))
    assert "from 1 start," in html and 'id="curves"' not in html


def test_each_protocol_has_tables_of_its_own(page_of):
    html = page_of(protocols=("one", "two"))
    assert "one: protocol one-segm" in html and "two: protocol two-segm" in html
    assert "Equal in all runs of a protocol: detector" in html
    assert "Numbers of one-segm, two-segm are not to be compared with each other." in html
    assert "Box AP, 10 % of the labels, two" in html


def test_several_protocols_stand_in_one_table_with_published_results_and_sources(
    tmp_path, make_record
):
    found = make_example(tmp_path, make_record, protocols=("one", "two"))
    rival = PublishedResult("one-segm", "rival", {"bbox": {"AP": 22.2}}, "Doe", "arXiv", "READ")
    write_report(
        tmp_path / "index.html",
        dataclasses.replace(found.comparison, published=[rival]),
        folders=dict.fromkeys(found.folders, tmp_path / "gone"),
        cards=CARDS,
        commands=COMMANDS,
    )
    html = (tmp_path / "index.html").read_text().replace("\u00a0", " ")
    table = html.partition("<h3>All protocols</h3>")[2].partition("<h3>")[0]
    assert "Box AP, one, 10 %" in table and "Mask AP, two, 100 %" in table
    assert "rival, published [1]" in table and "22.2" in table
    assert "[1] Doe; arXiv (how sure: READ)" in table


def test_a_protocol_of_svms_is_a_column_of_the_overview_alone(tmp_path, make_record):
    found = make_example(tmp_path, make_record, protocols=("one", "svm"))
    records = {}
    for cell, record in found.comparison.records.items():
        if cell.protocol == "one":
            records[cell] = record
        elif cell.fraction == 1:
            metrics = {"svm": {"mAP": 50.0 + cell.seed, "mAP-area": 1.0}}
            records[cell] = dataclasses.replace(record, iteration=None, metrics=metrics)
    comparison = Comparison("Two protocols", "random", records)
    page = tmp_path / "page.html"
    write_report(page, comparison, folders=found.folders, cards={}, commands={})
    html = page.read_text()
    assert "one: protocol one-segm" not in html and "svm: protocol" not in html
    assert "<h3>What the features are worth</h3>" in html
    assert '<button type="button">SVM mAP, svm</button>' in html and "50.5 ± 0.7" in html
    assert "one-segm on 10\u00a0%, 100\u00a0% of the labels; svm-segm on 100\u00a0%" in html
    assert "fine-tuning, per run of one" in html


def test_without_annotations_there_are_no_pictures(page_of):
    html = page_of(pictures=False)
    assert "image/jpeg" not in html and 'id="pictures"' not in html


def test_missing_images_are_named(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    page, nowhere = tmp_path / "index.html", tmp_path / "nowhere"
    for missing in (
        {"annotations": nowhere, "image_root": tmp_path},
        {"annotations": found.annotations, "image_root": nowhere},
    ):
        write_report(
            page, found.comparison, folders=found.folders, cards={}, commands={}, **missing
        )
        assert "No pictures: annotations or images were not there" in page.read_text()


def test_a_start_without_detections_is_named_as_not_shown(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    for cell, folder in found.folders.items():
        if cell.start == "captions":
            (folder / "inference" / "scenes_val" / "coco_instances_results.json").unlink()
    page = tmp_path / "index.html"
    more = {"annotations": found.annotations, "image_root": found.image_root}
    write_report(page, found.comparison, folders=found.folders, cards={}, commands={}, **more)
    assert (
        "Not shown: captions." in page.read_text() and page.read_text().count("image/jpeg") == 2 * 2
    )


def test_detections_of_a_later_evaluation_are_not_shown_as_the_runs(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    for cell, folder in found.folders.items():
        if cell.start == "captions":
            other = {"metrics": {"bbox": {"AP": 90.0}}, "evaluated": {"path": "other.pth"}}
            dataclasses.replace(found.comparison.records[cell], **other).write(folder)
    page = tmp_path / "index.html"
    more = {"annotations": found.annotations, "image_root": found.image_root}
    write_report(page, found.comparison, folders=found.folders, cards={}, commands={}, **more)
    assert "Not shown: captions." in page.read_text()


def test_runs_evaluated_once_have_no_curve_over_iterations(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    for cell, folder in found.folders.items():
        (folder / "results.jsonl").unlink()
        found.comparison.records[cell].write(folder)
    write_report(
        tmp_path / "index.html", found.comparison, folders=found.folders, cards={}, commands={}
    )
    assert 'id="iterations"' not in (tmp_path / "index.html").read_text()


def iteration_curves(tmp_path, found) -> str:
    """Return the curves over iterations as the page shows them."""
    page = tmp_path / "index.html"
    with rc_context({"svg.hashsalt": "so that equal curves are equal bytes"}):
        write_report(page, found.comparison, folders=found.folders, cards={}, commands={})
    return page.read_text().split('id="iterations"')[1].split("</section>")[0]


def test_evaluations_of_other_files_or_with_other_settings_are_no_part_of_the_curve_over_iterations(
    tmp_path, make_record
):
    found = make_example(tmp_path, make_record, seeds=(0,))
    before = iteration_curves(tmp_path, found)
    for cell, folder in found.folders.items():
        last = found.comparison.records[cell]
        other = {"metrics": {"bbox": {"AP": 90.0}, "segm": {"AP": 90.0}}}
        dataclasses.replace(last, config_sha256="f" * 64, **other).write(folder)
        dataclasses.replace(last, iteration=150, evaluated={"path": "a"}, **other).write(folder)
        last.write(folder)
    assert iteration_curves(tmp_path, found) == before


def test_a_start_without_pretraining_lacks_no_time(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    cost = RunCost(
        iterations=10,
        images=160,
        captions_per_image=2,
        training_seconds=300.0,
        cpu_seconds=580.0,
        processes=1,
    )
    weights = {"path": str(tmp_path / "model_final.pth"), "sha256": "1", "format": ""}
    records = {
        cell: dataclasses.replace(record, weights=weights) if cell.start == "captions" else record
        for cell, record in found.comparison.records.items()
    }
    costs = {cell: cost for cell in records if cell.start == "captions"}
    with_pretraining = dataclasses.replace(found.comparison, records=records, pretraining=costs)
    for comparison, axis in (
        (with_pretraining, "pretraining and fine-tuning"),
        (found.comparison, "without"),
    ):
        page = tmp_path / "index.html"
        write_report(page, comparison, folders=found.folders, cards={}, commands={})
        drawn = re.findall(
            r'src="data:image/svg\+xml;base64,([^"]+)" alt="\w+ AP against training time',
            page.read_text(),
        )
        texts = [base64.b64decode(picture).decode() for picture in drawn]
        assert len(texts) == 2
        assert all(axis in text and "(without pretraining)" not in text for text in texts)
        is_shown = comparison is with_pretraining
        assert ("captions per image" in page.read_text()) == is_shown
        assert ('<td data-value="580.0">580</td>' in page.read_text()) == is_shown


class Order(HTMLParser):
    """What a page shows, in its order: tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def place(self, tag: str, **attributes: str) -> int:
        """Return the place of the first such tag among all."""
        return next(
            number
            for number, (name, found) in enumerate(self.found)
            if name == tag and attributes.items() <= found.items()
        )


def test_the_finding_and_one_row_of_pictures_stand_first(page_of):
    html = page_of()
    assert (
        '<p class="finding">With all labels, captions reaches 25.5 ± 0.7 box AP, 10.0 more than '
        "random (2 seeds); at most 10 % of the labels are enough for it to match the 15.5 of "
        "random.</p>"
    ) in html
    order = Order(html)
    finding, row, table = (
        order.place("p", **{"class": "finding"}),
        order.place("div", **{"class": "row"}),
        order.place("table"),
    )
    assert finding < row < order.place("nav") < table
    pictures = [found["alt"] for tag, found in order.found[row:table] if tag == "img"]
    assert pictures == [
        "1.png, ground truth: 2 labelled",
        "1.png, random: 1 found, 1 missed, 0 false alarms",
        "1.png, captions: 1 found, 1 missed, 0 false alarms",
    ]


def test_without_pictures_the_curves_stand_first(page_of):
    order = Order(page_of(pictures=False))
    first = order.place("img")
    assert order.place("p", **{"class": "finding"}) < first < order.place("nav")
    assert order.found[first][1]["alt"] == "Box AP against the part of the labels"
    plots = [found["alt"] for tag, found in order.found if tag == "img"]
    assert len(plots) == len(set(plots)), "no plot is shown twice"


def test_the_interval_of_a_difference_has_a_line_of_its_own(tmp_path, make_record):
    scores = {("random", 1.0): (4.0, 6.0), ("captions", 1.0): (10.0, 13.0)}
    comparison = dataclasses.replace(compare(make_record, scores), pairs=[("captions", "random")])
    folders = dict.fromkeys(comparison.records, tmp_path)
    page = tmp_path / "index.html"
    write_report(page, comparison, folders=folders, cards={}, commands={})
    assert re.search(r'>\+6\.5<br><span class="soft">\(\S+\xa0to\xa0\S+, p\xa0', page.read_text())


def test_every_picture_says_what_it_shows_and_every_plot_is_there_for_dark_ground(page_of):
    order = Order(page_of())
    images = [found for tag, found in order.found if tag == "img"]
    assert images and all(found["alt"] for found in images)
    plots = [found for found in images if found["src"].startswith("data:image/svg")]
    dark = [found for tag, found in order.found if tag == "source"]
    assert len(dark) == len(plots) > 0
    assert all(found["media"] == "(prefers-color-scheme: dark)" for found in dark)
    assert not {found["srcset"] for found in dark} & {found["src"] for found in plots}


def test_the_page_has_colours_for_dark_ground(page_of):
    html = page_of()
    style = html.split("<style>")[1].split("</style>")[0]
    assert "color-scheme: light dark" in style
    dark = "".join(
        re.findall(r"@media \(prefers-color-scheme: dark\) \{(.*?)\}\s*\}", style, flags=re.DOTALL)
    )
    names = set(re.findall(r"(--[\w-]+): #", style))
    assert names and all(f"{name}: #" in dark for name in names)
    plain = re.sub(r"/\*.*?\*/|--[\w-]+: [^;]+;", "", style, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", plain)) <= {
        "#6b7280",
        "#78cdff",
        "#ffb000",
        "#ffffff",
    }  # marks on images


def test_no_absolute_path_is_on_the_page(tmp_path, make_record):
    found = make_example(tmp_path, make_record)
    records = {
        cell: dataclasses.replace(record, dataset="coco:/data/me/val.json:/data/me/val")
        for cell, record in found.comparison.records.items()
    }
    for pictures in (
        {"annotations": tmp_path / "no.json", "image_root": tmp_path / "my images" / "val"},
        {},
    ):
        write_report(
            tmp_path / "index.html",
            dataclasses.replace(found.comparison, records=records),
            folders=found.folders,
            cards={"scenes": {"data": f"{tmp_path}/data/train.json"}},
            commands={"row": [f"python tools/train_net.py OUTPUT_DIR {tmp_path}/runs/a"]},
            notes=[f"The weights are in {tmp_path}/runs/b."],
            **pictures,
        )
        html = re.sub(r"data:image[^\"]+", "", (tmp_path / "index.html").read_text())
        assert str(tmp_path) not in html and "/data/me" not in html
        assert "…/me/val.json" in html or "me/val.json" in html


def test_of_more_starts_than_fit_those_of_the_finding_stay(page_of):
    html = page_of(starts=tuple(f"start {number}" for number in range(8)))
    assert "Not shown: start 4, start 5, start 6." in html
    assert 'alt="1.png, start 7: ' in html and 'alt="1.png, start 0: ' in html


def test_with_more_than_four_starts_the_page_mentions_no_bands(page_of):
    html = page_of(starts=tuple(f"start {number}" for number in range(5)))
    assert "Bands" not in html and 'class="bar"' not in html
