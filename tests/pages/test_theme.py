import pytest

from virtex_det.pages.theme import DARK, LIGHT, Theme, line_colours

TEXT, LINES = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_wcag_does():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_their_ground(theme: Theme):
    for ground in (theme.ground, theme.tint):
        for text in (theme.ink, theme.soft, theme.link):
            assert contrast(text, ground) >= TEXT
    for line in (theme.baseline, *theme.palette):
        assert contrast(line, theme.ground) >= LINES


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_the_baseline_is_grey_and_ten_others_share_no_colour(theme: Theme):
    names = ["random", *(f"start {number}" for number in range(10))]
    colours = line_colours(names, "random", theme)
    assert colours["random"] == theme.baseline and len(set(colours.values())) == 11
    assert list(colours) == names
