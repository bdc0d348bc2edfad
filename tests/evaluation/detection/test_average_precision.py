import copy
import json
import logging
import math
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.cocoeval import COCOeval

from tests.evaluation.detection.references import (
    as_detections,
    assert_equal_numbers,
    coco_reference,
    encode,
    jitter,
    lvis_reference,
    ours,
    random_content,
    run_coco,
)
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth

TASKS = ("bbox", "segm")


@pytest.fixture(scope="session")
def coco_mini(samples):
    content = json.loads(
        (samples / "coco_mini" / "annotations" / "instances_val2017.json").read_text()
    )
    return content, jitter(content, seed=0)


@pytest.fixture(scope="session")
def lvis_100(samples):
    content = json.loads((samples / "lvis_100" / "annotations" / "lvis_val_100.json").read_text())
    return content, jitter(content, seed=0)


@pytest.fixture
def objects():
    """Annotations of five images and detections of their objects, with masks."""
    content = random_content(3, images=5, categories=3, objects=6)
    return content, jitter(content, seed=3)


def overall(numbers):
    return {name: value for name, value in numbers.items() if not name.startswith("AP-")}


@pytest.mark.parametrize("task", TASKS)
def test_real_coco_gives_pycocotools_numbers(coco_mini, task):
    found, expected = ours(*coco_mini, task), coco_reference(*coco_mini, task)
    assert 30 < expected["AP"] < 60 and len(expected) == 12 + 80
    assert_equal_numbers(found, expected)


@pytest.mark.parametrize("task", TASKS)
def test_real_lvis_gives_lvis_numbers(lvis_100, task, tmp_path):
    found, expected = ours(*lvis_100, task, "lvis"), lvis_reference(*lvis_100, task, tmp_path)
    assert 30 < expected["AP"] < 60 and expected["APr"] > 0 and len(expected) == 13 + 1230
    assert_equal_numbers(found, expected)


@pytest.mark.parametrize("task", TASKS)
def test_lvis_v1_whose_images_have_no_file_name(lvis_100, task, tmp_path):
    content, entries = copy.deepcopy(lvis_100)
    content["images"] = [
        {name: value for name, value in image.items() if name != "file_name"}
        for image in content["images"][:20]
    ]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [
        entry for entry in content["annotations"] if entry["image_id"] in kept
    ]
    entries = [entry for entry in entries if entry["image_id"] in kept]
    found = ours(content, entries, task, "lvis")
    assert_equal_numbers(found, lvis_reference(content, entries, task, tmp_path))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(6))
def test_random_crowds_ignored_and_tied_objects_without_area_as_pycocotools(seed, task):
    content = random_content(seed)
    entries = jitter(content, seed, per_object=4)
    assert_equal_numbers(ours(content, entries, task), coco_reference(content, entries, task))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(6))
def test_random_negative_and_not_exhaustive_sets_as_lvis(seed, task, tmp_path):
    content = random_content(seed, style="lvis")
    entries = jitter(content, seed, per_object=4)
    assert_equal_numbers(
        ours(content, entries, task, "lvis"), lvis_reference(content, entries, task, tmp_path)
    )


@pytest.mark.parametrize("task", TASKS)
def test_scores_that_are_all_equal_keep_the_order_of_images_and_entries(objects, task):
    content, entries = objects
    entries = [entry | {"score": 0.5} for entry in entries]
    assert_equal_numbers(ours(content, entries, task), coco_reference(content, entries, task))


def test_the_order_in_which_images_come_does_not_matter(objects):
    content, entries = objects
    backwards = [image["id"] for image in content["images"]][::-1]
    assert_equal_numbers(
        ours(content, entries, "segm", shown=backwards), ours(content, entries, "segm"), 0
    )


def test_more_than_a_hundred_boxes_of_a_category(objects):
    content, entries = objects
    image_id, category_id = (
        content["annotations"][0][name] for name in ("image_id", "category_id")
    )
    random = np.random.default_rng(0)
    entries += [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [*random.uniform(0, 20, 2), *random.uniform(5, 20, 2)],
            "score": score,
            "segmentation": encode(np.ones((48, 48))),
        }
        for score in random.integers(1, 20, 250) / 20
    ]
    assert_equal_numbers(ours(content, entries, "bbox"), coco_reference(content, entries, "bbox"))


@pytest.mark.parametrize("task", TASKS)
def test_lvis_keeps_the_300_best_of_an_image_and_of_equals_the_first(task, tmp_path):
    content = random_content(1, style="lvis", images=3, objects=6)
    entries = jitter(content, 1, per_object=90)
    assert max(np.bincount([entry["image_id"] for entry in entries])) > 300
    found = ours(content, entries, task, "lvis")
    assert_equal_numbers(found, lvis_reference(content, entries, task, tmp_path))
    without_the_cut = ours(content, entries, task, "lvis", max_detections=10000)
    assert overall(found) != overall(without_the_cut)


@pytest.mark.parametrize("own_masks", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_lvis_leaves_out_what_has_no_area_after_the_cut(task, own_masks, tmp_path):
    content = random_content(2, style="lvis", images=3, objects=6)
    entries = jitter(content, 2, per_object=60)
    for entry in entries[::3]:
        entry |= {
            "segmentation": encode(np.zeros((48, 48))),
            "score": 1.0,
            "bbox": [3.0, 3.0, 0.0, 4.0],
        }
    found = ours(content, entries, task, "lvis", own_masks=own_masks)
    assert_equal_numbers(found, lvis_reference(content, entries, task, tmp_path))


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_masks_of_our_own_give_the_numbers_of_others(style):
    content = random_content(4, style=style, images=4, objects=6)
    entries = jitter(content, seed=4)
    found, expected = (
        ours(content, entries, "segm", style, own_masks=own) for own in (True, False)
    )
    assert_equal_numbers(found, expected)


@pytest.mark.parametrize("task", TASKS)
def test_no_detections_at_all_are_an_ap_of_0_where_pycocotools_fails(objects, task):
    content, _ = objects
    numbers = ours(content, [], task)
    with pytest.raises(IndexError):
        coco_reference(content, [], task)
    present = {entry["category_id"] for entry in content["annotations"] if not entry["iscrowd"]}
    absent = {category["id"] for category in content["categories"]} - present
    assert numbers["AP"] == numbers["AR100"] == 0
    assert all(numbers[f"AP-class {category_id}"] == 0 for category_id in present)
    assert all(math.isnan(numbers[f"AP-class {category_id}"]) for category_id in absent) and absent


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_images_that_were_never_shown_count_as_without_detections(style):
    content = random_content(4, style=style)
    entries = jitter(content, 4)
    shown = [image["id"] for image in content["images"]][:3]
    entries = [entry for entry in entries if entry["image_id"] in shown]
    assert_equal_numbers(
        ours(content, entries, "bbox", style, shown=shown), ours(content, entries, "bbox", style), 0
    )


def test_categories_that_the_annotations_do_not_use_are_nan(objects):
    content, entries = objects
    content["categories"].append({"id": 99, "name": "unused"})
    numbers = ours(content, entries, "bbox")
    assert math.isnan(numbers["AP-unused"]) and not math.isnan(numbers["AP"])


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_names_are_those_of_the_numbers(style):
    truth = GroundTruth(random_content(3, images=5, categories=3, objects=6, style=style), style)
    metric = AveragePrecision(truth, "segm", extra_max_detections=(7,))
    assert {"AP", "APs", "AP@7"} < set(metric.names())
    assert metric.names() == list(metric.result())


def test_names_of_boundary_ap_are_known_before_it_is_measured(objects):
    pytest.importorskip("faster_coco_eval", reason="boundary AP needs the extra [boundary]")
    content, entries = objects
    names = AveragePrecision(GroundTruth(content, "coco"), "segm", boundary=True).names()
    assert names == list(ours(content, entries, "segm", boundary=True))


def test_ids_of_many_digits(objects):
    content, entries = objects
    for image in content["images"]:
        image["id"] += 10**12
    for entry in content["annotations"] + entries:
        entry["image_id"] += 10**12
    for entry in content["annotations"]:
        entry["id"] += 10**12
    assert_equal_numbers(ours(content, entries, "segm"), coco_reference(content, entries, "segm"))


@pytest.mark.parametrize("task", TASKS)
def test_ap_at_other_numbers_of_detections_as_pycocotools(objects, task):
    content, entries = objects
    numbers = ours(content, entries, task, extra_max_detections=(2, 300))
    expected = run_coco(content, entries, task, (1, 2, 10, 100, 300)).eval
    for limit, place in ((2, 1), (300, 4)):
        precision, recall = (
            expected["precision"][:, :, :, 0, place],
            expected["recall"][:, :, 0, place],
        )
        assert numbers[f"AP@{limit}"] == pytest.approx(
            100 * precision[precision > -1].mean(), abs=1e-9
        )
        assert numbers[f"AR@{limit}"] == pytest.approx(100 * recall[recall > -1].mean(), abs=1e-9)
    assert numbers["AP@2"] < numbers["AP"]
    assert_equal_numbers(numbers, coco_reference(content, entries, task))


def test_ap_at_other_numbers_of_detections_as_lvis(tmp_path):
    content = random_content(5, style="lvis")
    entries = jitter(content, 5)
    numbers = ours(content, entries, "segm", "lvis", extra_max_detections=(4,))
    expected = lvis_reference(content, entries, "segm", tmp_path, limit=4)
    assert (
        numbers["AP@4"] == pytest.approx(expected["AP"], abs=1e-9)
        and numbers["AP@4"] < numbers["AP"]
    )
    assert numbers["AR@4"] == pytest.approx(expected["AR@4"], abs=1e-9)
    assert_equal_numbers(numbers, lvis_reference(content, entries, "segm", tmp_path))


@pytest.mark.parametrize("style", ["coco", "lvis"])
@pytest.mark.parametrize("task", TASKS)
def test_states_of_several_processes_merge_into_the_numbers_of_one(style, task):
    content = random_content(6, style=style)
    entries = jitter(content, 6)
    truth, detections = GroundTruth(content, style), as_detections(entries)
    image_ids = [image["id"] for image in content["images"]]
    states = []
    for rank in range(3):
        metric = AveragePrecision(truth, task, extra_max_detections=(5,))
        metric.update(
            image_ids[rank::3], detections.take(np.isin(detections.image_ids, image_ids[rank::3]))
        )
        states.append(metric.state())
    merged = AveragePrecision(truth, task, extra_max_detections=(5,))
    merged.merge_states(reversed(states))
    assert_equal_numbers(
        merged.result(), ours(content, entries, task, style, extra_max_detections=(5,)), 0
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_detection_costs_some_tens_of_bytes(task):
    content = random_content(6, images=4)
    entries = jitter(content, 6, per_object=60)
    sizes = []
    for part in (entries[::4], entries):
        metric, detections = (
            AveragePrecision(GroundTruth(content, "coco"), task),
            as_detections(part),
        )
        metric.update([image["id"] for image in content["images"]], detections)
        sizes.append(len(metric.state()))
    assert (sizes[1] - sizes[0]) / (len(entries) - len(entries[::4])) < 60


def test_warnings_of_several_processes_are_counted_together(objects, caplog):
    content, entries = objects
    truth = GroundTruth(content, "coco")
    states = []
    for image in content["images"][:2]:
        metric = AveragePrecision(truth, "bbox")
        outside = as_detections(
            [entries[0] | {"image_id": image["id"], "bbox": [-9.0, 0.0, 5.0, 5.0]}]
        )
        metric.update([image["id"]], outside)
        states.append(metric.state())
    merged = AveragePrecision(truth, "bbox")
    merged.merge_states(states)
    with caplog.at_level(logging.WARNING):
        merged.result()
        merged.result()
    told = [record.message for record in caplog.records if "outside its image" in record.message]
    assert (
        len(told) == 1
        and "2 x box more than 1 pixel" in told[0]
        and str(content["images"][0]["id"]) in told[0]
    )


def test_numbers_can_be_asked_for_in_the_middle(objects):
    content, entries = objects
    truth, detections = GroundTruth(content, "coco"), as_detections(entries)
    metric = AveragePrecision(truth, "bbox")
    for image in content["images"]:
        metric.update([image["id"]], detections.take(detections.image_ids == image["id"]))
        metric.result()
    assert_equal_numbers(metric.result(), ours(content, entries, "bbox"), 0)


def test_an_image_that_comes_twice_is_an_error(objects):
    content, entries = objects
    truth, image_id = GroundTruth(content, "coco"), content["images"][0]["id"]
    metric = AveragePrecision(truth, "bbox")
    metric.update([image_id], Detections.empty())
    state = metric.state()
    with pytest.raises(UserError, match=f"image {image_id} was evaluated twice"):
        metric.update([image_id], Detections.empty())
        metric.result()
    with pytest.raises(UserError, match=f"image {image_id} was evaluated twice"):
        AveragePrecision(truth, "bbox").merge_states([state, state])


def test_an_object_with_id_0_counts_and_is_told_of_where_pycocotools_never_matches_it(caplog):
    boxes = [[10.0 * place, 0.0, 8.0, 8.0] for place in range(5)]
    content = {
        "images": [{"id": 1, "height": 50, "width": 50}],
        "annotations": [
            {"id": place, "image_id": 1, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0}
            for place, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    entries = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - place / 10}
        for place, box in enumerate(boxes)
    ]
    assert coco_reference(content, entries, "bbox")["AP"] < 70
    with caplog.at_level(logging.WARNING):
        assert ours(content, entries, "bbox")["AP"] == 100
    assert "1 x annotation with id 0" in caplog.text


def test_boxes_of_negative_size_are_told_of_and_count_as_in_pycocotools(objects, caplog):
    content, entries = objects
    for entry in entries[::4]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x + width, y, -width, height]
    expected = coco_reference(content, entries, "bbox")
    with caplog.at_level(logging.WARNING):
        assert_equal_numbers(ours(content, entries, "bbox"), expected)
    assert f"{len(entries[::4])} x box of negative width" in caplog.text


def test_boxes_alone_have_no_mask_ap(objects):
    content, entries = objects
    boxes = [
        {name: entry[name] for name in ("image_id", "category_id", "bbox", "score")}
        for entry in entries
    ]
    with pytest.raises(UserError, match="no masks"):
        ours(content, boxes, "segm")


@pytest.mark.parametrize("options", [{"max_detections": 0}, {"extra_max_detections": (-1,)}])
def test_a_limit_below_1_is_an_error(objects, options):
    with pytest.raises(UserError, match="must be from 1 to"):
        AveragePrecision(GroundTruth(objects[0], "coco"), "bbox", **options)


def test_images_without_annotations_cannot_be_measured(objects):
    content = {name: objects[0][name] for name in ("images", "categories")}
    with pytest.raises(UserError, match="nothing to measure"):
        AveragePrecision(GroundTruth(content, "coco"), "bbox")


class BoundaryReference(COCOeval):
    """The paper's IoU: the smaller of that of masks and of their boundaries, 2 % of the diagonal
    wide.
    """

    def computeIoU(self, image_id, category_id):
        masks = super().computeIoU(image_id, category_id)
        if not len(masks):
            return masks
        found = sorted(self._dts[image_id, category_id], key=lambda entry: -entry["score"])
        there = self._gts[image_id, category_id]
        boundaries = [
            [self.boundary(entry["segmentation"]) for entry in side] for side in (found, there)
        ]
        is_crowd = [int(entry["iscrowd"]) for entry in there]
        return np.where(is_crowd, masks, np.minimum(masks, mask_tools.iou(*boundaries, is_crowd)))

    @staticmethod
    def boundary(rle):
        mask = mask_tools.decode(rle)
        width = max(1, round(0.02 * np.hypot(*mask.shape)))
        bordered = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        inside = cv2.erode(bordered, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        return mask_tools.encode(np.asfortranarray(mask - inside))


def test_boundary_ap_is_the_papers(objects):
    pytest.importorskip("faster_coco_eval", reason="boundary AP needs the extra [boundary]")
    content, entries = objects
    numbers = ours(content, entries, "segm", boundary=True)
    expected = coco_reference(content, entries, "segm", BoundaryReference)
    for name in ("AP", "AP50", "AP75", "APs"):
        assert numbers[f"boundary-{name}"] == pytest.approx(expected[name], abs=1e-9)
    assert 0 < numbers["boundary-AP"] < numbers["AP"]


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_boundary_ap_of_several_processes_is_that_of_one(style):
    pytest.importorskip("faster_coco_eval", reason="boundary AP needs the extra [boundary]")
    content = random_content(7, style=style, images=4)
    entries = jitter(content, 7)
    truth, detections = GroundTruth(content, style), as_detections(entries)
    merged = AveragePrecision(truth, "segm", boundary=True)
    states = []
    for image in content["images"]:
        metric = AveragePrecision(truth, "segm", boundary=True)
        metric.update([image["id"]], detections.take(detections.image_ids == image["id"]))
        states.append(metric.state())
    merged.merge_states(states)
    assert_equal_numbers(
        merged.result(), ours(content, entries, "segm", style, boundary=True), 1e-12
    )


def test_boundary_ap_counts_an_object_with_id_0(objects):
    pytest.importorskip("faster_coco_eval", reason="boundary AP needs the extra [boundary]")
    content, _ = objects
    content["annotations"] = [content["annotations"][2] | {"id": 0, "iscrowd": 0}]
    entries = [content["annotations"][0] | {"score": 1.0}]
    assert ours(content, entries, "segm", boundary=True)["boundary-AP"] == pytest.approx(100)


def test_boundary_ap_without_its_library_says_what_to_install(objects, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"pip install 'virtex_det\[boundary\]'"):
        AveragePrecision(GroundTruth(objects[0], "coco"), "segm", boundary=True)
