"""Videos as pictures: their frames, upright, one after another; and videos of drawn frames.

PyAV reads them, not OpenCV: it raises an error where a file is damaged instead of ending early,
knows the time of each frame, and writes H.264, which browsers play.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from virtex_det.errors import UserError
from virtex_det.escaping import printable, visible
from virtex_det.files import open_regular
from virtex_det.utils import replacing

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts")

# FFmpeg's demuxers of these. Others, such as playlists, open further files and addresses.
_FORMATS = "mov,matroska,avi,mpeg,mpegts,asf"
_TICKS = 90_000  # of a second, the clock of written videos


class Frame(NamedTuple):
    """A frame of a video, as a picture.

    Attributes:
        video: path of the video.
        number: from 0.
        seconds: its time in the video.
        pixels: (H, W, 3) uint8, RGB; empty where it cannot be read.
        fault: why the frame and all after it cannot be read; "" for none.
    """

    video: str
    number: int
    seconds: float
    pixels: np.ndarray
    fault: str = ""


class Video(NamedTuple):
    """The approximate number of frames of a video, and frames per second, from its header."""

    frames: int
    rate: Fraction


def is_video(picture: Any) -> bool:
    """Return whether a path has the name of a video."""
    if not isinstance(picture, str | os.PathLike):
        return False
    return Path(os.fsdecode(picture)).suffix.lower() in VIDEO_SUFFIXES


def read_head(path: str | os.PathLike[str]) -> Video:
    """Read the head of a video.

    Raises:
        UserError: it is missing, cannot be read as a video, or PyAV is not installed.
    """
    with _opened(path) as (stream, container):
        rate = Fraction(stream.average_rate or 25)
        frames = stream.frames
        if not frames and container.duration:  # in microseconds
            frames = round(container.duration * rate / 1_000_000)
        return Video(int(frames), rate)


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Yield the frames of a video; if it is damaged, the last one has no pixels but a fault.

    Raises:
        UserError: as ``read_head``.
    """
    name, number, seconds = os.fsdecode(path), 0, 0.0
    with _opened(path) as (stream, container):
        stream.thread_type = "AUTO"
        try:
            for number, frame in enumerate(container.decode(stream)):
                seconds = frame.time or float(number / (stream.average_rate or 25))
                pixels = frame.to_ndarray(format="rgb24")
                upright = np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels
                yield Frame(name, number, seconds, np.ascontiguousarray(upright))
        except _av().FFmpegError as error:
            why = f"the video cannot be read after its frame {number}: {error.strerror}"
            yield Frame(name, number + 1, seconds, np.zeros((0, 0, 3), np.uint8), visible(why, ""))


class VideoWriter:
    """Writes frames as a video: H.264 in MP4, without sound.

    Use it in ``writing_video``.
    """

    def __init__(self, container: Any, rate: Fraction) -> None:
        self._container = container
        self._rate = rate
        self._stream: Any = None
        self._last = -1

    def write(self, pixels: np.ndarray, seconds: float) -> None:
        """Add a frame; the format has even sides, so that an odd one loses a row or column.

        Args:
            pixels: (H, W, 3) uint8, RGB; frames of another size than the first are scaled to it.
            seconds: its time, which must grow.
        """
        av = _av()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_even(pixels)), format="rgb24")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height = frame.width, frame.height
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Write the frames that the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())


@contextmanager
def writing_video(path: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Yield a writer; the video is there when the block succeeds.

    Args:
        path: of the video, which ends in .mp4.
        rate: frames a second, for players; each frame has a time of its own.
    """
    with replacing(path) as part, _av().open(str(part), "w", format="mp4") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.end()


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Any]]:
    """Yield the video stream of a file and its container; only errors of opening are a user's."""
    av = _av()
    name = f"{printable(path):.500}"
    with open_regular(Path(path)) as file:
        try:
            options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
            container = av.open(file, "r", options=options)
        except (av.FFmpegError, ValueError) as error:
            why = visible(getattr(error, "strerror", "") or str(error), "")
            raise UserError(
                f"{name} cannot be read as a video: {why:.200}.\n"
                "Play it to see whether it is damaged, or convert it to MP4 (H.264)."
            ) from error
        with container:
            if not container.streams.video:
                raise UserError(f"{name} has no pictures, only sound or text.\nName a video.")
            yield container.streams.video[0], container


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return pixels[: height - height % 2, : width - width % 2]


def _av() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(
            "Videos need PyAV, which is not installed here.\n"
            "Install it: pip install 'virtex_det[predict]', or pip install av"
        ) from error
    return av
