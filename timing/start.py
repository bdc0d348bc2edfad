#!/usr/bin/env python3
"""Time the start, from the command to the end of the first iteration, against Detectron2's.

python timing/start.py      5 pairs, taking turns; at a ratio of at most 1 virtex_det is not slower

Both train the same Mask R-CNN R50-FPN of one config file on the same small scenes. Stock does what
Detectron2's tools/train_net.py does with a registered data set: default_setup and a DefaultTrainer.
Imports are timed, too.
"""

import argparse
import importlib.util
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {
    "import detectron2.engine": ["-c", "import detectron2.engine"],
    "import virtex_det": ["-c", "import virtex_det"],
    "virtex-det -h": [str(ROOT / "virtex_det_commands.py"), "-h"],
}
CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: ""
  DEVICE: cpu
  MASK_ON: True
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 50, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TRAIN: 200, POST_NMS_TOPK_TRAIN: 100}
  ROI_HEADS: {NAME: StandardROIHeads, NUM_CLASSES: 8, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4}
DATASETS: {TRAIN: [scenes_train], TEST: []}
DATALOADER: {NUM_WORKERS: 0}
INPUT: {MIN_SIZE_TRAIN: [96], MASK_FORMAT: bitmask}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 4, STEPS: [], WARMUP_ITERS: 0, BASE_LR: 0.001}
SEED: 0
VERSION: 2
"""


class _EndAfterOneStep:
    """Imports Detectron2's train loop, and lets it write the time and end after one iteration."""

    def __init__(self, file: str) -> None:
        self.file = file

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "detectron2.engine.train_loop":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def execute_and_watch(module: ModuleType) -> None:
            execute(module)
            module.TrainerBase.after_step = self.end  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec

    def end(self, *_: object) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        times = {"ended": time.time(), "cpu": used.ru_utime + used.ru_stime}
        Path(self.file).write_text(json.dumps(times))
        os._exit(0)


def stock(config_file: str, output: str) -> None:
    """Train as Detectron2's own train_net does."""
    from detectron2.config import get_cfg
    from detectron2.data.datasets import register_coco_instances
    from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch

    scenes = Path(os.environ["DETECTRON2_DATASETS"]) / "scenes"
    annotations = str(scenes / "annotations" / "instances_train.json")
    register_coco_instances("scenes_train", {}, annotations, str(scenes / "train"))

    def main(args: argparse.Namespace) -> None:
        cfg = get_cfg()
        cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.opts)
        cfg.freeze()
        default_setup(cfg, args)
        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()

    words = ["--config-file", config_file, "OUTPUT_DIR", output]
    args = default_argument_parser().parse_args(words)
    launch(main, args.num_gpus, args=(args,))


def ours(config_file: str, output: str) -> None:
    """Train as tools/train_net.py does."""
    sys.argv = ["tools/train_net.py", "--config-file", config_file, "OUTPUT_DIR", output]
    runpy.run_path(str(ROOT / "tools" / "train_net.py"), run_name="__main__")


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both in turns and print medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=5, metavar="N", help="number of pairs (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        which, config_file, output, file = options.one
        sys.meta_path.insert(0, _EndAfterOneStep(file))  # type: ignore[arg-type]
        {"ours": ours, "stock": stock}[which](config_file, output)
        raise SystemExit("the training ended before its first iteration")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.pairs)
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def measure(folder: Path, pairs: int) -> dict[str, list[dict[str, float]]]:
    """Return the wall and CPU seconds of each start and import, in the order of the pairs."""
    (folder / "config.yaml").write_text(CONFIG)
    environment = os.environ | {"DETECTRON2_DATASETS": str(folder), "OMP_NUM_THREADS": "1"}
    generate = [sys.executable, str(ROOT / "tools" / "generate_scenes.py")]
    generate += ["--output", str(folder / "scenes"), "--train=16", "--val=2", "--unlabelled=2"]
    generate += ["--workers=1"]
    subprocess.run(generate, check=True, capture_output=True, env=environment)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in ("stock", "ours", *IMPORTS)}
    for pair in range(-1, pairs):
        for which in ("stock", "ours") if pair % 2 else ("ours", "stock"):
            file = folder / "times.json"
            words = [which, str(folder / "config.yaml"), str(folder / f"{which}_{pair}"), str(file)]
            started = time.time()
            subprocess.run(
                [sys.executable, __file__, "--one", *words],
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
            times = json.loads(file.read_text())
            if pair >= 0:  # the first pair fills the caches
                figures[which].append({"clock": times["ended"] - started, "cpu": times["cpu"]})
        for name, words in IMPORTS.items():
            if pair >= 0:
                figures[name].append(_time([sys.executable, *words], environment))
    return figures


def _time(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": time.time() - started, "cpu": cpu}


def report(figures: dict[str, list[dict[str, float]]]) -> str:
    """Return medians in seconds, and the median ratio of the pairs."""
    lines = []
    for name, times in figures.items():
        clock, cpu = (statistics.median(each[kind] for each in times) for kind in ("clock", "cpu"))
        lines.append(f"{name:26} {clock:6.2f} s, CPU {cpu:6.2f} s")
    for kind in ("clock", "cpu"):
        pairs = zip(figures["ours"], figures["stock"], strict=True)
        ratios = [a[kind] / b[kind] for a, b in pairs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs"
        lines.append(f"ours / stock, {kind:5}: {statistics.median(ratios):.2f} ({spread})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
