"""The same images under each start, with ground truth: drawn from the detections that runs leave behind."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
from pycocotools import mask as mask_tools

from virtex_det.benchmark.records import ResultRecord
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage, load_image
from virtex_det.text_files import read_json
from virtex_det.yaml_files import read_yaml

SCORE_THRESHOLD = 0.5
MAX_IMAGES = 6
MAX_STARTS = 6
SIDE = 448  # longest side of a picture in pixels: six images from six starts stay below two megabytes
JPEG_QUALITY = 80


class Run(NamedTuple):
    """A run whose detections are shown."""

    folder: Path
    record: ResultRecord


class Strip(NamedTuple):
    """One image of the evaluation set, once as it is labelled and once per start: data URIs by title."""

    file_name: str
    pictures: dict[str, str]


class Annotations:
    """COCO or LVIS annotations of an evaluation set, by image."""

    def __init__(self, path: str | Path) -> None:
        content = read_json(path)
        self.images = {image["id"]: image for image in content["images"]}
        self.names = {category["id"]: category["name"] for category in content["categories"]}
        self.of_image: dict[int, list[dict]] = defaultdict(list)
        for annotation in content["annotations"]:
            self.of_image[annotation["image_id"]].append(annotation)

    def spaced(self, count: int) -> list[int]:
        """Return images evenly spaced through those with several instances: neither chosen nor drawn."""
        ids = sorted(self.images)
        several = [image_id for image_id in ids if len(self.of_image[image_id]) > 1] or ids
        return several[:: max(len(several) // count, 1)][:count]

    def file(self, image_id: int, root: Path) -> Path | None:
        """Return an image's file, None where it is not there; LVIS tells where by the last parts of an address."""
        image = self.images[image_id]
        places = [image.get("file_name", ""), "/".join(image.get("coco_url", "").split("/")[-2:])]
        return next((root / place for place in places if place and (root / place).is_file()), None)


def draw_strips(
    runs: Mapping[str, Run], annotations: str | Path, image_root: str | Path, count: int = MAX_IMAGES
) -> list[Strip]:
    """Draw images of the evaluation set with their ground truth and with the confident detections of each run.

    Args:
        runs: by the title that their pictures get; without those that left no detections.
        annotations: COCO or LVIS JSON of the evaluation set.
        image_root: folder of its images.
        count: number of images.

    Returns:
        A strip per image; none of an image whose file is not there or cannot be read.
    """
    truth = Annotations(annotations)
    files = {image_id: truth.file(image_id, Path(image_root)) for image_id in truth.spaced(count)}
    columns = {"ground truth": truth.of_image} | {title: _detections(run, set(files)) for title, run in runs.items()}
    max_value = max(map(_max_value, runs.values()), default=0.0)
    strips = []
    for image_id, file in files.items():
        image = None if file is None else _read(file, max_value)
        if file is not None and image is not None:
            found = {title: instances.get(image_id, []) for title, instances in columns.items()}
            drawn = {title: as_jpeg(draw_instances(image, these, truth.names)) for title, these in found.items()}
            strips.append(Strip(file.name, drawn))
    return strips


def detections_file(run: Run) -> Path:
    """Return where a run's evaluation has left its detections."""
    return run.folder / "inference" / run.record.dataset / "coco_instances_results.json"


def draw_instances(image: np.ndarray, instances: Sequence[dict], names: Mapping[int, str]) -> np.ndarray:
    """Draw outlines (boxes where there are no masks) and class names over an image.

    Args:
        image: (H, W, 3) BGR.
        instances: COCO annotations or results.
        names: class names by category id.

    Returns:
        BGR, enlarged a whole number of times or shrunk, so that the longest side nears SIDE.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    scale = max(int(scale), 1) if scale >= 1 else scale
    scale = max(scale, 0.6 / min(height, width))  # of a long, thin image a pixel stays
    interpolation = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    for instance in instances:
        _draw_outline(canvas, instance, (height, width), _colour(instance["category_id"]))
    for instance in instances:
        x, y = (int(scale * edge) for edge in instance["bbox"][:2])
        score = f" {instance['score']:.2f}" if "score" in instance else ""
        _draw_label(canvas, names[instance["category_id"]] + score, x, y)
    return canvas


def as_jpeg(image: np.ndarray) -> str:
    """Return a BGR image as a data URI."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _read(file: Path, max_value: float) -> np.ndarray | None:
    """Return an image as (H, W, 3) BGR, None where it cannot be read."""
    try:
        return np.asarray(load_image(file, max_value).convert("RGB"))[:, :, ::-1]
    except BrokenImage:
        return None


def _max_value(run: Run) -> float:
    """Return a run's INPUT.MAX_VALUE, by which its images were read; 0 where its config is not there."""
    try:
        return float(read_yaml(run.folder / "config.yaml")["INPUT"]["MAX_VALUE"])
    except (UserError, LookupError, TypeError, ValueError):
        return 0.0


def _detections(run: Run, image_ids: set[int]) -> dict[int, list[dict]]:
    by_image = defaultdict(list)
    for detection in read_json(detections_file(run)):
        if detection["image_id"] in image_ids and detection["score"] >= SCORE_THRESHOLD:
            by_image[detection["image_id"]].append(detection)
    return by_image


def _draw_outline(canvas: np.ndarray, instance: dict, size: tuple[int, int], colour: list[int]) -> None:
    """Draw one instance of an image of this height and width onto the canvas."""
    if not instance.get("segmentation"):
        x, y, w, h = np.array(instance["bbox"]) * (canvas.shape[0] / size[0])
        cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), colour, 2)
        return
    mask = cv2.resize(_mask(instance["segmentation"], *size), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    canvas[mask > 0] = canvas[mask > 0] * 0.75 + np.array(colour) * 0.25
    cv2.drawContours(canvas, contours, -1, colour, 2)


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode each of COCO's three forms: polygons, run lengths as numbers, run lengths compressed."""
    if isinstance(segmentation, list):
        segmentation = mask_tools.merge(mask_tools.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = mask_tools.frPyObjects(segmentation, height, width)
    return mask_tools.decode(segmentation)


def _colour(category_id: int) -> list[int]:
    return [int(255 * part) for part in plt.get_cmap("tab10")(category_id % 10)[2::-1]]


def _draw_label(canvas: np.ndarray, text: str, x: int, y: int) -> None:
    """Write white on black above the point (x, y), or as near as the picture's border allows."""
    font = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)
    (width, height), _ = cv2.getTextSize(text, *font, 1)
    left, bottom = max(min(x, canvas.shape[1] - width - 4), 0), max(y, height + 8)
    cv2.rectangle(canvas, (left, bottom - height - 8), (left + width + 4, bottom), (20, 20, 20), -1)
    cv2.putText(canvas, text, (left + 2, bottom - 5), *font, (255, 255, 255), 1, cv2.LINE_AA)
