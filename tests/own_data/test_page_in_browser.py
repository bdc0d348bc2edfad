"""The page of data in a real browser: it complains of nothing and fits the screen."""

import pytest

from tests.benchmark.test_report_in_browser import browser
from tests.data.datasets.conftest import coco_content
from virtex_det.own_data.look import look_at
from virtex_det.own_data.page import write_data_page

__all__ = ["browser"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_the_screen_and_shows_all_pictures(browser, coco, tmp_path, width, scheme):
    content = coco_content()
    content["categories"][1]["name"] = "a class with a name that is very long " * 5
    name = coco(content)
    write_data_page(tmp_path / "page.html", look_at([name], [name]))
    opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(f"file://{tmp_path}/page.html")
    opened.eval_on_selector_all("img", "all => all.forEach(image => image.loading = 'eager')")
    opened.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not complaints
    opened.close()
