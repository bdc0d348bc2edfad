"""The demo, at a laptop's size: scenes, vocabulary, pretraining, a matrix of fine-tunes, one page.

Every step is a command that a user could type, run as a process of its own: what the demo shows is
what the tools do. Complete steps are skipped, and interrupted ones are resumed.
"""

import dataclasses
import json
import os
import shlex
import subprocess
import time
from pathlib import Path

from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.experiments import Matrix, Pretraining, measured, report
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.runs import train_all
from virtex_det.utils import write_atomically
from virtex_det_commands import as_called, own_command

PRETRAIN_CONFIG = packaged_config("pretrain/scenes_bicaptioning.yaml")
FINETUNE_CONFIG = packaged_config("detectron2/scenes_segm.yaml")
NOTES = (
    "Tuned for neither side: detector and fine-tuning. The pretraining recipe and the wording of "
    "the captions were chosen so that minutes suffice.",
    "Not equal: images seen. The captioned images are others than the labelled ones and carry no "
    "boxes, but come from the same generator, and their captions name the classes that are "
    "detected: an easy transfer.",
)


@dataclasses.dataclass(frozen=True)
class DemoSize:
    """Numbers of images, iterations and runs."""

    train: int = 300
    val: int = 200
    captioned: int = 3000
    pretrain_iterations: int = 650
    finetune_iterations: int = 150
    fractions: tuple[float, ...] = (0.1, 0.25)
    seeds: tuple[int, ...] = (0, 1)


FULL = DemoSize()
QUICK = DemoSize(
    train=60,
    val=20,
    captioned=256,
    pretrain_iterations=20,
    finetune_iterations=20,
    fractions=(0.25,),
)


def run_demo(folder: str | Path, size: DemoSize) -> Path:
    """Do the missing steps of the demo and write its page.

    Args:
        folder: of all files; a second call with it continues there.
        size: numbers of images, iterations and runs.

    Returns:
        The path of the HTML page.

    Raises:
        UserError: a step failed; names its log.
    """
    folder = Path(folder).resolve()
    started = time.monotonic()
    _keep_to_one_size(folder, size)
    scenes = folder / "datasets" / "scenes"
    os.environ["DETECTRON2_DATASETS"] = str(scenes.parent)
    generate, build_vocabulary = preparation(folder, size)
    matrix = demo_matrix(folder, size)

    _announce(1, "captioned scenes: images, boxes, masks and captions")
    _call(generate)

    _announce(2, "vocabulary of the captions")
    if not _vocabulary(folder).exists():
        _call(build_vocabulary)

    _announce(3, "pretraining on the captions")
    train_all(matrix.pretraining(), LocalLauncher(1))

    _announce(4, "the same Mask R-CNN fine-tuned from random and from captions")
    # So small a network gains little from a second thread, but runs gain from running in parallel.
    # run_matrix would check the data where DETECTRON2_DATASETS was when this process started.
    train_all([*matrix.cells.values()], LocalLauncher())

    _announce(5, "the page")
    page = folder / "index.html"
    report(
        matrix,
        measured(matrix),
        page,
        annotations=scenes / "annotations" / "instances_val.json",
        image_root=scenes / "val",
        notes=NOTES,
        preparation=[_export(scenes.parent), _shell(generate), _shell(build_vocabulary)],
    )
    print(f"\nFinished in {(time.monotonic() - started) / 60:.1f} minutes. Open this page:\n{page}")
    return page


def demo_matrix(folder: Path, size: DemoSize) -> Matrix:
    """Return the demo's matrix: random against captions, with one pretraining for all seeds."""
    tokenizer = {"INPUT.CAPTION.TOKENIZER": _vocabulary(folder)}
    pretraining = tokenizer | _schedule(size.pretrain_iterations)
    evaluation = {"TEST.EVAL_PERIOD": max(size.finetune_iterations // 3, 1)}
    return Matrix(
        title="Captions in, AP out",
        output=folder,
        protocols={"scenes": FINETUNE_CONFIG},
        starts={"random": "", "captions": Pretraining(PRETRAIN_CONFIG, 0, pretraining)},
        fractions=size.fractions,
        seeds=size.seeds,
        baseline="random",
        options=evaluation | _schedule(size.finetune_iterations),
    )


def preparation(folder: Path, size: DemoSize) -> tuple[list[str], list[str]]:
    """Return the commands that make scenes and vocabulary, each a script and its arguments."""
    scenes = ["generate_scenes", "--output", str(folder / "datasets" / "scenes")]
    counts = {"train": size.train, "val": size.val, "unlabelled": size.captioned}
    scenes += [f"--{part}={number}" for part, number in counts.items()]
    vocabulary = ["build_vocabulary", "--dataset", "scenes_unlabelled_captions"]
    vocabulary += ["--vocab-size", "300", "--output", str(_vocabulary(folder))]
    return scenes, vocabulary


def _schedule(iterations: int) -> dict[str, int]:
    return {"SOLVER.MAX_ITER": iterations, "SOLVER.WARMUP_ITERS": iterations // 10}


def _vocabulary(folder: Path) -> Path:
    return folder / "vocabulary.model"


def _keep_to_one_size(folder: Path, size: DemoSize) -> None:
    path = folder / "demo.json"
    wanted = dataclasses.asdict(size)
    del wanted["seeds"]  # more of them go into the same folder
    if path.exists() and path.read_text() != json.dumps(wanted):
        raise UserError(
            f"{folder} holds a demo of another size. Remove the folder, or set another one with "
            "--output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(wanted))


def _announce(step: int, title: str) -> None:
    print(f"\n[{step}/5] {title}", flush=True)


def _shell(command: list[str]) -> str:
    script, *arguments = command
    return as_called(f"python tools/{script}.py {shlex.join(arguments)}")


def _export(datasets: Path) -> str:
    return f"export DETECTRON2_DATASETS={shlex.quote(str(datasets))}"


def _call(command: list[str]) -> None:
    script, *arguments = command
    if subprocess.run(own_command(script, *arguments)).returncode != 0:
        raise UserError(f"tools/{script}.py failed; see its message above.")
