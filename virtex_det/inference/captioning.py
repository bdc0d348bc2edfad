"""Captions of any images by a trained model, as JSON and as a page of picture and text."""

import base64
import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from virtex_det.checkpoint import follow_weights
from virtex_det.checkpoint.last import find_last
from virtex_det.config import get_cfg, load_config
from virtex_det.data.datasets.folders import find_files
from virtex_det.data.images import read_image
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.engine.evaluate import load_trained
from virtex_det.engine.run_folder import kept_files
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES, BrokenImage
from virtex_det.inference.pages import printable, write_page
from virtex_det.utils import map_in_threads, write_atomically

THUMBNAIL_SIDE = 320  # pixels


class Captioned(NamedTuple):
    """An image and what the model wrote about it."""

    file_name: str
    caption: str
    log_probability: float  # of the caption, its end included
    thumbnail: str  # data URI


class Captions(NamedTuple):
    """What became of a list of images."""

    captioned: list[Captioned]
    skipped: list[str]  # why, with the file's name


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the images that files, folders (with all below them) and glob patterns name, each once.

    Raises:
        UserError: an argument names nothing, or a folder holds no image.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _find(argument)))


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part images from the ``KEY VALUE`` pairs after them: these begin at the first config key that is no file."""
    known = get_cfg()
    for index, argument in enumerate(arguments):
        if argument.partition(".")[0] in known and not Path(argument).exists():
            return list(arguments[:index]), list(arguments[index:])
    return list(arguments), []


def run_config(run_folder: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the config of a pretraining run, with the vocabulary and the last weights of its folder.

    Paths are those of the folder as it lies now, so that a run which was moved, or of which ``config.yaml``,
    ``vocabulary.model`` and ``model_final.pth`` were kept, serves as it is.

    Args:
        run_folder: where ``train_net.py`` wrote.
        overrides: ``KEY, VALUE`` pairs that come last.

    Raises:
        UserError: the folder is not that of a run.
    """
    folder = Path(run_folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml. Name the OUTPUT_DIR of a pretraining run.")
    paths = ["MODEL.WEIGHTS", find_last(folder) or str(folder / "model_final.pth")]
    for key, path in kept_files(folder).items():
        paths += [key, str(path)]
    device = [] if torch.cuda.is_available() else ["MODEL.DEVICE", "cpu"]
    return load_config(str(folder / "config.yaml"), [*device, *paths, *overrides])


class Captioner:
    """A trained captioning model with all that it takes to go from image files to text.

    Example:
        >>> captioner = Captioner(run_config("output/pretrain"))
        >>> captioner.caption(find_images(["photos/"])).captioned[0].caption
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of a captioning model; its MODEL.WEIGHTS fill it whole, INPUT.CAPTION.TOKENIZER reads what it writes.

        Raises:
            UserError: there are no weights, or they do not fit.
        """
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS is empty: captions need a trained model. Name its run folder with --run.")
        self.cfg = cfg = follow_weights(cfg)
        self.tokenizer = SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        self.mapper = PretrainingMapper(cfg, is_train=False)
        self.model, self.report, _ = load_trained(cfg, cfg.MODEL.WEIGHTS)
        self.model.eval()

    def caption(self, paths: Sequence[Path], batch_size: int = 16) -> Captions:
        """Caption image files behind a progress bar; what is no image, or a broken one, is skipped.

        Raises:
            UserError: the model writes no captions.
        """
        found = Captions([], [])
        with tqdm(total=len(paths), unit="image", desc="captioning") as bar:
            for start in range(0, len(paths), batch_size):
                batch = paths[start : start + batch_size]
                readable = []
                for path, result in zip(batch, map_in_threads(self._read, batch), strict=True):
                    if isinstance(result, str):
                        found.skipped.append(result)
                    else:
                        readable.append((path, *result))
                found.captioned.extend(self._write_captions(readable))
                bar.update(len(batch))
        return found

    def describe(self) -> dict[str, str]:
        """Say which model wrote and how."""
        decoding = self.cfg.MODEL.TEXTUAL.DECODING
        how = {
            "beam_search": f"beam search, {decoding.BEAM_SIZE} beams",
            "nucleus_sampling": f"nucleus sampling, {decoding.NUCLEUS_SIZE} of the probability",
        }
        start = "" if decoding.KEEP_START else "; the start token is seen at the first step only"
        report = self.report
        return {
            "Model": self.cfg.MODEL.META_ARCHITECTURE,
            "Weights": f"{report.path} (sha256 {report.sha256[:12]})" if report else "",
            "Vocabulary": f"{self.cfg.INPUT.CAPTION.TOKENIZER}, {self.tokenizer.vocab_size} pieces",
            "Decoding": how.get(decoding.METHOD, decoding.METHOD) + start,
            "Images": f"shorter side resized to {self.cfg.INPUT.CAPTION.CROP_SIZE} px, square centre crop",
        }

    def _read(self, path: Path) -> tuple[Tensor, str] | str:
        """Return the model's image and a thumbnail, or why there is none."""
        try:
            pixels = read_image({"file_name": str(path)}, "RGB", self.cfg.INPUT.MAX_VALUE)
            return self.mapper.augment(pixels)[0], _thumbnail(pixels)
        except BrokenImage as error:
            is_other = isinstance(error.__cause__, UnidentifiedImageError)
            return f"{printable(path)}: {'not an image' if is_other else _in_one_line(error)}"

    @torch.no_grad()
    def _write_captions(self, images: Sequence[tuple[Path, Tensor, str]]) -> list[Captioned]:
        if not images:
            return []
        outputs = self.model([{"image": image} for _, image, _ in images])
        if "caption_tokens" not in outputs[0]:
            raise UserError(
                f"{self.cfg.MODEL.META_ARCHITECTURE} with MODEL.TEXTUAL.DECODING.METHOD "
                f"{self.cfg.MODEL.TEXTUAL.DECODING.METHOD!r} writes no captions.\n"
                "Use a CaptioningModel or BicaptioningModel, with beam_search or nucleus_sampling."
            )
        return [
            Captioned(
                printable(path),
                self.tokenizer.decode(output["caption_tokens"].tolist()),
                float(output["log_probability"]),
                thumbnail,
            )
            for (path, _, thumbnail), output in zip(images, outputs, strict=True)
        ]


def write_captions(folder: str | Path, captions: Captions, facts: dict[str, str]) -> Path:
    """Write ``captions.json`` and the self-contained page ``captions.html``.

    Args:
        folder: made where it is not there.
        captions: what to show.
        facts: rows of the "what was run" list, by name.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    keys = ("file_name", "caption", "log_probability")
    rows: list[dict[str, Any]] = [{key: getattr(image, key) for key in keys} for image in captions.captioned]
    write_atomically(folder / "captions.json", json.dumps(rows, indent=2) + "\n")
    return write_page(folder / "captions.html", "captions.html.j2", facts, captions=captions)


def _find(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(find_files(path, IMAGE_SUFFIXES))
        if not found:
            raise UserError(
                f"The folder {path} holds no image. Looked for, in all below it: {' '.join(IMAGE_SUFFIXES)}"
            )
        return found
    if path.exists():
        return [path]
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    found = [file for name in matches for file in _find(name)]
    if not found:
        raise UserError(f"There is no image, folder or pattern {argument!r}.")
    return found


def _in_one_line(error: BrokenImage) -> str:
    """Return why an image cannot be used, without its name, which stands before it."""
    return printable(" ".join(str(error).splitlines()[1:]) or error.reason)


def _thumbnail(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
