"""Pictures of attention and traces, on a page and in PNG files."""

import io
import textwrap
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from virtex_det.escaping import visible
from virtex_det.inference.pages import write_page
from virtex_det.inference.picture_folder import drawing_into
from virtex_det.pages.html import data_uri

PICTURE_SIDE = 200  # side of the whole picture in pixels
WORD_SIDE = 140  # side of a word's picture

_HEAT = matplotlib.colormaps["inferno"]
_TIME = matplotlib.colormaps["cool"]
# After this many seconds without a point no line is drawn.
_PAUSE = 0.5
_COLUMNS, _GAP, _LINE = 6, 12, 16  # of a sheet; the last two in pixels
_BLUE = "#1f6fb2"


class Guess(NamedTuple):
    """A word that the model predicts for a masked one."""

    word: str
    probability: float
    is_right: bool


class WordPicture(NamedTuple):
    """A word with its pictures, both JPEG."""

    text: str
    attention: bytes
    peak: float  # attention of the best cell
    trace: bytes | None  # the pointer while the word is spoken; None without a trace
    points: int  # number of the pointer's positions in the picture
    guesses: tuple[Guess, ...]


class Sheet(NamedTuple):
    """An image, its caption, and the pictures of its words."""

    file_name: str
    caption: str
    picture: bytes  # JPEG, with the whole trace if there is one
    has_trace: bool
    words: tuple[WordPicture, ...]
    cut: int  # number of words at the end that the model does not read


class Sheets(NamedTuple):
    """The results for a list of images."""

    drawn: list[Sheet]
    skipped: list[str]  # file name and reason


def draw_heat(pixels: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Draw attention over a picture, from dark (none) to bright (largest), bicubic between cells.

    Args:
        pixels: (S, S, 3) uint8 RGB.
        attention: (rows, columns), not all zero.

    Returns:
        An array of the shape and dtype of ``pixels``.
    """
    side = pixels.shape[0]
    heat = cv2.resize(attention / attention.max(), (side, side), interpolation=cv2.INTER_CUBIC)
    heat = heat.clip(0, 1)
    opacity = 0.35 + 0.3 * heat[..., None]
    return (pixels * (1 - opacity) + 255 * _HEAT(heat)[..., :3] * opacity).astype(np.uint8)


def draw_trace(pixels: np.ndarray, points: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Draw a pointer's trace over a picture, from cyan to magenta with time; pauses have no line.

    Args:
        pixels: (S, S, 3) uint8 RGB; not changed.
        points: (points, 3): x and y as fractions of the picture, and seconds, ascending.
        span: seconds of the first and the last colour.

    Returns:
        An array of the shape and dtype of ``pixels``.
    """
    canvas, times = np.ascontiguousarray(pixels).copy(), points[:, 2]
    # In OpenCV the centre of the first pixel is 0; with shift 4 units are sixteenths of a pixel. It
    # clips lines to the image.
    places = ((points[:, :2].clip(-1, 2) * canvas.shape[0] - 0.5) * 16).round().astype(int)
    goes_on = np.diff(times, prepend=-np.inf) <= _PAUSE
    starts = np.where(goes_on[:, None], np.roll(places, 1, axis=0), places)
    colours = 255 * _TIME((times - span[0]) / max(span[1] - span[0], 1e-6))[:, :3]
    for thickness, shade in ((4, 0), (2, 1)):  # a dark line below, visible on any background
        for start, end, colour in zip(
            starts.tolist(), places.tolist(), (shade * colours).tolist(), strict=True
        ):
            cv2.line(canvas, start, end, colour, thickness, cv2.LINE_AA, 4)
    return canvas


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize (S, S, 3) uint8 RGB to (side, side, 3)."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def write_sheets(folder: str | Path, sheets: Sheets, facts: dict[str, str]) -> Path:
    """Write a PNG per sheet, in place of those of an earlier call, and the page ``attention.html``.

    Args:
        folder: output folder, created if missing.
        sheets: the sheets to show.
        facts: rows of the "what was run" list, by name.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    with drawing_into(folder, [sheet.file_name for sheet in sheets.drawn]) as save:
        for number, sheet in enumerate(sheets.drawn):
            save(f"{number:03d}_{_file_name(sheet.file_name)}.png", compose(sheet))
    page, template = folder / "attention.html", "attention.html.j2"
    return write_page(page, template, facts, sheets=sheets, data_uri=data_uri)


def _file_name(name: str) -> str:
    """Return the last part of a path as a short file name without control characters."""
    return visible(Path(name).stem, "").encode(errors="replace")[:100].decode(errors="ignore")


def compose(sheet: Sheet) -> Image.Image:
    """Combine a sheet's pictures and words into one picture."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)
    cell = (
        WORD_SIDE * (2 if sheet.has_trace else 1) + _GAP,
        WORD_SIDE + _GAP + _LINE * (2 + _most_guesses(sheet)),
    )
    columns = _COLUMNS // (2 if sheet.has_trace else 1)
    rows = [sheet.words[start : start + columns] for start in range(0, len(sheet.words), columns)]
    width = columns * cell[0] + _GAP
    caption = "\n".join(
        textwrap.wrap(visible(sheet.caption), (width - PICTURE_SIDE - 3 * _GAP) // 7, max_lines=12)
    )
    canvas = Image.new("RGB", (width, PICTURE_SIDE + 2 * _GAP + len(rows) * cell[1]), "white")
    pen = ImageDraw.Draw(canvas)
    canvas.paste(_opened(sheet.picture), (_GAP, _GAP))
    pen.text((PICTURE_SIDE + 2 * _GAP, _GAP), caption, "black", font)
    for number, row in enumerate(rows):
        for column, word in enumerate(row):
            left, top = _GAP + column * cell[0], PICTURE_SIDE + 2 * _GAP + number * cell[1]
            pictures = [picture for picture in (word.trace, word.attention) if picture]
            for place, picture in enumerate(pictures):
                canvas.paste(_opened(picture), (left + place * WORD_SIDE, top))
            for line, (text, colour) in enumerate(_label(word)):
                pen.text((left, top + WORD_SIDE + 2 + line * _LINE), text, colour, font)
    return canvas


def _most_guesses(sheet: Sheet) -> int:
    return max((len(word.guesses) for word in sheet.words), default=0)


def _label(word: WordPicture) -> list[tuple[str, str]]:
    """Return the lines below a word's pictures, with their colours."""
    pointer = ", no pointer" if word.trace and not word.points else ""
    guesses = [
        (f"{guess.probability:.0%} {visible(guess.word, '')}", _BLUE if guess.is_right else "black")
        for guess in word.guesses
    ]
    return [
        (visible(word.text, "")[:24], "black"),
        (f"peak {word.peak:.1%}{pointer}", "grey"),
        *guesses,
    ]


def _opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))
