"""The same images under each start, with ground truth: drawn from the detections that runs leave behind."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_tools

from virtex_det.benchmark.matching import Verdict, encode_mask, judge
from virtex_det.benchmark.records import ResultRecord, read_records
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage, load_image
from virtex_det.pages.drawing import Mark, box_contour, draw_marks, draw_remark, mask_contours
from virtex_det.pages.html import data_uri
from virtex_det.text_files import read_json
from virtex_det.utils import folder_name
from virtex_det.yaml_files import read_yaml

SCORE_THRESHOLD = 0.5
MAX_IMAGES = 6
MAX_STARTS = 5  # with the ground truth two full rows of three
SIDE = (
    480  # longest side of a picture in pixels: six images from five starts stay below two megabytes
)
TYPE_SIZE = 19  # pixels, of a picture that a page shows at about 300
JPEG_QUALITY = 80
TRUTH = "ground truth"

# The light colours of Okabe and Ito's, told apart by the colour-blind too, and by the line itself.
_LOOKS: dict[Verdict, tuple[tuple[int, int, int], tuple[float, float] | None, str]] = {
    Verdict.LABELLED: ((255, 255, 255), None, "{name}"),
    Verdict.FOUND: ((120, 205, 255), None, "{name} {score:.2f}"),
    Verdict.FALSE_ALARM: ((255, 176, 0), (5, 3), "✗ {name} {score:.2f}"),
    Verdict.MISSED: ((255, 255, 255), (0.5, 2.5), "missed {name}"),
    Verdict.UNJUDGED: ((190, 190, 190), None, "{name} {score:.2f}"),
}
_ORDER = (
    Verdict.LABELLED,
    Verdict.FALSE_ALARM,
    Verdict.FOUND,
    Verdict.MISSED,
    Verdict.UNJUDGED,
)  # of labels


class Run(NamedTuple):
    """A run whose detections are shown."""

    folder: Path
    record: ResultRecord


class DrawnImage(NamedTuple):
    """An image with what is labelled or found in it.

    Attributes:
        source: a data URI.
        summary: what is drawn in words, such as "2 found, 1 missed, no false alarm".
    """

    source: str
    summary: str


class Strip(NamedTuple):
    """One image of the evaluation set, once as it is labelled and once per start, by title."""

    file_name: str
    pictures: dict[str, DrawnImage]


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
    runs: Mapping[str, Run],
    annotations: str | Path,
    image_root: str | Path,
    count: int = MAX_IMAGES,
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
    detections = {title: _detections(run, set(files)) for title, run in runs.items()}
    max_value = max(map(_max_value, runs.values()), default=0.0)
    strips = []
    for image_id, file in files.items():
        pixels = None if file is None else _read(file, max_value)
        if file is None or pixels is None:
            continue
        labelled = truth.of_image[image_id]
        pictures = {TRUTH: draw_truth(pixels, labelled, truth.names)}
        for title, of_run in detections.items():
            judged = judge(of_run[image_id], labelled, truth.images[image_id], pixels.shape[:2])
            pictures[title] = draw_detections(pixels, judged, truth.names)
        strips.append(Strip(file.name, pictures))
    return strips


def detections_file(run: Run) -> Path:
    """Return where a run's evaluation has left its detections."""
    folder = run.folder / "inference" / folder_name(run.record.dataset)
    return folder / "coco_instances_results.json"


def has_own_detections(run: Run) -> bool:
    """Return whether the detections in a run's folder are those that its record measured.

    An evaluation of other weights, or with other settings, may have replaced them.
    """
    if not detections_file(run).exists():
        return False
    records = [each for each in read_records(run.folder) if each.dataset == run.record.dataset]
    own = (run.record.config_sha256, run.record.iteration, run.record.metrics)
    last = records[-1] if records else run.record
    return (last.config_sha256, last.iteration, last.metrics) == own


def draw_truth(
    pixels: np.ndarray, labelled: Sequence[dict], names: Mapping[int, str]
) -> DrawnImage:
    """Draw what is labelled in an image.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        labelled: COCO or LVIS annotations.
        names: class names by category id.
    """
    judged = [
        (annotation, Verdict.LABELLED) for annotation in labelled if not annotation.get("iscrowd")
    ]
    drawn = _draw(pixels, judged, names)
    if not judged:
        return DrawnImage(
            as_jpeg(draw_remark(drawn, "nothing is labelled", TYPE_SIZE)), "nothing is labelled"
        )
    return DrawnImage(as_jpeg(drawn), f"{len(judged)} labelled")


def draw_detections(
    pixels: np.ndarray, judged: Sequence[tuple[dict, Verdict]], names: Mapping[int, str]
) -> DrawnImage:
    """Draw what a run found in an image, what it missed, and which of its finds are false alarms.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        judged: detections with a score of at least SCORE_THRESHOLD and missed annotations, from ``judge``.
        names: class names by category id.
    """
    drawn = _draw(pixels, judged, names)
    counts = Counter(verdict for _, verdict in judged)
    missed = f"{counts[Verdict.MISSED]} missed"
    if set(counts) <= {Verdict.MISSED}:
        nothing = f"nothing above {SCORE_THRESHOLD}"
        return DrawnImage(as_jpeg(draw_remark(drawn, nothing, TYPE_SIZE)), f"{nothing}, {missed}")
    alarms = counts[Verdict.FALSE_ALARM]
    said = [
        f"{counts[Verdict.FOUND]} found",
        missed,
        f"{alarms} false alarm{'' if alarms == 1 else 's'}",
    ]
    if counts[Verdict.UNJUDGED]:
        said.append(f"{counts[Verdict.UNJUDGED]} not judged")
    return DrawnImage(as_jpeg(drawn), ", ".join(said))


def as_jpeg(pixels: np.ndarray) -> str:
    """Return an RGB image as a data URI."""
    encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return data_uri(encoded.tobytes())


def _draw(
    pixels: np.ndarray, judged: Sequence[tuple[dict, Verdict]], names: Mapping[int, str]
) -> np.ndarray:
    """Draw marks over an image enlarged a whole number of times or shrunk, so that its longest side nears SIDE."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    scale = max(int(scale), 1) if scale >= 1 else scale
    scale = max(scale, 0.6 / min(height, width))  # of a long, thin image a pixel stays
    interpolation = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    canvas = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)
    marks = []
    for instance, verdict in sorted(judged, key=_importance):
        colour, dash, words = _LOOKS[verdict]
        label = words.format(name=names[instance["category_id"]], score=instance.get("score", 0.0))
        marks.append(
            Mark(_contours(instance, (height, width), canvas.shape[:2]), label, colour, dash)
        )
    return draw_marks(canvas, marks, TYPE_SIZE)


def _importance(judged: tuple[dict, Verdict]) -> tuple[int, float]:
    """Return what the labels are sorted by, since there is not room for all: verdict, then the larger box first."""
    instance, verdict = judged
    return _ORDER.index(verdict), -instance["bbox"][2] * instance["bbox"][3]


def _contours(instance: dict, size: tuple[int, int], canvas: tuple[int, int]) -> list[np.ndarray]:
    """Return the outlines of a mask, or of the box where there is none, in pixels of the canvas."""
    if instance.get("segmentation"):
        return mask_contours(decode_mask(instance["segmentation"], *size), canvas)
    x, y, width, height = instance["bbox"]
    return [box_contour((x, y, x + width, y + height)) * (canvas[0] / size[0])]


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode each of COCO's three forms: polygons, run lengths as numbers, run lengths compressed."""
    return mask_tools.decode(encode_mask(segmentation, height, width))


def _read(file: Path, max_value: float) -> np.ndarray | None:
    """Return an image as (H, W, 3) RGB, None where it cannot be read."""
    try:
        return np.asarray(load_image(file, max_value).convert("RGB"))
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
