"""Captions of pictures by a trained model, as text, JSON or a page."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from virtex_det.config import Overrides
from virtex_det.config.rules import whole
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.data.pictures import (
    Picture,
    Pictures,
    in_one_line,
    is_one_picture,
    list_pictures,
    picture_name,
    read_ahead,
    read_rgb,
    usable_pictures,
    without_broken,
)
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.engine.evaluation import load_trained
from virtex_det.errors import UserError
from virtex_det.escaping import printable
from virtex_det.image_files import BrokenImage
from virtex_det.inference.arguments import check_argument
from virtex_det.inference.pages import encode_jpeg, write_page
from virtex_det.inference.trained import CAPTIONS, Source, trained_config
from virtex_det.pages.html import data_uri
from virtex_det.pages.paths import shown_path
from virtex_det.utils import write_atomically

THUMBNAIL_SIDE = 320  # pixels
BATCH_SIZE = 16
_SECONDS_BEFORE_A_BAR = 2


class Caption(NamedTuple):
    """A model's caption of a picture; ``str`` gives its text."""

    file_name: str  # "" for a picture without a file
    text: str
    log_probability: float  # of the caption, including its end
    thumbnail: str = ""  # data URI, for the page

    def __str__(self) -> str:
        return self.text


class Captions(NamedTuple):
    """The results for a list of images."""

    captioned: list[Caption]
    skipped: list[str]  # file name and reason


class _Prepared(NamedTuple):
    """A picture as the model's input."""

    image: Tensor  # (3, S, S) uint8, channels in the model's order
    thumbnail: str = ""


class Captioner:
    """A trained captioning model: pictures in, captions out.

    Attributes:
        cfg: the config of the model.
        report: the LoadReport of its weights.
        device: device of the model.

    Example:
        >>> captioner = Captioner("output/pretrain")
        >>> print(captioner("photo.jpg"))
        >>> [caption.text for caption in captioner("photos/")]
    """

    def __init__(
        self,
        source: Source,
        config: str | os.PathLike[str] | CfgNode | None = None,
        overrides: Overrides = (),
        *,
        device: str | None = None,
    ) -> None:
        """Load a captioning model, whole or not at all.

        Args:
            source: the folder of a run; a name such as ``virtex://bicaptioning_R_50_L1_H2048``; a
                weights file, which needs its config unless it lies in the folder of its run; or a
                config with MODEL.WEIGHTS.
            config: config of a weights file.
            overrides: config keys to set. Published weights come without their vocabulary:
                {"INPUT.CAPTION.TOKENIZER": "coco_10k.model"}.
            device: such as "cuda:1"; by default the GPU, or the CPU if there is none.

        Raises:
            UserError: the source is invalid or not a captioning model, or its weights or vocabulary
                do not match.
        """
        self.cfg = cfg = trained_config(source, config, overrides, task=CAPTIONS, device=device)
        _check_decoding(cfg)
        self.tokenizer = SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        self.mapper = PretrainingMapper(cfg, is_train=False)
        self.model, self.report, _ = load_trained(cfg, cfg.MODEL.WEIGHTS)
        self.model.eval()
        self.device = torch.device(cfg.MODEL.DEVICE)

    @overload
    def __call__(
        self, pictures: Image.Image | np.ndarray, *, skip_broken: bool = False
    ) -> Caption: ...
    @overload
    def __call__(
        self, pictures: Sequence[Picture], *, skip_broken: bool = False
    ) -> list[Caption]: ...
    @overload
    def __call__(self, pictures: str | os.PathLike[str], *, skip_broken: bool = False) -> Any: ...
    def __call__(self, pictures: Pictures, *, skip_broken: bool = False) -> Caption | list[Caption]:
        """Caption one picture, or each picture of a list or folder.

        Args:
            pictures: as for ``Detector``.
            skip_broken: as for ``Detector``.

        Returns:
            The caption of one picture; a list of them for a list or folder, in its order.

        Raises:
            UserError: a picture is missing or cannot be read, or an array has another shape or
                dtype.
        """
        if is_one_picture(pictures):
            picture: Any = pictures
            [caption] = self._write_captions([(picture, self._prepare(picture))])
            return caption
        listed = usable_pictures(
            list_pictures(pictures), self.cfg.INPUT.MAX_VALUE, skip_broken=skip_broken
        )
        found = self.stream(listed, skip_broken=skip_broken)
        return list(tqdm(found, total=len(listed), unit="picture", delay=_SECONDS_BEFORE_A_BAR))

    def stream(self, pictures: Pictures, *, skip_broken: bool = False) -> Iterator[Caption]:
        """Yield the caption of each picture as soon as its batch is done.

        Args:
            pictures: as for a call.
            skip_broken: skip and log files that cannot be read, instead of raising an error.

        Raises:
            UserError: as for a call, when the broken picture is reached.
        """
        found = self._in_batches(list_pictures(pictures), self._prepare, BATCH_SIZE)
        for _, caption in without_broken(found, skip_broken=skip_broken):
            yield caption

    def caption(self, paths: Sequence[Path], batch_size: int = BATCH_SIZE) -> Captions:
        """Caption image files for a page; list those that are broken or not images.

        Raises:
            UserError: the batch size is not a whole number above 0.
        """
        check_argument("batch_size", batch_size, whole(1))
        result = Captions([], [])
        found = self._in_batches(paths, self._prepare_with_thumbnail, batch_size)
        for path, caption in tqdm(found, total=len(paths), unit="image", desc="captioning"):
            if isinstance(caption, Caption):
                result.captioned.append(caption)
            else:
                result.skipped.append(in_one_line(path, caption))
        return result

    def describe(self) -> dict[str, str]:
        """Return the model, its weights, its decoding and its preprocessing, for a page."""
        decoding = self.cfg.MODEL.TEXTUAL.DECODING
        how = {
            "beam_search": f"beam search, {decoding.BEAM_SIZE} beams",
            "nucleus_sampling": f"nucleus sampling, {decoding.NUCLEUS_SIZE} of the probability",
        }
        start = "" if decoding.KEEP_START else "; the start token is seen at the first step only"
        report = self.report
        return {
            "Model": self.cfg.MODEL.META_ARCHITECTURE,
            "Weights": f"{shown_path(report.path)} (sha256 {report.sha256[:12]})" if report else "",
            "Vocabulary": f"{self.cfg.INPUT.CAPTION.TOKENIZER}, {self.tokenizer.vocab_size} pieces",
            "Decoding": how.get(decoding.METHOD, decoding.METHOD) + start,
            "Images": f"shorter side resized to {self.cfg.INPUT.CAPTION.CROP_SIZE} px, square "
            "centre crop",
        }

    def __repr__(self) -> str:
        return (
            f"Captioner({self.cfg.MODEL.META_ARCHITECTURE}, {self.cfg.MODEL.WEIGHTS}, on "
            f"{self.device})"
        )

    def _prepare(self, picture: Picture) -> _Prepared:
        return _Prepared(self.mapper.augment(read_rgb(picture, self.cfg.INPUT.MAX_VALUE))[0])

    def _prepare_with_thumbnail(self, picture: Picture) -> _Prepared:
        pixels = read_rgb(picture, self.cfg.INPUT.MAX_VALUE)
        return _Prepared(self.mapper.augment(pixels)[0], _thumbnail(pixels))

    def _in_batches(
        self, pictures: Iterable[Picture], prepare: Callable[[Picture], _Prepared], batch_size: int
    ) -> Iterator[tuple[Picture, Caption | BrokenImage]]:
        """Yield each picture with its caption, or with its error."""
        waiting = read_ahead(pictures, prepare)
        while batch := list(islice(waiting, batch_size)):
            readable = [
                (picture, found) for picture, found in batch if isinstance(found, _Prepared)
            ]
            captions = iter(self._write_captions(readable))
            for picture, found in batch:
                yield picture, found if isinstance(found, BrokenImage) else next(captions)

    @torch.no_grad()
    def _write_captions(self, pictures: Sequence[tuple[Picture, _Prepared]]) -> list[Caption]:
        if not pictures:
            return []
        outputs = self.model([{"image": prepared.image} for _, prepared in pictures])
        return [
            Caption(
                printable(picture_name(picture)),
                self.tokenizer.decode(output["caption_tokens"].tolist()),
                float(output["log_probability"]),
                prepared.thumbnail,
            )
            for (picture, prepared), output in zip(pictures, outputs, strict=True)
        ]


def write_captions(folder: str | Path, captions: Captions, facts: dict[str, str]) -> Path:
    """Write ``captions.json`` and the self-contained page ``captions.html``.

    Args:
        folder: output folder, created if missing.
        captions: the captions to show.
        facts: rows of the "what was run" list, by name.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    rows = [
        {
            "file_name": image.file_name,
            "caption": image.text,
            "log_probability": image.log_probability,
        }
        for image in captions.captioned
    ]
    write_atomically(folder / "captions.json", json.dumps(rows, indent=2) + "\n")
    return write_page(folder / "captions.html", "captions.html.j2", facts, captions=captions)


def _check_decoding(cfg: CfgNode) -> None:
    if cfg.MODEL.TEXTUAL.DECODING.METHOD == "none":
        raise UserError(
            f"{cfg.MODEL.META_ARCHITECTURE} with MODEL.TEXTUAL.DECODING.METHOD 'none' writes no "
            "captions.\n"
            "Set it to beam_search or nucleus_sampling."
        )


def _thumbnail(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return data_uri(encode_jpeg(np.asarray(picture)))
