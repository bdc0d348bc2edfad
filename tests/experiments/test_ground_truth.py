"""Where a report finds the annotations and images of data by name; see also test_data_by_name."""

import json

import pytest

from tests.benchmark.example_comparison import write_images
from virtex_det.config import load_config
from virtex_det.experiments.ground_truth import ground_truth_files

DETECTOR = "detectron2/scenes_segm.yaml"


@pytest.mark.parametrize("classes", ["[]", "['ring <1>']"])
def test_annotations_have_the_classes_of_the_config(tmp_path, classes):
    name = f"coco:{write_images(tmp_path)}:{tmp_path}"
    cfg = load_config(DETECTOR, ["DATASETS.TEST", name, "DATASETS.CLASSES", classes])
    (tmp_path / "new").mkdir()
    file, images = ground_truth_files(cfg, tmp_path / "new")
    names = [category["name"] for category in json.loads(file.read_text())["categories"]]
    assert images == tmp_path and names == (
        ["ring <1>"] if "ring" in classes else ["square", "ring <1>"]
    )


def test_data_that_are_not_here_have_no_pictures(tmp_path):
    for name in (f"coco:{tmp_path}/gone.json:{tmp_path}", "lvis_v1_val"):
        cfg = load_config(DETECTOR, ["DATASETS.TEST", name])
        assert ground_truth_files(cfg, tmp_path)[0] is None
