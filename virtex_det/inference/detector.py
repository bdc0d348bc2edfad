"""A trained detector: pictures in, boxes, classes and masks out."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.structures import Instances
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from virtex_det.config import Overrides, override
from virtex_det.config.precision import computes_in_bfloat16
from virtex_det.config.rules import switch, whole
from virtex_det.data.images import image_tensor
from virtex_det.data.pictures import (
    Picture,
    Pictures,
    is_one_picture,
    list_pictures,
    picture_name,
    read_ahead,
    read_rgb,
    usable_pictures,
    without_broken,
)
from virtex_det.data.videos import Frame, is_video, read_frames
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.box_masks import UnpastedMasks, encode_instances, instances_of
from virtex_det.image_files import BrokenImage
from virtex_det.inference.arguments import check_argument
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.inference.prediction import Predictor
from virtex_det.inference.selection import Selection
from virtex_det.inference.tiles import Tiling, detect_in_tiles
from virtex_det.inference.trained import DETECTION, Source, trained_config

logger = logging.getLogger(__name__)

_SECONDS_BEFORE_A_BAR = 2


class _Prepared(NamedTuple):
    """A picture as the model's input."""

    image: Tensor | None  # (3, h, w) uint8, resized, channels in the model's order; None for tiles
    size: tuple[int, int]  # height and width of the picture
    pixels: np.ndarray | None  # (H, W, 3) of the picture itself, for tiles and for drawing


class Detector:
    """A trained detector: pictures in, objects out.

    Its detections equal those of ``--eval-only`` to the last digit: the same reader, resize, model
    and masks, one picture at a time. (A larger batch pads pictures of different sizes, which
    changes the last digits; tiles and test-time augmentation find other objects.)

    Attributes:
        cfg: the config of the model.
        classes: the names of its classes by number, from training; empty if unknown.
        selection: which detections are kept.
        report: the LoadReport of its weights.
        device: device of the model.
        predictor: the same model as Detectron2's DefaultPredictor, which takes BGR arrays.

    Example:
        >>> detector = Detector("output/my_segm")
        >>> detections = detector("photo.jpg")
        >>> detections.boxes, detections.scores, detections.names
    """

    def __init__(
        self,
        source: Source,
        config: str | os.PathLike[str] | CfgNode | None = None,
        overrides: Overrides = (),
        *,
        device: str | None = None,
        threshold: float | None = None,
        thresholds: Mapping[str, float] = {},
        classes: Sequence[str] = (),
        maximum: int | None = None,
        batch_size: int = 1,
        tile: int | None = None,
        tile_overlap: int | None = None,
        tta: bool = False,
    ) -> None:
        """Load a detector, whole or not at all.

        Args:
            source: the folder of a run; a weights file, which needs its config unless it lies in
                the folder of its run; or a config with MODEL.WEIGHTS.
            config: config of a weights file.
            overrides: config keys to set, such as {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.5}.
            device: such as "cuda:1"; by default the GPU, or the CPU if there is none.
            threshold: least score of a detection; None: the model's own (0.05).
            thresholds: least score of single classes, by name.
            classes: names of the classes to keep; empty: all.
            maximum: of detections in a picture, the best; None: the model's own (100).
            batch_size: pictures, or tiles, at once.
            tile: side of overlapping tiles, in pixels of the picture, in which pictures larger than
                it are looked at, besides as a whole (extra [predict]); None: no tiles.
            tile_overlap: pixels that neighbouring tiles share; None: a fifth of the side.
            tta: test-time augmentation: Detectron2's, with the sizes and flips of TEST.AUG.

        Raises:
            UserError: the source is invalid or not a detector, its weights leave a part of the
                model at random init, or it has no class of a given name.
        """
        self.selection = Selection(threshold, thresholds, classes, maximum)
        self.selection.check()
        check_argument("batch_size", batch_size, whole(1))
        check_argument("tta", tta, switch())
        self.tiling = _tiling(tile, tile_overlap)
        cfg = trained_config(source, config, overrides, task=DETECTION, device=device)
        if tta:
            cfg = override(cfg, {"TEST.AUG.ENABLED": True})
        if cfg.TEST.AUG.ENABLED and self.tiling:
            raise UserError("Tiles and test-time augmentation exclude each other. Leave out one.")
        self.predictor = Predictor(self.selection.reaching(cfg))
        self.cfg = self.predictor.cfg
        self.classes = self.predictor.classes
        self.selection.check_names(self.classes)
        self.report = self.predictor.report
        self.device = torch.device(self.cfg.MODEL.DEVICE)
        self.batch_size = batch_size
        self._kept = self.selection.with_own(cfg)
        self._model = _inference_of(self.cfg, self.predictor.model)
        logger.info("%r", self)

    @overload
    def __call__(
        self, pictures: Image.Image | np.ndarray, *, skip_broken: bool = False
    ) -> ImageDetections: ...
    @overload
    def __call__(
        self, pictures: Sequence[Picture], *, skip_broken: bool = False
    ) -> list[ImageDetections]: ...
    @overload
    def __call__(self, pictures: str | os.PathLike[str], *, skip_broken: bool = False) -> Any: ...
    def __call__(
        self, pictures: Pictures, *, skip_broken: bool = False
    ) -> ImageDetections | list[ImageDetections]:
        """Detect the objects in one picture, or in each picture of a list or folder.

        Args:
            pictures: the path of an image file, a PIL image, or uint8 RGB pixels (H, W, 3); a list
                of these; the path of a folder, whose images (recursive) are taken in the order of
                their names; or the path of a video, of which each frame is a picture.
            skip_broken: in a list or folder, skip and log the files that cannot be read; otherwise
                they are an error before the first detection.

        Returns:
            The detections of one picture; a list of them for a list, folder or video, in its order.

        Raises:
            UserError: a picture is missing or cannot be read, or an array has another shape or
                dtype.
        """
        if is_one_picture(pictures) and not is_video(pictures):
            prepared = self._prepare(pictures, keep_pixels=False)  # type: ignore[arg-type]
            return self._detect([(pictures, prepared)])[0]  # type: ignore[list-item]
        listed = usable_pictures(
            list_pictures(pictures), self.cfg.INPUT.MAX_VALUE, skip_broken=skip_broken
        )
        found = without_broken(self.detect(listed), skip_broken=skip_broken)
        total = None if any(map(is_video, listed)) else len(listed)
        bar = tqdm(found, total=total, unit="picture", delay=_SECONDS_BEFORE_A_BAR)
        return [detections for _, detections in bar]

    def stream(self, pictures: Pictures, *, skip_broken: bool = False) -> Iterator[ImageDetections]:
        """Yield the detections of each picture as soon as it is done; nothing is kept in memory.

        Args:
            pictures: as for a call.
            skip_broken: skip and log files that cannot be read, instead of raising an error.

        Raises:
            UserError: as for a call, when the broken picture is reached.
        """
        found = self.detect(list_pictures(pictures), keep_pixels=True)
        for _, detections in without_broken(found, skip_broken=skip_broken):
            yield detections

    def detect(
        self, pictures: Iterable[Picture], *, keep_pixels: bool = False
    ) -> Iterator[tuple[Picture, ImageDetections | BrokenImage]]:
        """Yield each picture with its detections, or with the reason why it cannot be read.

        Files are read, and frames decoded, while the model works.

        Args:
            pictures: pictures, and paths of videos, of which each frame is a picture.
            keep_pixels: so that ``draw`` need not read the picture again, nor lacks a frame.
        """
        prepare = partial(self._prepare, keep_pixels=keep_pixels)
        waiting = read_ahead(_with_frames(pictures), prepare)
        while batch := list(islice(waiting, self.batch_size)):
            readable = [(each, found) for each, found in batch if isinstance(found, _Prepared)]
            detections = iter(self._detect(readable))
            for picture, found in batch:
                yield picture, found if isinstance(found, BrokenImage) else next(detections)

    def __repr__(self) -> str:
        name, weights = self.cfg.MODEL.META_ARCHITECTURE, self.cfg.MODEL.WEIGHTS
        return f"Detector({name}, {len(self.classes)} classes, {weights}, on {self.device})"

    def _prepare(self, picture: Picture, *, keep_pixels: bool) -> _Prepared:
        pixels = read_rgb(picture, self.cfg.INPUT.MAX_VALUE)
        height, width = pixels.shape[:2]
        image = None if self.tiling else self._resized(pixels)
        kept = pixels if keep_pixels or self.tiling else None
        return _Prepared(image, (height, width), kept)

    def _resized(self, pixels: np.ndarray) -> Tensor:
        augmented = T.AugInput(pixels)
        self.predictor.aug(augmented)
        return image_tensor(augmented.image, self.cfg.INPUT.FORMAT)

    def _detect(self, pictures: Sequence[tuple[Picture, _Prepared]]) -> list[ImageDetections]:
        if not pictures:
            return []
        prepared = [each for _, each in pictures]
        if self.tiling:
            found = [self._detect_in_tiles(each.pixels, self.tiling) for each in prepared]  # type: ignore[arg-type]
        else:
            found = self._run([(each.image, each.size) for each in prepared])
        return [
            self._as_detections(picture, instances, each.pixels)
            for (picture, each), instances in zip(pictures, found, strict=True)
        ]

    def _detect_in_tiles(self, pixels: np.ndarray, tiling: Tiling) -> Instances:
        def detect(tiles: list[np.ndarray]) -> list[Instances]:
            return self._run([(self._resized(tile), tile.shape[:2]) for tile in tiles])

        roi_heads, retinanet = self.cfg.MODEL.ROI_HEADS, self.cfg.MODEL.RETINANET
        is_dense = self.cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
        overlap = (retinanet if is_dense else roi_heads).NMS_THRESH_TEST
        found = detect_in_tiles(pixels, detect, tiling, overlap, self.batch_size)
        return found[: self.cfg.TEST.DETECTIONS_PER_IMAGE]

    @torch.no_grad()
    def _run(self, images: Sequence[tuple[Tensor | None, tuple[int, ...]]]) -> list[Instances]:
        """Return the instances in images, on the CPU, in pixels of the pictures."""
        examples = [
            {"image": image, "height": height, "width": width} for image, (height, width) in images
        ]
        outputs = self._model(examples)
        try:
            return [
                instances_of(output, example)
                for output, example in zip(outputs, examples, strict=True)
            ]
        except UserError as error:
            raise UserError(
                f"{error} {self.cfg.MODEL.META_ARCHITECTURE} is not an object detector."
            ) from error

    def _as_detections(
        self, picture: Picture, instances: Instances, pixels: np.ndarray | None
    ) -> ImageDetections:
        rles = encode_instances(instances)
        for masks in ("box_masks", "pred_masks"):
            if instances.has(masks):
                instances.remove(masks)
        found = ImageDetections(
            instances,
            self.classes,
            rles,
            picture_name(picture),
            self.cfg.INPUT.MAX_VALUE,
            frame=picture.number if isinstance(picture, Frame) else None,
            pixels=pixels,
        )
        return self._kept.of(found)


def _tiling(side: int | None, overlap: int | None) -> Tiling | None:
    if side is None:
        if overlap is not None:
            raise UserError("There is an overlap of tiles, but no tiles. Give their side, too.")
        return None
    check_argument("The side of a tile", side, whole(1))
    if overlap is not None:
        check_argument("The overlap of tiles", overlap, whole(0))
    tiling = Tiling(side, side // 5 if overlap is None else overlap)
    tiling.check()
    return tiling


def _inference_of(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return what finds objects in examples: the model without its last step, or with TEST.AUG."""
    if not cfg.TEST.AUG.ENABLED:
        return UnpastedMasks.of(model, computes_in_bfloat16(cfg))
    if not isinstance(model, GeneralizedRCNN) or cfg.MODEL.KEYPOINT_ON:
        what = "keypoints" if cfg.MODEL.KEYPOINT_ON else cfg.MODEL.META_ARCHITECTURE
        raise UserError(
            f"Detectron2 has no test-time augmentation for {what}, only for boxes and masks of "
            "GeneralizedRCNN.\nLeave it out."
        )
    return GeneralizedRCNNWithTTA(cfg, model)


def _with_frames(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Yield pictures, and in the place of a video's path its frames."""
    for picture in pictures:
        if is_video(picture):
            yield from read_frames(picture)  # type: ignore[arg-type]
        else:
            yield picture
