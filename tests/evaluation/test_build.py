import json

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.evaluation import CaptionEvaluator, build_evaluator
from virtex_det.evaluation.classification import ClassificationEvaluator
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.evaluation.reference import LVISEvaluator


@pytest.fixture
def reference_cfg():
    cfg = get_cfg()
    cfg.TEST.METRICS_LIBRARY = "reference"
    return cfg


@pytest.fixture
def real_names(samples) -> dict[str, str]:
    """Names of the real samples by kind."""
    lvis = samples / "lvis_100" / "annotations" / "lvis_val_9_with_images.json"
    MetadataCatalog.get("lvis_of_build").set(
        json_file=str(lvis), evaluator_type="lvis", thing_classes=["a"]
    )
    MetadataCatalog.get("voc_of_build").set(
        dirname=str(samples / "voc_mini" / "VOC2007"),
        split="test",
        year=2007,
        thing_classes=["cat"],
        evaluator_type="pascal_voc",
    )
    return {"lvis": "lvis_of_build", "pascal_voc": "voc_of_build"}


def test_a_dataset_of_the_coco_kind_gets_the_streaming_evaluator(scenes, tmp_path):
    assert isinstance(build_evaluator(get_cfg(), "scenes_val", str(tmp_path)), DetectionEvaluator)


@pytest.mark.parametrize("kind", ["lvis", "pascal_voc"])
def test_so_does_one_of_another_kind(kind, real_names, tmp_path):
    assert isinstance(
        build_evaluator(get_cfg(), real_names[kind], str(tmp_path)), DetectionEvaluator
    )


def test_detectron2s_own_evaluator_is_behind_a_key(scenes, reference_cfg, tmp_path):
    assert isinstance(build_evaluator(reference_cfg, "scenes_val", str(tmp_path)), COCOEvaluator)


@pytest.mark.parametrize(
    ("kind", "expected"), [("lvis", LVISEvaluator), ("pascal_voc", PascalVOCDetectionEvaluator)]
)
def test_so_are_those_of_lvis_and_voc(kind, expected, real_names, reference_cfg, tmp_path):
    assert isinstance(build_evaluator(reference_cfg, real_names[kind], str(tmp_path)), expected)


def test_keypoints_are_evaluated_by_detectron2(scenes, tmp_path):
    cfg = get_cfg()
    cfg.MODEL.KEYPOINT_ON = True
    assert isinstance(build_evaluator(cfg, "scenes_val", str(tmp_path)), COCOEvaluator)


def test_an_unknown_library_is_an_error(scenes, tmp_path):
    cfg = get_cfg()
    cfg.TEST.METRICS_LIBRARY = "pycocotools"
    with pytest.raises(UserError, match="'pycocotools'; expected hotcoco or reference"):
        build_evaluator(cfg, "scenes_val", str(tmp_path))


def test_extra_limits_and_boundary_ap_come_from_the_config(scenes, tmp_path):
    cfg = get_cfg()
    cfg.TEST.EXTRA_MAX_DETECTIONS = (1, 300)
    cfg.TEST.BOUNDARY_AP = True
    evaluator = build_evaluator(cfg, "scenes_val", str(tmp_path))
    assert evaluator.extra_max_detections == (1, 300) and evaluator.boundary_ap


@pytest.mark.parametrize("name", ["scenes_val_captions", "scenes_val"])
def test_a_pretraining_model_is_measured_by_its_losses_and_captions(
    name, pretraining_cfg, tmp_path
):
    assert isinstance(build_evaluator(pretraining_cfg(), name, str(tmp_path)), CaptionEvaluator)


def test_a_dataset_of_classified_images_gets_its_evaluator(tmp_path):
    MetadataCatalog.get("classified_images").set(evaluator_type="classification", classes=["cat"])
    assert isinstance(
        build_evaluator(get_cfg(), "classified_images", str(tmp_path)), ClassificationEvaluator
    )


@pytest.mark.parametrize("library", ["hotcoco", "reference"])
@pytest.mark.parametrize("field", ["area", "iscrowd"])
def test_an_annotation_that_the_metrics_cannot_use_is_named(field, library, scenes, tmp_path):
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    del content["annotations"][3][field]
    path = tmp_path / "incomplete.json"
    path.write_text(json.dumps(content))
    MetadataCatalog.get(str(path)).set(evaluator_type="coco", json_file=str(path))
    cfg = get_cfg()
    cfg.TEST.METRICS_LIBRARY = library
    with pytest.raises(UserError, match=rf"{content['annotations'][3]['id']}\b.* has no {field}"):
        build_evaluator(cfg, str(path), str(tmp_path))


@pytest.mark.parametrize("masks", [True, False])
def test_a_polygon_that_pycocotools_fails_on_is_named_where_masks_are_measured(
    masks, scenes, reference_cfg, tmp_path
):
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    content["annotations"][3]["segmentation"] = [[1.0, 1.0, 5.0, 5.0]]
    path = tmp_path / f"polygon_{masks}.json"
    path.write_text(json.dumps(content))
    MetadataCatalog.get(str(path)).set(evaluator_type="coco", json_file=str(path))
    reference_cfg.MODEL.MASK_ON = masks
    if not masks:
        assert isinstance(build_evaluator(reference_cfg, str(path), str(tmp_path)), COCOEvaluator)
        return
    with pytest.raises(
        UserError, match=rf"annotation {content['annotations'][3]['id']} has a polygon of 4 numbers"
    ):
        build_evaluator(reference_cfg, str(path), str(tmp_path))


@pytest.mark.parametrize("kind", [None, "cityscapes_instance"])
def test_a_dataset_with_no_known_evaluator_is_an_error(kind, tmp_path):
    name = f"dataset_evaluated_by_{kind}"
    if kind:
        MetadataCatalog.get(name).evaluator_type = kind
    with pytest.raises(UserError, match="evaluator_type"):
        build_evaluator(get_cfg(), name, str(tmp_path))
