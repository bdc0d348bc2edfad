import html

import pytest

from virtex_det.pages.html import data_uri, render_html


def page(fact: str) -> str:
    """Return a page that shows a fact."""
    return render_html(
        "inference/captions.html.j2",
        captions={"captioned": [], "skipped": []},
        facts={"Fact": fact},
    )


@pytest.mark.parametrize("before", ["", "data:image/jpeg;base64,", "data:image/"])
def test_text_is_escaped_visible_and_without_absolute_paths_however_it_begins(before):
    shown = page(f"{before} <b> \x1b[2J /home/me/runs/a/x.pth")
    assert html.escape(f"{before} <b> \\x1b[2J …/a/x.pth") in shown


def test_pictures_stay_as_they_are():
    content = bytes(range(256)) * 40
    uri = data_uri(content, "svg+xml")
    assert uri.startswith("data:image/svg+xml;base64,") and "/" in uri[40:]
    assert f"<dd>{uri}</dd>" in page(uri)
