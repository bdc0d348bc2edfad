import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_tools

from virtex_det.benchmark.report import draw_instances, gains, table_rows, training_seconds, write_report

CAPTIONS = "virtex_det_pretraining"


def rle(mask: np.ndarray) -> dict:
    encoded = mask_tools.encode(np.asfortranarray(mask))
    return encoded | {"counts": encoded["counts"].decode()}


@pytest.fixture
def square() -> dict:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    return {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": rle(mask),
        "bbox": [8, 8, 16, 16],
        "area": 256,
        "iscrowd": 0,
    }


def test_rows_carry_mean_and_spread_of_the_seeds(make_record):
    rows = table_rows([make_record(10.0), make_record(12.0, seed=1), make_record(20.0, init=CAPTIONS)])
    assert [(row["init"], row["seeds"], str(row["Box AP"])) for row in rows] == [
        ("from random", 2, "11.0 ± 1.4"),
        ("from captions", 1, "20.0"),
    ]


def test_gains_compare_seeds_that_both_sides_have(make_record):
    records = [make_record(10.0), make_record(30.0, seed=1), make_record(25.0, init=CAPTIONS)]
    box = gains(records)[0]
    assert "2.5 times" in box
    assert "25.0 against 10.0" in box
    assert "1 of 1 seeds" in box


def test_training_time_counts_an_iteration_once_when_a_run_was_resumed(tmp_path):
    rows = [
        {"iteration": 19, "time": 0.5},
        {"iteration": 39, "time": 0.5},
        {"iteration": 39, "time": 0.5},
        {"iteration": 59, "time": 1.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    assert training_seconds(tmp_path) == pytest.approx(20 * 0.5 + 20 * 0.5 + 20 * 1.0)


def test_instances_are_drawn_where_their_mask_is(square):
    image = np.full((32, 32, 3), 200, np.uint8)
    drawn = draw_instances(image, [square], {1: "square"}, scale=2)
    assert drawn.shape == (64, 64, 3)
    assert (drawn[60:, 60:] == 200).all()
    assert (drawn[40, 40] != 200).any()


def test_the_page_holds_table_curves_and_pictures_in_one_file(make_record, square, tmp_path):
    for init in ("random init", CAPTIONS):
        folder = tmp_path / init / "inference" / "scenes_val"
        folder.mkdir(parents=True)
        (folder / "coco_instances_results.json").write_text(json.dumps([square | {"score": 0.9}]))
        for iteration in (100, 200):
            make_record(10.0 if init == "random init" else 21.5, init=init, iteration=iteration).write(tmp_path / init)
        (tmp_path / init / "metrics.json").write_text(json.dumps({"iteration": 199, "time": 0.3}))
    cv2.imwrite(str(tmp_path / "1.png"), np.full((32, 32, 3), 200, np.uint8))
    annotations = tmp_path / "instances.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "1.png", "height": 32, "width": 32}],
                "categories": [{"id": 1, "name": "square"}],
                "annotations": [square],
            }
        )
    )
    page = tmp_path / "index.html"
    write_report(
        page,
        [tmp_path / "random init", tmp_path / CAPTIONS],
        pretraining=tmp_path / CAPTIONS,
        annotations=annotations,
        image_root=tmp_path,
        facts={"Data": "one <square>"},
    )
    html = page.read_text()
    assert "21.5" in html
    assert "one &lt;square&gt;" in html
    assert html.count("data:image/png") == 3
    assert "data:image/svg+xml" in html
    assert "http" not in html.replace("http://www.w3.org", "")
