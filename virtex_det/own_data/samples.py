"""Pictures of data: ground truth as it was drawn, and samples as the trainer sees them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as mask_tools
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Instances

from virtex_det.config.mappers import mapper_name
from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.datasets import rank_images
from virtex_det.data.images import read_image
from virtex_det.data.seeding import seeded
from virtex_det.errors import BrokenExample
from virtex_det.inference.pages import encode_jpeg
from virtex_det.own_data.survey import Odd, Survey
from virtex_det.pages.drawing import Mark, box_contour, draw_marks, draw_remark, mask_contours
from virtex_det.pages.html import data_uri
from virtex_det.pages.theme import DARK

_SIDE = 640  # pixels of the longest side of a drawn picture
_TYPE = 17
_CROWD = (3.0, 3.0)  # dashes


class Sample(NamedTuple):
    """A picture of a page: its content as a data URI, the file it shows, and a line below it."""

    picture: str
    file: Path
    note: str


class _Drawn(NamedTuple):
    """An object to be drawn: a box x0, y0, x1, y1, polygons or a mask, class, whether a crowd."""

    box: np.ndarray
    mask: Any
    number: int
    is_crowd: bool = False


def chosen_images(survey: Survey, number: int, seed: int) -> list[int]:
    """Return the places of some images that have a file, first of all ones with objects."""
    with_objects = {*survey.objects.images.tolist()}
    ranked = sorted(rank_images(survey.dicts, seed), key=lambda place: place not in with_objects)
    has_file = (place for place in ranked if Path(survey.dicts[place]["file_name"]).is_file())
    return [*islice(has_file, number)]


def ground_truth(survey: Survey, places: Sequence[int]) -> list[Sample]:
    """Return images with all their objects, crowds with dashed outlines.

    Args:
        survey: of the data set.
        places: of the images.
    """
    return [_annotated(survey, place) for place in places]


def odd_samples(survey: Survey, odd: Odd, number: int) -> list[Sample]:
    """Return images with only their odd objects; one of each image.

    Args:
        survey: of the data set.
        odd: the objects.
        number: of pictures, at most.
    """
    by_image: dict[int, list[int]] = {}
    for place in odd.places.tolist():
        by_image.setdefault(int(survey.objects.images[place]), []).append(place)
    found = []
    for image, places in [*by_image.items()][:number]:
        drawn = [
            _Drawn(survey.objects.boxes[place], None, int(survey.objects.classes[place]))
            for place in places
        ]
        found.append(_sample(survey, image, drawn, odd.what))
    return found


def augmented(cfg: CfgNode, survey: Survey, places: Sequence[int], seed: int) -> list[Sample]:
    """Return images and objects as the trainer's mapper makes them for a training step.

    Args:
        cfg: of the training.
        survey: of the data set.
        places: of the images.
        seed: of the augmentation.
    """
    mapper = MAPPER_REGISTRY.get(mapper_name(cfg))(cfg, True)
    found = []
    for place in places:
        entry = survey.dicts[place]
        try:
            with seeded(seed, f"sample {place}"):
                example = mapper(entry)
        except BrokenExample as error:
            found.append(_unreadable(entry, error))
            continue
        pixels = np.ascontiguousarray(example["image"].numpy().transpose(1, 2, 0))
        if cfg.INPUT.FORMAT == "BGR":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        height, width = pixels.shape[:2]
        drawn = _of_instances(example["instances"])
        note = f"{width} x {height} pixels, {_counted(drawn)}"
        found.append(_draw(pixels, drawn, survey, Path(entry["file_name"]), note))
    return found


def _annotated(survey: Survey, image: int) -> Sample:
    objects = survey.objects
    first = int(np.searchsorted(objects.images, image))
    annotations = survey.dicts[image].get("annotations") or ()
    size = survey.sizes[image]
    drawn = [
        _Drawn(
            objects.boxes[first + number],
            _readable_mask(entry.get("segmentation"), size),
            int(objects.classes[first + number]),
            bool(objects.crowds[first + number]),
        )
        for number, entry in enumerate(annotations)
    ]
    return _sample(survey, image, drawn, _counted(drawn) if survey.is_labelled else "")


def _sample(survey: Survey, image: int, drawn: Sequence[_Drawn], note: str) -> Sample:
    entry = dict(survey.dicts[image])
    try:
        pixels = np.ascontiguousarray(read_image(entry, "RGB"))
    except BrokenExample as error:
        return _unreadable(entry, error)
    size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
    parts = ", ".join(part for part in (size, note) if part)
    return _draw(pixels, drawn, survey, Path(entry["file_name"]), parts)


def _draw(
    pixels: np.ndarray, drawn: Sequence[_Drawn], survey: Survey, file: Path, note: str
) -> Sample:
    height, width = pixels.shape[:2]
    scale = min(_SIDE / max(height, width), 4.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = cv2.resize(pixels, size[::-1], interpolation=shrinks)
    marks = [
        Mark(
            _contours(each, scale, size),
            survey.title(each.number),
            _colour(each.number),
            _dash(each),
        )
        for each in sorted(drawn, key=lambda each: -float(np.prod(each.box[2:] - each.box[:2])))
    ]
    picture = draw_marks(canvas, marks, _TYPE)
    return Sample(data_uri(encode_jpeg(picture)), file, note)


def _counted(drawn: Sequence[_Drawn]) -> str:
    return f"{len(drawn)} object" + ("s" if len(drawn) != 1 else "")


def _unreadable(entry: Mapping[str, Any], error: BrokenExample) -> Sample:
    blank = np.full((_SIDE // 2, _SIDE, 3), 128, np.uint8)
    picture = draw_remark(blank, error.reason, _TYPE)
    return Sample(data_uri(encode_jpeg(picture)), Path(entry["file_name"]), error.reason)


def _contours(each: _Drawn, scale: float, size: tuple[int, int]) -> list[np.ndarray]:
    if isinstance(each.mask, np.ndarray):
        return mask_contours(each.mask, size)
    if each.mask:
        return [np.asarray(part, float).reshape(-1, 2) * scale for part in each.mask]
    return [box_contour((each.box * scale).tolist())]


def _colour(number: int) -> tuple[int, int, int]:
    text = DARK.palette[number % len(DARK.palette)]
    return (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))


def _dash(each: _Drawn) -> tuple[float, float] | None:
    return _CROWD if each.is_crowd else None


def _readable_mask(mask: Any, size: np.ndarray) -> Any:
    """Return polygons as they are, run lengths as pixels; None for a box alone."""
    if not isinstance(mask, Mapping):
        return mask
    counts = mask["counts"]
    height, width = (int(side) for side in size)
    encoded = mask_tools.frPyObjects(mask, height, width) if isinstance(counts, list) else mask
    return mask_tools.decode(encoded)


def _of_instances(instances: Instances) -> list[_Drawn]:
    boxes = instances.gt_boxes.tensor.numpy()
    numbers = instances.gt_classes.tolist()
    masks: Sequence[Any] = [None] * len(numbers)
    if instances.has("gt_masks"):
        found = instances.gt_masks
        is_pixels = isinstance(found, BitMasks)
        masks = [*found.tensor.numpy()] if is_pixels else found.polygons
    return [_Drawn(*each) for each in zip(boxes, masks, numbers, strict=True)]
