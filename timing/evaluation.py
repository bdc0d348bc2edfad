#!/usr/bin/env python3
"""Time evaluation against pycocotools and lvis in Detectron2's evaluators, each in a new process.

python timing/evaluation.py                5,000 images x 100 detections (COCO), 2,000 x 300 (LVIS);
                                           takes an hour
python timing/evaluation.py --scale 0.1    a tenth of the images
python timing/evaluation.py --small        a check that the script works

"numbers": from the detections of each image in memory, with encoded masks, to AP. "output": from
the network's output, boxes at its resolution and masks of 28x28, to AP and the results file, in two
processes that gather or merge. Figures are CPU seconds, summed over processes, and the main
process's peak of memory above that of the imports. Linux only.
"""

import argparse
import contextlib
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from pycocotools import mask as mask_tools
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.engine.processes import launch_processes
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.box_masks import UNPASTED, encode_box_masks
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.reference import LVISEvaluator

OURS, REFERENCE = "virtex_det", "Detectron2's evaluator"
DATASET = "benchmark_of_evaluation"
HEIGHT, WIDTH = 480, 640  # of every image
INPUT_HEIGHT, INPUT_WIDTH = 800, 1067  # as the network sees it
CATEGORIES = {"coco": 80, "lvis": 1203}
OBJECTS_PER_IMAGE = {"coco": 7.2, "lvis": 12.0}
PROCESSES = {"numbers": 1, "output": 2}


class Case(NamedTuple):
    """One measurement of one evaluator."""

    stage: str  # "numbers" or "output"
    style: str  # "coco" or "lvis"
    masks: bool
    images: int
    detections: int  # per image
    evaluator: str

    @property
    def title(self) -> str:
        task = "mask" if self.masks else "box"
        return f"{self.stage}: {self.style.upper()} {task}, {self.images:,} x {self.detections}"


class Figures(NamedTuple):
    """Time and memory of a process, and its results."""

    cpu_seconds: float
    peak_mb: float
    results: dict[str, dict[str, float]]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--output-images",
        type=int,
        default=500,
        help='images of the stage "output" (default: %(default)s)',
    )
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help='cases with TEXT in the title, as "numbers: COCO"',
    )
    parser.add_argument(
        "--rounds", type=int, default=1, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="8 images per case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--case", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Measure all cases in turn and print the table."""
    torch.set_num_threads(1)
    if args.case:
        print(json.dumps(measure(Case(*json.loads(args.case[0])), Path(args.case[1]))))
        return
    pairs = [pair for pair in cases(args) if args.only in pair[0].title]
    measured: dict[Case, list[Figures]] = {case: [] for pair in pairs for case in pair}
    for case in tqdm(args.rounds * list(measured), desc="cases"):
        figures = _in_new_process(case)
        measured[case].append(figures)
        cost = f"{figures.cpu_seconds:.2f} CPU s, {figures.peak_mb:.0f} MB"
        tqdm.write(f"{case.title}, {case.evaluator}: {cost}")
    rows = [row for pair in pairs for row in summarise(*pair, measured)]
    print(tabulate(rows, headers="keys", floatfmt=("", "", ".2f", ".0f", ".1f", ".1f", ".1e")))
    if args.json:
        args.json.write_text(json.dumps({"cases": rows}, indent=2))


def cases(args: argparse.Namespace) -> list[tuple[Case, Case]]:
    """Return pairs of cases: with the reference, and with virtex_det's evaluator."""
    coco, lvis = math.ceil(5000 * args.scale), math.ceil(2000 * args.scale)
    output = args.output_images
    if args.small:
        coco = lvis = output = 8
    found = [
        ("numbers", "coco", False, coco, 100),
        ("numbers", "coco", True, coco, 100),
        ("numbers", "lvis", False, lvis, 300),
        ("numbers", "lvis", True, lvis, 300),
        ("output", "coco", True, output, 100),
    ]
    return [(Case(*case, REFERENCE), Case(*case, OURS)) for case in found]


def measure(case: Case, folder: Path) -> Figures:
    """Run one case in the number of processes of its stage."""
    write_truth(case, folder / "truth.json")
    launch_processes(_measure_rank, case, folder, processes=PROCESSES[case.stage])
    parts = [Figures(*json.loads(path.read_text())) for path in sorted(folder.glob("rank_*.json"))]
    return parts[0]._replace(cpu_seconds=sum(part.cpu_seconds for part in parts))


def _measure_rank(case: Case, folder: Path) -> None:
    torch.set_num_threads(1)
    _register(case, folder)
    before = _memory_mb("VmRSS")
    measure_stage = measure_numbers if case.stage == "numbers" else measure_output
    seconds, results = measure_stage(case, folder)
    figures = Figures(seconds, _memory_mb("VmHWM") - before, results)
    (folder / f"rank_{comm.get_rank()}.json").write_text(json.dumps(figures))


def measure_numbers(case: Case, folder: Path) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds from encoded detections to numbers, and the numbers."""
    if case.evaluator == OURS:
        return _our_numbers(case, folder)
    task = "segm" if case.masks else "bbox"
    evaluator = _reference(case, folder, tasks=(task,), output_folder=None)
    evaluator.reset()
    for image_id, instances in network_output(case, folder):
        scaled = detector_postprocess(_without_maps(instances), HEIGHT, WIDTH)
        _draw_masks(scaled, instances)
        evaluator.process([_example(image_id)], [{"instances": scaled}])
    started = time.process_time()
    results = evaluator.evaluate()
    return time.process_time() - started, results


def _our_numbers(case: Case, folder: Path) -> tuple[float, dict[str, Any]]:
    truth = GroundTruth.read(folder / "truth.json", case.style)
    task = "segm" if case.masks else "bbox"
    metric = AveragePrecision(truth, task, own_masks=True)  # as in DetectionEvaluator
    seconds = 0.0
    for image_id, instances in network_output(case, folder):
        detections = _columns(image_id, instances)
        started = time.process_time()
        metric.update([image_id], detections)
        seconds += time.process_time() - started
    started = time.process_time()
    results = {task: metric.result()}
    return seconds + time.process_time() - started, results


def measure_output(case: Case, folder: Path) -> tuple[float, dict[str, Any]]:
    """Return this process's CPU seconds from a network's output to the results, and the numbers."""
    started = time.process_time()
    tasks = ("bbox", "segm")
    evaluator = (
        DetectionEvaluator(DATASET, folder)
        if case.evaluator == OURS
        else _reference(case, folder, tasks=tasks, output_folder=folder)
    )
    evaluator.reset()
    seconds = time.process_time() - started
    for image_id, instances in network_output(case, folder, comm.get_rank(), comm.get_world_size()):
        started = time.process_time()
        if case.evaluator == OURS:
            output: dict[str, Any] = {UNPASTED: instances}
        else:
            output = {"instances": detector_postprocess(instances, HEIGHT, WIDTH)}
        evaluator.process([_example(image_id)], [output])
        seconds += time.process_time() - started
    started = time.process_time()
    results = evaluator.evaluate() or {}
    return seconds + time.process_time() - started, results


def summarise(
    reference: Case, ours: Case, measured: dict[Case, list[Figures]]
) -> list[dict[str, Any]]:
    """Return a row for each case of a pair: medians, ratios, and the largest difference."""
    costs = {}
    for case in (reference, ours):
        rounds = [(figures.cpu_seconds, figures.peak_mb) for figures in measured[case]]
        costs[case] = np.median(rounds, axis=0).tolist()
    rows = []
    for case, (seconds, megabytes) in costs.items():
        results = measured[case][0].results
        rows.append(
            {
                "case": case.title,
                "evaluator": case.evaluator,
                "CPU s": seconds,
                "peak MB": megabytes,
                "speed-up": costs[reference][0] / seconds,
                "memory ratio": costs[reference][1] / megabytes,
                "difference": largest_difference(measured[reference][0].results, results),
            }
        )
    return rows


def largest_difference(
    one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]
) -> float:
    """Return the largest difference of the numbers in both results, in percent; NaN equals NaN."""
    largest = 0.0
    for task in one:
        for name in one[task].keys() & other[task].keys():
            a, b = one[task][name], other[task][name]
            if not (math.isnan(a) and math.isnan(b)):
                largest = max(largest, abs(a - b))
    return largest


def write_truth(case: Case, path: Path) -> None:
    """Write annotations of ellipses with ragged borders, the same for every evaluator."""
    rng = np.random.default_rng(0)
    images = [
        {"id": index + 1, "height": HEIGHT, "width": WIDTH, **_of_lvis(case, rng)}
        for index in range(case.images)
    ]
    annotations = []
    for image in images:
        for _ in range(rng.poisson(OBJECTS_PER_IMAGE[case.style])):
            annotations.append(_object(case, rng, len(annotations) + 1, image))
    frequencies = ("f", "c", "r")
    categories = []
    for index in range(CATEGORIES[case.style]):
        frequency = frequencies[3 * index // CATEGORIES[case.style]]
        name = f"category {index + 1}"
        categories.append({"id": index + 1, "name": name, "frequency": frequency})
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def _of_lvis(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    if case.style == "coco":
        return {}
    negative, not_exhaustive = _draw_categories(case, rng, 20), _draw_categories(case, rng, 2)
    return {
        "neg_category_ids": sorted(set(negative.tolist())),
        "not_exhaustive_category_ids": sorted(set(not_exhaustive.tolist())),
    }


def _draw_categories(case: Case, rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw category ids with unequal frequencies, as in real data sets."""
    return (CATEGORIES[case.style] * rng.random(number) ** 2).astype(np.int64) + 1


def _object(
    case: Case, rng: np.random.Generator, number: int, image: dict[str, Any]
) -> dict[str, Any]:
    width, height = np.exp(rng.uniform(np.log(12), np.log(300), 2))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = rng.uniform(0.7, 1.0, 24) / 2
    points = np.stack([width * radius * np.cos(angles), height * radius * np.sin(angles)], axis=1)
    points = (points + rng.uniform(0, (WIDTH, HEIGHT))).clip(0, (WIDTH, HEIGHT)).round(2)
    corner, extent = points.min(axis=0), np.ptp(points, axis=0)
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": int(_draw_categories(case, rng, 1)[0]),
        "bbox": [*corner.tolist(), *extent.tolist()],
        "area": float(extent.prod()) * 0.6,
        "iscrowd": 0,
        "segmentation": [points.reshape(-1).tolist()],
    }


def network_output(
    case: Case, folder: Path, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, Instances]]:
    """Yield image ids and detections: one half near objects, the other half anywhere."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for entry in json.loads((folder / "truth.json").read_text())["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(
            {"bbox": entry["bbox"], "category_id": entry["category_id"]}
        )
    for image_id in range(1 + rank, case.images + 1, ranks):
        yield image_id, _detect(case, np.random.default_rng(image_id), by_image.get(image_id, []))


def _detect(case: Case, rng: np.random.Generator, objects: list[dict[str, Any]]) -> Instances:
    number = case.detections
    boxes = np.concatenate(
        [rng.uniform(0, (WIDTH - 8, HEIGHT - 8), (number, 2)), rng.uniform(8, 200, (number, 2))], 1
    )
    classes = _draw_categories(case, rng, number) - 1
    scores = rng.random(number) ** 3
    if objects:
        copied = rng.integers(len(objects), size=number // 2)
        boxes[: number // 2] = np.array([entry["bbox"] for entry in objects])[copied]
        boxes[: number // 2, 2:] *= rng.uniform(0.7, 1.4, (number // 2, 2))
        classes[: number // 2] = np.array([entry["category_id"] for entry in objects])[copied] - 1
        scores[: number // 2] = rng.random(number // 2)
    boxes[:, 2:] += boxes[:, :2]
    scale = np.array([INPUT_WIDTH / WIDTH, INPUT_HEIGHT / HEIGHT] * 2)
    limit = (INPUT_WIDTH, INPUT_HEIGHT) * 2
    instances = Instances((INPUT_HEIGHT, INPUT_WIDTH))
    instances.pred_boxes = Boxes(
        torch.from_numpy((boxes * scale).clip(0, limit).astype(np.float32))
    )
    instances.scores = torch.from_numpy(scores.astype(np.float32))
    instances.pred_classes = torch.from_numpy(classes)
    if case.masks:
        instances.pred_masks = _maps(rng, number)
    return instances


def _maps(rng: np.random.Generator, number: int) -> torch.Tensor:
    """Return ellipses with ragged borders. # shape: (N, 1, 28, 28)"""
    line = torch.linspace(-1, 1, 28)
    noise = torch.from_numpy(rng.normal(0, 0.3, (number, 1, 6, 6)).astype(np.float32))
    noise = torch.nn.functional.interpolate(noise, size=(28, 28), mode="bilinear")
    return torch.sigmoid(8 * (0.8 - line[:, None] ** 2 - line**2 + noise))


def _example(image_id: int) -> dict[str, Any]:
    return {"image_id": image_id, "height": HEIGHT, "width": WIDTH}


def _without_maps(instances: Instances) -> Instances:
    fields = {name: value for name, value in instances.get_fields().items() if name != "pred_masks"}
    return Instances(instances.image_size, **fields)


def _encode(scaled: Instances, instances: Instances) -> list[dict[str, Any]]:
    return encode_box_masks(instances.pred_masks[:, 0], scaled.pred_boxes.tensor, HEIGHT, WIDTH)


def _draw_masks(scaled: Instances, instances: Instances) -> None:
    """Give the reference the same masks as virtex_det's evaluator, as pixels."""
    if instances.has("pred_masks"):
        masks = mask_tools.decode(_encode(scaled, instances))
        scaled.pred_masks = torch.from_numpy(masks.transpose(2, 0, 1))


def _columns(image_id: int, instances: Instances) -> Detections:
    scaled = detector_postprocess(_without_maps(instances), HEIGHT, WIDTH)
    corners = scaled.pred_boxes.tensor
    boxes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    return Detections(
        np.full(len(scaled), image_id),
        scaled.pred_classes.numpy() + 1,
        scaled.scores.double().numpy(),
        boxes.double().numpy(),
        _encode(scaled, instances) if instances.has("pred_masks") else None,
    )


def _reference(
    case: Case, folder: Path, *, tasks: tuple[str, ...], output_folder: Path | None
) -> DatasetEvaluator:
    output = None if output_folder is None else str(output_folder)
    if case.style == "lvis":
        return LVISEvaluator(DATASET, tasks, output_dir=output)
    return COCOEvaluator(DATASET, tasks, output_dir=output, use_fast_impl=False)


def _register(case: Case, folder: Path) -> None:
    ids = range(1, CATEGORIES[case.style] + 1)
    MetadataCatalog.get(DATASET).set(
        json_file=str(folder / "truth.json"),
        evaluator_type=case.style,
        thing_classes=[f"category {index}" for index in ids],
        thing_dataset_id_to_contiguous_id={index: index - 1 for index in ids},
    )


def _in_new_process(case: Case) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--case", json.dumps(case), folder]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise UserError(f"{case.title} by {case.evaluator} failed:\n{run.stderr[-2000:]}")
    return Figures(*json.loads(run.stdout.splitlines()[-1]))


def _memory_mb(what: str) -> float:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            main(parse_args())
        except UserError as error:
            sys.exit(f"error: {error}")
