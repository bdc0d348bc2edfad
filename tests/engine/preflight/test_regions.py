"""What LocCa cannot learn from is refused before the first step."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from tests.conftest import ROOT, TINY_PRETRAINING
from tests.engine.preflight.conftest import CHANGED
from virtex_det.engine import load_config
from virtex_det.engine.preflight import check_training
from virtex_det.errors import UserError


@pytest.fixture
def locca_cfg(boxes_vocabulary: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    """Makes configs of a tiny LocCaModel; takes the training set and ``KEY, VALUE`` pairs."""

    def make(train: str = CHANGED, *options: object) -> CfgNode:
        own = ["DATASETS.TRAIN", f"('{train}',)", "OUTPUT_DIR", tmp_path / "run"]
        own += ["INPUT.CAPTION.TOKENIZER", boxes_vocabulary, *options]
        config = str(ROOT / "configs/pretrain/scenes_locca.yaml")
        return load_config(config, [*TINY_PRETRAINING, *map(str, own)])

    return make


@pytest.mark.parametrize("kind", ["narratives", "regions"])
def test_traces_and_boxes_pass(scenes, locca_cfg, kind):
    check_training(locca_cfg(f"scenes_train_{kind}"))


def test_captions_alone_are_refused_with_what_to_train_on(scenes, locca_cfg):
    with pytest.raises(UserError, match=r"captions without boxes\.\n.*coco_2017_train_regions"):
        check_training(locca_cfg("scenes_train_captions"))


def test_objects_without_captions_are_refused(scenes, locca_cfg):
    with pytest.raises(UserError, match=r"No caption for image"):
        check_training(locca_cfg("scenes_train"))


@pytest.mark.parametrize(
    "box",
    [
        *((0.0, 0.0, 20.0, 30.0), (0.5, 0.1, 0.2, 0.9), (-0.1, 0.0, 0.5, 0.5)),
        *((0.1, 0.2, 0.3), (0.1, 0.2, float("nan"), 0.9), ("0", "0", "1", "1"), None),
    ],
)
def test_a_box_outside_its_image_is_refused_by_name(change_scenes, locca_cfg, box):
    change_scenes("scenes_train_regions", lambda entry: entry["regions"][-1].update(box=box))
    with pytest.raises(UserError, match=r"Region \d .* of image \d+ has .* box .*\n.*fractions"):
        check_training(locca_cfg())


def test_a_region_without_words_is_refused_by_name(change_scenes, locca_cfg):
    change_scenes("scenes_train_regions", lambda entry: entry["regions"][0].pop("text"))
    with pytest.raises(UserError, match=r"Region 0 .* has the text None"):
        check_training(locca_cfg())


def test_traces_in_pixels_are_refused(change_scenes, locca_cfg):
    def spoil(entry):
        for trace in entry["traces"]:
            trace["points"][:, :2] = 64 * trace["points"][:, :2] + 2

    change_scenes("scenes_train_narratives", spoil)
    with pytest.raises(UserError, match=r"no point of a trace lies in its image"):
        check_training(locca_cfg())


def test_a_tokenizer_without_digits_is_refused_with_how_to_build_one(scenes, vocabulary, locca_cfg):
    with pytest.raises(UserError, match=r"no pieces for .*\n.*vocabulary .*--boxes N"):
        check_training(locca_cfg("scenes_train_narratives", "INPUT.CAPTION.TOKENIZER", vocabulary))


def test_a_length_without_room_for_a_word_is_refused(scenes, locca_cfg):
    with pytest.raises(UserError, match=r"INPUT\.CAPTION\.MAX_LENGTH is 9, but"):
        check_training(locca_cfg("scenes_train_narratives", "INPUT.CAPTION.MAX_LENGTH", 9))


def test_shards_have_no_boxes(scenes, locca_cfg, tmp_path):
    (tmp_path / "0.txt").write_text("a star")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(scenes / "train" / "000000.png", "0.png")
        tar.add(tmp_path / "0.txt", "0.txt")
    with pytest.raises(UserError, match=r"captions without boxes"):
        check_training(locca_cfg(f"shards:{tmp_path}/0.tar", "INPUT.CAPTION.PER_IMAGE", 1))
