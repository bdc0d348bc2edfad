import logging

import pytest
from detectron2.data import MetadataCatalog

from tests.data.datasets.conftest import coco_content, lvis_content
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.by_name import read_found, use_classes
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.results_file import read_ground_truth


@pytest.fixture
def loaded(coco):
    """Loads the small file of nuts (1 object) and bolts (2) with rules; returns names and dicts."""

    def load(*rules, content=None):
        name = coco(content or coco_content())
        use_classes(name, as_rules(rules))
        return MetadataCatalog.get(name), load_dataset(name)

    return load


def categories(dicts):
    return [[found["category_id"] for found in entry["annotations"]] for entry in dicts]


@pytest.mark.parametrize(
    ("rules", "names", "numbers"),
    [
        ([], ["nut", "bolt"], [[0, 1], [1]]),
        (["bolt", "nut"], ["bolt", "nut"], [[1, 0], [0]]),
        (["bolt"], ["bolt"], [[0], [0]]),
        ([["part", "nut", "bolt"]], ["part"], [[0, 0], [0]]),
        (["*", ["screw", "bolt"]], ["nut", "screw"], [[0, 1], [1]]),
        (["*", ["", "nut"]], ["bolt"], [[0], [0]]),
        (["washer", "bolt"], ["washer", "bolt"], [[1], [1]]),
        ([["bolt", "nut"], ["nut", "bolt"]], ["bolt", "nut"], [[0, 1], [1]]),
    ],
)
def test_classes_are_ordered_renamed_joined_and_left_out(rules, names, numbers, loaded):
    metadata, dicts = loaded(*rules)
    assert metadata.thing_classes == names and categories(dicts) == numbers


def test_ground_truth_has_the_same_classes(loaded):
    metadata, _ = loaded(["screw", "bolt"])
    truth = read_ground_truth(metadata.name)
    assert truth.categories == [{"id": 1, "name": "screw"}]
    assert [len(truth.annotations_of(number)) for number in (1, 2)] == [1, 1]


def test_what_is_left_out_or_lacking_is_said(loaded, caplog):
    with caplog.at_level(logging.WARNING):
        loaded("bolt", "washer")
    assert "leaves out 1 of 2 classes, with 1 objects: nut" in caplog.text
    assert "it has no class washer, which DATASETS.CLASSES names" in caplog.text


def test_other_rules_register_a_data_set_anew(loaded):
    metadata, _ = loaded("bolt")
    use_classes(metadata.name, as_rules(["nut"]))
    assert categories(load_dataset(metadata.name)) == [[0], []]
    assert MetadataCatalog.get(metadata.name).thing_classes == ["nut"]


def test_lvis_keeps_its_lists_and_frequencies(coco, tmp_path):
    name = coco(lvis_content(), "lvis")
    use_classes(name, as_rules(["bolt"]))
    found = read_found(name).content
    assert found["categories"] == [{"id": 1, "name": "bolt", "frequency": "c", "image_count": 2}]
    assert found["images"][0]["neg_category_ids"] == [1]
    use_classes(name, as_rules([["part", "nut", "bolt"]]))
    with pytest.raises(UserError, match="LVIS's metrics need the frequency of each class"):
        read_found(name)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["bolts"], "has 'bolts', which .* does not have. Did you mean 'bolt'?"),
        (["washer"], "leaves no class of .*, which has nut, bolt"),
        ([["", "nut", "bolt"]], "leaves no class"),
    ],
)
def test_rules_that_do_not_fit_the_data_are_refused(rules, message, loaded):
    with pytest.raises(UserError, match=message):
        loaded(*rules)


@pytest.mark.parametrize(
    "rules", [["a", "a"], ["a", ["b", "a"]], [["a", "b"], ["a", "c"]], ["*", "*"]]
)
def test_a_name_that_occurs_twice_is_refused(rules):
    with pytest.raises(UserError, match="two entries for the class|of the data twice"):
        as_rules(rules)
