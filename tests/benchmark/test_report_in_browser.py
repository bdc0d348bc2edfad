"""The report in a real browser: that it loads, sorts, shows its pictures and fits the screen."""

from pathlib import Path

import pytest

from tests.benchmark.example_comparison import make_example
from tests.pages.in_browser import browser
from virtex_det.benchmark.report import write_report

__all__ = ["browser"]

STARTS = ("random", *(f"caption pretraining number {number}" for number in range(1, 7)))
COMMAND = "python tools/train_net.py --config-file configs/detectron2/scenes_segm.yaml OUTPUT_DIR "
COMMAND += "very_long_" * 30


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, make_record) -> Path:
    folder = tmp_path_factory.mktemp("report")
    found = make_example(
        folder, make_record, starts=STARTS, fractions=(0.01, 0.1, 1.0), seeds=(0, 1)
    )
    write_report(
        folder / "index.html",
        found.comparison,
        folders=found.folders,
        annotations=found.annotations,
        image_root=found.image_root,
        cards={"scenes": {"protocol": "scenes-segm+" + "SOLVER.MAX_ITER=4+" * 12}},
        commands={"random, 1 % of the labels": [COMMAND]},
    )
    return folder / "index.html"


@pytest.fixture
def page(browser, page_file):
    """The page, and in ``page.complaints`` what the browser had to say against it."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("requestfailed", lambda request: opened.complaints.append(request.url[:100]))
    opened.on(
        "request",
        lambda request: (
            request.url.startswith(("data:", "file:")) or opened.complaints.append(request.url)
        ),
    )
    opened.goto(page_file.as_uri(), timeout=120_000)  # a busy machine takes its time
    yield opened
    opened.close()


def column(page, table: str, number: int) -> list[str]:
    """Return what a column of the first table after a heading says, from top to bottom."""
    return page.locator(f"{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_it_loads_without_complaint_and_asks_for_nothing_else(page):
    assert page.title() == "What <captions> are worth"
    assert page.complaints == []


def test_all_pictures_show(page):
    widths = page.eval_on_selector_all(
        "img", "images => images.map(image => image.complete && image.naturalWidth)"
    )
    assert len(widths) > 10 and all(widths)


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_numbers_sort_with_the_greatest_first_and_turn_round(page):
    heading = page.locator("#results table").first.locator("th").nth(1)
    before = column(page, "#results .side > :first-child", 2)
    assert (
        before[0].startswith("10.6")
        and before[1].startswith("20.6")
        and before[-1].startswith("70.5")
    )
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, "#results .side > :first-child", 2) == before[::-1]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, "#results .side > :first-child", 2) == before
    assert page.complaints == []


def test_words_sort_from_a_to_z_and_one_heading_at_a_time_says_so(page):
    table = page.locator("#results table").first
    table.locator("th").nth(1).get_by_role("button").click()
    table.locator("th").nth(0).get_by_role("button").click()
    assert column(page, "#results .side > :first-child", 1) == sorted(STARTS)
    assert [heading.get_attribute("aria-sort") for heading in table.locator("th").all()[:2]] == [
        "ascending",
        "none",
    ]


def test_cells_without_a_number_stay_last_either_way(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    table = page.locator("#results details table").first
    heading = table.locator("th").nth(-2)
    for _ in range(2):
        heading.get_by_role("button").click()
        said = table.locator("tbody tr td:nth-last-child(2)").all_inner_texts()
        assert "–" not in said[:-3] and said[-3:] == ["–"] * 3


def test_every_table_sorts(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    tables = page.locator("table.sortable")
    assert tables.count() == page.locator("table").count() >= 7
    for table in tables.all():
        for heading in table.locator("th").all():
            heading.get_by_role("button").click()
            assert heading.get_attribute("aria-sort") in ("ascending", "descending")
    assert page.complaints == []
