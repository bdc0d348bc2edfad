import pytest

from virtex_det.cli.describe_captions import main
from virtex_det.errors import UserError


def test_data_sets_are_shown_side_by_side(scenes, capsys):
    main(["--dataset", "scenes_train_captions", "scenes_val_captions"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | scenes_train_captions | scenes_val_captions |"
    assert "| captions | 60 | 20 |" in lines


def test_a_data_set_without_captions_is_refused(scenes):
    with pytest.raises(UserError, match="scenes_val has no captions"):
        main(["--dataset", "scenes_val"])
