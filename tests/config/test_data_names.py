import pytest

from virtex_det.config.data_names import is_by_name, open_number, portable_leaves, short_names
from virtex_det.config.identity import config_sha256
from virtex_det.engine import load_config
from virtex_det.errors import UserError

RETINANET = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("yolo:/data/nuts/data.yaml:train", "yolo:data.yaml:train"),
        ("coco:~/nuts/train.json:~/nuts/images", "coco:train.json"),
        ("lvis:../lvis_v1_val.json:coco", "lvis:lvis_v1_val.json"),
        ("voc:/data/VOC2007:test", "voc:VOC2007:test"),
        ("voc:/data/nuts:val:0.2", "voc:nuts:val:0.2"),
        ("folder:/data/nuts/", "folder:nuts"),
        ("captions:/data/captions.json:/data/images", "captions:captions.json"),
        ("regions:a/c.json:a/i.json:a", "regions:c.json:i.json"),
        ("pairs:/data/nuts", "pairs:nuts"),
        ("shards:/data/{0..9}.tar", "shards:{0..9}.tar"),
        ("coco_2017_val", "coco_2017_val"),
        ("other:/data/nuts", "other:/data/nuts"),
    ],
)
def test_a_short_name_has_no_folders(name, short):
    assert short_names([name]) == {name: short}


def test_folders_that_tell_names_apart_are_kept():
    names = ["yolo:/a/x/data.yaml:val", "yolo:/b/x/data.yaml:val", "yolo:/b/x/data.yaml:test"]
    assert [*short_names(names).values()] == [
        "yolo:a/x/data.yaml:val",
        "yolo:b/x/data.yaml:val",
        "yolo:data.yaml:test",
    ]


def test_other_names_with_a_colon_are_no_places():
    assert is_by_name("yolo:data.yaml:val") and not is_by_name("yolo:") and not is_by_name("a:b")


def test_a_config_of_moved_data_keeps_its_hash():
    here, there, other = (
        load_config(overrides={"DATASETS.TRAIN": f"yolo:{place}:train"})
        for place in ("/here/data.yaml", "there/data.yaml", "there/nuts.yaml")
    )
    assert config_sha256(here) == config_sha256(there) != config_sha256(other)
    assert portable_leaves(here)["DATASETS.TRAIN"] == ["yolo:data.yaml:train"]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({}, ""),
        ({"DATASETS.TRAIN": ("coco_2017_train",)}, ""),
        ({"DATASETS.TRAIN": "pairs:nuts"}, ""),
        ({"DATASETS.TRAIN": "yolo:data.yaml:train"}, "MODEL.ROI_HEADS.NUM_CLASSES"),
        ({"DATASETS.TEST": "yolo:data.yaml:val"}, "MODEL.ROI_HEADS.NUM_CLASSES"),
        ({"DATASETS.TEST": "yolo:data.yaml:val", **RETINANET}, "MODEL.RETINANET.NUM_CLASSES"),
        ({"DATASETS.TRAIN": "yolo:d.yaml:train", "MODEL.ROI_HEADS.NUM_CLASSES": 80}, ""),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 0}, "MODEL.ROI_HEADS.NUM_CLASSES"),
    ],
)
def test_a_number_of_classes_that_nothing_gives_is_that_of_data_by_name(overrides, key):
    assert open_number(load_config(overrides=overrides)) == key


def test_a_file_may_give_the_number_and_one_data_set_without_brackets(tmp_path):
    (tmp_path / "base.yaml").write_text("MODEL: {ROI_HEADS: {NUM_CLASSES: 80}}")
    (tmp_path / "run.yaml").write_text(
        "_BASE_: base.yaml\nDATASETS: {TRAIN: 'yolo:data.yaml:train', TEST: [a, b]}"
    )
    cfg = load_config(tmp_path / "run.yaml")
    assert not open_number(cfg)
    assert cfg.DATASETS.TRAIN == ("yolo:data.yaml:train",) and cfg.DATASETS.TEST == ("a", "b")


def test_a_list_as_text_stays_a_list():
    cfg = load_config(overrides=["DATASETS.TRAIN", "('a', 'b')", "DATASETS.TEST", "a"])
    assert cfg.DATASETS.TRAIN == ("a", "b") and cfg.DATASETS.TEST == ("a",)


@pytest.mark.parametrize("classes", [["nut", ["part"]], [3], [""], "nut"])
def test_an_entry_of_classes_that_is_no_name_is_refused(classes):
    with pytest.raises(UserError, match=r"DATASETS\.CLASSES"):
        load_config(overrides={"DATASETS.CLASSES": classes})
