"""Ground truth and results files with one field changed at a time: an error that names it, or the same numbers."""

import copy
import json

import pytest

from tests.evaluation.detection.references import jitter, random_content
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import read_detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.results_file import evaluate_detections

MISSING = object()
# A value of each JSON type, and what Python takes for another one.
VALUES = [
    MISSING,
    None,
    True,
    False,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "1_2",
    "１",
    " 1",
    [],
    [[]],
    {},
    "\ud800",
]
STYLES = ("coco", "lvis")


def small(style):
    content = random_content(0, style=style)
    return content, jitter(content, 0)


def evaluate(content, entries, style, folder):
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(entries))
    truth = GroundTruth.read(folder / "truth.json", style)
    if truth.has_masks:
        truth.check_masks()
    return evaluate_detections(truth, read_detections(folder / "results.json", truth.image_key))


def changed(entry, field, value):
    entry = {name: old for name, old in entry.items() if name != field}
    return entry if value is MISSING else entry | {field: value}


def numbers(results):
    return {
        task: {name: None if value != value else value for name, value in of.items()} for task, of in results.items()
    }


def cases(entry):
    for field in entry:
        for value in VALUES:
            if value is MISSING or json.dumps(value) != json.dumps(entry[field]):
                yield field, value


# What a number does not depend on.
FREE = {
    "file_name",
    "license",
    "coco_url",
    "name",
    "supercategory",
    "synonyms",
    "def",
    "synset",
    "image_count",
    "instance_count",
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_a_wrong_field_of_ground_truth_is_refused_or_changes_nothing(part, style, tmp_path):
    content, entries = small(style)
    expected = numbers(evaluate(content, entries, style, tmp_path))
    accepted = set()
    for field, value in cases(content[part][0]):
        broken = {**content, part: [changed(content[part][0], field, value), *content[part][1:]]}
        try:
            found = numbers(evaluate(broken, entries, style, tmp_path))
        except UserError as error:
            assert len(str(error)) < 1500
            continue
        if found != expected:
            accepted.add((field, "missing" if value is MISSING else repr(value)))
    print(sorted(accepted))
    assert accepted <= ALLOWED[part]


# Another true value, which may have another number.
ALLOWED = {
    "images": {("not_exhaustive_category_ids", "[]"), ("neg_category_ids", "[]")},
    "annotations": {
        ("area", "0"),
        ("area", "1.5"),
        ("iscrowd", "0"),
        ("iscrowd", "False"),
        ("segmentation", "missing"),
    },
    "categories": {("name", repr(text)) for text in ("1_2", "１", " 1")},
}


@pytest.mark.parametrize("style", STYLES)
def test_a_wrong_field_of_a_detection_is_refused_or_changes_nothing(style, tmp_path):
    content, entries = small(style)
    expected = numbers(evaluate(content, entries, style, tmp_path))
    accepted = set()
    for field, value in cases(entries[0]):
        try:
            found = numbers(evaluate(content, [changed(entries[0], field, value), *entries[1:]], style, tmp_path))
        except UserError as error:
            assert len(str(error)) < 1500
            continue
        if found != expected:
            accepted.add((field, "missing" if value is MISSING else repr(value)))
    print(sorted(accepted))
    assert accepted <= {("score", "-1"), ("score", "0"), ("score", "1.5"), ("score", repr(10**30)), ("bbox", "missing")}


@pytest.mark.parametrize("value", VALUES[1:], ids=repr)
@pytest.mark.parametrize("part", ["images", "annotations", "categories", None])
def test_lists_and_entries_that_are_none_are_refused(part, value, tmp_path):
    content, entries = small("coco")
    for broken in [{**content, part: value}, {**content, part: [value, *content[part][1:]]}] if part else [value]:
        if broken.get("annotations") if isinstance(broken, dict) else True:
            with pytest.raises(UserError):
                evaluate(broken, entries, "coco", tmp_path)
    if part is None and value != []:
        with pytest.raises(UserError):
            evaluate(content, value, "coco", tmp_path)
        with pytest.raises(UserError):
            evaluate(content, [value, *entries[1:]], "coco", tmp_path)


@pytest.mark.parametrize(
    "image_id", ["1_2", "0012", "１２", " 12", "12 ", "+12", "1e2", "12.0", 12.0, True, None, [12], {}]
)
def test_what_python_takes_for_an_image_id_besides_is_refused(image_id, tmp_path):
    content, entries = small("coco")
    image = content["images"][0]["id"]
    content = json.loads(
        json.dumps(content)
        .replace(f'"id": {image},', '"id": 12,', 1)
        .replace(f'"image_id": {image},', '"image_id": 12,')
    )
    entries = [entry | {"image_id": 12 if entry["image_id"] == image else entry["image_id"]} for entry in entries]
    evaluate(content, entries, "coco", tmp_path)
    with pytest.raises(UserError, match="image"):
        evaluate(content, [copy.deepcopy(entries[0]) | {"image_id": image_id}, *entries[1:]], "coco", tmp_path)


def test_an_image_id_in_plain_digits_is_the_number(tmp_path):
    content, entries = small("coco")
    expected = numbers(evaluate(content, entries, "coco", tmp_path))
    as_text = [entry | {"image_id": str(entry["image_id"])} for entry in entries]
    assert numbers(evaluate(content, as_text, "coco", tmp_path)) == expected
