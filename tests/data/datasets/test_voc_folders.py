import logging

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from tests.data.datasets.conftest import voc_xml
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.results_file import read_ground_truth

NUT, BOLT = ("nut", (1, 1, 30, 20)), ("bolt", (11, 6, 12, 9))


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(name)
    assert len(str(error.value).splitlines()) < 12
    return str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_folder_with_image_sets_has_own_classes_in_alphabetical_order(suffix, voc, tmp_path):
    name = voc({"b": voc_xml([NUT, BOLT]), "a": voc_xml([])}, suffix)
    first, second = load_dataset(name)
    assert MetadataCatalog.get(name).thing_classes == ["bolt", "nut"]
    assert first["file_name"] == f"{tmp_path}/JPEGImages/b{suffix}"
    assert (first["image_id"], second["image_id"]) == ("b", "a")
    assert [entry["bbox"] for entry in first["annotations"]] == [[0, 0, 30, 20], [10, 5, 2, 4]]
    assert [entry["category_id"] for entry in first["annotations"]] == [1, 0]
    assert second["annotations"] == []


def test_classes_of_other_splits_count_too(voc, tmp_path):
    name = voc({"a": voc_xml([NUT])})
    (tmp_path / "Annotations" / "other.xml").write_text(voc_xml([BOLT]))
    load_dataset(name)
    assert MetadataCatalog.get(name).thing_classes == ["bolt", "nut"]


def test_ground_truth_has_vocs_corners_and_difficult_objects(voc, tmp_path):
    name = voc({"a": voc_xml([NUT, BOLT], difficult=1), "b": voc_xml([NUT])})
    truth = read_ground_truth(name)
    assert truth.metric == "area" and truth.image_key("b") == 1
    np.testing.assert_array_equal(truth.objects[0].boxes, [NUT[1], BOLT[1]])
    assert [found.difficult.tolist() for found in truth.objects] == [[True, True], [False]]


def test_a_folder_named_voc2007_has_its_metric(voc, tmp_path):
    voc({"a": voc_xml([NUT])})
    (tmp_path / "VOC2007").symlink_to(tmp_path)
    assert read_ground_truth(f"voc:{tmp_path}/VOC2007:train").metric == "11point"


@pytest.mark.parametrize("layout", ["beside", "apart"])
def test_xml_near_images_is_split_by_a_share(layout, write_image, tmp_path, catalog):
    for number in range(20):
        write_image(tmp_path / ("all" if layout == "beside" else "images") / f"{number}.png")
        xml = tmp_path / ("all" if layout == "beside" else "labels") / f"{number}.xml"
        xml.parent.mkdir(exist_ok=True)
        xml.write_text(voc_xml([NUT]))
    train, val, everything = (
        {entry["file_name"] for entry in load_dataset(f"voc:{tmp_path}:{split}")}
        for split in ("train:0.3", "val:0.3", "all")
    )
    assert train | val == everything and not train & val
    assert len(everything) == 20 and 2 <= len(val) <= 11


def test_without_a_share_the_form_is_shown(write_image, tmp_path, catalog):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc_xml([NUT]))
    assert "voc:FOLDER:train:0.2" in refused(f"voc:{tmp_path}:train")
    assert "below 1" in refused(f"voc:{tmp_path}:train:1.5")


def test_a_share_of_a_folder_with_image_sets_is_refused(voc):
    assert "Leave out the share" in refused(voc({"a": voc_xml([NUT])}) + ":0.2")


def test_a_missing_image_set_is_named_with_those_that_exist(voc):
    assert "the image sets of" in (text := refused(voc({"a": voc_xml([NUT])}, split="val")))
    assert "are: train" in text


def test_a_missing_size_is_read_from_the_image(voc, caplog):
    name = voc({"a": voc_xml([NUT], size=None), "b": voc_xml([BOLT], size=(0, 0))})
    with caplog.at_level(logging.WARNING):
        first, second = load_dataset(name)
    assert [(entry["height"], entry["width"]) for entry in (first, second)] == [(40, 60)] * 2
    assert "2 XML files have no <size>" in caplog.text


def test_an_image_without_xml_is_left_out_and_counted(write_image, tmp_path, catalog, caplog):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "a.xml").write_text(voc_xml([NUT]))
    with caplog.at_level(logging.WARNING):
        assert len(load_dataset(f"voc:{tmp_path}:all")) == 1
    assert "1 images have no XML file and are left out" in caplog.text


def test_a_missing_image_is_kept_for_the_checks_of_missing_files(voc, tmp_path):
    name = voc({"a": voc_xml([NUT]), "b": voc_xml([NUT])})
    (tmp_path / "JPEGImages/b.jpg").unlink()
    assert load_dataset(name)[1]["file_name"] == f"{tmp_path}/JPEGImages/b.jpg"


def test_a_missing_xml_file_is_named(voc, tmp_path):
    name = voc({"a": voc_xml([NUT]), "b": voc_xml([NUT])})
    (tmp_path / "Annotations/b.xml").unlink()
    assert "b.xml is missing or is not a regular file (1 of 2 such files)" in refused(name)


def test_two_images_of_one_xml_file_are_refused(voc, write_image, tmp_path):
    name = voc({"a": voc_xml([NUT])})
    write_image(tmp_path / "JPEGImages/a.png")
    assert "would share one XML file" in refused(name)


def test_one_class_in_two_spellings_is_refused(voc):
    text = refused(voc({"a": voc_xml([NUT, ("Nut ", (1, 1, 4, 4))])}))
    assert "one class in two spellings" in text


def test_a_reversed_box_is_named(voc):
    text = refused(voc({"a": voc_xml([("nut", (30, 1, 3, 20))])}))
    assert "reversed box" in text and "a.xml: object 1" in text


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        # a page in place of a file would be an image without objects
        ("<html><body>Not found</body></html>", "begins with <html>; expected <annotation>"),
        (voc_xml([(" ", (1, 1, 4, 4))]), "object 1 has an empty <name>"),
    ],
)
def test_xml_that_is_not_of_vocs_form_is_named(xml, message, voc):
    text = refused(voc({"a": xml, "b": voc_xml([NUT])}))
    assert message in text and "a.xml" in text
