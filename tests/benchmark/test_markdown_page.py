import dataclasses

import pytest

from tests.benchmark.matrices import compare, drawn, rendered
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.plots import save_figure
from virtex_det.benchmark.report import render_markdown_page, write_markdown_page
from virtex_det.benchmark.statistics import summarize
from virtex_det.errors import UserError

CARD = {"scenes-segm": {"detector": "Mask R-CNN", "metric": "COCO AP"}}


@pytest.fixture
def comparison(make_record):
    return compare(make_record, {("random", 0.1): (4.0, 6.0), ("captions", 0.1): (10.0, 12.0)})


def page_of(comparison: Comparison, **more) -> str:
    summary = summarize(comparison, ["bbox/AP", "segm/AP"])
    return render_markdown_page(comparison, summary, picture="page.svg", **more)


def test_the_page_has_tables_protocol_conditions_and_commands(comparison):
    page = page_of(comparison, cards=CARD, commands=["python tools/benchmark.py run m.yaml"])
    assert page.startswith("# Known numbers\n")
    assert rendered(comparison).splitlines()[2] in page
    assert "](page.svg)" in page and "| detector | Mask R-CNN |" in page
    assert "```bash\npython tools/benchmark.py run m.yaml\n```" in page


def test_the_page_shows_what_pretraining_cost_if_the_records_say_it(comparison):
    assert "What it cost" not in page_of(comparison, cards=CARD, commands=[])
    cost = RunCost(
        iterations=100,
        images=1600,
        captions_per_image=2,
        training_seconds=60.0,
        cpu_seconds=110.0,
        processes=1,
    )
    captions = [cell for cell in comparison.records if cell.start == "captions"]
    known = dataclasses.replace(comparison, pretraining=dict.fromkeys(captions, cost))
    known.records = {
        cell: dataclasses.replace(
            record,
            weights={"path": "a.pth", "sha256": "1", "format": ""} if cell in captions else {},
        )
        for cell, record in comparison.records.items()
    }
    page = page_of(known, cards=CARD, commands=["a command"])
    assert "\n\n## What it cost\n\n| start | images | captions per image | CPU seconds |" in page
    assert "| captions | 1600 | 2 | 110 | 60 s |" in page
    assert page.index("CPU seconds are of the training steps") < page.index(
        "\n\n## Do it again\n\n"
    )


def test_a_category_that_a_fraction_leaves_without_images_is_named(make_record):
    records = compare(make_record, {("random", 0.1): (4.0,)}).records
    empty = {
        cell: dataclasses.replace(record, empty_categories=("zebra",))
        for cell, record in records.items()
    }
    assert "zebra" in page_of(Comparison("", "", empty), cards={}, commands=[])


def test_the_same_records_give_the_same_files(comparison, tmp_path):
    for folder in ("a", "b"):
        path, more = tmp_path / folder / "page.md", {"cards": CARD, "commands": ["a command"]}
        write_markdown_page(path, comparison, metrics=["bbox/AP"], **more)
    for name in ("page.md", "page.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_a_picture_has_the_format_of_its_suffix(comparison, tmp_path, suffix, magic):
    save_figure(drawn(comparison), tmp_path / f"curves{suffix}")
    assert (tmp_path / f"curves{suffix}").read_bytes().startswith(magic)


def test_another_suffix_is_refused(comparison, tmp_path):
    with pytest.raises(UserError, match=".png, .svg, .pdf"):
        save_figure(drawn(comparison), tmp_path / "curves.gif")
