"""A small set of scenes, small models, and the real samples where they are at hand."""

import copy
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

# Detectron2 reads the variable when its datasets are registered, which is at import.
_DATASETS = tempfile.TemporaryDirectory(prefix="virtex_det_tests_")
os.environ["DETECTRON2_DATASETS"] = _DATASETS.name

import pytest
import torch
from detectron2.config import CfgNode

from tests.data.datasets.conftest import catalog, coco, voc, write_image, yolo  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)

# A script's background jobs are started to ignore SIGINT, and nohup's SIGHUP; the tests send both.
for _number, _handler in {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow modules first, so that all processes have work until the end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Take back what a training in this process changes: its handlers write to closed streams."""
    loggers = [logging.getLogger(name) for name in ("fvcore", "detectron2", "virtex_det")]
    before = [(log.handlers[:], log.level, log.propagate) for log in loggers]
    yield
    for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:] = handlers
        log.setLevel(level)
        log.propagate = propagate


@pytest.fixture
def plugins() -> Iterator[SimpleNamespace]:
    """Take back the plugins and config keys of a test; ``forget()`` does so within it."""
    from virtex_det import plugins as module
    from virtex_det.config import added, roles

    kept: list = [added.FUNCTIONS, roles.ROLES, module._imported, module._done]
    before = [copy.copy(content) for content in kept]

    def forget() -> None:
        for content, earlier in zip(kept, before, strict=True):
            content.clear()
            content.extend(earlier) if isinstance(content, list) else content.update(earlier)
        added.forget_results()

    yield SimpleNamespace(forget=forget)
    forget()


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of a small set of captioned scenes, registered under its names."""
    from virtex_det.data.datasets.scenes import generate_scenes

    root = Path(_DATASETS.name) / "scenes"
    if not root.exists():
        generate_scenes(
            root, num_train=12, num_val=4, num_unlabelled=12, image_size=64, seed=0, num_workers=1
        )
    return root


@pytest.fixture(scope="session")
def vocabulary(scenes: Path) -> Path:
    """A tokenizer of the small scenes' captions."""
    from virtex_det.data.datasets import load_dataset
    from virtex_det.data.tokenizer import train_tokenizer

    path = Path(_DATASETS.name) / "vocabulary.model"
    dicts = load_dataset("scenes_train_captions") + load_dataset("scenes_unlabelled_captions")
    train_tokenizer(
        (caption for image in dicts for caption in image["captions"]), path, vocab_size=240
    )
    return path


@pytest.fixture(scope="session")
def boxes_vocabulary(scenes: Path) -> Path:
    """A tokenizer of the small scenes' narratives, LocCa's prompts and the numbers below 100."""
    from virtex_det.data.datasets import load_captions
    from virtex_det.data.region_texts import vocabulary_texts
    from virtex_det.data.tokenizer import train_tokenizer

    path = Path(_DATASETS.name) / "vocabulary_boxes.model"
    captions = load_captions(["scenes_train_captions", "scenes_unlabelled_captions"])
    train_tokenizer([*captions, *vocabulary_texts(100)], path, vocab_size=160)
    return path


TINY_BACKBONE = "MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 8".split()
TINY_SCHEDULE = "SOLVER.MAX_ITER 4 SOLVER.WARMUP_ITERS 1".split()
TINY_DETECTOR = (
    *TINY_BACKBONE,
    *TINY_SCHEDULE,
    *"MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 32".split(),
    *"MODEL.ROI_MASK_HEAD.CONV_DIM 16 SOLVER.IMS_PER_BATCH 2 TEST.EVAL_PERIOD 0".split(),
)
TINY_PRETRAINING = (
    *TINY_BACKBONE,
    *TINY_SCHEDULE,
    *"MODEL.TEXTUAL.HIDDEN_SIZE 16 MODEL.TEXTUAL.FEEDFORWARD_SIZE 32".split(),
    *"SOLVER.IMS_PER_BATCH 4 INPUT.CAPTION.CROP_SIZE 64 DATALOADER.NUM_WORKERS 0".split(),
)


@pytest.fixture
def detector_cfg(scenes: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    """Makes configs of a tiny Mask R-CNN on the small scenes from ``KEY, VALUE`` pairs."""
    from virtex_det.engine import load_config

    def make(*options: object) -> CfgNode:
        config = str(ROOT / "configs/detectron2/scenes_segm.yaml")
        return load_config(
            config, [*TINY_DETECTOR, "OUTPUT_DIR", str(tmp_path / "run"), *map(str, options)]
        )

    return make


@pytest.fixture
def pretraining_cfg(scenes: Path, vocabulary: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    """Makes configs of a tiny bicaptioning model on the small scenes from ``KEY, VALUE`` pairs."""
    from virtex_det.engine import load_config

    def make(*options: object) -> CfgNode:
        config = str(ROOT / "configs/pretrain/scenes_bicaptioning.yaml")
        paths = f"INPUT.CAPTION.TOKENIZER {vocabulary} OUTPUT_DIR {tmp_path / 'pretrain'}".split()
        return load_config(config, [*TINY_PRETRAINING, *paths, *map(str, options)])

    return make


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real COCO, LVIS and VOC samples; without it the test is skipped."""
    path = Path(os.environ.get("VIRTEX_DET_SAMPLES", ROOT / "../shared/data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real samples at {path}; set VIRTEX_DET_SAMPLES to their folder")
    return path


@pytest.fixture(scope="session")
def make_record() -> Callable:
    """Makes result records as runs leave them."""
    from virtex_det.benchmark import ResultRecord

    def make(
        box_ap: float = 10.0,
        mask_ap: float | None = 8.0,
        *,
        init: str = "random init",
        seed: int = 0,
        fraction: float = 0.1,
        iteration: int | None = 200,
    ) -> ResultRecord:
        return ResultRecord(
            protocol="scenes-segm",
            dataset="scenes_val",
            dataset_version={"images": 4, "sha256": "1" * 64},
            train_datasets=("scenes_train",),
            train_versions={"scenes_train": {"images": 12, "sha256": "2" * 64}},
            train_fraction=fraction,
            subset_seed=seed,
            train_images=round(12 * fraction),
            manifest_sha256="3" * 64,
            empty_categories=(),
            seed=seed,
            iteration=iteration,
            training_seconds=None if iteration is None else 0.5 * iteration,
            metrics={
                "bbox": {"AP": box_ap, "AP50": 2 * box_ap},
                "segm": {"AP": mask_ap, "AP50": None},
            },
            weights={"format": init, "path": "", "sha256": ""},
            evaluated={},
            config_sha256="0" * 64,
            wall_seconds=1.0,
        )

    return make
