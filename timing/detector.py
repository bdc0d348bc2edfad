#!/usr/bin/env python3
"""Time a training step and an inference against stock Detectron2, with the same weights and input.

python timing/detector.py                              Mask R-CNN R50-FPN, 480x640, 1 thread
python timing/detector.py --allocator                  every detector in new processes, virtex_det's
                                                       with and without its allocator settings
python timing/detector.py MODEL.RESNETS.NORM FrozenBN  any KEY VALUE of the config

The detectors take turns. Weights are random, but give the work of a trained detector: the norms
have the statistics of the batch, and SCORE_THRESH_TEST lets 400 candidates of the image pass; about
100 of them become detections. The learning rate is so low that all rounds compute the same.
Inference takes one image, as evaluation does. A ratio is the median over rounds of Detectron2's
cost divided by the detector's own.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import detectron2.solver
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.modeling import build_model
from detectron2.structures import BoxMode, Instances
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from tqdm import tqdm

from virtex_det.engine import Trainer, load_config
from virtex_det.engine.performance import tune_process
from virtex_det.errors import UserError

CONFIG = "detectron2/coco_segm_default_init_2x.yaml"
STOCK, SAME_RESULTS, BF16 = "detectron2", "virtex_det", "virtex_det, bfloat16"
TUNED = " + allocator"
JOBS = ("training step", "inference")
OBJECTS, CANDIDATES = 7, 400
LOSS_TOLERANCE = 1e-4  # relative, for rounding


class Task(NamedTuple):
    """The config, weights and input of all detectors."""

    cfg: CfgNode
    weights: dict[str, Tensor]
    batch: list[dict[str, Any]]
    threads: int


class Cost(NamedTuple):
    """Cost of a job: CPU seconds of all threads, wall seconds, and page faults."""

    cpu: float
    wall: float
    page_faults: int


Costs = dict[tuple[str, str], list[Cost]]  # by job and detector, one per round


class Detector:
    """A detector and its optimizer, built by Detectron2 or by virtex_det."""

    def __init__(self, name: str, task: Task) -> None:
        self.batch = task.batch
        self.model, self.optimizer = _build(name, task.cfg)
        self.model.load_state_dict(task.weights, strict=False)  # FrozenBN does not count batches
        self.jobs: dict[str, Callable[[], Any]] = dict(
            zip(JOBS, (self.train, self.infer), strict=True)
        )

    def train(self) -> dict[str, float]:
        """Take one training step and return its losses."""
        self.model.train()
        torch.manual_seed(0)  # proposals are sampled
        with EventStorage():
            losses = self.model(self.batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def infer(self) -> Instances:
        """Return the detections in the first image."""
        self.model.eval()
        return self.model(self.batch[:1])[0]["instances"].to("cpu")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default=CONFIG, metavar="FILE", help="a detector's (default: COCO 2x)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="PyTorch's CPU threads (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=2, help="images in a training step (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument(
        "--allocator", action="store_true", help="time allocator settings, in new processes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="for the config; at the end"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time all detectors and print the tables; fail if losses that must be equal differ."""
    torch.set_num_threads(args.threads)
    task = prepare(args)
    if args.allocator:
        rows, differences = summarise(measure_apart(task, args.rounds)), []
    else:
        detectors = {name: Detector(name, task) for name in (STOCK, SAME_RESULTS, BF16)}
        differences = compare(detectors)
        rows = summarise(measure(detectors, args.rounds))
        print(tabulate(differences, headers="keys", floatfmt=".1e"), end="\n\n")
    print(tabulate(rows, headers="keys", floatfmt=("", "", ".3f", ".3f", ".2f", ".2f", ".0f")))
    if args.json:
        settings = {
            "torch": torch.__version__,
            "device": task.cfg.MODEL.DEVICE,
            **vars(args),
            "json": str(args.json),
        }
        args.json.write_text(
            json.dumps({**settings, "costs": rows, "differences": differences}, indent=2)
        )
    for row in differences:
        if row["detector"] == SAME_RESULTS and not row["any loss"] < LOSS_TOLERANCE:
            raise UserError(
                f"The losses of {STOCK} and {SAME_RESULTS} differ by more than {LOSS_TOLERANCE}."
            )


def prepare(args: argparse.Namespace) -> Task:
    """Draw the batch and the weights, and find the threshold that CANDIDATES boxes pass."""
    cfg = load_config(args.config_file, args.opts).clone()
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture != "GeneralizedRCNN":
        raise UserError(f"{args.config_file} has a {architecture}; expected a GeneralizedRCNN.")
    cfg.defrost()
    cfg.SOLVER.BASE_LR = 1e-9
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    batch = [synthetic_example(cfg, args.image_size, seed) for seed in range(args.batch)]
    task = Task(cfg, calibrated_weights(cfg, batch), batch, args.threads)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_of_candidate(CANDIDATES, task)
    return task


def synthetic_example(cfg: CfgNode, image_size: list[int], seed: int) -> dict[str, Any]:
    """Return a smooth, noisy image with some polygons, as a mapper returns it."""
    rng, (height, width) = np.random.default_rng(seed), image_size
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 16, width // 16)))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0]
    image = (smooth + torch.from_numpy(rng.normal(0, 8, smooth.shape))).clamp(0, 255).byte()
    annotations = [
        _polygon(rng, height, width, rng.integers(cfg.MODEL.ROI_HEADS.NUM_CLASSES))
        for _ in range(OBJECTS)
    ]
    instances = annotations_to_instances(annotations, (height, width), cfg.INPUT.MASK_FORMAT)
    return {"image": image, "height": height, "width": width, "instances": instances}


def calibrated_weights(cfg: CfgNode, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return random weights whose norms have the batch's statistics.

    In a random ResNet with other frozen statistics the features would grow with depth.
    """
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    if cfg.MODEL.RESNETS.NORM == "FrozenBN":
        cfg.MODEL.RESNETS.NORM = "BN"
    torch.manual_seed(0)
    model = build_model(_of_detectron2(cfg))
    with EventStorage(), torch.no_grad():
        update_bn_stats(model, [batch], num_iters=1)
    return model.state_dict()


def score_of_candidate(rank: int, task: Task) -> float:
    """Return the score of the candidate (box and class) with a rank by score in the first image."""
    detector = Detector(STOCK, task)
    scores: list[Tensor] = []
    predictor = detector.model.get_submodule("roi_heads.box_predictor")
    predictor.register_forward_hook(
        lambda module, inputs, output: scores.append(output[0].softmax(dim=1)[:, :-1])
    )
    detector.infer()
    return scores[0].flatten().topk(min(rank, scores[0].numel())).values[-1].item()


def compare(detectors: dict[str, Detector]) -> list[dict[str, Any]]:
    """Run every job once, to warm up and for the largest differences from Detectron2's results."""
    losses = {name: detector.train() for name, detector in detectors.items()}
    found = {name: detector.infer() for name, detector in detectors.items()}
    stock_total = sum(losses[STOCK].values())
    rows = []
    for name in detectors:
        of_losses = [
            _relative_difference(losses[name][key], loss) for key, loss in losses[STOCK].items()
        ]
        rows.append(
            {
                "detector": name,
                "total loss": _relative_difference(sum(losses[name].values()), stock_total),
                "any loss": max(of_losses),
                "score": _largest_score_difference(found[name], found[STOCK]),
                "pixels to a box": _largest_distance(found[name], found[STOCK]),
                "detections": len(found[name]),
            }
        )
    return rows


def measure(detectors: dict[str, Detector], rounds: int) -> Costs:
    """Return the costs of all detectors, taken in turn, every other round backwards."""
    costs: Costs = {(job, name): [] for job in JOBS for name in detectors}
    for number in tqdm(range(rounds), desc="rounds", leave=False, disable=rounds == 1):
        for job, name in list(costs)[:: -1 if number % 2 else 1]:
            costs[job, name].append(cost_of(detectors[name].jobs[job]))
    return costs


def measure_apart(task: Task, rounds: int) -> Costs:
    """Return the costs of detectors in new processes, because allocator settings hold for one."""
    names = (STOCK, SAME_RESULTS, SAME_RESULTS + TUNED, BF16 + TUNED)
    costs: Costs = {(job, name): [] for job in JOBS for name in names}
    for _ in tqdm(range(rounds), desc="rounds", leave=False):
        for name in names:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                for job, cost in pool.submit(_costs_in_this_process, name, task).result().items():
                    costs[job, name].append(cost)
    return costs


def cost_of(job: Callable[[], Any]) -> Cost:
    """Run a job to its end, also on a GPU, and return its cost."""
    start = _counters()
    job()
    end = _counters()
    return Cost(end.cpu - start.cpu, end.wall - start.wall, end.page_faults - start.page_faults)


def summarise(costs: Costs) -> list[dict[str, Any]]:
    """Return medians, and the medians over rounds of the ratios to Detectron2's costs."""
    rows = []
    for (job, name), own in costs.items():
        cpu, wall, page_faults = np.median(own, axis=0).tolist()
        stock = np.array(costs[job, STOCK])
        ratios = stock[:, :2] / np.array(own)[:, :2]
        cpu_ratio, wall_ratio = np.median(ratios, axis=0).tolist()
        row = {"job": job, "detector": name, "CPU s": cpu, "wall s": wall}
        row |= {"CPU ratio": cpu_ratio, "wall ratio": wall_ratio, "page faults": page_faults}
        rows.append(row)
    return rows


def _build(name: str, cfg: CfgNode) -> tuple[nn.Module, Optimizer]:
    if name == STOCK:
        cfg = _of_detectron2(cfg)
        model = build_model(cfg)
        return model, detectron2.solver.build_optimizer(cfg, model)
    cfg = cfg.clone()
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = name.startswith(BF16), "bfloat16"
    model = Trainer.build_model(cfg)
    return model, Trainer.build_optimizer(cfg, model)


def _of_detectron2(cfg: CfgNode) -> CfgNode:
    """Return the config with Detectron2's own backbone builder."""
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("_caption_", "_")
    return cfg


def _costs_in_this_process(name: str, task: Task) -> dict[str, Cost]:
    if name.endswith(TUNED):
        tune_process()
    torch.set_num_threads(task.threads)
    detector = Detector(name.removesuffix(TUNED), task)
    # Two runs warm up: only after the second the process has all the memory that a job needs.
    return {job: [cost_of(run) for _ in range(3)][-1] for job, run in detector.jobs.items()}


def _counters() -> Cost:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(
        time.process_time(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    )


def _relative_difference(loss: float, stock: float) -> float:
    # Rounding would be a large part of a loss near zero.
    return abs(loss - stock) / max(abs(stock), 1e-3)


def _largest_score_difference(found: Instances, stock: Instances) -> float:
    number = min(len(found), len(stock))
    return (found.scores[:number] - stock.scores[:number]).abs().max().item()


def _largest_distance(found: Instances, stock: Instances) -> float:
    """Return the largest distance of a box to the nearest box of Detectron2, in pixels.

    Boxes are matched by distance, because almost equal scores may change the order.
    """
    between = torch.cdist(found.pred_boxes.tensor, stock.pred_boxes.tensor, p=torch.inf)
    return between.amin(dim=1).amax().item()


def _polygon(rng: np.random.Generator, height: int, width: int, category: int) -> dict[str, Any]:
    radius = rng.uniform(0.05, 0.2) * min(height, width)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 30))
    centre = rng.uniform(0.2, 0.8, 2) * (width, height)
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return {
        "bbox": [*points.min(axis=0), *points.max(axis=0)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": [points.reshape(-1)],
        "category_id": int(category),
    }


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
