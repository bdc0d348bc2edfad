import pytest

from tests.run_page.test_page import make_run
from virtex_det.cli.report import main
from virtex_det.errors import UserError

__all__ = ["make_run"]


def test_a_page_is_written_and_what_it_lacks_is_said(make_run, tmp_path, capsys):
    main([str(make_run(detections=None)), "--output", str(tmp_path / "page.html")])
    said = capsys.readouterr().out
    assert "predictions, is missing" in said and "written: " in said
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_name_that_is_no_pages_and_a_score_that_is_none_are_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="not the name of a page"):
        main([str(tmp_path), "--output", str(tmp_path / "run.png")])
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--threshold", "50"])
    assert "not a score from 0 to 1" in capsys.readouterr().err
