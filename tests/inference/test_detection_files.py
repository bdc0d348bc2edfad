"""Detections as files: as an evaluation writes them, with the ids of a file or with own ids."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import virtex_det as vd
from tests.inference.conftest import read
from virtex_det.errors import UserError
from virtex_det.inference.detection_files import check_output, write_detections
from virtex_det.inference.result_ids import ids_of_file, own_ids, read_ids


def test_the_results_file_is_what_the_detector_finds(detector, photos, annotations, tmp_path):
    ids = ids_of_file(detector, read_ids(annotations, photos))
    written = write_detections(tmp_path, detector, photos, ids)
    expected = []
    for number, found in zip(ids.images, detector(photos), strict=True):
        expected += found.to_coco(number, ids.categories)
    assert read(tmp_path / "detections.json") == json.loads(json.dumps(expected))
    assert written == (len(photos), len(expected), 0) and not (tmp_path / "pictures").exists()
    assert vd.evaluate(tmp_path / "detections.json", annotations)["bbox"]["AP"] >= 0


def test_own_ids_are_written_beside_the_detections(detector, photos, tmp_path):
    write_detections(tmp_path, detector, photos[:2], own_ids(detector), draw=True)
    beside = read(tmp_path / "images.json")
    assert [image["id"] for image in beside["images"]] == [1, 2]
    with Image.open(photos[1]) as picture:
        size = {"width": picture.width, "height": picture.height}
    assert beside["images"][1] == {"id": 2, "file_name": str(photos[1]), **size}
    assert [category["name"] for category in beside["categories"]] == list(detector.classes)
    found = {entry["category_id"] for entry in read(tmp_path / "detections.json")}
    assert found <= {category["id"] for category in beside["categories"]}
    drawn = sorted((tmp_path / "pictures").iterdir())
    names = [f"{number:06d}_{path.stem}.jpg" for number, path in enumerate(photos[:2], 1)]
    assert [path.name for path in drawn] == names
    with Image.open(drawn[1]) as picture:
        assert picture.format == "JPEG"


def test_what_cannot_be_read_is_left_out_and_counted(detector, photos, tmp_path, caplog):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    paths = [broken, photos[0]]
    written = write_detections(tmp_path / "out", detector, paths, own_ids(detector))
    assert written.skipped == 1
    assert [image["id"] for image in read(tmp_path / "out" / "images.json")["images"]] == [2]
    assert "broken.jpg" in caplog.text


def test_only_unreadable_files_leave_nothing(detector, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 1 files cannot be read"):
        write_detections(tmp_path / "out", detector, [broken], own_ids(detector))
    assert not list((tmp_path / "out").iterdir())


def test_a_deep_picture_is_drawn_as_the_detector_has_read_it(detector_run, tmp_path):
    deep = np.linspace(0, 4095, 64 * 64).reshape(64, 64)
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "deep.png")
    detector = vd.Detector(detector_run, overrides={"INPUT.MAX_VALUE": 4095}, threshold=1.0)
    paths = [tmp_path / "deep.png"]
    write_detections(tmp_path, detector, paths, own_ids(detector), draw=True)
    [picture] = (tmp_path / "pictures").iterdir()
    drawn = np.asarray(Image.open(picture).convert("L"), float)
    assert np.abs(drawn - deep / 4095 * 255).max() < 6


def test_counts_and_page_show_what_has_the_least_score(detector_run, photos, tmp_path):
    detector = vd.Detector(detector_run)
    low = float(np.median([score for each in detector(photos) for score in each.scores]))
    detector = vd.Detector(detector_run, threshold=low)
    write_detections(tmp_path, detector, photos, own_ids(detector))
    expected = {str(path): detector(path).count() for path in photos}
    rows = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert [row["picture"] for row in rows] == [str(path) for path in photos]
    for row in rows:
        counts = expected[row.pop("picture")]
        assert int(row.pop("objects")) == sum(counts.values())
        assert {name: int(count) for name, count in row.items() if count != "0"} == counts
    assert any(expected.values())
    page = (tmp_path / "detections.html").read_text()
    assert page.count("<figure>") == len(photos) and "Skipped" not in page
    assert not (tmp_path / "pictures").exists()


def test_a_broken_picture_is_named_on_the_page(detector, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    write_detections(tmp_path / "out", detector, [broken, *photos], own_ids(detector))
    page = (tmp_path / "out" / "detections.html").read_text()
    assert "Skipped: 1" in page and "broken.jpg: not an image" in page


def test_a_page_of_many_pictures_shows_some(detector, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("virtex_det.inference.detection_files._MOST_SHOWN", 2)
    write_detections(tmp_path, detector, photos, own_ids(detector))
    page = (tmp_path / "detections.html").read_text()
    assert page.count("<figure>") == 2 and "one picture of every 2" in page


def test_a_folder_of_other_things_is_refused(tmp_path):
    check_output(tmp_path / "new")
    (tmp_path / "detections.json").touch()
    check_output(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other things: thesis.tex\n.*--output FOLDER"):
        check_output(tmp_path)
    for below in ("thesis.tex", "thesis.tex/predictions"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            check_output(tmp_path / below)
    with pytest.raises(UserError, match="cannot be written"):
        check_output("/proc/predictions")
