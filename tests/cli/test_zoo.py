import json
import os
import pickle
from pathlib import Path

import pytest

from tests.processes import run_script
from virtex_det.cli.zoo import main
from virtex_det.errors import UserError
from virtex_det.model_zoo.catalog import catalog

TOOL = Path(__file__).parents[2] / "tools" / "model_zoo.py"
WEIGHTS = pickle.dumps({"a": 1}, 2)
NAME = "redcaps"


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Runs the command in this process and returns what it prints; the mirror has one file."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / f"{NAME}.pth").write_bytes(WEIGHTS)
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")

    def run(*arguments):
        main(arguments)
        return capsys.readouterr().out

    return run


def test_list_prints_a_row_for_each_match(tool):
    assert "clip_RN50x4" in tool("list", "RN50x4") and "swav" not in tool("list", "RN50x4")


def test_list_as_json_has_every_record(tool):
    listed = json.loads(tool("list", "--json"))
    assert [record["name"] for record in listed] == [record.name for record in catalog()]


def test_info_says_what_is_known_and_what_is_not(tool):
    text = tool("info", NAME)
    assert "RedCaps" in text and "huggingface.co/zamborg" in text
    assert "sha256        not known" in text


def test_info_as_json(tool):
    assert (
        json.loads(tool("info", "clip_RN50", "--json"))["network"]["MODEL.CAPTION_RESNET.STEM"]
        == "clip"
    )


def test_download_prints_where_the_file_is(tool, tmp_path):
    path = tmp_path / "cache" / f"{NAME}.pth"
    assert json.loads(tool("download", NAME, "--json")) == [{"name": NAME, "path": str(path)}]
    assert path.read_bytes() == WEIGHTS


def test_verify_reads_what_is_cached(tool):
    tool("download", NAME)
    assert " ok " in tool("verify") and NAME in tool("verify", NAME)


def test_verify_fails_for_a_file_that_changed(tool, tmp_path):
    tool("download", NAME)
    (tmp_path / "cache" / f"{NAME}.pth").write_bytes(b"strange")
    with pytest.raises(UserError, match="1 of 1 files are damaged or missing: redcaps"):
        tool("verify")


def test_verify_fails_for_a_named_file_that_is_not_there(tool):
    with pytest.raises(UserError, match="damaged or missing"):
        tool("verify", NAME)


def test_an_unknown_name_is_one_screen_and_exit_code_1(tmp_path):
    environment = {**os.environ, "VIRTEX_DET_CACHE": str(tmp_path / "cache")}
    run = run_script(TOOL, "download", "clip_RN51", env=environment)
    assert run.returncode == 1 and "clip_RN50" in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "cache").exists()
