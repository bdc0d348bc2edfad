#!/usr/bin/env python3
"""Kill small runs of every kind at random moments, resume them, and compare them with whole runs.

python timing/kills.py                       100 kills, on the CPU
python timing/kills.py --kills 10 --kinds mask_rcnn icmlm_tfm

Kinds take turns, and so do SIGKILL and SIGTERM. Everything in a checkpoint, metrics.json, records
and predictions must be bit-equal, except for times. A process that outlives its run, or a
half-written file, counts as a difference. Runs are forked from one process that has imported
everything, so a kill takes a few seconds.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from virtex_det.benchmark import read_records
from virtex_det.data import train_tokenizer
from virtex_det.data.concepts import PARTS_OF_SPEECH, build_concepts
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.builtin import register_builtin_datasets
from virtex_det.data.datasets.scenes import generate_scenes
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import Trainer, argument_parser, setup, with_one_screen_errors
from virtex_det.engine.processes import launch_processes

TIMES = {"time", "data_time", "rank_data_time", "eta_seconds", "training_seconds", "cpu_seconds"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 24,
    "SOLVER.WARMUP_ITERS": 4,
    "SOLVER.CHECKPOINT_PERIOD": 5,
    "SEED": 1,
    "VIS_PERIOD": 0,
}
DETECTOR: dict[str, object] = {
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MAX_SIZE_TRAIN": 64,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MASK_FORMAT": "bitmask",
    "DATASETS.TRAIN": "('scenes_train',)",
    "DATASETS.TEST": "('scenes_val',)",
    "TEST.EVAL_PERIOD": 10,
    "DATALOADER.ASPECT_RATIO_GROUPING": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.001,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
}
FPN = DETECTOR | {
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
}
C4 = {
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.DEPTH": 50,
    "TEST.PRECISE_BN.NUM_ITER": 2,
    "SOLVER.STEPS": "(9,)",
}
PRECISE_BN = {"TEST.PRECISE_BN.ENABLED": True, "TEST.PRECISE_BN.NUM_ITER": 2}
# It keeps a number outside its tensors.
RETINANET = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": "['res3','res4','res5']",
    "MODEL.RESNETS.OUT_FEATURES": "['res3','res4','res5']",
    "MODEL.ANCHOR_GENERATOR.SIZES": "[[16],[24],[40],[64],[80]]",
    "MODEL.RETINANET.NUM_CLASSES": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.MASK_ON": False,
}
PRETRAINING: dict[str, object] = {
    "MODEL.TEXTUAL.HIDDEN_SIZE": 16,
    "MODEL.TEXTUAL.FEEDFORWARD_SIZE": 32,
    "MODEL.TEXTUAL.DROPOUT": 0.3,
    "MODEL.ICMLM.DROPOUT": 0.3,
    "MODEL.ICMLM.FEEDFORWARD_SIZE": 32,
    "MODEL.LOCTEX.EMBED_SIZE": 16,
    "INPUT.CAPTION.CROP_SIZE": 64,
}
LOOKAHEAD = {
    "SOLVER.LOOKAHEAD.ENABLED": True,
    "SOLVER.LOOKAHEAD.STEPS": 3,
    "DATALOADER.NUM_WORKERS": 2,
}
SAMPLED = {
    "DATASETS.TEST": "('scenes_val_captions',)",
    "TEST.EVAL_PERIOD": 10,
    "MODEL.TEXTUAL.DECODING.METHOD": "nucleus_sampling",
}


class Kind(NamedTuple):
    """A small run: its config, the keys that make it small, and its number of processes."""

    config: str
    options: dict[str, object]
    processes: int = 1


KINDS = {
    "mask_rcnn": Kind("detectron2/scenes_segm.yaml", FPN | {"DATALOADER.NUM_WORKERS": 2}),
    "mask_rcnn_precise_bn": Kind("detectron2/scenes_segm.yaml", FPN | PRECISE_BN),
    "retinanet": Kind("detectron2/scenes_segm.yaml", FPN | RETINANET),
    "faster_rcnn_c4": Kind("detectron2/voc_det_default_init_24k.yaml", DETECTOR | C4),
    "bicaptioning": Kind("pretrain/scenes_bicaptioning.yaml", PRETRAINING | LOOKAHEAD),
    "captioning": Kind("pretrain/scenes_captioning.yaml", PRETRAINING | SAMPLED),
    "masked_lm": Kind("pretrain/scenes_masked_lm.yaml", PRETRAINING),
    "token_classification": Kind("pretrain/scenes_token_classification.yaml", PRETRAINING),
    "multilabel": Kind("pretrain/scenes_multilabel.yaml", PRETRAINING),
    "icmlm_tfm": Kind("pretrain/scenes_icmlm_tfm.yaml", PRETRAINING),
    "icmlm_att_fc": Kind("pretrain/scenes_icmlm_att_fc.yaml", PRETRAINING),
    "loctex": Kind("pretrain/scenes_loctex.yaml", PRETRAINING),
    "contrastive": Kind("pretrain/scenes_contrastive.yaml", PRETRAINING),
    "tag_postag": Kind("pretrain/scenes_tag_postag.yaml", PRETRAINING),
    "mask_rcnn_2_processes": Kind("detectron2/scenes_segm.yaml", FPN, processes=2),
}


def main() -> None:
    """Kill, resume, compare, and print the table."""
    options = _parser().parse_args()
    chance = random.Random(options.seed)
    kinds = options.kinds or list(KINDS)
    with contextlib.ExitStack() as stack:
        work = options.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-"))
        )
        prepare(work)
        gc.freeze()
        whole = {kind: complete(kind, work) for kind in kinds}
        rows = []
        for number in range(options.kills):
            kind = kinds[number % len(kinds)]
            sent = SIGNALS[number // len(kinds) % len(SIGNALS)]
            rows.append(attempt(kind, work, whole[kind], sent, chance.uniform(0, 1.05)))
            print(f"{number + 1}: {' '.join(map(str, rows[-1]))}", file=sys.stderr, flush=True)
    print(render(rows))
    sys.exit(any(row.differences for row in rows))


class Attempt(NamedTuple):
    """One kill, and how the resumed run differed."""

    kind: str
    sent: str
    seconds: float
    iteration: int | None  # of the checkpoint that it resumed from; None for a fresh start
    differences: list[str]


def prepare(work: Path) -> None:
    """Make the data, the vocabulary and the concepts."""
    os.environ["DETECTRON2_DATASETS"] = str(work)
    generate_scenes(
        work / "scenes", num_train=12, num_val=4, num_unlabelled=12, image_size=64, num_workers=1
    )
    register_builtin_datasets(work)
    images = load_dataset("scenes_unlabelled_captions") + load_dataset("scenes_train_captions")
    captions = [caption for image in images for caption in image["captions"]]
    vocabulary = work / "vocabulary.model"
    train_tokenizer(iter(captions), vocabulary, vocab_size=240)
    tokenizer = read_tokenizer(str(vocabulary))
    build_concepts(captions, tokenizer, PARTS_OF_SPEECH, 20).write(work / "concepts.json")


def complete(kind: str, work: Path) -> tuple[Path, float]:
    """Run a kind without a kill; return its folder, which is moved away, and its seconds."""
    folder, whole = work / "run" / kind, work / "whole" / kind
    started = time.monotonic()
    code = wait(start(kind, work, folder))
    if code:
        output = folder.with_suffix(".txt").read_text()[-3000:]
        sys.exit(f"{kind} ended with code {code} and this output:\n{output}")
    seconds = time.monotonic() - started
    whole.parent.mkdir(exist_ok=True)
    shutil.move(folder, whole)
    return whole, seconds


def attempt(
    kind: str, work: Path, whole: tuple[Path, float], sent: signal.Signals, fraction: float
) -> Attempt:
    """Kill a run after a fraction of its time, resume it to its end, and compare."""
    folder = work / "run" / kind
    shutil.rmtree(folder, ignore_errors=True)
    process = start(kind, work, folder)
    seconds = fraction * whole[1]
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, sent)
    wait(process)
    found = orphans(process)
    last, iteration = folder / "last_checkpoint", None
    if last.exists():
        iteration = torch.load(folder / last.read_text(), weights_only=True)["iteration"]
    code = wait(start(kind, work, folder))
    found += [f"exit code {code}"] if code else differences(whole[0], folder)
    return Attempt(kind, sent.name, round(seconds, 1), iteration, found)


def start(kind: str, work: Path, folder: Path) -> int:
    """Start or resume a run in a new process; return the process's id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        with_one_screen_errors(launch_run, kind, work, folder)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
    os._exit(code)


def launch_run(kind: str, work: Path, folder: Path) -> None:
    """Train a kind in its number of processes."""
    launch_processes(train, kind, work, folder, processes=KINDS[kind].processes)


def train(kind: str, work: Path, folder: Path) -> None:
    """Train as tools/train_net.py does with --resume."""
    register_builtin_datasets(work)
    options = TINY | KINDS[kind].options | {"OUTPUT_DIR": folder}
    if KINDS[kind].config.startswith("pretrain"):
        options["INPUT.CAPTION.TOKENIZER"] = work / "vocabulary.model"
        options["INPUT.CAPTION.CONCEPTS"] = work / "concepts.json"
    words = ["--resume", "--config-file", KINDS[kind].config]
    for key, value in options.items():
        words += [key, str(value)]
    cfg: CfgNode = setup(argument_parser().parse_args(words))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()


def wait(process: int) -> int:
    """Return a process's exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def orphans(session: int) -> list[str]:
    """Name the processes of a session that live after a minute.

    Before that, several processes may finish their step, save and end together.
    """
    for _ in range(600):
        left = list(processes_of(session))
        if not left:
            return []
        time.sleep(0.1)
    return [f"processes {left} outlive the run"]


def processes_of(session: int) -> Iterator[int]:
    """Yield the living processes of a session."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                yield int(folder.name)


def differences(whole: Path, resumed: Path) -> list[str]:
    """Name the differences between two run folders."""
    found = list(differing(content(whole), content(resumed)))
    unfinished = [path.name for path in resumed.rglob(".*") if path.name != ".lock"]
    return found[:5] + [f"half-written: {name}" for name in unfinished]


def content(folder: Path) -> dict[str, Any]:
    """Return what a run leaves; ``differing`` skips its times."""
    return {
        "checkpoint": torch.load(folder / "model_final.pth", weights_only=True),
        "metrics.json": [
            json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()
        ],
        "records": [{"iteration": r.iteration, "metrics": r.metrics} for r in read_records(folder)],
        "predictions": {
            str(path.relative_to(folder)): json.loads(path.read_text())
            for path in folder.glob("inference/**/*.json")
        },
    }


def differing(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield the places in which two nested values are not bit-equal; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{path}: {sorted(map(str, one.keys() ^ other.keys()))[:3]}"
        for key in (one.keys() & other.keys()) - TIMES:
            yield from differing(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{path}: {len(one)} entries, {len(other)}"
        for number, pair in enumerate(zip(one, other, strict=False)):
            yield from differing(*pair, f"{path}/{number}")
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield path
    elif one != other and str(one) != str(other):
        yield f"{path}: {one}, {other}"


def render(rows: list[Attempt]) -> str:
    """Return the table, a line per kind."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        resumed = sum(row.iteration is not None for row in of_kind)
        equal = sum(not row.differences for row in of_kind)
        found = {difference for row in of_kind for difference in row.differences}
        lines.append([kind, len(of_kind), resumed, equal, "; ".join(sorted(found))])
    lines.append(["all", *(sum(line[column] for line in lines) for column in (1, 2, 3)), ""])
    return tabulate(
        lines, ["kind", "kills", "from a checkpoint", "equal", "differences"], tablefmt="github"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=100, help="number of kills (default: %(default)s)"
    )
    kinds = f"any of: {', '.join(KINDS)} (default: all)"
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", help=kinds)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the moments (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="keep all runs in this folder")
    return parser


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
