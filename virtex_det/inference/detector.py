"""A trained detector: pictures in, boxes, classes and masks out."""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from virtex_det.config import Overrides
from virtex_det.config.precision import computes_in_bfloat16
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
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.box_masks import UnpastedMasks, encode_instances, instances_of
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.inference.prediction import Predictor
from virtex_det.inference.trained import DETECTION, Source, trained_config

logger = logging.getLogger(__name__)

_SECONDS_BEFORE_A_BAR = 2


class _Prepared(NamedTuple):
    """A picture as the model's input."""

    image: Tensor  # (3, h, w) uint8, resized, channels in the model's order
    size: tuple[int, int]  # height and width of the picture


class Detector:
    """A trained detector: pictures in, objects out.

    Its detections equal those of ``--eval-only`` to the last digit: the same reader, resize, model
    and masks, one picture at a time.

    Attributes:
        cfg: the config of the model.
        classes: the names of its classes by number, from training; empty if unknown.
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
    ) -> None:
        """Load a detector, whole or not at all.

        Args:
            source: the folder of a run; a weights file, which needs its config unless it lies in
                the folder of its run; or a config with MODEL.WEIGHTS.
            config: config of a weights file.
            overrides: config keys to set, such as {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.5}.
            device: such as "cuda:1"; by default the GPU, or the CPU if there is none.

        Raises:
            UserError: the source is invalid or not a detector, or its weights leave a part of the
                model at random init.
        """
        self.predictor = Predictor(
            trained_config(source, config, overrides, task=DETECTION, device=device)
        )
        self.cfg = self.predictor.cfg
        self.classes = self.predictor.classes
        self.report = self.predictor.report
        self.device = torch.device(self.cfg.MODEL.DEVICE)
        self._model = UnpastedMasks.of(self.predictor.model, computes_in_bfloat16(self.cfg))
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
                of these; or the path of a folder, whose images (recursive) are taken in the order
                of their names.
            skip_broken: in a list or folder, skip and log the files that cannot be read; otherwise
                they are an error before the first detection.

        Returns:
            The detections of one picture; a list of them for a list or folder, in its order.

        Raises:
            UserError: a picture is missing or cannot be read, or an array has another shape or
                dtype.
        """
        if is_one_picture(pictures):
            return self._detect(pictures, self._prepare(pictures))  # type: ignore[arg-type]
        listed = usable_pictures(
            list_pictures(pictures), self.cfg.INPUT.MAX_VALUE, skip_broken=skip_broken
        )
        found = self.stream(listed, skip_broken=skip_broken)
        return list(tqdm(found, total=len(listed), unit="picture", delay=_SECONDS_BEFORE_A_BAR))

    def stream(self, pictures: Pictures, *, skip_broken: bool = False) -> Iterator[ImageDetections]:
        """Yield the detections of each picture as soon as it is done; nothing is kept in memory.

        Args:
            pictures: as for a call.
            skip_broken: skip and log files that cannot be read, instead of raising an error.

        Raises:
            UserError: as for a call, when the broken picture is reached.
        """
        found = read_ahead(list_pictures(pictures), self._prepare)
        for picture, prepared in without_broken(found, skip_broken=skip_broken):
            yield self._detect(picture, prepared)

    def __repr__(self) -> str:
        name, weights = self.cfg.MODEL.META_ARCHITECTURE, self.cfg.MODEL.WEIGHTS
        return f"Detector({name}, {len(self.classes)} classes, {weights}, on {self.device})"

    def _prepare(self, picture: Picture) -> _Prepared:
        augmented = T.AugInput(read_rgb(picture, self.cfg.INPUT.MAX_VALUE))
        size = augmented.image.shape[:2]
        self.predictor.aug(augmented)
        return _Prepared(image_tensor(augmented.image, self.cfg.INPUT.FORMAT), size)

    @torch.no_grad()
    def _detect(self, picture: Picture, prepared: _Prepared) -> ImageDetections:
        height, width = prepared.size
        example = {"image": prepared.image, "height": height, "width": width}
        try:
            instances = instances_of(self._model([example])[0], example)
        except UserError as error:
            raise UserError(
                f"{error} {self.cfg.MODEL.META_ARCHITECTURE} is not an object detector."
            ) from error
        rles = encode_instances(instances)
        for masks in ("box_masks", "pred_masks"):
            if instances.has(masks):
                instances.remove(masks)
        name = picture_name(picture)
        return ImageDetections(instances, self.classes, rles, name, self.cfg.INPUT.MAX_VALUE)
