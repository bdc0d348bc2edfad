"""The whole road at a laptop's size: scenes, vocabulary, pretraining, two fine-tunes per seed, one page.

Every step is one of the commands that a user would type, run as a process of its own, so what the demo shows is what
the tools do. A step that is complete is skipped and one that was cut short is resumed.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from virtex_det.benchmark.report import write_report
from virtex_det.engine.runs import ROOT, Run, train_all
from virtex_det.errors import UserError

PRETRAIN_CONFIG = ROOT / "configs" / "pretrain" / "scenes_bicaptioning.yaml"
FINETUNE_CONFIG = ROOT / "configs" / "detectron2" / "scenes_segm.yaml"
ARMS = ("random", "captions")


@dataclasses.dataclass(frozen=True)
class DemoSize:
    """How much of everything."""

    train: int = 300
    val: int = 200
    captioned: int = 3000
    pretrain_iterations: int = 1300
    finetune_iterations: int = 150
    fractions: tuple[float, ...] = (0.1, 0.25)
    seeds: tuple[int, ...] = (0, 1)


FULL = DemoSize()
QUICK = DemoSize(
    train=60, val=20, captioned=256, pretrain_iterations=20, finetune_iterations=20, fractions=(0.25,), seeds=(0, 1)
)


def run_demo(folder: str | Path, size: DemoSize) -> Path:
    """Run what is still missing of the demo and write its page.

    Args:
        folder: where everything goes; a second call with it goes on from there.
        size: number of images, iterations and seeds.

    Returns:
        The path of the HTML page.

    Raises:
        UserError: when a step fails; names its log.
    """
    folder = Path(folder).resolve()
    started = time.monotonic()
    _keep_to_one_size(folder, size)
    datasets = folder / "datasets"
    os.environ["DETECTRON2_DATASETS"] = str(datasets)

    _announce(1, "captioned scenes: images, boxes, masks and captions")
    counts = {"train": size.train, "val": size.val, "unlabelled": size.captioned}
    _call("generate_scenes.py", "--output", datasets / "scenes", *(f"--{k}={v}" for k, v in counts.items()))

    _announce(2, "vocabulary of the captions")
    vocabulary = folder / "vocabulary.model"
    if not vocabulary.exists():
        names = ("scenes_unlabelled_captions",)
        _call("build_vocabulary.py", "--dataset", *names, "--vocab-size", 130, "--output", vocabulary)

    _announce(3, "pretraining on the captions")
    tokenizer = ("INPUT.CAPTION.TOKENIZER", str(vocabulary))
    pretraining = Run(folder / "pretrain", size.pretrain_iterations, PRETRAIN_CONFIG, tokenizer, is_evaluated=False)
    train_all([pretraining], at_once=1)

    _announce(4, "the same Mask R-CNN fine-tuned from random and from captions")
    runs = finetune_runs(folder, size, pretraining.folder / "model_final.pth")
    # Networks this small gain little from a second thread; runs side by side gain all of it.
    train_all(runs, at_once=min(os.cpu_count() or 1, 8))

    _announce(5, "the page")
    page = folder / "index.html"
    write_report(
        page,
        [run.folder for run in runs],
        pretraining=pretraining.folder,
        annotations=datasets / "scenes" / "annotations" / "instances_val.json",
        image_root=datasets / "scenes" / "val",
        facts=describe(size),
    )
    print(f"\nFinished in {(time.monotonic() - started) / 60:.1f} minutes. Open this page:\n{page}")
    return page


def finetune_runs(folder: Path, size: DemoSize, weights: Path) -> list[Run]:
    """Return the runs to compare, those from random first: each fraction and seed, once per arm."""
    runs = []
    for arm in ARMS:
        for fraction in size.fractions:
            for seed in size.seeds:
                name = f"{arm}_{fraction:.0%}_seed{seed}".replace("%", "pct")
                options = {
                    "MODEL.WEIGHTS": str(weights) if arm == "captions" else "",
                    "DATASETS.TRAIN_FRACTION": str(fraction),
                    "DATASETS.SUBSET_SEED": str(seed),
                    "SEED": str(seed),
                    "TEST.EVAL_PERIOD": str(max(size.finetune_iterations // 3, 1)),
                }
                pairs = tuple(word for pair in options.items() for word in pair)
                runs.append(Run(folder / name, size.finetune_iterations, FINETUNE_CONFIG, pairs))
    return runs


def describe(size: DemoSize) -> dict[str, str]:
    """Say in words what was run."""
    return {
        "Data": f"captioned scenes, 96 px: {size.captioned} captioned images without boxes, {size.train} with labels "
        f"(of which the fraction named is used), {size.val} for evaluation",
        "Pretraining": f"VirTex bicaptioning, {size.pretrain_iterations} iterations of 64 images",
        "Detector": "Mask R-CNN FPN on a narrow ResNet-18, all layers trained",
        "Fine-tuning": f"{size.finetune_iterations} iterations of 8 images in every run",
        "Seeds": ", ".join(map(str, size.seeds)),
    }


def _keep_to_one_size(folder: Path, size: DemoSize) -> None:
    path = folder / "demo.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(size)))
    del wanted["seeds"]  # more of them go into the same folder
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise UserError(f"{folder} holds a demo of another size. Remove the folder or give another one with --output.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted))


def _announce(step: int, title: str) -> None:
    print(f"\n[{step}/5] {title}", flush=True)


def _call(tool: str, *arguments: object) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    if subprocess.run(command).returncode != 0:
        raise UserError(f"{tool} failed; its own message stands above.")
