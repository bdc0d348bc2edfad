import json

import pytest

from virtex_det.data.datasets import (
    Manifest,
    Subset,
    make_manifest,
    manifest_sha256,
    take_fraction,
    take_split,
)
from virtex_det.data.datasets.split_files import subset_of, write_ids, write_index_file
from virtex_det.errors import UserError

# As COCO's, sorted by id; every fourth image has nothing but a crowd.
SET = [
    {"image_id": 9 + 3 * k, "annotations": [{"category_id": k % 5, "iscrowd": int(k % 4 == 3)}]}
    for k in range(200)
]
OTHER = [{"image_id": f"2007_{k:06d}", "annotations": [{"category_id": 0}]} for k in range(40)]
PART = Subset(0.1, 3)


def _ids(dicts):
    return [entry["image_id"] for entry in dicts]


@pytest.fixture
def chosen():
    return {"ours": take_fraction(SET, *PART)}


def test_a_manifest_names_the_same_images_when_read(chosen, tmp_path):
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    assert take_split(tmp_path / "subset.json", {"ours": SET}, PART) == chosen
    assert subset_of(tmp_path / "subset.json") == PART
    content = json.loads((tmp_path / "subset.json").read_text())
    assert content == {
        **{
            "fraction": 0.1,
            "seed": 3,
            "stratified": False,
            "sha256": manifest_sha256(_ids(chosen["ours"])),
        },
        "ids": {"ours": sorted(_ids(chosen["ours"]))},
    }


def test_the_name_of_a_single_data_set_does_not_matter(chosen, tmp_path):
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    assert take_split(tmp_path / "subset.json", {"mine": SET}, PART) == {"mine": chosen["ours"]}


def test_a_manifest_of_several_sets_keeps_them_apart(tmp_path):
    chosen = {"a": SET[:20], "b": SET[10:30]}
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    assert take_split(tmp_path / "subset.json", {"b": SET, "a": SET}, PART) == chosen
    with pytest.raises(UserError, match=r"is for a, b, but DATASETS.TRAIN is a, c"):
        take_split(tmp_path / "subset.json", {"a": SET, "c": SET}, PART)


@pytest.mark.parametrize("part", [Subset(0.2, 3), Subset(0.1, 0), Subset(0.1, 3, True)])
def test_a_config_that_calls_the_part_of_a_manifest_otherwise_is_told_what_to_set(
    chosen, tmp_path, part
):
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    needed = "TRAIN_FRACTION 0.1 DATASETS.SUBSET_SEED 3 DATASETS.SUBSET_STRATIFIED False"
    with pytest.raises(UserError, match=f"(?s)set.*{needed}$"):
        take_split(tmp_path / "subset.json", {"ours": SET}, part)


def test_a_manifest_edited_by_hand_is_refused(chosen, tmp_path):
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    content = json.loads((tmp_path / "subset.json").read_text())
    content["ids"]["ours"][0] = SET[-1]["image_id"]
    (tmp_path / "subset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="its ids have the sha256 .*, but it says .*edited"):
        take_split(tmp_path / "subset.json", {"ours": SET}, PART)


def test_a_manifest_of_another_share_than_it_says_is_refused(chosen, tmp_path):
    make_manifest({"small": take_fraction(SET[:40], *PART)}, PART).write(tmp_path / "small.json")
    with pytest.raises(UserError, match=r"4 of 200 images(?s:.*)0\.1(?s:.*)make it again"):
        take_split(tmp_path / "small.json", {"ours": SET}, PART)
    make_manifest(chosen, Subset(0.5, 3)).write(tmp_path / "renamed.json")
    with pytest.raises(UserError, match="20 of 200 images"):
        take_split(tmp_path / "renamed.json", {"ours": SET}, Subset(0.5, 3))


def test_a_manifest_of_an_index_file_counts_the_images_that_have_annotations(tmp_path):
    write_index_file(tmp_path / "index.txt", {"ours": SET}, [PART])
    chosen = take_split(tmp_path / "index.txt", {"ours": SET}, PART)
    make_manifest(chosen, PART).write(tmp_path / "subset.json")
    assert (
        len(chosen["ours"]) == 15
        and take_split(tmp_path / "subset.json", {"ours": SET}, PART) == chosen
    )


def test_a_list_of_ids_is_read_whatever_their_type(chosen, tmp_path):
    path = tmp_path / "ids.txt"
    write_ids(path, make_manifest(chosen, PART))
    assert len(path.read_text().splitlines()) == 20
    assert take_split(path, {"ours": SET}, PART) == chosen
    assert subset_of(path) is None
    path.write_text(json.dumps(_ids(chosen["ours"])))
    assert take_split(path, {"ours": SET}, PART) == chosen


def test_a_list_of_ids_may_be_of_several_sets_and_have_spaces_in_it(tmp_path):
    path, other = tmp_path / "ids.txt", [{"image_id": "a class/an image.jpg"}]
    path.write_text("12\n\na class/an image.jpg\r\n9\n")
    assert take_split(path, {"a": SET, "b": other}, Subset(3 / 201)) == {"a": SET[:2], "b": other}
    with pytest.raises(UserError, match="image ids that occur in several of a, b"):
        take_split(path, {"a": SET, "b": [*other, *SET]}, Subset(3 / 401))


def test_a_list_is_not_written_of_sets_that_share_ids(tmp_path):
    with pytest.raises(UserError, match="a, b have image ids in common(?s:.*)manifest"):
        write_ids(tmp_path / "ids.txt", make_manifest({"a": SET[:20], "b": SET[10:30]}, PART))
    assert not (tmp_path / "ids.txt").exists()


@pytest.mark.parametrize("empty", ["", "[]"])
def test_a_list_of_nothing_is_answered_with_the_forms_that_are_read(tmp_path, empty):
    (tmp_path / "ids.txt").write_text(empty)
    with pytest.raises(UserError, match="names 0 of 200 images(?s:.*)Expected a manifest"):
        take_split(tmp_path / "ids.txt", {"ours": SET}, PART)


def test_a_list_of_another_share_than_the_config_says_is_refused(chosen, tmp_path):
    write_ids(tmp_path / "ids.txt", make_manifest(chosen, PART))
    with pytest.raises(UserError, match=r"20 of 200 images(?s:.*)Set DATASETS.TRAIN_FRACTION 0.1:"):
        take_split(tmp_path / "ids.txt", {"ours": SET}, Subset(1.0))
    take_split(tmp_path / "ids.txt", {"ours": SET}, Subset(0.098))


def test_ids_that_are_not_there_are_counted(tmp_path):
    (tmp_path / "ids.txt").write_text("9\n10\n12\n14\n")
    with pytest.raises(
        UserError, match=r"2 of 4 ids are unknown in ours, the first is '10'.*known id: 9"
    ):
        take_split(tmp_path / "ids.txt", {"ours": SET}, Subset(0.02))


@pytest.mark.parametrize("form", ["9\n12\n9\n", '[9, 12, "9"]'])
def test_an_id_twice_is_an_error(tmp_path, form):
    (tmp_path / "ids.txt").write_text(form)
    with pytest.raises(UserError, match="1 images more than once, the first 9"):
        take_split(tmp_path / "ids.txt", {"ours": SET}, Subset(0.01))


def test_a_list_cannot_be_stratified(tmp_path):
    (tmp_path / "ids.txt").write_text("9\n12\n")
    with pytest.raises(UserError, match="set DATASETS.SUBSET_STRATIFIED False"):
        take_split(tmp_path / "ids.txt", {"ours": SET}, Subset(0.01, 0, True))


# Places in the list of the 150 images without those of crowds, where k = 0, 1, 2, 4, 5, 6, 8 ...
INDEX_FILE = {"2.0": {"0": [0, 3, 149], "1": [7, 8, 9]}, "0.7": {"1": [4]}}


@pytest.fixture
def index_file(tmp_path):
    path = tmp_path / "COCO_supervision.txt"
    path.write_text(json.dumps(INDEX_FILE))
    return path


@pytest.mark.parametrize(
    ("part", "ids"),
    [
        (Subset(0.02, 0), [9, 21, 9 + 3 * 198]),
        (Subset(0.02, 1), [36, 39, 45]),
        (Subset(0.007, 1), [24]),
    ],
)
def test_an_index_file_counts_the_images_that_have_annotations(index_file, part, ids):
    (taken,) = take_split(index_file, {"coco": SET}, part).values()
    assert _ids(taken) == ids


def test_an_index_file_counts_on_through_several_sets(index_file):
    places = {"1.0": {"0": [151]}}
    index_file.write_text(json.dumps(places))
    assert take_split(index_file, {"a": SET, "b": OTHER}, Subset(0.01)) == {
        "a": [],
        "b": OTHER[1:2],
    }


@pytest.mark.parametrize("part", [Subset(0.02, 2), Subset(0.1, 0)])
def test_an_entry_that_is_not_there_is_answered_with_those_that_are(index_file, part):
    with pytest.raises(
        UserError, match=r"no entry for (2|10) %(?s:.*)2.0 %: seeds 0, 1\n  0.7 %: seeds 1"
    ):
        take_split(index_file, {"coco": SET}, part)


@pytest.mark.parametrize("dicts", [SET[:180], OTHER, SET + SET])
def test_an_index_file_of_another_data_set_is_refused(index_file, dicts):
    with pytest.raises(UserError, match="is for one data set"):
        take_split(index_file, {"coco": dicts}, Subset(0.02, 0))


@pytest.mark.parametrize("place", [150, -1])
def test_an_index_outside_of_the_list_is_refused(index_file, place):
    index_file.write_text(json.dumps({"2.0": {"0": [0, 3, place]}}))
    with pytest.raises(UserError, match="is for one data set"):
        take_split(index_file, {"coco": SET}, Subset(0.02, 0))


def test_an_index_file_is_not_for_captions(index_file):
    with pytest.raises(UserError, match="images with boxes, which mine do not have"):
        take_split(index_file, {"mine": [{"image_id": 9, "captions": ["a dog"]}]}, Subset(0.02))


def test_an_index_file_is_written_as_unbiased_teacher_reads_it(tmp_path):
    path = tmp_path / "index.txt"
    write_index_file(path, {"a": SET}, [Subset(0.1, 0), Subset(0.1, 1), Subset(0.05, 0)])
    content = json.loads(path.read_text())
    assert {percent: list(seeds) for percent, seeds in content.items()} == {
        "10.0": ["0", "1"],
        "5.0": ["0"],
    }
    # int(SupPercent / 100.0 * number of images) is what it asserts.
    assert len(content["10.0"]["0"]) == 15 and len(content["5.0"]["0"]) == 7
    assert set(content["5.0"]["0"]) < set(content["10.0"]["0"]) != set(content["10.0"]["1"])
    (taken,) = take_split(path, {"a": SET}, Subset(0.1, 0)).values()
    annotated = [entry for entry in SET if not entry["annotations"][0]["iscrowd"]]
    assert _ids(taken) == [annotated[place]["image_id"] for place in content["10.0"]["0"]]
    # The images that a fraction takes, but for the few that have nothing to detect.
    assert len(set(_ids(take_fraction(SET, 0.1))) & set(_ids(taken))) >= 13


@pytest.mark.parametrize(
    "content",
    [
        '{"images": [{"id": 9}], "annotations": []}',
        '{"10.0": [9, 12]}',
        '{"10.0": {"0": {"9": 12}}}',
        '{"10.0": ',
        '{"fraction": 0.1, "seed": 0, "stratified": false, "sha256": "", "ids": [9]}',
        "[[9], [12]]",
    ],
)
def test_a_file_of_another_form_is_answered_with_the_forms_that_are_read(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match='Expected a manifest .* one per line, or .*"10.0"'):
        take_split(tmp_path / "split.json", {"ours": SET}, Subset(0.1))


def test_a_file_that_is_not_there_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"no split file .*nowhere\.txt \(DATASETS.SUBSET_FILE\)"):
        take_split(tmp_path / "nowhere.txt", {"ours": SET}, PART)


def test_manifests_keep_numbers_and_strings_as_they_are():
    manifest = make_manifest({"a": SET[1::-1], "b": OTHER[1::-1]}, PART)
    assert manifest == Manifest({"a": [9, 12], "b": ["2007_000000", "2007_000001"]}, PART)


def test_two_entries_of_one_percentage_are_refused(index_file):
    index_file.write_text(json.dumps({"2": {"0": [0, 3, 5]}, "2.0": {"0": [1, 2, 4]}}))
    with pytest.raises(UserError, match="two entries for 2 %"):
        take_split(index_file, {"coco": SET}, Subset(0.02, 0))


@pytest.mark.parametrize("ids", [[True, 1], [1.0], [None], [1, "1"], [[1]]])
def test_ids_that_are_none_or_repeat_are_refused(ids, tmp_path):
    (tmp_path / "split.json").write_text(json.dumps(ids))
    with pytest.raises(UserError, match="no list of image ids|more than once"):
        take_split(tmp_path / "split.json", {"coco": SET}, Subset(0.02, 0))
