"""The page of data in a real browser: it complains of nothing and fits the screen."""

import pytest

from tests.data.datasets.conftest import coco_content
from tests.pages.in_browser import SCREENS, browser, check_on_screen
from virtex_det.own_data.look import look_at
from virtex_det.own_data.page import write_data_page

__all__ = ["browser"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_fits_the_screen_and_shows_all_pictures(browser, coco, tmp_path, width, scheme):
    content = coco_content()
    content["categories"][1]["name"] = "a class with a name that is very long " * 5
    name = coco(content)
    write_data_page(tmp_path / "page.html", look_at([name], [name]))
    check_on_screen(browser, tmp_path / "page.html", width, scheme)
