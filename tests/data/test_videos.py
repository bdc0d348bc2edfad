"""Videos as pictures: frames in order and upright, faults named; drawn frames as a video."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from virtex_det.data.pictures import read_rgb
from virtex_det.data.videos import is_video, read_frames, read_head, writing_video
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage

pytest.importorskip("av")

FRAMES = 12
# Left half dark and right half bright, brighter from frame to frame.
PIXELS = [
    np.repeat(np.array([[[0] * 3] * 32 + [[100 + 10 * k] * 3] * 32], np.uint8), 48, axis=0)
    for k in range(FRAMES)
]
# The matrix of a track in 16.16, the last in 2.30: as it is, and turned right by 90 degrees.
_RIGHT = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
_NONE = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@pytest.fixture
def film(tmp_path):
    """A video whose last frame comes late."""
    with writing_video(tmp_path / "film.mp4", Fraction(10)) as writer:
        for number, pixels in enumerate(PIXELS):
            writer.write(pixels, number / 10 + (number == FRAMES - 1))
    return tmp_path / "film.mp4"


def test_frames_come_in_order_with_their_times(film):
    frames = list(read_frames(film))
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [frame.seconds for frame in frames] == pytest.approx([*np.arange(11) / 10, 2.1])
    for frame, pixels in zip(frames, PIXELS, strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        assert np.abs(frame.pixels[8:40, 40:56].astype(int) - pixels[8:40, 40:56]).max() < 6
    assert read_head(film).frames == FRAMES and is_video(str(film)) and not is_video(PIXELS[0])


def test_a_video_of_a_phone_held_upright_is_turned(film):
    matrix = [np.array(values, ">i4").tobytes() for values in (_NONE, _RIGHT)]
    content = film.read_bytes()
    place = content.index(matrix[0], content.index(b"tkhd"))
    film.write_bytes(content[:place] + matrix[1] + content[place + 36 :])
    frame = next(iter(read_frames(film)))
    assert frame.pixels.shape == (64, 48, 3)  # the bright half, on the right before, is below
    assert frame.pixels[40:].mean() > 80 > 20 > frame.pixels[:24].mean()


def test_a_video_that_is_damaged_within_says_where_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / "film.mp4"
    with writing_video(path, Fraction(10)) as writer:
        for number, pixels in enumerate(noise):
            writer.write(pixels, number / 10)
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat"), content.index(b"moov")
    middle = (start + end) // 2
    content[middle : end - 4] = bytes(end - 4 - middle)
    path.write_bytes(content)
    *whole, last = read_frames(path)
    assert len(whole) < FRAMES and all(frame.pixels.size for frame in whole)
    with pytest.raises(BrokenImage, match=r"(?s)film.mp4.*cannot be read after its frame"):
        read_rgb(last)


@pytest.mark.parametrize("content", [b"", b"no video" * 100, b"#EXTM3U\n#EXTINF:1,\nother.ts\n"])
def test_what_is_no_video_is_refused(content, tmp_path):
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"film.mp4 cannot be read as a video: .*\nPlay it"):
        read_head(tmp_path / "film.mp4")


def test_a_missing_video_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_head(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match="folder"):
        read_head(tmp_path)


def test_a_video_without_pyav_says_how_to_install_it(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'virtex_det\[predict\]'"):
        read_head(film)


def test_odd_sides_lose_a_row_and_nothing_is_left_after_an_error(tmp_path):
    with writing_video(tmp_path / "odd.mp4", Fraction(5)) as writer:
        writer.write(np.zeros((33, 47, 3), np.uint8), 0.0)
    assert next(iter(read_frames(tmp_path / "odd.mp4"))).pixels.shape == (32, 46, 3)
    with (
        pytest.raises(KeyError),
        writing_video(tmp_path / "half.mp4", Fraction(5)) as writer,
    ):
        writer.write(np.zeros((32, 46, 3), np.uint8), 0.0)
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["odd.mp4"]
