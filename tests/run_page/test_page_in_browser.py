"""The page of a run in a real browser: it complains of nothing and fits the screen."""

import pytest

from tests.benchmark.test_report_in_browser import browser
from tests.run_page.test_page import make_run
from virtex_det.run_page.page import write_run_page

__all__ = ["browser", "make_run"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_the_page_fits_the_screen_and_shows_all_pictures(browser, make_run, width, scheme):
    page = write_run_page(make_run(), threshold=0.5).path
    opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(f"file://{page}")
    opened.eval_on_selector_all("img", "all => all.forEach(image => image.loading = 'eager')")
    opened.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not complaints
    opened.close()
