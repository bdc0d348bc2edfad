import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "generate_scenes.py"
SMALL = ["--train", "2", "--val", "1", "--unlabelled", "0", "--image-size", "48", "--workers", "1"]


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(TOOL))["main"]


def test_it_writes_scenes_and_prints_their_folder(main, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "scenes"), *SMALL]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "scenes")
    assert len(list((tmp_path / "scenes" / "train").iterdir())) == 2


def test_scenes_with_other_settings_give_exit_code_1_and_no_traceback(main, tmp_path, capsys):
    command = ["--output", str(tmp_path / "scenes"), *SMALL]
    main(command)
    assert main([*command, "--seed", "1"]) == 1
    assert "other settings" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--overwrite"]) == 0


def test_the_default_folder_lies_below_detectron2_datasets(main, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/folder")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "/some/folder/scenes" in capsys.readouterr().out
