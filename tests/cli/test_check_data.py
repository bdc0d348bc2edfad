import json

import pytest

from tests.data.datasets.conftest import catalog, coco, coco_content, write_image
from virtex_det.cli.check_data import main

__all__ = ["catalog", "coco", "write_image"]


def test_good_data_are_described_and_what_would_be_refused_is_exit_code_1(coco, capsys, tmp_path):
    name = coco(coco_content())
    main([name])
    assert "The checks before a training pass." in capsys.readouterr().out
    other = coco_content()
    other["annotations"][0]["category_id"] = 9
    (tmp_path / "holdout.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit) as stopped:
        main([name, "--val", name.replace("instances", "holdout")])
    assert stopped.value.code == 1 and "category_id 9" in capsys.readouterr().out


def test_what_is_checked_has_the_classes_of_the_option(coco, capsys, tmp_path):
    name = coco(coco_content())
    other = coco_content(categories=[{"id": 1, "name": "mutter"}, {"id": 2, "name": "bolt"}])
    (tmp_path / "val.json").write_text(json.dumps(other))
    names = [name, name.replace("instances", "val")]
    with pytest.raises(SystemExit):
        main(names)
    assert "different classes" in capsys.readouterr().out
    main([*names, "--classes", '["bolt", ["nut", "nut", "mutter"]]'])
    printed = capsys.readouterr().out
    assert ["bolt", "2", "2"] in [line.split() for line in printed.splitlines()]
    assert ["nut", "1", "1"] in [line.split() for line in printed.splitlines()]
