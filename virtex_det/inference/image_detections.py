"""The detections in one picture, as plain arrays."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image
from pycocotools import mask as mask_tools

from virtex_det.config.rules import whole
from virtex_det.data.datasets.ids import check_id, check_id_or_name
from virtex_det.data.pictures import Picture, read_rgb
from virtex_det.errors import UserError
from virtex_det.escaping import visible
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.inference.arguments import check_argument, plain
from virtex_det.inference.tiles import import_supervision
from virtex_det.pages.drawing import Mark, box_contour, draw_marks, mask_contours
from virtex_det.pages.theme import DARK

_SHOWN = 5
_LARGEST_THUMBNAIL = 10_000  # pixels of its longest side, which take 300 MB


class ImageDetections:
    """The objects that a detector found in one picture, the best first.

    An index, a slice or a boolean mask selects some: ``detections[detections.scores > 0.5]``.

    Attributes:
        file_name: "" for a picture without a file.
        frame: number of the frame in a video, from 0; None for other pictures.
        class_names: names of all classes of the detector, by number; empty if unknown.
        rles: masks as COCO's compressed run lengths, a fraction of the memory of ``masks``; None
            for a model without masks.

    Example:
        >>> detections = detector("photo.jpg")
        >>> for box, score, name in zip(detections.boxes, detections.scores, detections.names):
        ...     print(name, score, box)
    """

    def __init__(
        self,
        instances: Instances,
        class_names: Sequence[str] = (),
        rles: list[dict[str, Any]] | None = None,
        file_name: str = "",
        max_value: float = 0.0,
        *,
        frame: int | None = None,
        pixels: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            instances: on the CPU, with pred_boxes, scores, pred_classes and other fields of the
                model, without masks.
            class_names: names of all classes, by number.
            rles: a mask for each instance, or None.
            file_name: file name of the picture.
            max_value: INPUT.MAX_VALUE of the detector, to read the picture again as it did.
            frame: number of the frame.
            pixels: (H, W, 3) uint8 RGB of the picture, where they are kept; None: it is read again.
        """
        self._instances = instances
        self.class_names = tuple(class_names)
        self.rles = rles
        self.file_name = file_name
        self.frame = frame
        self._max_value = max_value
        self._pixels = pixels

    @property
    def boxes(self) -> np.ndarray:
        """Corners x0, y0, x1, y1 in pixels of the picture. # shape: (N, 4), float32"""
        return np.asarray(self._instances.pred_boxes.tensor)

    @property
    def scores(self) -> np.ndarray:
        """Confidence from 0 to 1, in descending order. # shape: (N,), float32"""
        return np.asarray(self._instances.scores)

    @property
    def classes(self) -> np.ndarray:
        """Class numbers from 0. # shape: (N,), int64"""
        return np.asarray(self._instances.pred_classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each object; its number as text if names are unknown."""
        numbers = self.classes.tolist()
        return tuple(map(self._name, numbers))

    @property
    def masks(self) -> np.ndarray | None:
        """Masks of the picture's size, decoded at each call, or None. # shape: (N, H, W), bool"""
        if self.rles is None:
            return None
        if not self.rles:
            return np.zeros((0, *self.image_size), bool)
        return mask_tools.decode(self.rles).transpose(2, 0, 1).astype(bool)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        height, width = self._instances.image_size
        return height, width

    @property
    def instances(self) -> Instances:
        """Detectron2's Instances, on the CPU, with pred_masks (N, H, W) if there are masks."""
        found = Instances(self.image_size, **self._instances.get_fields())
        if self.rles is not None:
            found.pred_masks = torch.from_numpy(self.masks)
        return found

    def to_coco(
        self, image_id: int | str, category_ids: Mapping[str, int] | Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return the entries of a COCO results file, as an evaluation writes them.

        Args:
            image_id: id of the picture in the annotation file.
            category_ids: the category id of each class, by name or in the order of the classes.

        Raises:
            UserError: the class of a detection has no id, or an id is invalid.
        """
        image_id = plain(image_id)
        check_id_or_name(image_id, "image_id is")
        ids = [self._category_id(number, category_ids) for number in self.classes.tolist()]
        columns = Detections.of_instances(self._instances, 0, np.array(ids, np.int64), self.rles)
        return [entry | {"image_id": image_id} for entry in columns.entries()]

    def _name(self, number: int) -> str:
        return self.class_names[number] if self.class_names else str(number)

    def _category_id(self, number: int, category_ids: Any) -> int:
        name = self._name(number)
        shown = visible(name, "")
        try:
            found = plain(category_ids[name if isinstance(category_ids, Mapping) else number])
        except (LookupError, TypeError) as error:
            raise UserError(
                f"There is no category id for the class {shown}.\n"
                f"Give the id of every class, by name ({{'person': 1, ...}}) or in the order of "
                f"the classes: {', '.join(self.class_names):.200}"
            ) from error
        check_id(found, f"The category id of the class {shown} is")
        return int(found)

    def draw(self, picture: Picture | None = None) -> Image.Image:
        """Return the picture with outlines, names and scores; a class has one colour.

        Args:
            picture: the picture that was given to the detector; None for the pixels of a stream, or
                to read its file again.

        Raises:
            UserError: there is no file, it cannot be read, or the picture has another size.
        """
        pixels = self._read(picture)
        return Image.fromarray(self._drawn(pixels, type_size=max(12, max(pixels.shape) // 40)))

    def thumbnail(self, side: int) -> Image.Image:
        """Return the picture as drawn by ``draw``, its longest side of ``side`` pixels.

        The labels can still be read where a page shows it at 60 % of its size.

        Raises:
            UserError: as for ``draw``, or the side is not from 1 to 10000 pixels.
        """
        check_argument("The side of a thumbnail", side, whole(1, _LARGEST_THUMBNAIL))
        picture = Image.fromarray(self._read(None))
        longest = max(picture.size)
        width, height = (max(round(length / longest * side), 1) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return Image.fromarray(self._drawn(np.asarray(picture), type_size=max(side // 25, 1)))

    def count(self) -> dict[str, int]:
        """Return the number of objects of each class that was found, the most frequent first."""
        return dict(Counter(self.names).most_common())

    def to_supervision(self) -> Any:
        """Return them as supervision's Detections (extra [predict]): boxes, scores, classes, masks.

        Class names are ``data["class_name"]``, as supervision's annotators expect.

        Raises:
            UserError: supervision is not installed.
        """
        sv = import_supervision()
        return sv.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.classes,
            mask=self.masks,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _read(self, picture: Picture | None) -> np.ndarray:
        if picture is None and self._pixels is not None:
            return self._pixels
        if picture is None and (not self.file_name or self.frame is not None):
            raise UserError(
                "The detections are of a picture without a file; pass the picture: "
                "detections.draw(picture)."
            )
        pixels = read_rgb(self.file_name if picture is None else picture, self._max_value)
        if pixels.shape[:2] != self.image_size:
            raise UserError(
                f"The picture is {pixels.shape[1]} x {pixels.shape[0]} pixels; the detections are "
                f"of one with {self.image_size[1]} x {self.image_size[0]}."
            )
        return pixels

    def _drawn(self, pixels: np.ndarray, type_size: int) -> np.ndarray:
        """Return the picture, or a copy of another size, with the marks on it."""
        height, width = pixels.shape[:2]
        scale = np.array([width, height] * 2) / np.array(self.image_size[::-1] * 2)
        contours = [[box_contour(box * scale)] for box in self.boxes]
        if self.rles is not None:
            contours = [mask_contours(mask_tools.decode(rle), (height, width)) for rle in self.rles]
        labels = [
            f"{name} {score:.0%}" for name, score in zip(self.names, self.scores, strict=True)
        ]
        colours = [_rgb(DARK.palette[number % len(DARK.palette)]) for number in self.classes]
        marks = [Mark(*mark) for mark in zip(contours, labels, colours, strict=True)]
        return draw_marks(pixels, marks, type_size, max(2, max(height, width) // 400))

    def __getitem__(self, index: Any) -> "ImageDetections":
        places = np.atleast_1d(np.arange(len(self))[index])
        rles = None if self.rles is None else [self.rles[place] for place in places]
        return ImageDetections(
            self._instances[torch.from_numpy(places)],
            self.class_names,
            rles,
            self.file_name,
            self._max_value,
            frame=self.frame,
            pixels=self._pixels,
        )

    def __len__(self) -> int:
        return len(self._instances)

    def __repr__(self) -> str:
        names = [visible(name, "") for name in self.names[:_SHOWN]]
        best = [
            f"{name} {score:.2f}" for name, score in zip(names, self.scores[:_SHOWN], strict=True)
        ]
        more = ["..."] if len(self) > _SHOWN else []
        frame = "" if self.frame is None else f" frame {self.frame}"
        name = f"{visible(self.file_name, '')}{frame}: " if self.file_name else ""
        return (
            f"ImageDetections({name}{len(self)} "
            f"found{': ' if best else ''}{', '.join(best + more)})"
        )


def _rgb(colour: str) -> tuple[int, int, int]:
    """Return #rrggbb as numbers."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
