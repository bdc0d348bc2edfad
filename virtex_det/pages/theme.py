"""The colours of pages and plots, on white and on dark ground, and the one size of small type.

Text has a contrast of at least 4.5 to its ground and lines have 3, as WCAG 2.2 asks (1.4.3,
1.4.11). The colours of lines are after Okabe and Ito's, which the colour-blind tell apart, made
darker on white and lighter on dark ground.
"""

import re
from typing import NamedTuple

SMALL_TYPE = 14  # pixels: tables, notes, captions and plots


class Theme(NamedTuple):
    """Colours as #rrggbb.

    Attributes:
        ink: text.
        soft: text of second rank.
        line: rules of tables and the grid of plots.
        ground: the page.
        tint: ground of code and of the row under the pointer.
        link: links, and whatever else can be clicked.
        baseline: lines of the start that the others are compared with.
        palette: lines of the others, in their order.
    """

    ink: str
    soft: str
    line: str
    ground: str
    tint: str
    link: str
    baseline: str
    palette: tuple[str, ...]


LIGHT = Theme(
    ink="#1d2127",
    soft="#59616b",
    line="#d9dde2",
    ground="#ffffff",
    tint="#f3f5f7",
    link="#1f5f99",
    baseline="#767676",
    palette=(
        "#0072b2",
        "#c84e00",
        "#00875f",
        "#b5548a",
        "#a87400",
        "#1d2127",
        "#7b3294",
        "#8c510a",
        "#01665e",
        "#2f8fc9",
    ),
)
DARK = Theme(
    ink="#e4e7eb",
    soft="#a3abb5",
    line="#363c44",
    ground="#15181c",
    tint="#20252b",
    link="#7fb8ec",
    baseline="#9aa1a9",
    palette=(
        "#56b4e9",
        "#ff8c42",
        "#2ec4a0",
        "#e58fc0",
        "#e6b020",
        "#e4e7eb",
        "#c39be0",
        "#d39a5b",
        "#5fb5ad",
        "#a6d8f5",
    ),
)


def on_dark_ground(svg: str) -> str:
    """Return a plot that was drawn in the colours of LIGHT in those of DARK."""
    pairs = zip((*LIGHT[:-1], *LIGHT.palette), (*DARK[:-1], *DARK.palette), strict=True)
    dark = {str(light): str(other) for light, other in pairs}
    return re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda match: dark.get(match[0], match[0]), svg)


def line_colours(names: list[str], baseline: str, theme: Theme = LIGHT) -> dict[str, str]:
    """Return a colour per name: grey for the baseline, the palette in turn for the others."""
    others = [name for name in names if name != baseline]
    colours = {name: theme.palette[place % len(theme.palette)] for place, name in enumerate(others)}
    return {name: colours.get(name, theme.baseline) for name in names}
