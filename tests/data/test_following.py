import logging

import pytest
from detectron2.data import DatasetCatalog

from tests.data.datasets.conftest import coco_content
from virtex_det.config import load_config
from virtex_det.data.datasets import loading
from virtex_det.data.following import follow_data
from virtex_det.errors import UserError

BOX, POLYGON = "0 0.5 0.5 0.5 0.5", "1 0.1 0.1 0.9 0.1 0.9 0.9"


def config(name: str, **keys: object):
    overrides = {"DATASETS.TRAIN": name, "DATASETS.TEST": name, "MODEL.MASK_ON": True}
    return load_config(overrides=overrides | keys)


def test_boxes_alone_switch_masks_off(yolo, caplog):
    with caplog.at_level(logging.WARNING):
        cfg = follow_data(config(yolo({"a.jpg": BOX})))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2 and not cfg.MODEL.MASK_ON
    assert "no object has a mask; MODEL.MASK_ON is set to False" in caplog.text
    assert follow_data(cfg) == cfg


def test_polygons_keep_masks_on(yolo):
    cfg = follow_data(config(yolo({"a.jpg": POLYGON})))
    assert cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon"


def test_masks_stay_off_where_they_are(yolo):
    cfg = config(yolo({"a.jpg": POLYGON}), **{"MODEL.MASK_ON": False})
    assert not follow_data(cfg).MODEL.MASK_ON


def test_masks_of_some_objects_are_refused_with_their_number(yolo):
    with pytest.raises(UserError, match="1 of 2 objects of yolo:.* have no mask"):
        follow_data(config(yolo({"a.jpg": f"{BOX}\n{POLYGON}"})))


def test_run_lengths_are_read_as_bitmasks(coco):
    content = coco_content()
    for entry in content["annotations"]:
        entry["segmentation"] = {"size": [40, 60], "counts": [0, 30, 2370]}
    assert follow_data(config(coco(content))).INPUT.MASK_FORMAT == "bitmask"


def test_data_are_loaded_once_for_it_and_the_checks_after_it(yolo):
    name = yolo({"a.jpg": BOX})
    cfg = follow_data(config(name))
    kept = loading._loaded[True].look(name)
    assert kept is not None and loading.load_dataset(name, boxes_alone=True) is kept
    assert cfg.DATASETS.TRAIN == (name,)


def test_an_evaluation_takes_the_number_of_its_test_set(yolo):
    keys = {"DATASETS.TRAIN": "yolo:/gone/data.yaml:train", "MODEL.MASK_ON": True}
    cfg = follow_data(config(yolo({"a.jpg": BOX}), **keys), trains=False)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2 and cfg.MODEL.MASK_ON


def test_classes_of_the_config_decide_the_number(coco):
    cfg = follow_data(config(coco(coco_content()), **{"DATASETS.CLASSES": ("bolt",)}))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1


def test_classes_cannot_be_set_for_registered_data(coco):
    keys = {"DATASETS.TEST": "coco_2017_val", "DATASETS.CLASSES": ("bolt",)}
    with pytest.raises(UserError, match="coco_2017_val is registered with classes of its own"):
        follow_data(config(coco(coco_content()), **keys))


def test_registered_data_may_give_the_number_too(scenes):
    cfg = load_config(
        overrides={"DATASETS.TRAIN": "scenes_train", "MODEL.ROI_HEADS.NUM_CLASSES": 0}
    )
    assert follow_data(cfg).MODEL.ROI_HEADS.NUM_CLASSES == 8


def test_data_without_names_cannot_give_the_number(catalog):
    DatasetCatalog.register("unnamed", lambda: [{"image_id": 1, "annotations": []}])
    cfg = load_config(overrides={"DATASETS.TRAIN": "unnamed", "MODEL.ROI_HEADS.NUM_CLASSES": 0})
    with pytest.raises(UserError, match="names no classes"):
        follow_data(cfg)


def test_registered_data_stay_as_they_are():
    cfg = load_config(overrides={"DATASETS.TRAIN": "coco_2017_train", "MODEL.MASK_ON": True})
    assert follow_data(cfg) is cfg
