import logging

import pytest
from detectron2.data import MetadataCatalog

from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.results_file import evaluate, read_ground_truth

BOX = "0 0.5 0.25 0.5 0.5"  # of 60 x 40 pixels: x 15, y 0, width 30, height 20
TRIANGLE = "1 0 0 0.5 0 0.5 0.5"


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(name)
    text = str(error.value)
    assert len(text.splitlines()) < 12
    return text


def test_boxes_and_polygons_are_read_in_pixels(yolo, tmp_path):
    name = yolo({"a.jpg": f"{BOX}\n\n{TRIANGLE}\n", "b.png": None})
    first, second = load_dataset(name)
    assert first["file_name"] == f"{tmp_path}/images/train/a.jpg"
    assert first["image_id"] == "images/train/a.jpg"
    assert (first["height"], first["width"]) == (40, 60)
    box, triangle = first["annotations"]
    assert box["bbox"] == [15, 0, 30, 20] and "segmentation" not in box
    assert triangle["segmentation"] == [[0, 0, 30, 0, 30, 20]]
    assert triangle["bbox"] == [0, 0, 30, 20] and triangle["category_id"] == 1
    assert second["annotations"] == [] and second["image_id"] == "images/train/b.png"
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["nut", "bolt"] and metadata.evaluator_type == "coco"


def test_ground_truth_has_the_same_objects_under_the_names_of_images(yolo, tmp_path):
    name = yolo({"a.jpg": f"{BOX}\n{TRIANGLE}", "b.png": None})
    truth = read_ground_truth(name)
    (number,) = {truth.image_key(entry["image_id"]) for entry in load_dataset(name)[:1]}
    objects = truth.annotations_of(number)
    assert [entry["bbox"] for entry in objects] == [[15, 0, 30, 20], [0, 0, 30, 20]]
    assert [entry["area"] for entry in objects] == [600, 300]
    with pytest.raises(UserError, match="'c.jpg' is not in"):
        truth.image_key("c.jpg")


def test_detections_are_evaluated_by_the_names_of_images(yolo):
    name = yolo({"a.jpg": BOX, "b.jpg": BOX})
    found = [
        {"image_id": f"images/train/{image}.jpg", "category_id": 0, "score": 1.0, "bbox": box}
        for image, box in (("a", [15, 0, 30, 20]), ("b", [15, 0, 30, 20]))
    ]
    assert evaluate(found, name)["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(UserError, match="image 1 is not in"):
        evaluate([{**found[0], "image_id": 1}], name)


def test_class_numbers_may_have_gaps_and_names_may_be_a_mapping(yolo):
    settings = "train: images/train\nnames:\n  7: bolt\n  '3': nut\n"
    name = yolo({"a.jpg": "7 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1 0.1"}, settings)
    (entry,) = load_dataset(name)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["nut", "bolt"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert [found["category_id"] for found in entry["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    "settings",
    [
        "path: .\ntrain: images/train",
        "path: /gone/with/the/machine\ntrain: images/train",
        "train: ../images/train",  # as Roboflow writes it
        "train: [images/train/, images/train]",
        "train: list.txt",
        "path: ~/data\ntrain: images/train",
    ],
)
def test_paths_are_found_as_ultralytics_finds_them(settings, yolo, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(tmp_path)
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\nimages/train/b.jpg\n")
    name = yolo({"a.jpg": BOX, "b.jpg": BOX}, f"{settings}\nnames: [nut]")
    assert [entry["image_id"].rpartition("/")[2] for entry in load_dataset(name)] == [
        "a.jpg",
        "b.jpg",
    ]


def test_the_folder_of_a_data_yaml_may_be_named_instead(yolo, tmp_path):
    yolo({"a.jpg": BOX})
    assert len(load_dataset(f"yolo:{tmp_path}:train")) == 1


def test_labels_may_lie_beside_their_images(yolo, tmp_path):
    name = yolo({"a.jpg": None}, "train: images/train\nnames: [nut]")
    (tmp_path / "images/train/a.txt").write_text(BOX)
    assert load_dataset(name)[0]["annotations"][0]["bbox"] == [15, 0, 30, 20]


def test_a_list_of_images_takes_only_these(yolo, tmp_path):
    name = yolo({"a.jpg": BOX, "b.jpg": BOX}, "train: list.txt\nnames: [nut]")
    (tmp_path / "list.txt").write_text("images/train/b.jpg\n")
    assert [entry["image_id"] for entry in load_dataset(name)] == ["images/train/b.jpg"]


def test_a_missing_split_is_named_with_those_that_exist(yolo):
    text = refused(yolo({"a.jpg": BOX}, split="valid"))
    assert "no split 'valid'; it has train, val. Did you mean val?" in text


def test_a_class_without_a_name_is_named_with_file_and_line(yolo):
    text = refused(yolo({"a.jpg": f"{BOX}\n2 0.5 0.5 0.1 0.1"}))
    assert "1 objects have a class that" in text and "a.txt, line 2" in text
    assert "seem to count classes from 1" in text


@pytest.mark.parametrize("value", ["3", "", "[images/train, 3]"])
def test_a_split_that_is_no_folder_is_named(value, yolo):
    with pytest.raises(UserError, match="data.yaml: train is .*; expected folders or lists"):
        load_dataset(yolo({"a.jpg": BOX}, f"train: {value}\nnames: [nut]"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../gone", "train is ../gone, but there is no .*/../gone and no .*/gone"),
        ("data.yaml", "train names the file .*/data.yaml; expected a folder of images"),
        ("list.txt", "lists 2 images, of which 1 have no file, e.g. .*/images/train/b.jpg"),
        ("addresses.txt", "lists the address http://x.org/a.jpg; images are never fetched"),
    ],
)
def test_a_place_without_images_is_named(place, message, yolo, tmp_path):
    (tmp_path / "list.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    (tmp_path / "addresses.txt").write_text("http://x.org/a.jpg")
    with pytest.raises(UserError, match=message):
        load_dataset(yolo({"a.jpg": BOX}, f"train: {place}\nnames: [nut]"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: [nut, bolt]\nnc: 3", "nc 3, but names 2 classes"),
        ("names: [nut, no]", "the name of class 1 is False: YAML reads yes, no"),
        ("names: {0: nut, '0': bolt}", "names has one class number twice"),
        ("names: {nut: 0}", "names has the key 'nut'"),
        ("names: nut", "names 'nut'; expected"),
        ("names: []", r"names \[\]; expected"),
        ("names: [nut, {a: b}]", "the name of class 1 is"),
        ("nothing: 1", "names None; expected"),
    ],
)
def test_names_that_are_not_those_of_classes_are_refused(names, message, yolo):
    with pytest.raises(UserError, match=message):
        load_dataset(yolo({"a.jpg": BOX}, f"train: images/train\n{names}"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "has 4 numbers; expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "a box with a score"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 numbers"),
        ("0 0.5 0.5 0.1 nan", "expected a class and numbers"),
        ("0,0.5,0.5,0.1,0.1", "Separate them by spaces"),
        ("nut 0.5 0.5 0.1 0.1", "expected a class and numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "has the class 0.5"),
        ("-1 0.5 0.5 0.1 0.1", "has the class -1"),
        ("1_0 0.5 0.5 0.1 0.1", "expected a class and numbers"),
        ("１ 0.5 0.5 0.1 0.1", "is '１ 0.5 0.5 0.1 0.1'; expected a class and numbers. Write num"),
        ("1 0.5 0.5 0.1 0.１", "Write numbers in the digits 0 to 9."),
    ],
)
def test_a_line_that_is_no_label_is_named(line, message, yolo):
    text = refused(yolo({"a.jpg": f"{BOX}\n{line}"}))
    assert "a.txt, line 2" in text and message in text


def test_labels_in_pixels_are_refused(yolo):
    text = refused(yolo({"a.jpg": "0 30 20 10 10\n0 10 10 5 5"}))
    assert "2 of 2 objects have coordinates above 1, which look like pixels" in text


def test_boxes_of_negative_size_are_named_by_file_and_line(yolo):
    assert "a.txt, line 2" in refused(yolo({"a.jpg": f"{BOX}\n0 0.5 0.5 -0.1 0.1"}))


def test_polygons_beyond_the_image_are_cut_and_counted(yolo, caplog):
    name = yolo({"a.jpg": f"{BOX}\n0 0.5 0.5 1.2 0.5 1.2 1.1 0.5 1"})
    with caplog.at_level(logging.WARNING):
        (entry,) = load_dataset(name)
    assert entry["annotations"][1]["segmentation"] == [[30, 20, 60, 20, 60, 40, 30, 40]]
    assert "1 of 2 polygons reach beyond" in caplog.text and "a.txt, line 2" in caplog.text


def test_keypoints_are_left_out(yolo):
    settings = "train: images/train\nnames: [nut]\nkpt_shape: [2, 3]"
    (entry,) = load_dataset(yolo({"a.jpg": f"{BOX} 0.1 0.1 2 0.2 0.2 1"}, settings))
    assert entry["annotations"][0]["bbox"] == [15, 0, 30, 20]


def test_two_label_files_of_one_image_are_refused_unless_they_are_equal(yolo, tmp_path):
    name = yolo({"a.jpg": BOX})
    beside = tmp_path / "images/train/a.txt"
    beside.write_text(BOX)
    assert len(load_dataset(name)) == 1
    beside.write_text(TRIANGLE)
    assert "has two label files that differ" in refused(name)
    beside.unlink()
    (tmp_path / "labels/train/a.TXT").write_text(BOX)
    assert "are label files of one image" in refused(name)


def test_two_images_of_one_label_file_are_refused(yolo):
    assert "would share the label" in refused(yolo({"a.jpg": BOX, "a.png": BOX}))


def test_a_few_labels_without_an_image_are_counted_and_many_are_refused(yolo, tmp_path, caplog):
    name = yolo({f"{number}.jpg": BOX for number in range(10)})
    labels = tmp_path / "labels/train"
    (labels / "classes.txt").write_text("nut\nbolt\n")
    (labels / "README.txt").write_text("made by hand, in 3 days and 2 nights")
    (labels / "lost.txt").write_text(BOX)
    with caplog.at_level(logging.WARNING):
        assert len(load_dataset(name)) == 10
    assert "1 label files have no image" in caplog.text and "lost.txt" in caplog.text
    (labels / "lost_too.txt").write_text(BOX)
    assert "2 label files have no image (of 10 images)" in refused(name)


def test_a_label_is_not_kept_company_by_a_file_that_is_no_image(yolo, tmp_path):
    name = yolo({"a.jpg": BOX})
    (tmp_path / "images/train/b.heic").touch()
    (tmp_path / "labels/train/b.txt").write_text(BOX)
    assert "1 label files have no image (of 1 images)" in refused(name)


def test_labels_that_are_elsewhere_are_asked_for_at_their_place(yolo, tmp_path):
    text = refused(yolo({"a.jpg": None}))
    assert f"the file {tmp_path}/labels/train/a.txt" in text and "folder:IMAGES" in text


def test_an_image_that_cannot_be_read_is_counted_and_has_no_objects(yolo, tmp_path, caplog):
    name = yolo({"a.jpg": BOX, "b.jpg": BOX})
    (tmp_path / "images/train/b.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        entries = load_dataset(name)
    assert [len(entry["annotations"]) for entry in entries] == [1, 0]
    assert "1 of 2 images cannot be read" in caplog.text


def test_the_same_notes_are_logged_once(yolo, caplog):
    name = yolo({"a.jpg": BOX, "b.jpg": None})
    with caplog.at_level(logging.WARNING):
        load_dataset(name), load_dataset(name)
    assert caplog.text.count("1 of 2 images have no object") == 1
