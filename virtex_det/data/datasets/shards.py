"""Captioned images in WebDataset shards: tar files in which the files of a sample follow one another."""

import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from virtex_det.data.datasets.captions import keep_captioned
from virtex_det.data.datasets.pairs import IMAGE_SUFFIXES, captions_in
from virtex_det.data.images import Span
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

# What to take from a file in a tar.
Contents = Callable[[tarfile.TarFile, tarfile.TarInfo], Any]


def shard_files(pattern: str) -> list[str]:
    """Return the tar files that a pattern names: ``{00000..00999}`` counts, ``*`` finds.

    Raises:
        UserError: it names none.
    """
    named = _webdataset().shardlists.expand_urls(str(Path(pattern).expanduser()))
    files = [found for name in named for found in (_matching(Path(name)) if "*" in name else [name])]
    if not files:
        raise UserError(f"no file matches {pattern}\nExpected tar files, e.g. shards:/data/cc12m/{{00000..01242}}.tar")
    return files


def _matching(pattern: Path) -> list[str]:
    return sorted(map(str, pattern.parent.glob(pattern.name)))


def load_shards(pattern: str) -> list[dict[str, Any]]:
    """List the samples of shards, without decoding their images; what trains reads them in a stream instead.

    Returns:
        One dict per sample with image and caption: file_name, image_id (its key), captions, encoded_image (a Span).
    """
    dicts = []
    for file in shard_files(pattern):
        shard = Shard(file)
        dicts += [sample for sample in shard.samples(_text_or_span) if "encoded_image" in sample]
        if not shard.is_whole:
            logger.warning("%s is cut short or damaged; its whole samples are used", file)
    return keep_captioned(dicts, pattern)


class Shard:
    """One tar file.

    Attributes:
        is_whole: whether the last reading came to the end that a tar file has, and not to damage.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_whole = True

    def samples(self, contents: Contents) -> Iterator[dict[str, Any]]:
        """Read the samples, each as a dataset dict; "encoded_image" is absent and "captions" empty where there is none.

        Args:
            contents: what to take of each file; of texts their bytes.
        """
        for group in self._groups(contents):
            suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix[1:] in group), "")
            image = {"encoded_image": group[suffix[1:]]} if suffix else {}
            key = group["__key__"]
            yield {"file_name": f"{self.path}/{key}{suffix}", "image_id": key, "captions": _captions(group), **image}

    def count(self, keep: Callable[[str], bool] | None = None) -> int:
        """Return the number of samples, from ``NAME_stats.json`` beside a whole shard or else from the headers.

        Args:
            keep: count only the samples with keys that it returns True for.
        """
        if keep is None and (declared := self.declared()) is not None and self._has_end():
            return declared
        return sum(keep is None or keep(group["__key__"]) for group in self._groups(_nothing))

    def declared(self) -> int | None:
        """Return how many samples img2dataset says that it wrote, None where it says nothing."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            successes = json.loads(self.stats_file.read_text())["successes"]
            return successes if isinstance(successes, int) and successes >= 0 else None
        return None

    @property
    def stats_file(self) -> Path:
        """What img2dataset wrote about the shard."""
        return Path(self.path).with_name(f"{Path(self.path).stem}_stats.json")

    def _groups(self, contents: Contents) -> Iterator[dict[str, Any]]:
        webdataset = _webdataset()
        return webdataset.tariterators.group_by_keys(
            self._files(contents), handler=webdataset.handlers.ignore_and_continue
        )

    def _files(self, contents: Contents) -> Iterator[dict[str, Any]]:
        self.is_whole = False
        with suppress(tarfile.TarError, OSError), tarfile.open(self.path, "r:") as tar:
            size, end = Path(self.path).stat().st_size, 0
            for member in tar:
                end = member.offset_data + member.size
                if end > size:
                    return
                if member.isfile():
                    yield {"fname": member.name, "data": contents(tar, member), "__url__": self.path}
            self.is_whole = self._is_zero(end + -end % tarfile.BLOCKSIZE)

    def _has_end(self) -> bool:
        with suppress(OSError):
            return self._is_zero(Path(self.path).stat().st_size - tarfile.BLOCKSIZE)
        return False

    def _is_zero(self, start: int) -> bool:
        """Return whether a block is as tar files end: zero."""
        with Path(self.path).open("rb") as file:
            file.seek(max(0, start))
            return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def encoded(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Take a file's bytes."""
    file = tar.extractfile(member)
    return file.read() if file else b""


def _text_or_span(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Span:
    if member.name.lower().endswith((".txt", ".json")):
        return encoded(tar, member)
    return Span(str(tar.name), member.offset_data, member.size)


def _nothing(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    return None


def _captions(group: dict[str, Any]) -> list[str]:
    """Return the caption of the text, or else those of the JSON; none where they cannot be read."""
    text = group.get("txt", b"").decode(errors="replace").strip()
    if text or "json" not in group:
        return [text] if text else []
    with suppress(ValueError, AttributeError):
        return [caption for caption in captions_in(json.loads(group["json"])) or [] if caption.strip()]
    return []


def _webdataset() -> ModuleType:
    """Import webdataset only where there are shards."""
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise UserError(
            "Shards need webdataset, which is not installed here.\n"
            'Install the pretraining extra: pip install -e ".[pretrain]"'
        ) from error
    return webdataset
