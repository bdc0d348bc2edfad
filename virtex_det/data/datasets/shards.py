"""Captioned images in WebDataset shards: tar files with the files of a sample in sequence."""

import logging
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from virtex_det.data.datasets.captions import caption_text, keep_captioned
from virtex_det.data.datasets.folders import find_matching, is_data
from virtex_det.data.datasets.pairs import captions_in
from virtex_det.data.images import Span
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.text_files import decode_text, parse_json, read_json

logger = logging.getLogger(__name__)

NO_IMAGE = "sample without image"
NOT_WHOLE = (
    "truncated, damaged, or several tar files concatenated; only whole samples of the first are "
    "used"
)
FORM = (
    f"Expected an image ({' '.join(IMAGE_SUFFIXES)}) and a txt or json of the same name (tar "
    "--sort=name)."
)
NOT_TOGETHER = "files of one sample that do not follow one another, or two samples of one name"
HOW_TO_MAKE = (
    "In a shard the image and the text of a sample must have the same name, unique in the shard, "
    "and follow one another: make it with tar --sort=name."
)
_MOST_SHARDS = 1_000_000
_SOME_SHARDS, _SOME_SAMPLES = 10, 30  # the samples are read one after the other, with their images
_TEXTS = (".txt", ".json")
_COMPRESSED = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ",
    "zstd": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
}

# Returns the content to keep of a file in a tar.
Contents = Callable[[tarfile.TarFile, tarfile.TarInfo], Any]


def shard_files(pattern: str) -> list[str]:
    """Return the tar files of a pattern with ``{00000..00999}`` (counts) or ``*`` (matches).

    Raises:
        UserError: it matches no shard, or too many.
    """
    ranges = re.findall(r"\{(\d+)\.\.(\d+)", pattern)
    if math.prod(abs(int(last) - int(first)) + 1 for first, last in ranges) > _MOST_SHARDS:
        raise UserError(
            f"{pattern} names more than {_MOST_SHARDS:,} tar files. Check the numbers in its "
            "braces."
        )
    named = _webdataset().shardlists.expand_urls(str(Path(pattern).expanduser()))
    files = [found for name in named for found in (find_matching(name) if "*" in name else [name])]
    if not files:
        raise UserError(
            f"No file matches {pattern}.\n"
            f"Name tar files, such as shards:/data/cc12m/{{00000..01242}}.tar"
        )
    return files


def load_shards(pattern: str) -> list[dict[str, Any]]:
    """List the samples of shards without decoding their images; training reads a stream instead.

    Returns:
        One dict per sample with image and caption: file_name, image_id (its key), captions and
        encoded_image (a Span).
    """
    dicts: list[dict[str, Any]] = []
    damaged: list[str] = []
    faults: dict[str, list[str]] = {}
    for file in shard_files(pattern):
        shard = Shard(file)
        for sample in shard.samples(_text_or_span):
            if "fault" in sample:
                faults.setdefault(sample["fault"], []).append(sample["file_name"])
            elif "encoded_image" in sample:
                dicts.append(sample)
            else:
                faults.setdefault(NO_IMAGE, []).append(sample["file_name"])
        if not shard.is_whole:
            damaged.append(file)
            logger.warning("%s is %s", file, NOT_WHOLE)
    if NOT_TOGETHER in faults:
        raise UserError(
            f"{faults[NOT_TOGETHER][0]}: {NOT_TOGETHER} ({len(faults[NOT_TOGETHER])} samples).\n"
            f"{HOW_TO_MAKE}"
        )
    if damaged and not dicts:
        raise UserError(
            f"{damaged[0]} has no whole sample: it is truncated or damaged, or is not a tar file.\n"
            f"{HOW_TO_MAKE}"
        )
    for fault, names in faults.items():
        logger.warning("%d samples are left out: %s; the first: %s", len(names), fault, names[0])
    return keep_captioned(dicts, pattern, FORM)


def captions_of_some(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return samples with captions, without their images, from the beginnings of some shards."""
    some = files[:: math.ceil(len(files) / _SOME_SHARDS)]
    read = (sample for file in some for sample in islice(Shard(file).samples(_text), _SOME_SAMPLES))
    return [sample for sample in read if sample["captions"] and "fault" not in sample]


def check_shards(files: Iterable[str]) -> None:
    """Check that existing files can be shards.

    Raises:
        UserError: a file is compressed, or is not a regular file.
    """
    for file in map(Path, files):
        if not file.exists():
            continue
        if not file.is_file():
            raise UserError(f"{file} is not a regular file; expected a tar file.")
        with file.open("rb") as opened:
            start = opened.read(8)
        packed = next((name for name, magic in _COMPRESSED.items() if start.startswith(magic)), "")
        if packed:
            raise UserError(
                f"{file} is compressed by {packed}; expected a plain tar file, which allows "
                "access to single images.\n"
                "Decompress it once (gunzip, bunzip2, unxz, zstd -d, unzip): images are compressed "
                "already, so it hardly grows."
            )


class Shard:
    """One tar file.

    Attributes:
        is_whole: whether the last reading reached the regular end of the tar file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_whole = True

    def samples(self, contents: Contents) -> Iterator[dict[str, Any]]:
        """Read the samples as dataset dicts.

        Without an image "encoded_image" is missing, without captions "captions" is empty. An
        invalid sample has a "fault", in words.

        Args:
            contents: returns the content to keep of each file; of texts their bytes.
        """
        for group in self._groups(contents):
            suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix[1:] in group.files), "")
            image = {"encoded_image": group.files[suffix[1:]]} if suffix else {}
            file_name = f"{self.path}/{group.key}{suffix}"
            captions, fault = [], group.fault
            try:
                captions = _captions(group.files, file_name)
            except UserError:
                fault = fault or "caption is not UTF-8 text"
            except ValueError as error:
                fault = fault or str(error)
            yield {
                "file_name": file_name,
                "image_id": group.key,
                "captions": captions,
                **image,
                **({"fault": fault} if fault else {}),
            }

    def count(self, keep: Callable[[str], bool] | None = None) -> int:
        """Return the number of samples, from ``NAME_stats.json`` of a whole shard or headers.

        Args:
            keep: count only samples for whose key it returns True.
        """
        if keep is None and (declared := self.declared()) is not None and self._has_end():
            return declared
        return sum(keep is None or keep(group.key) for group in self._groups(_nothing))

    def declared(self) -> int | None:
        """Return the number of samples that img2dataset wrote, None if unknown."""
        with suppress(UserError, KeyError, TypeError):
            successes = read_json(self.stats_file)["successes"]
            return successes if type(successes) is int and successes >= 0 else None
        return None

    @property
    def stats_file(self) -> Path:
        """The file of img2dataset's statistics of the shard."""
        return Path(self.path).with_name(f"{Path(self.path).stem}_stats.json")

    def _groups(self, contents: Contents) -> Iterator["_Group"]:
        seen: set[str] = set()
        for _, files in groupby(self._files(contents), key=lambda file: _split_name(file[0])[0]):
            for group in _divide(list(files)):
                yield group._replace(fault=NOT_TOGETHER) if group.key in seen else group
                seen.add(group.key)

    def _files(self, contents: Contents) -> Iterator[tuple[str, Any]]:
        """Yield the name and the content of each file that may belong to a sample."""
        self.is_whole = False
        with suppress(tarfile.TarError, OSError), tarfile.open(self.path, "r:") as tar:
            size, end = Path(self.path).stat().st_size, 0
            for member in tar:
                end = member.offset_data + member.size
                if end > size:
                    return
                if member.isfile() and _split_name(member.name)[1] and _is_data(member.name):
                    yield member.name, contents(tar, member)
            start = end + -end % tarfile.BLOCKSIZE
            self.is_whole = self._is_zero(start) and self._is_last(start)

    def _has_end(self) -> bool:
        with suppress(OSError):
            return self._is_zero(Path(self.path).stat().st_size - tarfile.BLOCKSIZE)
        return False

    def _is_zero(self, start: int) -> bool:
        """Return whether a block is zero, as at the end of a tar file."""
        with Path(self.path).open("rb") as file:
            file.seek(max(0, start))
            return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)

    def _is_last(self, start: int) -> bool:
        """Return whether only zeros follow, and no other tar file."""
        with Path(self.path).open("rb") as file:
            file.seek(start)
            return all(not any(chunk) for chunk in iter(lambda: file.read(1 << 16), b""))


def encoded(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return a file's bytes."""
    file = tar.extractfile(member)
    return file.read() if file else b""


def _text_or_span(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Span:
    if member.name.lower().endswith(_TEXTS):
        return encoded(tar, member)
    return Span(str(tar.name), member.offset_data, member.size)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    return encoded(tar, member) if member.name.lower().endswith(_TEXTS) else None


def _nothing(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    return None


class _Group(NamedTuple):
    """The files of a sample, by suffix in lower case."""

    key: str
    files: dict[str, Any]
    fault: str = ""


def _split_name(name: str) -> tuple[str, str]:
    """Return WebDataset's key and suffix: the suffix begins at the first dot of the last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _is_data(name: str) -> bool:
    return all(is_data(part) for part in name.split("/") if part not in (".", ".."))


def _divide(files: list[tuple[str, Any]]) -> list[_Group]:
    """Group neighbours into samples by their names up to the first dot, as WebDataset does.

    If that gives no image, but names up to the last dot give samples with image and text
    (``photo.v2.jpg`` and ``photo.v2.txt``), use the latter.
    """
    plain = _group(
        _split_name(files[0][0])[0], [(_split_name(name)[1], content) for name, content in files]
    )
    if not _has_image(plain):
        by_stem: dict[str, list[tuple[str, Any]]] = {}
        for name, content in files:
            stem, _, suffix = name.rpartition(".")
            by_stem.setdefault(stem, []).append((suffix.lower(), content))
        dotted = [_group(stem, parts) for stem, parts in by_stem.items()]
        if any(_has_image(group) and group.files.keys() & {"txt", "json"} for group in dotted):
            return dotted
    return [plain]


def _group(key: str, files: list[tuple[str, Any]]) -> _Group:
    by_suffix = dict(files)
    return _Group(key, by_suffix, "" if len(by_suffix) == len(files) else "two files of one name")


def _has_image(group: _Group) -> bool:
    return any(suffix[1:] in group.files for suffix in IMAGE_SUFFIXES)


def _captions(files: dict[str, Any], place: str) -> list[str]:
    """Return the caption of the text file, or the captions of the JSON file, or an empty list.

    Raises:
        UserError: a file is not UTF-8 text.
        ValueError: the JSON cannot be read, or its captions are not text.
    """
    text = caption_text(decode_text(files.get("txt") or b"", place), place)
    if text or "json" not in files:
        return [text] if text else []
    decode_text(files["json"], place)
    try:
        content = parse_json(files["json"], place)
    except UserError as error:
        raise ValueError("its JSON is damaged") from error
    found = captions_in(content) if isinstance(content, dict) else None
    if (
        found is None
        and isinstance(content, dict)
        and (content.get("captions") or content.get("caption"))
    ):
        raise ValueError("its caption is neither text nor a list of texts")
    return [text for caption in found or [] if (text := caption_text(caption, place))]


def _webdataset() -> ModuleType:
    """Import webdataset only for shards."""
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise UserError(
            "Shards need webdataset, which is not installed here.\n"
            'Install the pretraining extra: pip install "virtex_det[pretrain]"'
        ) from error
    return webdataset
