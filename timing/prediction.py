#!/usr/bin/env python3
"""Time the prediction of a folder against Detectron2's DefaultPredictor in a loop.

python timing/prediction.py --run output/my_segm --pictures photos/
python timing/prediction.py --run output/my_segm --pictures photos/ --rounds 7 MODEL.DEVICE cuda

Both have the model of the run, and find the same objects in the same files; they take turns.
  detections  detectron2: read_image, DefaultPredictor, instances to the CPU, masks as pixels;
              virtex_det: Detector.stream, masks as run lengths
  drawn       the same and a drawn picture of each file: Detectron2's Visualizer; write_detections,
              which also writes COCO's results, counts and a page
A ratio is the median over rounds of Detectron2's seconds by the clock divided by virtex_det's.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer
from tabulate import tabulate
from tqdm import tqdm

import virtex_det as vd
from virtex_det.data.pictures import find_images
from virtex_det.errors import UserError
from virtex_det.inference.detection_files import write_detections
from virtex_det.inference.result_ids import own_ids

STOCK, OURS = "detectron2", "virtex_det"
JOBS = ("detections", "drawn")
TOLERANCE = 0.01  # pixels

Job = Callable[[Path], Any]  # takes the folder for drawn pictures


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", required=True, metavar="FOLDER", help="a folder of pictures")
    parser.add_argument("--run", required=True, help="OUTPUT_DIR of a detector's run")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="drawn from (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="for the config; at the end"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time both, print the table, and fail if they found different objects."""
    torch.set_num_threads(args.threads)
    paths = find_images([args.pictures])
    detector = vd.Detector(args.run, overrides=args.opts)
    drawing = vd.Detector(args.run, overrides=args.opts, threshold=args.threshold)
    predictor = DefaultPredictor(detector.cfg)
    predictor.metadata = detector.predictor.metadata  # it has none without DATASETS.TEST
    difference = compare(detector, predictor, paths)
    jobs: dict[tuple[str, str], Job] = {
        (JOBS[0], STOCK): lambda folder: predict_in_a_loop(predictor, paths, args.threshold, None),
        (JOBS[0], OURS): lambda folder: [len(found) for found in detector.stream(paths)],
        (JOBS[1], STOCK): lambda folder: predict_in_a_loop(
            predictor, paths, args.threshold, folder
        ),
        (JOBS[1], OURS): lambda folder: write_detections(
            folder, drawing, paths, own_ids(drawing), draw=True
        ),
    }
    seconds = measure(jobs, args.rounds)
    rows = summarise(seconds, len(paths))
    print(f"{len(paths)} pictures; boxes differ by {difference:.1e} pixels at most")
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    if args.json:
        figures = {"pictures": len(paths), "pixels": difference, "costs": rows}
        args.json.write_text(json.dumps(figures | {"threads": args.threads}, indent=2))
    if not difference < TOLERANCE:
        raise UserError(f"The boxes of the two differ by more than {TOLERANCE} pixels.")


def predict_in_a_loop(
    predictor: DefaultPredictor, paths: Sequence[Path], threshold: float, folder: Path | None
) -> None:
    """Predict and draw as Detectron2's tutorial does."""
    for path in paths:
        pixels = read_image(str(path), "BGR")
        instances = predictor(pixels)["instances"].to("cpu")
        if folder:
            drawing = Visualizer(pixels[:, :, ::-1], predictor.metadata)
            shown = instances[instances.scores >= threshold]
            drawing.draw_instance_predictions(shown).save(str(folder / f"{path.stem}.jpg"))


def compare(detector: vd.Detector, predictor: DefaultPredictor, paths: Sequence[Path]) -> float:
    """Return the largest difference of boxes in the first picture; it also warms both up."""
    found = detector(paths[0]).boxes
    theirs = (
        predictor(read_image(str(paths[0]), "BGR"))["instances"].pred_boxes.tensor.cpu().numpy()
    )
    if found.shape != theirs.shape:
        return float("inf")
    return float(np.abs(found - theirs).max(initial=0.0))


def measure(jobs: dict[tuple[str, str], Job], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of all jobs, taken in turn, every other round backwards."""
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in jobs}
    for number in tqdm(range(rounds), desc="rounds", leave=False):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                jobs[name](Path(folder))
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(seconds: dict[tuple[str, str], list[float]], pictures: int) -> list[dict[str, Any]]:
    """Return medians of seconds a picture, and of the ratios to Detectron2's."""
    return [
        {
            "job": job,
            "by": name,
            "seconds a picture": float(np.median(own)) / pictures,
            "ratio": float(np.median(np.array(seconds[job, STOCK]) / np.array(own))),
        }
        for (job, name), own in seconds.items()
    ]


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
