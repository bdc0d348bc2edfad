import copy
import json
import math

import numpy as np
import pytest

import virtex_det as vd
from tests.evaluation.detection.references import (
    as_detections,
    assert_equal_numbers,
    coco_reference,
    jitter,
    lvis_reference,
    ours,
    random_content,
)
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.results_file import (
    Difference,
    differences,
    evaluate_detections,
    evaluate_file,
    tables,
)
from virtex_det.evaluation.detection.voc import Objects, VOCGroundTruth


@pytest.fixture
def case():
    content = random_content(8, images=90, objects=2)
    return content, jitter(content, 8)


def test_a_file_in_any_order_gives_the_numbers_of_a_stream(case):
    content, entries = case
    detections = as_detections(entries).take(np.random.default_rng(0).permutation(len(entries)))
    scores = detections.scores + np.arange(len(entries)) * 1e-9
    results = evaluate_detections(GroundTruth(content, "coco"), detections._replace(scores=scores))
    changed = [
        entry | {"score": score}
        for entry, score in zip(detections.entries(), scores.tolist(), strict=True)
    ]
    for task in ("bbox", "segm"):
        assert_equal_numbers(results[task], ours(content, changed, task), 0)


def test_boxes_alone_give_box_ap_alone(case):
    content, entries = case
    results = evaluate_detections(
        GroundTruth(content, "coco"), as_detections(entries)._replace(rles=None)
    )
    assert list(results) == ["bbox"]


def test_extras_are_asked_for(case):
    content, entries = case
    results = evaluate_detections(
        GroundTruth(content, "coco"), as_detections(entries), extra_max_detections=[7]
    )
    assert {"AP@7", "AR@7"} <= set(results["segm"])


def test_boundary_ap_of_boxes_alone_is_left_out_with_a_warning(case, caplog):
    content, entries = case
    boxes = as_detections(entries)._replace(rles=None)
    assert (
        "boundary-AP"
        not in evaluate_detections(GroundTruth(content, "coco"), boxes, boundary=True)["bbox"]
    )
    assert "no masks, so there is no boundary AP" in caplog.text


@pytest.mark.parametrize("extras", [{"extra_max_detections": [7]}, {"boundary": True}])
def test_extras_that_voc_does_not_have_are_left_out_with_a_warning(extras, caplog):
    objects = Objects(np.zeros(1, np.int64), np.array([[5.0, 5.0, 20.0, 20.0]]), np.zeros(1, bool))
    truth = VOCGroundTruth({"000001": objects}, np.array([[60, 80]]), ["cat"], 2007)
    evaluate_detections(truth, Detections.empty(), **extras)
    assert "VOC has neither" in caplog.text


def test_no_detections_are_an_ap_of_0_that_is_told_of(case, caplog):
    assert evaluate_detections(GroundTruth(case[0], "coco"), Detections.empty())["bbox"]["AP"] == 0
    assert "no detections for" in caplog.text


def test_a_file_for_other_images_is_refused_before_anything_is_measured(case):
    content, entries = copy.deepcopy(case)
    entries[5]["image_id"] = 10**6
    with pytest.raises(UserError, match="has image 1000000"):
        evaluate_detections(GroundTruth(content, "coco"), as_detections(entries))


def test_tables_show_totals_and_categories_of_each_task():
    text = tables(
        {"bbox": {"AP": 12.5, "AP50": 25.0, "AP-cat": 10.0}, "segm": {"AP": 1.5, "AP-cat": 2.0}}
    )
    rows = [line.split() for line in text.splitlines()]
    assert ["AP", "12.500"] in rows and ["cat", "10.000"] in rows and ["cat", "2.000"] in rows
    assert ["bbox,", "by", "category", "AP"] in rows


def test_tables_of_two_runs_show_what_changed_with_the_largest_gain_first():
    these, others = (
        {"bbox": {"AP": ap, "AP-cat": cat, "AP-dog": 5.0}} for ap, cat in ((12.5, 3.0), (10.0, 4.0))
    )
    rows = [line.split() for line in tables(these, others).splitlines()]
    assert ["AP", "12.500", "10.000", "2.500"] in rows
    assert rows.index(["dog", "5.000", "5.000", "0.000"]) < rows.index(
        ["cat", "3.000", "4.000", "-1.000"]
    )


def test_categories_that_look_like_numbers_keep_their_names():
    named = {
        "AP": 12.5,
        **{f"AP-{name}": 50.0 for name in ("007", "1e3", "nan", "1_0", "-0", "0x1f")},
    }
    for text in (tables({"bbox": named}), tables({"bbox": named}, {"bbox": named})):
        rows = [line.split()[:2] for line in text.splitlines()]
        assert all([name, "50.000"] in rows for name in ("007", "1e3", "nan", "1_0", "-0", "0x1f"))


OTHER_BOXES = {
    "fractions": (lambda box: [value / 1000 for value in box], "lie between 0 and 1"),
    "corners": (
        lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]],
        "would fit as corners",
    ),
}


@pytest.mark.parametrize(("change", "message"), OTHER_BOXES.values(), ids=OTHER_BOXES)
def test_boxes_of_another_form_are_refused(change, message):
    box = [60.0, 60.0, 20.0, 20.0]
    content = random_content(8, images=2, objects=2)
    for image in content["images"]:
        image.update(height=100, width=100)
    content["annotations"] = []
    entry = {
        "image_id": content["images"][0]["id"],
        "category_id": content["categories"][0]["id"],
        "score": 0.5,
    }
    truth = GroundTruth(content, "coco")
    evaluate_detections(truth, as_detections([entry | {"bbox": box}]))
    with pytest.raises(UserError, match=message):
        evaluate_detections(truth, as_detections([entry | {"bbox": change(box)}]))


def test_detections_that_stand_twice_are_said(case, caplog):
    content, entries = case
    evaluate_detections(GroundTruth(content, "coco"), as_detections(entries))
    assert "are there twice" not in caplog.text
    evaluate_detections(GroundTruth(content, "coco"), as_detections([*entries, *entries]))
    assert f"{len(entries)} of {2 * len(entries)} detections are repeated" in caplog.text


def test_results_of_a_part_of_the_images_are_a_warning(case, tmp_path, caplog):
    content, entries = case
    truth, path = GroundTruth(content, "coco", "truth.json"), tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    evaluate_file(truth, path)
    assert "detections in" not in caplog.text
    first = entries[0]["image_id"]
    path.write_text(json.dumps([entry for entry in entries if entry["image_id"] == first]))
    evaluate_file(truth, path)
    images = len(content["images"])
    assert f"has detections in 1 of the {images} images of truth.json, and all" in caplog.text


def test_differences_come_as_totals_then_categories_by_what_was_gained():
    these = {
        "AP": 10.0,
        "AP50": 20.0,
        "AP-cat": 1.0,
        "AP-dog": math.nan,
        "AP-cow": 9.0,
        "AP-new": 3.0,
    }
    others = {"AP50": 18.0, "AP": 12.0, "AP-cat": 4.0, "AP-dog": 1.0, "AP-cow": 2.0}
    rows = differences(these, others)
    assert [row.name for row in rows] == ["AP", "AP50", "AP-cow", "AP-cat", "AP-dog"]
    assert rows[0] == Difference("AP", 10.0, 12.0) and rows[0].change == -2
    assert math.isnan(rows[-1].change)


# --- virtex_det.evaluate


@pytest.fixture
def written(case, tmp_path):
    content, entries = case
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    return tmp_path


@pytest.mark.parametrize("as_text", [str, lambda path: path])
def test_files_and_entries_give_the_numbers_of_pycocotools(case, written, as_text):
    content, entries = case
    from_file = vd.evaluate(as_text(written / "results.json"), as_text(written / "truth.json"))
    from_entries = vd.evaluate(entries, as_text(written / "truth.json"))
    for task in ("bbox", "segm"):
        assert_equal_numbers(from_file[task], coco_reference(content, entries, task), 1e-9)
        assert_equal_numbers(from_entries[task], from_file[task], 0)


def test_lvis_is_told_by_its_content(tmp_path):
    content = random_content(1, style="lvis")
    entries = jitter(content, 1)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    results = vd.evaluate(entries, tmp_path / "truth.json")
    assert_equal_numbers(results["bbox"], lvis_reference(content, entries, "bbox", tmp_path), 1e-9)
    with pytest.raises(UserError, match="iscrowd"):
        vd.evaluate(entries, tmp_path / "truth.json", style="coco")


def test_a_data_set_is_named(scenes):
    from detectron2.data import MetadataCatalog

    objects = json.loads((scenes / "annotations" / "instances_val.json").read_text())["annotations"]
    found = [{**entry, "score": 0.5} for entry in objects]
    by_name, by_file = (
        vd.evaluate(found, name)
        for name in ("scenes_val", MetadataCatalog.get("scenes_val").json_file)
    )
    assert by_name["bbox"]["AP"] == by_file["bbox"]["AP"] == pytest.approx(100)


def test_results_of_another_data_set_are_refused(case, written):
    _, entries = case
    with pytest.raises(UserError, match="has image 100001, which the annotations do not have"):
        vd.evaluate([entry | {"image_id": 100001} for entry in entries], written / "truth.json")
    with pytest.raises(UserError, match="has category 4321, which the annotations do not have"):
        vd.evaluate([entry | {"category_id": 4321} for entry in entries], written / "truth.json")


def test_no_entries_are_an_ap_of_0(written):
    assert vd.evaluate([], written / "truth.json")["bbox"]["AP"] == 0


@pytest.mark.parametrize(
    ("results", "annotations", "message"),
    [
        ("results.json", "gone.json", "gone.json does not exist"),
        ("gone.json", "truth.json", "gone.json does not exist"),
        ("results.json", "coco_2071_val", "coco_2071_val"),
        ("truth.json", "truth.json", "is not a list of detections"),
        ("results.json", "results.json", "expected the lists images, annotations, categories"),
        ([7], "truth.json", "entry 0 of the results is a int; expected entries in COCO.* to_coco"),
    ],
)
def test_files_in_the_wrong_place_are_refused(results, annotations, message, written, monkeypatch):
    monkeypatch.chdir(written)
    with pytest.raises(UserError, match=message):
        vd.evaluate(results, annotations)


@pytest.mark.parametrize("annotations", [None, 3, b"x.json", {}, ["x.json"]])
def test_anything_but_a_name_of_annotations_is_refused(annotations):
    with pytest.raises(UserError, match="The annotation file or data set is given as a"):
        vd.evaluate([], annotations)
