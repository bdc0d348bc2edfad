"""Pages of one file in a real browser."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Of a desk and of a phone.
SCREENS = [(1280, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's chromium without a screen."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install playwright"
    )
    chromium = shutil.which("chromium") or pytest.skip("no chromium: apt-get install chromium")
    if subprocess.run([chromium, "--version"], capture_output=True).returncode != 0:
        pytest.skip(f"{chromium} does not run; on Ubuntu it is a placeholder for a snap")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


def check_on_screen(browser: Any, page: Path, width: int, scheme: str) -> None:
    """Check that a page fits a screen, shows all its pictures, and that nothing complains.

    Args:
        browser: the fixture.
        page: the file.
        width: of the screen, in pixels.
        scheme: "light" or "dark".
    """
    opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(page.as_uri())
    opened.eval_on_selector_all("img", "all => all.forEach(image => image.loading = 'eager')")
    opened.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not complaints
    opened.close()
