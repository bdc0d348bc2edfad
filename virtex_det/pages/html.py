"""Renders HTML pages: one look, light or dark as the screen is, and text that stays text."""

import base64
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from virtex_det.escaping import visible
from virtex_det.pages.paths import shown_path, without_absolute_paths
from virtex_det.pages.theme import DARK, LIGHT, SMALL_TYPE


def data_uri(content: bytes, kind: str = "jpeg") -> Markup:
    """Return a picture's file as a data URI, so that a page needs no other file.

    Args:
        content: of the file.
        kind: "jpeg" or "svg+xml".
    """
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def render_html(template: str, **values: Any) -> str:
    """Render a page.

    What comes from outside is escaped, characters that would act are made visible, and absolute
    paths are shortened: a page is handed on, and where its maker keeps the files concerns nobody.

    Args:
        template: path below the package, such as "benchmark/report.html.j2".
        values: what it shows.
    """
    loader = jinja2.PackageLoader("virtex_det", ".")
    environment = jinja2.Environment(autoescape=True, finalize=_shown, loader=loader)
    environment.globals.update(light=LIGHT, dark=DARK, small_type=SMALL_TYPE)
    return environment.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    """Return what a page prints for a value of its template; Markup stays as it is."""
    if isinstance(value, Path):
        return visible(shown_path(value))
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return without_absolute_paths(visible(value))
