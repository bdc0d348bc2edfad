"""The same images under each start, with ground truth, from the detections in run folders."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_tools

from virtex_det.benchmark.comparison import Cell, Comparison, share
from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.matching import MIN_OVERLAP, Verdict, encode_mask, judge
from virtex_det.benchmark.tables import count
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage, load_image
from virtex_det.pages.drawing import Mark, box_contour, draw_marks, draw_remark, mask_contours
from virtex_det.pages.html import data_uri
from virtex_det.text_files import read_json
from virtex_det.yaml_files import read_yaml

SCORE_THRESHOLD = 0.5
MAX_IMAGES = 6
MAX_STARTS = 5  # with the ground truth two full rows of three
# Longest side of a picture in pixels: six images from five starts stay below two megabytes.
SIDE = 480
TYPE_SIZE = 19  # pixels, of a picture that a page shows at about 300
JPEG_QUALITY = 80
TRUTH = "ground truth"

# Light colours of Okabe and Ito's, which the colour-blind tell apart; lines differ, too. Labels do
# not all have room: the first ones stay.
_LOOKS: dict[Verdict, tuple[tuple[int, int, int], tuple[float, float] | None, str]] = {
    Verdict.LABELLED: ((255, 255, 255), None, "{name}"),
    Verdict.FALSE_ALARM: ((255, 176, 0), (5, 3), "✗ {name} {score:.2f}"),
    Verdict.FOUND: ((120, 205, 255), None, "{name} {score:.2f}"),
    Verdict.MISSED: ((255, 255, 255), (0.5, 2.5), "missed {name}"),
    Verdict.UNJUDGED: ((190, 190, 190), None, "{name} {score:.2f}"),
}


class DrawnImage(NamedTuple):
    """An image with the objects that are labelled or found in it.

    Attributes:
        source: a data URI.
        summary: what is drawn, such as "2 found, 1 missed, 0 false alarms".
    """

    source: str
    summary: str


class Strip(NamedTuple):
    """One image of the evaluation set, once with its labels and once per start, by title."""

    file_name: str
    pictures: dict[str, DrawnImage]


class Gallery(NamedTuple):
    """The pictures of a page.

    Attributes:
        strips: one per image; none if annotations or images are missing.
        first_row: the first image, with the starts of the finding alone; None without strips.
        runs: fractions and seeds of the runs that are shown.
        left_out: starts that are not shown.
        sources: the annotation file and the folder of the images.
        threshold: lowest score that is shown.
        min_overlap: lowest IoU of a detection that counts as found.
    """

    strips: list[Strip]
    first_row: Strip | None
    runs: list[str]
    left_out: list[str]
    sources: tuple[Path, Path]
    threshold: float = SCORE_THRESHOLD
    min_overlap: float = MIN_OVERLAP


class Annotations:
    """COCO or LVIS annotations of an evaluation set, by image."""

    def __init__(self, path: str | Path) -> None:
        content = read_json(path)
        self.images = {image["id"]: image for image in content["images"]}
        self.names = {category["id"]: category["name"] for category in content["categories"]}
        self.of_image: dict[int, list[dict]] = defaultdict(list)
        for annotation in content["annotations"]:
            self.of_image[annotation["image_id"]].append(annotation)

    def spaced(self, number: int) -> list[int]:
        """Return images at even distances among those with several instances, none hand-picked."""
        ids = sorted(self.images)
        several = [image_id for image_id in ids if len(self.of_image[image_id]) > 1] or ids
        return several[:: max(len(several) // number, 1)][:number]

    def file(self, image_id: int, root: Path) -> Path | None:
        """Return an image's file, None if it is missing; LVIS names it by the end of an address."""
        image = self.images[image_id]
        places = [image.get("file_name", ""), "/".join(image.get("coco_url", "").split("/")[-2:])]
        return next((root / place for place in places if place and (root / place).is_file()), None)


def draw_gallery(
    comparison: Comparison,
    runs: Mapping[Cell, EvaluatedRun],
    annotations: str | Path | None,
    image_root: str | Path | None,
    first: Sequence[str],
) -> Gallery | None:
    """Draw images of the evaluation set with their ground truth and under each start.

    Args:
        comparison: what was measured.
        runs: of the comparison.
        annotations: COCO or LVIS JSON of the evaluation set.
        image_root: folder of its images.
        first: starts of the first row, which are always shown.

    Returns:
        None without annotations or images.
    """
    if annotations is None or image_root is None:
        return None
    cells = _cells_to_show(comparison, runs, first)
    shown = {f"{share(cell.fraction)} of the labels and seed {cell.seed}" for cell in cells}
    strips = []
    if Path(annotations).exists():
        strips = draw_strips({cell.start: runs[cell] for cell in cells}, annotations, image_root)
    first_row = None
    if strips:
        pictures = strips[0].pictures
        titles = [title for title in (TRUTH, *first) if title in pictures]
        first_row = strips[0]._replace(pictures={title: pictures[title] for title in titles})
    return Gallery(
        strips,
        first_row,
        sorted(shown),
        [start for start in comparison.starts if start not in {cell.start for cell in cells}],
        (Path(annotations), Path(image_root)),
    )


def _cells_to_show(
    comparison: Comparison, runs: Mapping[Cell, EvaluatedRun], first: Sequence[str]
) -> list[Cell]:
    """Return a cell per start: that with the most labels and lowest seed which has detections.

    The cells are of the first protocol. Of more than MAX_STARTS, the last are left out, but none
    of ``first``.
    """
    cells: dict[str, Cell] = {}
    for cell in sorted(comparison.records, key=lambda cell: (-cell.fraction, cell.seed)):
        if cell.protocol == comparison.protocols[0] and runs[cell].has_own_detections():
            cells.setdefault(cell.start, cell)
    by_rank = [start for start in dict.fromkeys([*first, *comparison.starts]) if start in cells]
    return [cells[start] for start in comparison.starts if start in by_rank[:MAX_STARTS]]


def draw_strips(
    runs: Mapping[str, EvaluatedRun],
    annotations: str | Path,
    image_root: str | Path,
    number: int = MAX_IMAGES,
) -> list[Strip]:
    """Draw images with their ground truth and with the confident detections of each run.

    Args:
        runs: by title of their pictures; each has detections.
        annotations: COCO or LVIS JSON of the evaluation set.
        image_root: folder of its images.
        number: of images.

    Returns:
        A strip per image; images whose file is missing or broken are left out.
    """
    truth = Annotations(annotations)
    files = {image_id: truth.file(image_id, Path(image_root)) for image_id in truth.spaced(number)}
    detections = {title: _detections(run, set(files)) for title, run in runs.items()}
    max_value = max(map(max_value_of, runs.values()), default=0.0)
    strips = []
    for image_id, file in files.items():
        pixels = None if file is None else read_pixels(file, max_value)
        if file is None or pixels is None:
            continue
        labelled = truth.of_image[image_id]
        pictures = {TRUTH: draw_truth(pixels, labelled, truth.names)}
        for title, of_run in detections.items():
            judged = judge(of_run[image_id], labelled, truth.images[image_id], pixels.shape[:2])
            pictures[title] = draw_detections(pixels, judged, truth.names)
        strips.append(Strip(file.name, pictures))
    return strips


def draw_truth(
    pixels: np.ndarray, labelled: Sequence[dict], names: Mapping[int, str]
) -> DrawnImage:
    """Draw the labelled objects of an image.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        labelled: COCO or LVIS annotations.
        names: class names by category id.
    """
    judged = [(each, Verdict.LABELLED) for each in labelled if not each.get("iscrowd")]
    if not judged:
        return _drawn(pixels, judged, names, "nothing is labelled", remark="nothing is labelled")
    return _drawn(pixels, judged, names, f"{len(judged)} labelled")


def draw_detections(
    pixels: np.ndarray,
    judged: Sequence[tuple[dict, Verdict]],
    names: Mapping[int, str],
    threshold: float = SCORE_THRESHOLD,
) -> DrawnImage:
    """Draw the detections of a run in an image, false alarms among them, and the missed objects.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        judged: of ``judge``, for detections with a score of at least ``threshold``.
        names: class names by category id.
        threshold: lowest score that is shown.
    """
    counts = Counter(verdict for _, verdict in judged)
    missed = f"{counts[Verdict.MISSED]} missed"
    if set(counts) <= {Verdict.MISSED}:
        nothing = f"nothing above {threshold}"
        return _drawn(pixels, judged, names, f"{nothing}, {missed}", remark=nothing)
    alarms = count(counts[Verdict.FALSE_ALARM], "false alarm")
    said = [f"{counts[Verdict.FOUND]} found", missed, alarms]
    if counts[Verdict.UNJUDGED]:
        said.append(f"{counts[Verdict.UNJUDGED]} not judged")
    return _drawn(pixels, judged, names, ", ".join(said))


def _drawn(
    pixels: np.ndarray,
    judged: Sequence[tuple[dict, Verdict]],
    names: Mapping[int, str],
    summary: str,
    remark: str = "",
) -> DrawnImage:
    """Draw marks over an image that is enlarged or shrunk until its longest side is near SIDE."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    scale = max(int(scale), 1) if scale >= 1 else scale  # pixels stay squares of equal size
    scale = max(scale, 0.6 / min(height, width))  # a thin image keeps at least one pixel
    interpolation = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    canvas = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)
    marks = []
    for instance, verdict in sorted(judged, key=_importance):
        colour, dash, words = _LOOKS[verdict]
        label = words.format(name=names[instance["category_id"]], score=instance.get("score", 0.0))
        contours = _contours(instance, (height, width), canvas.shape[:2])
        marks.append(Mark(contours, label, colour, dash))
    drawn = draw_marks(canvas, marks, TYPE_SIZE)
    if remark:
        drawn = draw_remark(drawn, remark, TYPE_SIZE)
    encoded = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return DrawnImage(data_uri(encoded.tobytes()), summary)


def _importance(judged: tuple[dict, Verdict]) -> tuple[int, float]:
    """Return the sort key of labels: the verdict, then the larger box first."""
    instance, verdict = judged
    return list(_LOOKS).index(verdict), -instance["bbox"][2] * instance["bbox"][3]


def _contours(instance: dict, size: tuple[int, int], canvas: tuple[int, int]) -> list[np.ndarray]:
    """Return the outlines of a mask, or of the box if there is no mask, in pixels of the canvas."""
    if instance.get("segmentation"):
        mask = mask_tools.decode(encode_mask(instance["segmentation"], *size))
        return mask_contours(mask, canvas)
    x, y, width, height = instance["bbox"]
    return [box_contour((x, y, x + width, y + height)) * (canvas[0] / size[0])]


def read_pixels(file: Path, max_value: float) -> np.ndarray | None:
    """Return an image as (H, W, 3) RGB, None if it cannot be read."""
    try:
        return np.asarray(load_image(file, max_value).convert("RGB"))
    except BrokenImage:
        return None


def max_value_of(run: EvaluatedRun) -> float:
    """Return the INPUT.MAX_VALUE with which a run read images; 0 if its config is missing."""
    try:
        return float(read_yaml(run.folder / "config.yaml")["INPUT"]["MAX_VALUE"])
    except (UserError, LookupError, TypeError, ValueError):
        return 0.0


def _detections(run: EvaluatedRun, image_ids: set[int]) -> dict[int, list[dict]]:
    by_image = defaultdict(list)
    for detection in read_json(run.detections_file()):
        if detection["image_id"] in image_ids and detection["score"] >= SCORE_THRESHOLD:
            by_image[detection["image_id"]].append(detection)
    return by_image
