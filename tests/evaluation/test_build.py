import json

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.evaluation import CaptionEvaluator, build_evaluator
from virtex_det.evaluation.classification import ClassificationEvaluator


def test_a_dataset_of_the_coco_kind_gets_the_coco_evaluator(scenes, tmp_path):
    assert isinstance(build_evaluator(get_cfg(), "scenes_val", str(tmp_path)), COCOEvaluator)


@pytest.mark.parametrize("name", ["scenes_val_captions", "scenes_val"])
def test_a_pretraining_model_is_measured_by_its_losses_and_captions(name, pretraining_cfg, tmp_path):
    assert isinstance(build_evaluator(pretraining_cfg(), name, str(tmp_path)), CaptionEvaluator)


def test_a_dataset_of_classified_images_gets_its_evaluator(tmp_path):
    MetadataCatalog.get("classified_images").set(evaluator_type="classification", classes=["cat"])
    assert isinstance(build_evaluator(get_cfg(), "classified_images", str(tmp_path)), ClassificationEvaluator)


@pytest.mark.parametrize("field", ["area", "iscrowd"])
def test_an_annotation_that_the_metrics_cannot_use_is_named(field, scenes, tmp_path):
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    del content["annotations"][3][field]
    path = tmp_path / "incomplete.json"
    path.write_text(json.dumps(content))
    name = f"without_{field}"
    MetadataCatalog.get(name).set(evaluator_type="coco", json_file=str(path))
    with pytest.raises(UserError, match=rf"annotation {content['annotations'][3]['id']} has no {field}"):
        build_evaluator(get_cfg(), name, str(tmp_path))


@pytest.mark.parametrize("kind", [None, "cityscapes_instance"])
def test_a_dataset_with_no_known_evaluator_is_an_error(kind, tmp_path):
    name = f"dataset_evaluated_by_{kind}"
    if kind:
        MetadataCatalog.get(name).evaluator_type = kind
    with pytest.raises(UserError, match="evaluator_type"):
        build_evaluator(get_cfg(), name, str(tmp_path))
