import pytest

from virtex_det.cli.scenes import main
from virtex_det.errors import UserError

SMALL = ["--train", "2", "--val", "1", "--unlabelled", "0", "--image-size", "48", "--workers", "1"]


def test_it_writes_scenes_of_the_size_and_number_asked_for(tmp_path):
    main(["--output", str(tmp_path / "scenes"), *SMALL])
    assert len(list((tmp_path / "scenes" / "train").iterdir())) == 2


def test_scenes_with_other_settings_are_kept_unless_overwritten(tmp_path):
    command = ["--output", str(tmp_path / "scenes"), *SMALL]
    main(command)
    with pytest.raises(UserError, match="other settings"):
        main([*command, "--seed", "1"])
    main([*command, "--seed", "1", "--overwrite"])


def test_the_default_folder_lies_below_detectron2_datasets(monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/folder")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "/some/folder/scenes" in capsys.readouterr().out
