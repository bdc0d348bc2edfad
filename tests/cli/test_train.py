import logging

from tests.run_page.test_page import make_run
from virtex_det.cli.train import write_page

__all__ = ["make_run"]


def test_a_run_that_is_done_gets_its_page(make_run, caplog):
    folder = make_run(record_of=None, detections=None)
    with caplog.at_level(logging.INFO):
        write_page(folder)
    assert (folder / "report.html").is_file()
    assert "The run on one page" in caplog.text and "no evaluation yet" in caplog.text


def test_a_page_that_fails_ends_no_run(make_run, caplog):
    folder = make_run(record_of=None, detections=None)
    (folder / "load_report.json").write_text("{}")
    write_page(folder)
    assert "its page is not written" in caplog.text and "load_report.json" in caplog.text
    assert not (folder / "report.html").exists()
