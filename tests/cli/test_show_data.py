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
