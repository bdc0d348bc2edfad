"""Pictures of attention and traces: what is drawn where, and what the page says."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.test_escaping import NAMES, is_seen
from virtex_det.inference import pages
from virtex_det.inference.attention_sheets import (
    Guess,
    Sheet,
    Sheets,
    WordPicture,
    draw_heat,
    draw_trace,
    write_sheets,
)

SIDE = 64
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)


def changed(picture, ground=GREY):
    """Rows and columns of the pixels that were drawn on."""
    return np.argwhere((picture != ground).any(axis=2))


def test_heat_is_brightest_in_the_middle_of_the_cell_attended_to_and_fades_between_cells():
    attention = np.zeros((4, 4))
    attention[1, 2] = 0.7
    heat = draw_heat(GREY, attention).sum(axis=2).astype(int)
    assert abs(np.argwhere(heat == heat.max()).mean(axis=0) - [23.5, 39.5]).max() < 1
    across = heat[24, 24:40]  # from the middle of one cell to that of the next
    assert (
        (np.diff(across) >= 0).all() and across[0] < across[8] < across[-1] and len(set(across)) > 8
    )
    assert heat[0, 0] <= heat.min() + 1 and heat[60, 60] <= heat.min() + 1


def test_heat_has_the_same_scale_whatever_the_attention_sums_to():
    cells = np.random.default_rng(0).random((3, 3))
    np.testing.assert_allclose(draw_heat(GREY, cells), draw_heat(GREY, cells / 50), atol=1)


def test_a_point_is_drawn_where_it_is():
    spot = changed(draw_trace(GREY, np.array([[0.75, 0.25, 1.0]]), (0, 2)))
    assert abs(spot.mean(axis=0) - [15.5, 47.5]).max() <= 0.5 and len(spot) < 40


def test_points_are_joined_but_not_across_a_pause():
    along = [[0.1, 0.5, 0.0], [0.9, 0.5, 0.1]]
    assert len(set(changed(draw_trace(GREY, np.array(along), (0, 1)))[:, 1])) > 50
    apart = [[0.1, 0.5, 0.0], [0.9, 0.5, 5.0]]
    assert len(set(changed(draw_trace(GREY, np.array(apart), (0, 1)))[:, 1])) < 20


def test_a_trace_changes_colour_with_time_and_not_the_picture_below():
    points = np.array([[0.25, 0.5, 0.0], [0.75, 0.5, 5.0]])
    traced = draw_trace(GREY, points, (0, 5)).astype(int)
    # cyan, magenta
    assert traced[31, 15, 1] > traced[31, 15, 0] and traced[31, 47, 0] > traced[31, 47, 1]
    assert traced.sum(axis=2).min() < 200  # a dark edge, on any ground
    assert (GREY == 128).all()


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.array([[9e9, -9e9, 1.0], [5, 5, 1.1]])])
def test_nothing_is_drawn_of_a_trace_that_is_empty_or_outside(points):
    assert not len(changed(draw_trace(GREY, points, (0, 0))))


def a_sheet(**changes):
    jpeg = io.BytesIO()
    Image.new("RGB", (140, 140), "red").save(jpeg, "JPEG")
    word = WordPicture(
        "<dog>",
        jpeg.getvalue(),
        0.25,
        jpeg.getvalue(),
        3,
        (Guess("<cat>", 0.5, False), Guess("dog", 0.1, True)),
    )
    return Sheet("f/<a>.jpg", "a <dog> & cat", jpeg.getvalue(), True, (word,) * 5, 2)._replace(
        **changes
    )


def test_the_page_is_one_file_of_small_pictures_words_reasons_and_facts_as_text(tmp_path):
    page = write_sheets(
        tmp_path / "new" / "folder",
        Sheets([a_sheet()], ["x.png: <broken>"]),
        {"Model": "LocTexModel"},
    )
    html = page.read_text()
    for part in (
        "f/&lt;a&gt;.jpg",
        "a &lt;dog&gt; &amp; cat",
        "x.png: &lt;broken&gt;",
        "<dd>LocTexModel</dd>",
        "last 2 words",
    ):
        assert part in html
    for part in (
        "peak 25.0 %</span>",
        "<td>50 %</td><td>&lt;cat&gt;</td>",
        '<tr class="right"><td>10 %</td><td>dog</td>',
    ):
        assert html.count(part) == 5
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) == 11 and all(
        source.startswith("data:image/jpeg;base64,") for source in sources
    )
    assert "<dog>" not in html and "http" not in html


def test_what_is_not_in_the_sheets_is_not_explained(tmp_path):
    page = write_sheets(tmp_path, Sheets([a_sheet(has_trace=False, words=())], []), {}).read_text()
    assert "pointer" not in page and "hidden" not in page and "Skipped" not in page
    page = write_sheets(tmp_path, Sheets([a_sheet()], []), {}).read_text()
    assert "pointer while the word is said" in page and "hidden from the model" in page
    assert "no pointer" not in page


def test_a_word_that_is_said_while_the_pointer_is_elsewhere_has_no_pointer(tmp_path):
    words = tuple(word._replace(points=0) for word in a_sheet().words)
    page = write_sheets(tmp_path, Sheets([a_sheet(words=words)], []), {}).read_text()
    assert page.count("peak 25.0 %, no pointer</span>") == 5


def test_each_sheet_is_a_png_of_all_its_pictures(tmp_path):
    write_sheets(tmp_path, Sheets([a_sheet(), a_sheet(has_trace=False, words=())], []), {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000_<a>.png", "001_<a>.png", "attention.html"]
    pixels = np.asarray(Image.open(tmp_path / "000_<a>.png").convert("RGB")).astype(int)
    red = ((pixels - [254, 0, 0]) ** 2).sum(axis=2) < 50
    assert red.sum() == 11 * 140 * 140


def test_a_page_that_cannot_be_made_leaves_the_one_before(tmp_path, monkeypatch):
    page = write_sheets(tmp_path, Sheets([], []), {})
    before = page.read_text()
    monkeypatch.setattr(pages, "describe_hardware", lambda: {})
    with pytest.raises(KeyError):
        write_sheets(tmp_path, Sheets([], ["a"]), {})
    assert page.read_text() == before and [path.name for path in tmp_path.iterdir()] == [
        "attention.html"
    ]


@pytest.mark.parametrize("name", [*NAMES.values(), "日" * 200, "../../x.jpg", ".."])
def test_whatever_an_image_is_called_its_sheet_lies_in_the_folder_and_its_page_is_text(
    name, tmp_path
):
    sheet = a_sheet(file_name=name, caption=name, words=())
    page = write_sheets(tmp_path / "sheets", Sheets([sheet], [name]), {"Model": name})
    assert len(list((tmp_path / "sheets").iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    html = page.read_text()
    assert is_seen(html) and not re.search("<(script|b|i|svg|a)[ />]", html)
    assert all(
        source.startswith("data:image/jpeg") for source in re.findall(r"<img src=\"([^\"]*)", html)
    )
