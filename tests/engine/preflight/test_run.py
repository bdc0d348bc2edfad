import copy
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from tests.engine.preflight.conftest import NAMES
from virtex_det.config import with_options
from virtex_det.data.datasets import annotation_content, load_dataset
from virtex_det.engine import Trainer, evaluate, read_classes
from virtex_det.engine.preflight import check_training
from virtex_det.errors import UserError
from virtex_det.text_files import read_bytes

OTHER_WAY_ROUND = [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}]


def swap(content):
    content["categories"] = OTHER_WAY_ROUND


def rename(content):
    content["categories"][1]["name"] = "washer"


def without(field):
    def spoil(content):
        for annotation in content["annotations"]:
            del annotation[field]

    return spoil


def with_changes(part, **changes):
    return lambda content: content[part][0].update(changes)


def with_float_ids(content):
    for entry in content["categories"]:
        entry["id"] = float(entry["id"])
    for annotation in content["annotations"]:
        annotation["category_id"] = float(annotation["category_id"])


SPOILT = {
    "area missing": (without("area"), "annotation 11 has no area"),
    "iscrowd missing": (without("iscrowd"), "annotation 11 has no iscrowd"),
    "float sizes": (
        with_changes("images", height=40.0),
        "image 1 has width 60 and height 40.0; expected integers",
    ),
    "polygon of four numbers": (
        with_changes("annotations", segmentation=[[5, 5, 25, 5, 25, 20], [1, 2, 3, 4]]),
        "annotation 11 has a polygon of 4 numbers",
    ),
    "box as text": (
        with_changes("annotations", bbox=["5", "5", "20", "15"]),
        "annotation 11 .*has the box",
    ),
    "area as text": (with_changes("annotations", area="large"), "annotation 11 has area"),
    "category ids 1.0": (with_float_ids, "category 0 of the list .* has id 1.0"),
    "other order": (swap, r"(?s)have different classes.*0 +bolt +nut"),
    "another name": (rename, r"have different classes"),
    "another category": (
        lambda c: c["categories"].append({"id": 3, "name": "cog"}),
        r"2 +\(none\) +cog",
    ),
    "missing picture": (with_changes("images", file_name="gone.png"), "1 of 4 images have no file"),
    "folder as picture": (
        with_changes("images", file_name="../train"),
        "1 of 4 images have no file",
    ),
    "backslashes": (with_changes("images", file_name="a\\1.png"), "backslashes"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_what_would_end_the_evaluation_is_found_before_training(spoil, message, parts_cfg):
    cfg = parts_cfg(spoil=spoil)
    with pytest.raises(UserError, match=message):
        Trainer(cfg)
    assert not (Path(cfg.OUTPUT_DIR) / "metrics.json").exists()


def test_a_data_set_in_order_passes(parts_cfg):
    Trainer(parts_cfg())


@pytest.mark.parametrize("number", [1, 80])
def test_the_number_of_classes_is_compared_for_data_whose_classes_are_known_once_loaded(
    number, parts_cfg
):
    with pytest.raises(
        UserError,
        match=f"has {number} classes, .* has 2: bolt, nut\nSet MODEL.ROI_HEADS.NUM_CLASSES 2",
    ):
        Trainer(parts_cfg("MODEL.ROI_HEADS.NUM_CLASSES", number))


def test_training_sets_are_compared_with_each_other(parts, parts_cfg):
    cfg = parts_cfg(
        "DATASETS.TRAIN", f"('{parts('more', swap)}', 'parts_train')", "DATASETS.TEST", "()"
    )
    with pytest.raises(
        UserError, match=r"(?s)parts_more and parts_train have different classes.*0 +nut +bolt"
    ):
        Trainer(cfg)


def test_an_unknown_evaluator_is_found_before_training(parts, parts_cfg):
    cfg = parts_cfg()
    vars(MetadataCatalog.get("parts_val"))["evaluator_type"] = "cocoa"
    with pytest.raises(UserError, match="evaluator_type 'cocoa'; expected one of: coco"):
        Trainer(cfg)


def test_a_trainer_with_evaluators_of_its_own_may_name_any_type(parts_cfg):
    class Own(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            raise NotImplementedError

    cfg = parts_cfg(spoil=without("area"))
    vars(MetadataCatalog.get("parts_val"))["evaluator_type"] = "cocoa"
    Own(cfg)


def registered(name, dicts, **metadata):
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, lambda: copy.deepcopy(dicts))
    MetadataCatalog.get(name).set(**metadata)
    return name


@pytest.fixture
def by_function(parts_cfg):
    """Registers parts_val, with a change, as a function that returns dicts."""
    cfg = parts_cfg("DATASETS.TEST", "('parts_by_function',)")

    def register(change, **metadata):
        dicts = load_dataset("parts_val")
        for entry in dicts:
            change(entry)
        registered(
            "parts_by_function",
            dicts,
            **{"evaluator_type": "coco", "thing_classes": [*NAMES]} | metadata,
        )
        return cfg

    yield register
    DatasetCatalog.pop("parts_by_function", None)
    MetadataCatalog.pop("parts_by_function", None)


def test_data_of_a_function_pass(by_function):
    Trainer(by_function(lambda entry: None))


def test_text_ids_of_a_function_are_found_before_training(by_function):
    cfg = by_function(lambda entry: entry.update(image_id=f"image {entry['image_id']}"))
    with pytest.raises(UserError, match="image has id 'image 1'"):
        Trainer(cfg)


OF_A_FUNCTION = {
    "no size": (lambda entry: entry.pop("height"), "image 1 has height None"),
    "no box": (lambda entry: entry["annotations"][0].pop("bbox"), "has bbox None"),
    "another mode": (
        lambda entry: entry["annotations"][0].update(bbox_mode="XYXY"),
        "bbox_mode 'XYXY'",
    ),
    "a class by name": (
        lambda entry: entry["annotations"][0].update(category_id="nut"),
        "has category_id 'nut'",
    ),
    "a mask as pixels": (
        lambda entry: entry["annotations"][0].update(segmentation=np.ones((40, 60))),
        "its dicts cannot be converted to COCO's format",
    ),
}


@pytest.mark.parametrize("change, message", OF_A_FUNCTION.values(), ids=OF_A_FUNCTION)
def test_data_of_a_function_that_cannot_be_evaluated_are_named_before_training(
    change, message, by_function
):
    with pytest.raises(UserError, match=f"(?s)data set parts_by_function.*{message}"):
        Trainer(by_function(change))


def test_a_box_or_mask_of_a_function_that_would_be_left_out_at_each_step_is_named(by_function):
    cfg = with_options(
        by_function(lambda entry: None), ["DATASETS.TRAIN", "('parts_by_function',)"]
    )
    cfg = with_options(cfg, ["DATASETS.TEST", "()"])
    for change, message in (
        ({"bbox": np.ones(4)}, "NumPy array as bbox"),
        ({"segmentation": np.ones(4)}, "ndarray"),
    ):
        by_function(lambda entry, change=change: entry["annotations"][0].update(change))
        with pytest.raises(UserError, match=message):
            Trainer(cfg)


def test_any_error_of_a_users_function_names_the_data_set(by_function):
    cfg = by_function(lambda entry: None)
    DatasetCatalog.pop("parts_by_function")
    DatasetCatalog.register("parts_by_function", lambda: 1 / 0)
    with pytest.raises(
        UserError, match="(?s)parts_by_function.*ZeroDivisionError.*The function registered"
    ):
        Trainer(cfg)


def test_images_that_are_not_in_the_annotations_are_found_before_training(by_function, tmp_path):
    json_file = str(tmp_path / "val" / "instances.json")
    cfg = by_function(
        lambda entry: entry.update(image_id=entry["image_id"] + 100), json_file=json_file
    )
    with pytest.raises(UserError, match="image 101 is not in .*instances.json"):
        Trainer(cfg)


def test_an_image_that_occurs_twice_is_found_before_training(by_function, tmp_path):
    json_file = str(tmp_path / "val" / "instances.json")
    cfg = by_function(lambda entry: entry.update(image_id=1), json_file=json_file)
    with pytest.raises(UserError, match="image id 1 occurs twice"):
        Trainer(cfg)


def test_classes_in_another_order_than_in_the_annotations_are_found_before_training(
    by_function, tmp_path
):
    json_file, ids = str(tmp_path / "val" / "instances.json"), {1: 1, 2: 0}
    cfg = by_function(
        lambda entry: None, json_file=json_file, thing_dataset_id_to_contiguous_id=ids
    )
    with pytest.raises(
        UserError, match=r"class 0 is 'bolt' \(category id 2\), but in .* that id is 'nut'"
    ):
        Trainer(cfg)


def test_a_data_set_without_class_names_cannot_be_evaluated(by_function):
    cfg = by_function(lambda entry: None, thing_classes=None)
    with pytest.raises(UserError, match="has no class names.*\n.*thing_classes="):
        Trainer(cfg)


def test_expected_results_of_a_task_that_the_model_does_not_have_are_found_before_training(
    parts_cfg,
):
    with pytest.raises(UserError, match="the task 'box'; the tasks of .* are: bbox, segm"):
        Trainer(parts_cfg("TEST.EXPECTED_RESULTS", "[['box', 'AP', 30.0, 1.0]]"))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("AP5", "(?s)metric 'AP5' of segm.*Did you mean AP(50|75)"),
        ("AP-nutt", "Did you mean AP-nut"),
        (7, "metric 7"),
    ],
)
def test_expected_results_of_a_metric_that_the_evaluation_does_not_give_are_found(
    parts_cfg, metric, message
):
    with pytest.raises(UserError, match=message):
        Trainer(
            parts_cfg(
                "TEST.EXPECTED_RESULTS",
                [["bbox", "AP-bolt", 1.0, 99.0], ["segm", metric, 30.0, 1.0]],
            )
        )


def test_the_reference_has_fewer_metrics(parts_cfg):
    cfg = parts_cfg("TEST.EXPECTED_RESULTS", [["bbox", "AR100", 30.0, 1.0]])
    check_training(cfg)
    with pytest.raises(
        UserError, match="metric 'AR100' of bbox(?s:.*)It gives AP, AP50, AP75, APs, APm, APl, and"
    ):
        check_training(with_options(cfg, ["TEST.METRICS_LIBRARY", "reference"]))


def test_an_unknown_year_of_voc_is_found_before_training(detector_cfg, samples):
    from detectron2.data.datasets import register_pascal_voc

    register_pascal_voc("voc_of_no_year", str(samples / "voc_mini" / "VOC2007"), "test", 2013)
    MetadataCatalog.get("voc_of_no_year").evaluator_type = "pascal_voc"
    options = ("DATASETS.TEST", "('voc_of_no_year',)", "DATASETS.TRAIN", "('voc_of_no_year',)")
    try:
        with pytest.raises(UserError, match="VOC 2013"):
            Trainer(detector_cfg(*options, "MODEL.ROI_HEADS.NUM_CLASSES", 20))
    finally:
        DatasetCatalog.remove("voc_of_no_year")
        MetadataCatalog.remove("voc_of_no_year")


def test_a_detector_is_not_evaluated_on_captions(detector_cfg):
    with pytest.raises(UserError, match="evaluated as captions"):
        Trainer(detector_cfg("DATASETS.TEST", "('scenes_val_captions',)"))


def test_a_missing_caption_file_or_picture_is_found_before_training(
    pretraining_cfg, scenes, tmp_path
):
    with pytest.raises(UserError, match="none.json"):
        Trainer(pretraining_cfg("DATASETS.TEST", f"('captions:{tmp_path}/none.json:{tmp_path}',)"))
    content = json.loads((scenes / "annotations" / "captions_val.json").read_text())
    content["images"][0]["file_name"] = "gone.png"
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"1 of {len(content['images'])} images have no file"):
        Trainer(
            pretraining_cfg(
                "DATASETS.TEST", f"('captions:{tmp_path}/captions.json:{scenes / 'val'}',)"
            )
        )


def test_what_was_looked_at_is_not_loaded_again_to_train_on(parts_cfg, monkeypatch):
    cfg = parts_cfg("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "TEST.PRECISE_BN.ENABLED", False)
    trainer = Trainer(cfg)
    monkeypatch.setattr("virtex_det.data.training_set.load_dataset", None)
    trainer.resume_or_load(resume=False)
    trainer.train()


def test_the_look_leaves_the_random_generators_alone(parts_cfg):
    cfg = parts_cfg()
    before = torch.get_rng_state()
    check_training(cfg)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def trained(parts_cfg):
    cfg = parts_cfg("SOLVER.MAX_ITER", 1, "TEST.PRECISE_BN.ENABLED", False)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return cfg


def test_a_run_on_data_whose_classes_are_known_once_loaded_keeps_their_names(trained):
    assert read_classes(trained.OUTPUT_DIR) == NAMES
    assert torch.load(Path(trained.OUTPUT_DIR) / "model_final.pth")["classes"] == [*NAMES]


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_is_not_evaluated_on_other_classes_than_it_was_trained_on(
    trained, resume, parts, detector_cfg
):
    weights = Path(trained.OUTPUT_DIR) / "model_final.pth"
    options = ("DATASETS.TEST", f"('{parts('swapped', swap)}',)", "MODEL.ROI_HEADS.NUM_CLASSES", 2)
    cfg = detector_cfg(*options, "MODEL.WEIGHTS", weights)
    with pytest.raises(
        UserError,
        match=r"(?s)the model of .*model_final.pth and data set parts_swapped have different",
    ):
        evaluate(cfg, resume=resume)


def test_the_classes_of_a_run_without_names_in_its_checkpoint_are_read_from_its_folder(
    trained, parts, detector_cfg
):
    weights = Path(trained.OUTPUT_DIR) / "model_final.pth"
    content = torch.load(weights)
    del content["classes"]
    torch.save(content, weights)
    options = ("DATASETS.TEST", f"('{parts('swapped', swap)}',)", "MODEL.ROI_HEADS.NUM_CLASSES", 2)
    with pytest.raises(UserError, match="parts_swapped have different classes"):
        evaluate(detector_cfg(*options, "MODEL.WEIGHTS", weights))


def test_an_evaluation_parses_its_annotations_once(trained, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        annotation_content, "read_bytes", lambda *args: parsed.append(args[0]) or read_bytes(*args)
    )
    evaluate(trained, resume=True)
    assert parsed == [Path(MetadataCatalog.get("parts_val").json_file)]


def test_a_run_is_not_resumed_on_data_of_other_classes(trained, tmp_path, parts):
    for split in ("train", "val"):
        path = tmp_path / split / "instances.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": OTHER_WAY_ROUND}))
        vars(MetadataCatalog.get(f"parts_{split}")).pop("thing_classes")
    trainer = Trainer(trained)
    trainer.resume_or_load(resume=True)
    with pytest.raises(
        UserError, match=r"(?s)the checkpoint and DATASETS.TRAIN have different classes.*bolt +nut"
    ):
        trainer.train()


def test_a_model_of_other_classes_is_a_start_for_training(trained, parts, detector_cfg, tmp_path):
    name = parts("swapped", swap)
    weights = Path(trained.OUTPUT_DIR) / "model_final.pth"
    options = (
        f"DATASETS.TRAIN ('{name}',) DATASETS.TEST () MODEL.ROI_HEADS.NUM_CLASSES 2 "
        "SOLVER.MAX_ITER 1 TEST.PRECISE_BN.ENABLED False"
    ).split()
    files = ("MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "second")
    trainer = Trainer(detector_cfg(*options, *files))
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert read_classes(tmp_path / "second") == NAMES[::-1]


def test_a_disk_without_room_for_checkpoints_is_said(parts_cfg, monkeypatch, caplog):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with caplog.at_level(logging.WARNING):
        Trainer(parts_cfg())
    assert "two checkpoints of the run take about" in caplog.text


LOOKS = {"a space": "bolt ", "an invisible space": "bolt\u200b", "full-width letters": "\uff42olt"}


@pytest.mark.parametrize("name", LOOKS.values(), ids=LOOKS)
def test_names_that_look_alike_are_told_apart_in_the_message(name, parts_cfg):
    with pytest.raises(UserError) as error:
        Trainer(parts_cfg(spoil=with_changes("categories", name=name)))
    assert f"'bolt' {ascii(name)}" in " ".join(str(error.value).split())


@pytest.mark.parametrize("name", ["", " ", "bolt\nnut", "\ud800"])
def test_a_name_that_names_nothing_is_refused_in_training_data(name, parts, parts_cfg):
    train = parts("odd", with_changes("categories", name=name))
    with pytest.raises(UserError, match="category 1 has name"):
        Trainer(parts_cfg("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", "()"))


def test_classes_of_one_name_are_said(parts, parts_cfg, caplog):
    train = parts("alike", with_changes("categories", name="nut"))
    Trainer(parts_cfg("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", "()"))
    assert "parts_alike has several classes of one name (nut)" in caplog.text


CANNOT_BE_EVALUATED = {
    "a data set twice": (("DATASETS.TEST", "('parts_val', 'parts_val')"), "names parts_val twice"),
    "augmentation": (("TEST.AUG.ENABLED", True), "TEST.AUG.ENABLED is True"),
    "proposals": (
        ("MODEL.META_ARCHITECTURE", "ProposalNetwork"),
        "proposals, which hotcoco does not evaluate",
    ),
}


@pytest.mark.parametrize("options, message", CANNOT_BE_EVALUATED.values(), ids=CANNOT_BE_EVALUATED)
@pytest.mark.parametrize("look", [Trainer, evaluate], ids=["training", "evaluation"])
def test_an_evaluation_that_cannot_be_is_found_before_any_work(
    look, options, message, parts_cfg, tmp_path
):
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        look(parts_cfg("MODEL.WEIGHTS", tmp_path / "weights.pth", *options))


def test_images_that_count_twice_and_images_that_are_known_are_said(parts_cfg, caplog):
    Trainer(
        parts_cfg(
            "DATASETS.TRAIN", "('parts_train', 'parts_train')", "DATASETS.TEST", "('parts_train',)"
        )
    )
    assert "names parts_train 2 times" in caplog.text
    assert "DATASETS.TRAIN and DATASETS.TEST both name parts_train" in caplog.text


def test_images_that_are_known_under_another_data_sets_name_are_said(parts_cfg, caplog):
    cfg = parts_cfg()
    train = MetadataCatalog.get("parts_train")
    load_dataset("parts_train")
    register_coco_instances("parts_again", {}, train.json_file, train.image_root)
    try:
        check_training(cfg)
        assert "trained on too" not in caplog.text
        check_training(with_options(cfg, ["DATASETS.TEST", "('parts_again',)"]))
    finally:
        DatasetCatalog.remove("parts_again")
        MetadataCatalog.remove("parts_again")
    assert "4 of 4 images of parts_again (DATASETS.TEST) are trained on too, e.g. " in caplog.text


def test_copies_of_training_images_in_a_test_set_are_said(parts_cfg, tmp_path, caplog):
    cfg = parts_cfg()
    shutil.copy(tmp_path / "train/2.png", tmp_path / "val/3.png")
    check_training(cfg)
    assert (
        f"1 of 4 images of parts_val (DATASETS.TEST) are trained on too, e.g. {tmp_path}/val/3.png "
        f"is a copy of {tmp_path}/train/2.png: the model knows them" in caplog.text
    )


@pytest.mark.parametrize("road", ["one path", "copies"])
def test_images_of_two_training_sets_are_said(road, parts, parts_cfg, tmp_path, caplog):
    cfg, again = parts_cfg(), parts("again")
    cfg = with_options(cfg, ["DATASETS.TRAIN", f"('parts_train', '{again}')"])
    check_training(cfg)
    assert "both in DATASETS.TRAIN" not in caplog.text
    if road == "copies":
        shutil.copy(tmp_path / "train/2.png", tmp_path / "again/4.png")
    else:
        path = tmp_path / "again/instances.json"
        path.write_text(path.read_text().replace("4.png", str(tmp_path / "train/2.png")))
    check_training(cfg)
    assert (
        f"1 of 4 images of parts_train are in {again}, too (both in DATASETS.TRAIN), e.g. "
        f"{tmp_path}/train/2.png" in caplog.text
    )


def test_masks_of_a_part_of_the_annotations_are_refused(parts_cfg):
    cfg = parts_cfg(spoil=lambda content: content["annotations"][0].pop("segmentation"))
    with pytest.raises(
        UserError, match=r"1 of 8 annotations of .* have no segmentation, e.g. anno"
    ):
        check_training(cfg)


def test_the_ap_of_a_data_set_without_objects_is_announced_as_nan(parts_cfg, caplog):
    Trainer(parts_cfg(spoil=lambda content: content["annotations"].clear()))
    assert "data set parts_val has 4 images and no object: its AP is NaN" in caplog.text


def test_weights_without_class_names_lead_to_a_warning_in_evaluation(trained, tmp_path, caplog):
    content = torch.load(Path(trained.OUTPUT_DIR) / "model_final.pth")
    del content["classes"]
    torch.save(content, tmp_path / "weights.pth")
    cfg = with_options(
        trained,
        ["MODEL.WEIGHTS", str(tmp_path / "weights.pth"), "OUTPUT_DIR", str(tmp_path / "other")],
    )
    evaluate(cfg)
    assert (
        "weights.pth does not name the classes that it was trained on: check that they are those "
        "of parts_val" in caplog.text
    )


def test_a_picture_under_two_ids_is_said(parts, parts_cfg, caplog):
    parts_cfg()
    load_dataset("parts_train")
    assert "more than one image id" not in caplog.text
    load_dataset(parts("shared", lambda content: content["images"][1].update(file_name="1.png")))
    assert "data set parts_shared: 1 files have more than one image id" in caplog.text


def test_a_config_made_in_python_is_checked_as_one_from_a_file(parts_cfg):
    cfg = parts_cfg()
    cfg.defrost()
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = -1.0
    with pytest.raises(UserError, match="CLIP_VALUE is -1.0, but must be"):
        Trainer(cfg)
