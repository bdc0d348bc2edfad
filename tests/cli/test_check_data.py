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
