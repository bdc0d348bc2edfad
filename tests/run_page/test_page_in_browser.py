"""The page of a run in a real browser: it complains of nothing and fits the screen."""

import pytest

from tests.pages.in_browser import SCREENS, browser, check_on_screen
from tests.run_page.test_page import make_run
from virtex_det.run_page.page import write_run_page

__all__ = ["browser", "make_run"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_fits_the_screen_and_shows_all_pictures(browser, make_run, width, scheme):
    page = write_run_page(make_run(), threshold=0.5).path
    check_on_screen(browser, page, width, scheme)
