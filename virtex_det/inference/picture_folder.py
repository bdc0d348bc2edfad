"""Pictures that a command draws into a folder, in place of those of an earlier call."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from virtex_det.errors import UserError
from virtex_det.utils import sweep, unfinished_name

_MARK = "drawn by virtex_det"  # in each picture, so that nobody else's is ever deleted
_JPEG_QUALITY = 92
_SUFFIXES = (".jpg", ".png")

Save = Callable[[str, Image.Image], None]


@contextmanager
def drawing_into(folder: Path, inputs: Iterable[str | Path] = ()) -> Iterator[Save]:
    """Yield a function that saves a picture under a name, such as ``a.jpg``, as JPEG or PNG.

    The pictures are in a temporary folder until the block succeeds. They then replace those of
    earlier calls; files that were not drawn here stay.

    Args:
        folder: made if something is drawn.
        inputs: files that are never deleted.

    Raises:
        UserError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder, but pictures are drawn into it. Remove it, or name another."
        )
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    unfinished = unfinished_name(folder / "pictures")
    unfinished.mkdir()
    try:
        yield lambda name, picture: _save(picture, unfinished / name)
        _replace(folder, unfinished, set(map(_resolved, inputs)))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _save(picture: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        mark = PngInfo()
        mark.add_text("Comment", _MARK)
        picture.save(path, "PNG", pnginfo=mark)
    else:
        picture.save(path, "JPEG", quality=_JPEG_QUALITY, comment=_MARK.encode())


def _replace(folder: Path, new: Path, inputs: set[Path]) -> None:
    drawn = sorted(new.iterdir())
    names = {path.name for path in drawn}
    earlier = [path for path in _files_in(folder) if path.name not in names and _is_drawn(path)]
    for path in drawn:
        path.replace(folder / path.name)
    for path in earlier:
        if _resolved(path) not in inputs:
            path.unlink(missing_ok=True)


def _files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]


def _is_drawn(path: Path) -> bool:
    """Return whether a file was drawn here; only its head is read."""
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as picture:
            found = picture.info.get("comment", picture.info.get("Comment", b""))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False
    return found in (_MARK, _MARK.encode())


def _resolved(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, ValueError):  # a name that no file can have
        return Path(path)
