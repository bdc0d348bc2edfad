import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtex_det.engine.demo import DemoSize, finetune_runs, run_demo
from virtex_det.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SIZE = DemoSize(
    train=8, val=2, captioned=64, pretrain_iterations=2, finetune_iterations=4, fractions=(0.5,), seeds=(0, 1)
)


def options_of(run) -> dict[str, str]:
    return dict(zip(run.options[::2], run.options[1::2], strict=True))


def test_both_arms_are_fine_tuned_alike_but_for_their_weights(tmp_path):
    runs = finetune_runs(tmp_path, SIZE, tmp_path / "weights.pth")
    assert len(runs) == 4
    random, captions = (options_of(run) for run in runs if run.folder.name.endswith("seed1"))
    assert random.pop("MODEL.WEIGHTS") == ""
    assert captions.pop("MODEL.WEIGHTS") == str(tmp_path / "weights.pth")
    assert random == captions
    assert random["SEED"] == random["DATASETS.SUBSET_SEED"] == "1"


def test_a_folder_with_a_demo_of_another_size_is_refused(tmp_path):
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(UserError, match="another size"):
        run_demo(tmp_path, SIZE)


@pytest.mark.slow
def test_the_whole_road_makes_a_page_and_with_more_seeds_does_nothing_again(tmp_path, capfd):
    before = dict(os.environ)
    try:
        page = run_demo(tmp_path, dataclasses.replace(SIZE, seeds=(0,)))
        assert "from captions" in page.read_text()
        assert capfd.readouterr().out.strip().endswith(str(page))
        written = {path: path.stat().st_mtime for path in tmp_path.glob("*/model_final.pth")}
        assert len(written) == 3
        run_demo(tmp_path, SIZE)
        assert len(list(tmp_path.glob("*/model_final.pth"))) == 5
        assert written == {path: path.stat().st_mtime for path in written}
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_the_command_line_names_its_options():
    done = subprocess.run([sys.executable, "tools/demo.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "--quick" in done.stdout
