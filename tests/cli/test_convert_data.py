import json

import pytest

from tests.data.datasets.conftest import catalog, write_image, yolo
from virtex_det.cli.convert_data import main
from virtex_det.cli.subset import main as write_manifest
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError

__all__ = ["catalog", "write_image", "yolo"]


@pytest.fixture
def name(yolo):
    return yolo({f"{number}.jpg": "0 0.5 0.5 0.2 0.2" for number in range(10)})


@pytest.fixture
def run(name, tmp_path, capsys):
    """Converts the data set; returns the names of its images, and what was printed."""

    def run(*words, file="new.json"):
        main([name, "--output", str(tmp_path / file), *map(str, words)])
        content = json.loads((tmp_path / file).read_text())
        return [image["file_name"] for image in content["images"]], capsys.readouterr().out

    return run


def test_the_file_is_written_and_its_name_as_data_is_said(run):
    files, printed = run()
    assert len(files) == 10 and "10 images, 10 objects, 2 classes" in printed
    name = printed.partition("its name: ")[2].strip()
    assert len(load_dataset(name)) == 10


def test_what_the_reader_notices_is_said_once(run, tmp_path, caplog):
    (tmp_path / "labels" / "train" / "3.txt").unlink()
    _, printed = run("--fraction", 0.5)
    assert printed.count("1 of 10 images have no object") == 1 and not caplog.records


def test_a_part_and_the_rest_are_all_images_each_once(run):
    part, _ = run("--fraction", 0.3)
    rest, _ = run("--fraction", 0.3, "--rest", file="rest.json")
    assert len(part) == 3 and len(rest) == 7 and not {*part} & {*rest}


def test_the_file_that_is_converted_is_not_overwritten(run, tmp_path):
    _, printed = run()
    name = printed.partition("its name: ")[2].strip()
    before = (tmp_path / "new.json").read_text()
    with pytest.raises(UserError, match=r"new.json is an input, which would be overwritten"):
        main([name, "--output", str(tmp_path / "new.json"), "--overwrite", "--fraction", "0.2"])
    assert (tmp_path / "new.json").read_text() == before


def test_no_image_is_no_data_set(run):
    with pytest.raises(UserError, match="--rest leaves no image"):
        run("--fraction", 1, "--rest")


def test_a_number_of_images_and_a_split_file(run, tmp_path):
    assert len(run("--images", 7)[0]) == 7
    split = tmp_path / "ids.txt"
    split.write_text("images/train/4.jpg\nimages/train/2.jpg\n")
    files, _ = run("--split", split, "--fraction", 0.2, file="listed.json")
    assert files == ["images/train/2.jpg", "images/train/4.jpg"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", 11], "--images 11, but"),
        (["--rest"], "--rest needs"),
        (["--fraction", 2], "is 2"),
        (["--fraction", 0], "is 0"),
    ],
)
def test_a_part_that_there_is_not_is_refused_before_anything_is_written(words, said, run, tmp_path):
    with pytest.raises(UserError, match=said):
        run(*words)
    assert not (tmp_path / "new.json").exists()


def test_a_split_file_of_another_number_of_images_is_refused(run, tmp_path):
    split = tmp_path / "ids.txt"
    split.write_text("images/train/4.jpg\nimages/train/2.jpg\n")
    assert len(run("--split", split, "--images", 2)[0]) == 2
    with pytest.raises(UserError, match="ids.txt"):
        run("--split", split, "--images", 7, file="seven.json")


def test_a_manifest_of_another_number_of_images_is_refused(run, tmp_path):
    subset = tmp_path / "subset.json"
    name = f"yolo:{tmp_path}/data.yaml:train"
    write_manifest(["--dataset", name, "--fraction", "0.2", "--output", str(subset)])
    assert len(run("--split", subset)[0]) == 2
    with pytest.raises(UserError, match="subset.json"):
        run("--split", subset, "--images", 7, file="seven.json")


def test_an_existing_file_is_only_replaced_on_request(run):
    run()
    with pytest.raises(UserError, match="exists"):
        run()
    assert len(run("--images", 2, "--overwrite")[0]) == 2


def test_what_is_converted_has_the_classes_of_the_option(run, tmp_path):
    _, printed = run("--classes", "bolt")
    assert "10 images, 0 objects, 1 classes" in printed
    assert "leaves out 1 of 2 classes, with 10 objects: nut" in printed
    run("--classes", "('bolt', ('screw', 'nut'))", file="renamed.json")
    content = json.loads((tmp_path / "renamed.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["bolt", "screw"]
    assert {entry["category_id"] for entry in content["annotations"]} == {1}
