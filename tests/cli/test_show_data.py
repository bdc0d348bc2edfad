import pytest

from tests.data.datasets.conftest import catalog, write_image, yolo
from virtex_det.cli.show_data import main
from virtex_det.errors import UserError

__all__ = ["catalog", "write_image", "yolo"]


def test_a_page_is_written_and_said(yolo, tmp_path, capsys):
    name = yolo({"a.jpg": "0 0.5 0.5 0.2 0.2"})
    main([name, "--output", str(tmp_path / "page.html"), "--images", "1"])
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(UserError, match="not the name of a page"):
        main([name, "--output", str(tmp_path / "a.jpg")])


def test_classes_are_those_of_the_option_or_of_the_config(yolo, tmp_path):
    name = yolo({"a.jpg": "0 0.5 0.5 0.2 0.2"})
    (tmp_path / "run.yaml").write_text(
        "_BASE_: detectron2/_base_mask_rcnn_R_50_FPN.yaml\n"
        f'DATASETS: {{TRAIN: "{name}", CLASSES: [["screw", "nut"]]}}\n'
    )
    words = [name, "--output", str(tmp_path / "page.html"), "--images", "1"]
    page = tmp_path / "page.html"
    main([*words, "--config-file", str(tmp_path / "run.yaml")])
    assert "<td>screw</td>" in page.read_text() and "<td>nut</td>" not in page.read_text()
    main([*words, "--config-file", str(tmp_path / "run.yaml"), "--classes", "nut"])
    assert "<td>nut</td>" in page.read_text() and "<td>screw</td>" not in page.read_text()
