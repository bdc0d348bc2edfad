import numpy as np
import pytest

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections, from_entries
from virtex_det.evaluation.detection.diagnosis import diagnose, in_coco_form
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.voc import Objects, VOCGroundTruth

BOX, FAR, WHOLE = [10, 10, 20, 20], [70, 70, 10, 10], [0, 0, 100, 100]


def labelled(number, image, category, box, crowd=0):
    area = box[2] * box[3]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": area,
        "iscrowd": crowd,
    }


def found(image, category, box, score=0.9):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def truth_of(*annotations, style="coco", **fields):
    images = [{"id": number, "height": 100, "width": 100, **fields} for number in (1, 2)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    if style == "lvis":
        categories = [category | {"frequency": "f"} for category in categories]
    content = {"images": images, "annotations": [*annotations], "categories": categories}
    return GroundTruth(content, style)


@pytest.mark.parametrize(
    ("kind", "detections"),
    [
        ("Cls", [found(1, 2, BOX)]),
        ("Loc", [found(1, 1, [20, 10, 20, 20])]),
        ("Both", [found(1, 2, [20, 10, 20, 20])]),
        ("Dupe", [found(1, 1, BOX), found(1, 1, BOX, 0.8)]),
        ("Bkg", [found(1, 1, BOX), found(1, 1, FAR)]),
        ("Miss", [found(2, 1, FAR)]),
    ],
)
def test_each_kind_of_error_is_told(kind, detections):
    truth = truth_of(labelled(1, 1, 1, BOX))
    kinds = diagnose(truth, from_entries(detections)).kinds
    assert kinds[kind].errors == 1
    assert {name for name, each in kinds.items() if each.errors} <= {kind, "Bkg", "Miss"}


def test_a_confused_class_is_a_pair_and_a_false_alarm_and_a_missed_object_of_its_image():
    truth = truth_of(labelled(1, 1, 1, BOX), labelled(2, 2, 2, BOX))
    diagnosis = diagnose(truth, from_entries([found(1, 2, BOX), found(2, 2, BOX)]))
    assert diagnosis.confusion.pairs() == [("cat", "dog", 1)]
    assert diagnosis.images == {1: (0, 1, 1), 2: (1, 0, 0)}


def test_a_detection_in_a_crowd_is_no_error():
    truth = truth_of(labelled(1, 1, 1, BOX), labelled(2, 2, 1, WHOLE, crowd=1))
    diagnosis = diagnose(truth, from_entries([found(1, 1, BOX), found(2, 1, BOX)]))
    assert diagnosis.images == {1: (1, 0, 0), 2: (0, 0, 0)}
    assert diagnosis.confusion.matrix.sum() == 1 and diagnosis.ap == pytest.approx(100)


def test_the_threshold_is_where_f1_is_highest_unless_it_is_given():
    truth = truth_of(labelled(1, 1, 1, BOX), labelled(2, 2, 1, BOX))
    scores = [(1, BOX, 0.8), (2, BOX, 0.306), (1, FAR, 0.2), (2, FAR, 0.1)]
    detections = from_entries([found(image, 1, box, score) for image, box, score in scores])
    assert diagnose(truth, detections).threshold == 0.3
    diagnosis = diagnose(truth, detections, threshold=0.15)
    assert diagnosis.images == {1: (1, 1, 0), 2: (1, 0, 0)}


def test_without_detections_all_objects_are_missed():
    diagnosis = diagnose(truth_of(labelled(1, 1, 1, BOX)), Detections.empty())
    assert diagnosis.images[1] == (0, 0, 1)
    assert diagnosis.kinds["Miss"].errors == 1 and diagnosis.ap == 0


def test_detections_of_other_data_or_without_masks_are_refused():
    truth = truth_of(labelled(1, 1, 1, BOX))
    with pytest.raises(UserError, match="another dataset"):
        diagnose(truth, from_entries([found(7, 1, BOX)]))
    with pytest.raises(UserError, match="no masks"):
        diagnose(truth, from_entries([found(1, 1, BOX)]), task="segm")


def test_lvis_images_judge_only_the_classes_that_they_are_labelled_for():
    sets = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth = truth_of(labelled(1, 1, 1, BOX), style="lvis", **sets)
    diagnosis = diagnose(truth, from_entries([found(1, 1, BOX), found(1, 2, FAR)]))
    assert diagnosis.images[1] == (1, 0, 0)


def test_vocs_boxes_keep_their_place_and_difficult_objects_do_not_count():
    objects = Objects(
        np.array([0, 1]), np.array([[11.0, 11, 30, 30], [1, 1, 100, 100]]), np.array([False, True])
    )
    voc = VOCGroundTruth({"a": objects}, np.array([[100, 100]]), ("cat", "dog"), 2007)
    truth = in_coco_form(voc)
    assert [entry["bbox"] for entry in truth.annotations_of(0)] == [BOX, WHOLE]
    assert truth.image_key("a") == 0
    diagnosis = diagnose(truth, from_entries([found(0, 0, BOX)]))
    assert diagnosis.images == {0: (1, 0, 0)}
