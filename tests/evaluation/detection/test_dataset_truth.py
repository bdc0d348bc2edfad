import json

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from virtex_det.data.datasets import load_dataset
from virtex_det.evaluation.detection.dataset_truth import annotation_file, class_ids, read_truth


def test_truth_is_read_from_the_datasets_own_file(scenes, tmp_path):
    truth = read_truth("scenes_val", tmp_path)
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    assert set(truth.images) == {image["id"] for image in content["images"]}
    assert annotation_file("scenes_val", tmp_path) == str(scenes / "annotations" / "instances_val.json")


def test_a_dataset_without_a_file_gets_one_of_its_dicts_as_they_are_now(tmp_path):
    dicts = [{"file_name": "", "image_id": 1, "height": 10, "width": 10, "annotations": []}]
    DatasetCatalog.register("dicts_without_a_file", lambda: dicts)
    MetadataCatalog.get("dicts_without_a_file").set(evaluator_type="coco", thing_classes=["a"])
    assert len(read_truth("dicts_without_a_file", tmp_path).annotations_of(1)) == 0
    box = {"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    dicts[0]["annotations"].append(box)
    assert len(read_truth("dicts_without_a_file", tmp_path).annotations_of(1)) == 1


def test_real_samples_of_every_kind_are_read(samples, tmp_path):
    folder = samples / "voc_mini" / "VOC2007"
    MetadataCatalog.get("voc_of_truth").set(
        dirname=str(folder), split="test", year=2007, thing_classes=["cat", "dog"], evaluator_type="pascal_voc"
    )
    assert len(read_truth("voc_of_truth", tmp_path).images) == 35
    lvis = samples / "lvis_100" / "annotations" / "lvis_val_9_with_images.json"
    MetadataCatalog.get("lvis_of_truth").set(json_file=str(lvis), evaluator_type="lvis")
    assert read_truth("lvis_of_truth", tmp_path).has_masks


def test_classes_have_the_ids_of_the_annotation_file(scenes):
    load_dataset("scenes_val")
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    assert class_ids(MetadataCatalog.get("scenes_val")).tolist() == sorted(c["id"] for c in content["categories"])
    assert class_ids(MetadataCatalog.get("coco_2017_val"))[[0, 11, 79]].tolist() == [1, 13, 90]


def test_without_a_mapping_lvis_counts_from_one_and_others_from_zero():
    for kind, wanted in (("lvis", [1, 2, 3]), ("coco", [0, 1, 2]), ("pascal_voc", [0, 1, 2])):
        MetadataCatalog.get(f"unmapped_{kind}").set(evaluator_type=kind, thing_classes=["a", "b", "c"])
        assert class_ids(MetadataCatalog.get(f"unmapped_{kind}")).tolist() == wanted
