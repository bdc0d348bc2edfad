import pytest

from virtex_det.data.datasets.ids import check_coco_ids, check_unique, parse_id
from virtex_det.errors import UserError

CONTENT = {
    "images": [{"id": 1}, {"id": 2}],
    "annotations": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1}, {"id": 2}],
}


@pytest.mark.parametrize("text", ["0", "12", "139", str(2**53)])
def test_plain_digits_are_a_number(text):
    assert parse_id(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1_2",
        "0012",
        " 12",
        "12 ",
        "12\n",
        "+12",
        "-12",
        "1e2",
        "12.0",
        "0x12",
        "１２",
        "١٢",
        "²",
        str(2**53 + 1),
    ],
)
def test_what_python_takes_for_a_number_besides_is_none(text):
    assert parse_id(text) is None


@pytest.mark.parametrize("ids", [[1, 2, 1], ["a", "a"], [1, "1"], ["a.jpg", 3, "3"]])
def test_two_things_under_one_id_are_refused(ids):
    with pytest.raises(UserError, match="image id .* occurs twice"):
        check_unique(ids, "image")


def test_numbers_and_names_that_differ_pass():
    check_unique([1, "01", "a", "A"], "image")


@pytest.mark.parametrize("part", CONTENT)
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 1}, "id 1 occurs twice"),
        ({"id": "1"}, "id 1 occurs twice"),
        ({}, "2 of the list.*has no id"),
        (3, "has no id"),
    ]
    + [({"id": value}, f"has id {value}") for value in (None, True, 1.0, -1, 2**60)]
    + [({"id": value}, "has id") for value in ("", " ", [1], {}, float("nan"))],
    ids=str,
)
def test_coco_files_with_ids_that_are_none_or_repeat_are_refused(part, entry, message):
    with pytest.raises(UserError, match=rf"(?s)a\.json: .*{message}"):
        check_coco_ids({**CONTENT, part: [*CONTENT[part], entry]}, "a.json")


def test_ids_of_images_may_be_names_and_lists_may_be_absent():
    check_coco_ids({"images": [{"id": "a"}, {"id": "b"}]}, "a.json")


def test_cocos_own_minival_may_repeat_ids_of_annotations():
    content = {**CONTENT, "annotations": [{"id": 1}, {"id": 1}]}
    check_coco_ids(content, "instances_minival2014.json")
    with pytest.raises(UserError):
        check_coco_ids(content, "instances_val2014.json")


@pytest.mark.parametrize("part", ["images", "categories"])
def test_ids_that_are_numbers_and_text_in_one_list_are_refused_by_place(part):
    with pytest.raises(
        UserError,
        match=rf"{'image' if part == 'images' else 'category'} 0 .*has id 1, .* 1 has 'b'",
    ):
        check_coco_ids(CONTENT | {part: [{"id": 1}, {"id": "b"}]}, "a.json")
    check_coco_ids(CONTENT | {part: [{"id": "a"}, {"id": "b"}]}, "a.json")
