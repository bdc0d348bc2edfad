"""Every case in which COCO's libraries differ, are silent, hang or crash, each under its name."""

import json
import logging
import math

import numpy as np
import pytest

from tests.evaluation.detection.references import as_detections, encode
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import read_detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.results_file import evaluate_detections
from virtex_det.evaluation.detection.validation import Findings, check_detections

NAN, INFINITY = math.nan, math.inf
SQUARE = [2.0, 2.0, 10.0, 2.0, 10.0, 10.0, 2.0, 10.0]


def square(height=20, width=30):
    mask = np.zeros((height, width))
    mask[2:10, 2:10] = 1
    return encode(mask)


def content(**annotation):
    """Annotations of two images with an object each; the second object can be changed."""
    images = [{"id": image_id, "height": 20, "width": 30} for image_id in (5, 6)]
    usual = {
        "category_id": 3,
        "bbox": [2.0, 2.0, 8.0, 8.0],
        "area": 64.0,
        "iscrowd": 0,
        "segmentation": [SQUARE],
    }
    changed = {"id": 12, "image_id": 6, **usual, **annotation}
    annotations = [{"id": 11, "image_id": 5, **usual}, changed]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "thing"}],
    }


def entry(**changed):
    usual = {"category_id": 3, "score": 0.5, "bbox": [2.0, 2.0, 8.0, 8.0], "segmentation": square()}
    return {"image_id": 6, **usual, **changed}


def without(name):
    return {key: value for key, value in entry().items() if key != name}


def evaluate(tmp_path, entries, truth=None):
    """Evaluate a results file as tools/evaluate.py does; it may hold Python's NaN."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    return evaluate_detections(
        GroundTruth(truth or content(), "coco", "annotations.json"), read_detections(path)
    )


def test_what_the_cases_change_is_whole(tmp_path):
    results = evaluate(tmp_path, [entry(image_id=5), entry()])
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 100


BROKEN_RESULTS = {
    "a score of NaN": (entry(score=NAN), "image 6, category 3, score nan.*expected a finite score"),
    "an infinite score": (entry(score=INFINITY), "score inf.*expected a finite score"),
    "a score that is text": (entry(score="high"), "entry 1 .image 6. has score 'high'"),
    "a box with NaN": (entry(bbox=[2.0, NAN, 8.0, 8.0]), "image 6.*expected four finite numbers"),
    "an infinite box": (
        entry(bbox=[2.0, 2.0, INFINITY, 8.0]),
        "image 6.*expected four finite numbers",
    ),
    "a box of three numbers": (entry(bbox=[2.0, 2.0, 8.0]), r"entry 1 has bbox \[2.0, 2.0, 8.0\]"),
    "an unknown category id": (
        entry(category_id=4),
        "has category 4, which the annotations do not have",
    ),
    "an unknown image id": (
        entry(image_id=7),
        "has image 7, which the annotations do not have .2 known, 5 to 6",
    ),
    "an image id that is not an integer": (
        entry(image_id=6.5),
        "entry 1 .image 6.5. has image_id 6.5",
    ),
    "an image id beyond 64 bits": (
        entry(image_id=2**63),
        "entry 1 .image 9223372036854775808. has image_id",
    ),
    "no image id": (without("image_id"), "entry 1 .image None. has no image_id"),
    "no category id": (without("category_id"), "entry 1 .image 6. has no category_id"),
    "no score": (without("score"), "entry 1 .image 6. has no score"),
    "no segmentation where others have one": (
        without("segmentation"),
        "entry 1 .image 6. has segmentation None",
    ),
    "a polygon for a mask": (
        entry(segmentation=[SQUARE]),
        "entry 1 .image 6. has segmentation .*run lengths",
    ),
    "run lengths that are cut short": (
        entry(segmentation=square() | {"counts": square()["counts"][:-3]}),
        "image 6.*(truncated|add up to|longer than)",
    ),
    "run lengths cut within a number": (
        entry(segmentation={"size": [20, 30], "counts": "Z"}),
        "image 6.*a truncated mask",
    ),
    "run lengths that are too long": (
        entry(segmentation=square() | {"counts": square()["counts"] + "52"}),
        "image 6.*runs add up to .*expected 20 x 30 = 600",
    ),
    "run lengths with foreign characters": (
        entry(segmentation={"size": [20, 30], "counts": "abc~"}),
        "image 6.*invalid characters",
    ),
    "run lengths without end": (
        entry(segmentation={"size": [20, 30], "counts": "o" * 50 + "0"}),
        "longer than any",
    ),
    "no run lengths": (
        entry(segmentation={"size": [20, 30], "counts": ""}),
        "image 6.*has no runs",
    ),
    "run lengths that no text has": (
        entry(segmentation={"size": [20, 30], "counts": "\ud800"}),
        "image 6.*invalid characters",
    ),
    "a size of text": (
        entry(segmentation=square() | {"size": ["20", "30"]}),
        "entry 1 .image 6. has segmentation",
    ),
    "a size of floats": (
        entry(segmentation=square() | {"size": [20.0, 30.0]}),
        "entry 1 .image 6. has segmentation",
    ),
    "a size of one number": (
        entry(segmentation=square() | {"size": [600]}),
        "entry 1 .image 6. has segmentation",
    ),
    "a size without box": (
        without("bbox") | {"segmentation": square() | {"size": [None, 30]}},
        "entry 1 .image 6. has",
    ),
    "a negative run": (
        entry(segmentation={"size": [20, 30], "counts": "O" + "j3"}),
        "image 6.*negative length",
    ),
    "a mask of another size": (
        entry(segmentation=square(30, 20)),
        r"size \[30, 20\]; its image has .* \[20, 30\]",
    ),
}


@pytest.mark.parametrize("case", BROKEN_RESULTS)
def test_a_results_file_is_refused_for(case, tmp_path):
    broken, message = BROKEN_RESULTS[case]
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path, [entry(image_id=5), broken])


def test_an_entry_without_box_and_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match="entry 0 has neither bbox nor segmentation .1 such"):
        evaluate(tmp_path, [{"image_id": 6, "category_id": 3, "score": 0.5}])


def test_a_broken_mask_that_has_to_give_its_box_is_refused(tmp_path):
    broken = without("bbox") | {"segmentation": square() | {"counts": "Z"}}
    with pytest.raises(UserError, match="entry 1 has a truncated mask"):
        evaluate(tmp_path, [entry(), broken])


BROKEN_MASKS = {
    "a polygon with NaN": ([[*SQUARE[:-1], NAN]], "annotation 12 has nan in a polygon"),
    "an infinite polygon": ([[*SQUARE[:-1], INFINITY]], "annotation 12 has inf in a polygon"),
    "a polygon with text": ([[*SQUARE[:-1], "x"]], "annotation 12 has 'x' in a polygon"),
    "a polygon of 2 points": ([[1.0, 1.0, 5.0, 5.0]], "annotation 12 has a polygon of 4 numbers"),
    "a polygon of half a point": ([[*SQUARE, 1.0]], "annotation 12 has a polygon of 9 numbers"),
    "an empty polygon": ([[]], "annotation 12 has a polygon of 0 numbers"),
    "no polygon": ([], "annotation 12 has segmentation"),
    "polygons without their list": (SQUARE, "annotation 12 has segmentation"),
    "run lengths that are too short": (
        {"size": [20, 30], "counts": [10, 20]},
        "annotation 12 .*add up to 30 pixels",
    ),
    "a negative run": (
        {"size": [20, 30], "counts": [610, -10]},
        "annotation 12 .*no negative run",
    ),
    "runs of text": (
        {"size": [20, 30], "counts": ["600"]},
        "annotation 12 has runs .'600'.; expected integers",
    ),
    "runs of floats": ({"size": [20, 30], "counts": [600.0]}, "annotation 12 has runs .600.0."),
    "a size of floats": ({"size": [20.0, 30.0], "counts": [600]}, "annotation 12 has segmentation"),
    "compressed run lengths that are cut short": (
        {"size": [20, 30], "counts": "Z"},
        "annotation 12 .*truncated",
    ),
    "run lengths of another size": (
        {"size": [30, 20], "counts": [600]},
        r"annotation 12 .*\[30, 20\]",
    ),
    "run lengths without size": ({"counts": [600]}, "annotation 12 has segmentation"),
}


@pytest.mark.parametrize("case", BROKEN_MASKS)
def test_annotations_are_refused_for(case, tmp_path):
    segmentation, message = BROKEN_MASKS[case]
    with pytest.raises(UserError, match=f"annotations.json: {message}"):
        evaluate(tmp_path, [entry()], content(segmentation=segmentation))


@pytest.mark.parametrize(
    "segmentation", [{"size": [20, 30], "counts": [600]}, square(), [SQUARE, SQUARE]]
)
def test_masks_of_annotations_may_be_polygons_and_run_lengths_of_both_kinds(segmentation, tmp_path):
    results = evaluate(tmp_path, [entry(image_id=5)], content(segmentation=segmentation))
    assert results["segm"]["AP"] == pytest.approx(50.495, abs=1e-3)


def test_a_results_file_with_masks_is_measured_by_boxes_where_annotations_have_none(
    tmp_path, caplog
):
    truth = content()
    del truth["annotations"][1]["segmentation"]
    with caplog.at_level(logging.WARNING):
        assert list(evaluate(tmp_path, [entry()], truth)) == ["bbox"]
    assert "only boxes are measured" in caplog.text


def test_boxes_that_leave_their_image_are_counted_by_more_than_a_pixel(caplog):
    inside, within_a_pixel = [0.0, 0.0, 30.0, 20.0], [-0.9, 0.0, 31.5, 20.9]
    outside = [[-2.0, 0.0, 5.0, 5.0], [26.0, 0.0, 6.0, 5.0], [0.0, 16.0, 5.0, 6.0]]
    detections = as_detections([entry(bbox=box) for box in (inside, within_a_pixel, *outside)])
    findings = Findings()
    ids = np.array([6])
    check_detections(detections, ids, np.array([[20, 30]]), np.array([3]), findings)
    with caplog.at_level(logging.WARNING):
        findings.tell("a file")
    assert [record.message for record in caplog.records] == [
        "a file: 3 x box more than 1 pixel outside its image, left as it is; the first: "
        "the detection of image 6, category 3, score 0.5, box [-2.0, 0.0, 5.0, 5.0]"
    ]


def test_findings_are_told_once(caplog):
    findings = Findings()
    findings.note("oddity", np.array([False, True, True]), "entry {}".format)
    with caplog.at_level(logging.WARNING):
        findings.tell("a file")
        findings.tell("a file")
    assert [record.message for record in caplog.records] == [
        "a file: 2 x oddity; the first: entry 1"
    ]


def test_columns_of_different_lengths_are_refused():
    detections = as_detections([entry(), entry()])._replace(scores=np.zeros(1))
    with pytest.raises(UserError, match=r"lengths \[1, 2\]"):
        check_detections(detections, np.array([6]), np.array([[20, 30]]), np.array([3]), Findings())
