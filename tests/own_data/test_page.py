import re

import pytest

from tests.data.datasets.conftest import coco_content
from virtex_det.errors import UserError
from virtex_det.own_data.look import divide, look_at
from virtex_det.own_data.page import write_data_page


@pytest.fixture
def page_of(tmp_path):
    def write(names, val=(), **options):
        path = tmp_path / "page.html"
        write_data_page(path, look_at(*divide(names, val)), **options)
        return path.read_text()

    return write


def test_the_page_is_one_file_with_counts_and_both_kinds_of_pictures(coco, page_of):
    page = page_of([coco(coco_content())])
    assert "The checks before a training pass." in page
    assert re.search(r"<td>bolt</td><td>2</td>", page)
    assert page.count("<img") == 2 + 2 + 1  # ground truth, augmented, a box as large as its image
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_names_stay_text_and_folders_stay_at_home(coco, page_of, tmp_path):
    content = coco_content()
    content["categories"][0]["name"] = "<script>alert(1)</script>"
    page = page_of([coco(content)])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert str(tmp_path) not in page


def test_problems_are_on_the_page_and_unlabelled_images_are_shown(write_image, page_of, tmp_path):
    write_image(tmp_path / "pictures" / "a.jpg")
    page = page_of([f"folder:{tmp_path}/pictures"])
    assert "A training would not begin." in page and "without labels" in page
    assert page.count("<img") == 1


def test_evaluation_data_are_shown_where_those_to_train_on_cannot_be_read(coco, page_of, tmp_path):
    name = coco(coco_content())
    (tmp_path / "broken.json").write_text("{")
    page = page_of([f"coco:{tmp_path}/broken.json:{tmp_path}/images"], val=[name])
    assert "A training would not begin." in page and page.count("<img") == 2 + 1


def test_the_config_decides_the_samples(coco, page_of, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "_BASE_: detectron2/_base_mask_rcnn_R_50_FPN.yaml\nINPUT:\n  MIN_SIZE_TRAIN: [77]\n"
    )
    page = page_of([coco(coco_content())], config_file=str(config), images=1)
    assert "shortest side 77" in page and " x 77 pixels, 1 object<" in page
    with pytest.raises(UserError, match="not a detector"):
        page_of([coco(coco_content())], config_file="pretrain/scenes_bicaptioning.yaml")
