"""Semantic masks and keypoints are checked before a run."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from virtex_det.engine import Trainer
from virtex_det.engine.preflight import check_evaluation, check_training
from virtex_det.errors import UserError

NAME = "pixels_train"
SEMANTIC = ("MODEL.META_ARCHITECTURE", "SemanticSegmentor")
PANOPTIC = ("MODEL.META_ARCHITECTURE", "PanopticFPN")
HEAD = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32)
KEYPOINTS = (
    "MODEL.KEYPOINT_ON True MODEL.MASK_ON False MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 3 "
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS (8,) TEST.METRICS_LIBRARY reference"
).split()
NAMED = {"keypoint_names": ["a", "b", "c"], "keypoint_flip_map": [("a", "b")]}


@pytest.fixture
def pixels(parts) -> Iterator[Callable[..., str]]:
    """Registers images with semantic masks of the classes 0 to 2.

    Called as ``pixels(spoil)``, where spoil changes the dicts.
    """

    def register(
        spoil: Callable[[list[dict]], object] = lambda dicts: None, **metadata: object
    ) -> str:
        dicts = DatasetCatalog.get(parts("train"))
        for entry in dicts:
            mask = Path(entry["file_name"]).with_suffix(".mask.png")
            Image.fromarray(np.random.default_rng(0).integers(0, 3, (40, 60), dtype=np.uint8)).save(
                mask
            )
            entry["sem_seg_file_name"] = str(mask)
        spoil(dicts)
        DatasetCatalog.register(NAME, lambda: copy.deepcopy(dicts))
        MetadataCatalog.get(NAME).set(
            **{"thing_classes": ["bolt", "nut"], "stuff_classes": ["a", "b", "c"], **metadata}
        )
        return NAME

    yield register
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def _cfg(detector_cfg: Callable[..., CfgNode], train: str, test: str, *options: object) -> CfgNode:
    names = ("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)" if test else "()")
    return detector_cfg(
        *names, "MODEL.ROI_HEADS.NUM_CLASSES", 2, "DATALOADER.NUM_WORKERS", 0, *options
    )


def _save(entry: dict, image: Image.Image) -> None:
    image.save(entry["sem_seg_file_name"])


def _palette() -> Image.Image:
    image = Image.new("P", (60, 40), 1)
    image.putpalette([0, 0, 0, 128, 0, 0] + 254 * [0, 0, 0])
    return image


@pytest.mark.parametrize("architecture", [SEMANTIC, PANOPTIC])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda dicts: [entry.pop("sem_seg_file_name") for entry in dicts],
            "4 of 4 images .* have no sem_seg_file_nam",
        ),
        (lambda dicts: dicts[2].pop("sem_seg_file_name"), "1 of 4 images .*e.g. image 3"),
        (
            lambda dicts: Path(dicts[1]["sem_seg_file_name"]).unlink(),
            "1 of 4 semantic masks have no file",
        ),
        (
            lambda dicts: _save(dicts[0], Image.new("L", (30, 30))),
            r"has \[height, width\] \[30, 30\]; expected \[40, 60\], the size of its image",
        ),
        (
            lambda dicts: _save(dicts[0], Image.new("L", (60, 40), 7)),
            "has the values 7; expected class numbers below",
        ),
        (lambda dicts: _save(dicts[0], _palette()), "has the values 38;.*\n.*palette"),
        (
            lambda dicts: _save(dicts[0], Image.fromarray(np.ones((40, 60), np.uint16))),
            "semantic mask of image 1 cannot be used",
        ),
    ],
)
def test_a_model_of_pixels_needs_masks_that_it_can_learn_from(
    architecture, spoil, message, pixels, detector_cfg
):
    cfg = _cfg(detector_cfg, pixels(spoil), "", *architecture, *HEAD)
    with pytest.raises(UserError, match=message):
        check_training(cfg)


@pytest.mark.parametrize("architecture", [SEMANTIC, PANOPTIC])
def test_the_semantic_head_has_as_many_classes_as_the_data(architecture, pixels, detector_cfg):
    cfg = _cfg(detector_cfg, pixels(stuff_classes=["a", "b", "c", "d"]), "", *architecture, *HEAD)
    with pytest.raises(
        UserError, match="the semantic head has 3 classes, .*\n.*MODEL.SEM_SEG_HEAD.NUM_CLASSES 4"
    ):
        check_training(cfg)


@pytest.mark.parametrize("architecture", [SEMANTIC, PANOPTIC])
def test_a_model_of_pixels_trains_with_the_mapper_that_gives_it_pixels(
    architecture, pixels, detector_cfg
):
    cfg = _cfg(detector_cfg, pixels(), "", *architecture, *HEAD, "SOLVER.MAX_ITER", 2)
    assert cfg.DATALOADER.MAPPER == "DatasetMapper"
    Trainer(cfg).train()


def test_semantic_segmentation_needs_no_objects(pixels, detector_cfg):
    name = pixels(lambda dicts: [entry.pop("annotations") for entry in dicts])
    check_training(_cfg(detector_cfg, name, "", *SEMANTIC, *HEAD))


@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        ("sem_seg", SEMANTIC, "neither semantic nor panoptic segmentation is evaluated here"),
        (
            "coco_panoptic_seg",
            PANOPTIC,
            "neither semantic nor panoptic segmentation is evaluated here",
        ),
        (
            "coco",
            SEMANTIC,
            "semantic segmentation, the task of SemanticSegmentor, is not evaluated here",
        ),
        ("pascal_voc", (), "its metadata has no dirname, split, year"),
    ],
)
def test_an_evaluator_that_cannot_measure_the_model_is_found_before_training(
    kind, architecture, message, pixels, detector_cfg
):
    name = pixels(evaluator_type=kind)
    with pytest.raises(UserError, match=message):
        check_training(_cfg(detector_cfg, name, name, *architecture, *HEAD))


def _with_keypoints(points: int = 3) -> Callable[[dict], None]:
    def spoil(content: dict) -> None:
        for entry in content["annotations"]:
            entry.update(
                keypoints=[entry["bbox"][0] + 1, entry["bbox"][1] + 1, 2] * points,
                num_keypoints=points,
            )

    return spoil


def _then(change: Callable[[dict], object]) -> Callable[[dict], object]:
    def spoil(content: dict) -> None:
        _with_keypoints()(content)
        change(content["annotations"][0])

    return spoil


def _hide(content: dict) -> None:
    for entry in content["annotations"]:
        entry.update(keypoints=[0] * 9, num_keypoints=0)


@pytest.mark.parametrize(
    ("spoil", "metadata", "message"),
    [
        (lambda content: None, {}, "does not name its keypoints"),
        (_with_keypoints(), {"keypoint_names": ["a", "b", "c"]}, "does not name its keypoints"),
        (
            _with_keypoints(),
            {**NAMED, "keypoint_names": ["a", "b"]},
            "finds 3 keypoints, data set .* has 2",
        ),
        (
            _with_keypoints(),
            {**NAMED, "keypoint_flip_map": [("a", "d")]},
            "keypoint_flip_map names 'd', which is missing from keypoint_names",
        ),
        (
            lambda content: None,
            NAMED,
            "object 0 of image 1 .* has keypoints None; expected 9 numbers",
        ),
        (_with_keypoints(4), NAMED, "expected 9 numbers"),
        (_then(lambda entry: entry.update(keypoints=[1, 2])), NAMED, "expected 9 numbers"),
        (
            _then(lambda entry: entry.pop("keypoints")),
            NAMED,
            "object 0 of image 1 .* has keypoints None",
        ),
        (_hide, NAMED, "has a visible keypoint"),
    ],
)
def test_keypoints_that_cannot_be_trained_on_are_found(
    spoil, metadata, message, parts, detector_cfg
):
    cfg = _cfg(detector_cfg, parts("train", spoil, **metadata), "", *KEYPOINTS)
    with pytest.raises(UserError, match=message):
        check_training(cfg)


@pytest.mark.parametrize(
    ("spoil", "sigmas", "message"),
    [
        (_with_keypoints(), "()", "TEST.KEYPOINT_OKS_SIGMAS has 17 numbers .COCO's, the default."),
        (_with_keypoints(), "(0.1, 0.1)", "TEST.KEYPOINT_OKS_SIGMAS has 2 numbers"),
        (
            lambda content: None,
            "(0.1, 0.1, 0.1)",
            "annotation 11 has keypoints None; expected 9 numbers",
        ),
        (_with_keypoints(4), "(0.1, 0.1, 0.1)", "expected 9 numbers"),
        (
            _then(lambda entry: entry.pop("num_keypoints")),
            "(0.1, 0.1, 0.1)",
            "annotation 11 has num_keypoints None",
        ),
    ],
)
def test_keypoints_that_cannot_be_measured_are_found(spoil, sigmas, message, parts, detector_cfg):
    train, test = parts("train", _with_keypoints(), **NAMED), parts("val", spoil)
    cfg = _cfg(detector_cfg, train, test, *KEYPOINTS, "TEST.KEYPOINT_OKS_SIGMAS", sigmas)
    for check in (check_training, check_evaluation):
        with pytest.raises(UserError, match=message):
            check(cfg)


def test_a_keypoint_model_trains_and_is_measured(parts, detector_cfg):
    names = [parts(split, _with_keypoints(), **NAMED) for split in ("train", "val")]
    options = (*KEYPOINTS, "TEST.KEYPOINT_OKS_SIGMAS", "(0.1, 0.1, 0.1)", "SOLVER.MAX_ITER", 2)
    trainer = Trainer(_cfg(detector_cfg, *names, *options))
    assert trainer.train().keys() == {"bbox", "keypoints"}


def test_images_with_too_few_keypoints_are_left_out(parts, detector_cfg):
    from virtex_det.data.training_set import load_train_dicts

    def hide_in_first(content: dict) -> None:
        _with_keypoints()(content)
        for entry in content["annotations"][:2]:
            entry.update(keypoints=[0] * 9, num_keypoints=0)

    name = parts("train", hide_in_first, **NAMED)
    assert [
        entry["image_id"] for entry in load_train_dicts(_cfg(detector_cfg, name, "", *KEYPOINTS))
    ] == [2, 3, 4]
    fewest = "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"
    assert len(load_train_dicts(_cfg(detector_cfg, name, "", *KEYPOINTS, fewest, 0))) == 4


_FIVE = ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(10, 10, 5, 5, 1)")
_ROTATED = (
    *("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "MODEL.RPN.BBOX_REG_WEIGHTS", "(1, 1, 1, 1, 1)"),
    *("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    *("MODEL.ROI_HEADS.NAME", "RROIHeads", *_FIVE),
)


@pytest.mark.parametrize("check", [check_training, check_evaluation])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
            "PrecomputedProposals, which is not supported",
        ),
        (("MODEL.LOAD_PROPOSALS", True), "precomputed proposals are not supported"),
        (_ROTATED, "RRPN.*: (rotated boxes need|the mapper)"),
        (
            ("MODEL.ROI_HEADS.NAME", "RROIHeads", *_FIVE),
            "RROIHeads: (rotated boxes need|the mapper)",
        ),
    ],
)
def test_a_part_that_has_nothing_to_work_with_is_found(check, options, message, parts_cfg):
    with pytest.raises(UserError, match=message):
        check(parts_cfg(*options))


def test_boxes_outside_their_image_are_refused_if_most_are_and_counted_if_some(
    parts, detector_cfg, caplog
):
    def move(content: dict, count: int) -> None:
        for entry in content["annotations"][:count]:
            entry["bbox"] = [100, 100, 10, 10]

    name = parts("train", lambda content: move(content, 5))
    with pytest.raises(
        UserError, match=r"5 of 8 boxes are outside their image.\nThe first: annotation 11"
    ):
        check_training(_cfg(detector_cfg, name, ""))
    name = parts("val", lambda content: move(content, 1))
    check_training(_cfg(detector_cfg, name, ""))
    assert "1 of 8 boxes are outside their image; training leaves them out" in caplog.text
