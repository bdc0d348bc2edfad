import dataclasses
import os
from pathlib import Path

import pytest

from tests.processes import run_script
from virtex_det.benchmark.comparison import Cell
from virtex_det.errors import UserError
from virtex_det.experiments.demo import FULL, DemoSize, demo_matrix, preparation, run_demo

ROOT = Path(__file__).resolve().parents[2]
SIZE = DemoSize(
    train=8,
    val=2,
    captioned=64,
    pretrain_iterations=2,
    finetune_iterations=4,
    fractions=(0.5,),
    seeds=(0, 1),
)


def options_of(run) -> dict[str, str]:
    return dict(zip(run.options[::2], run.options[1::2], strict=True))


def test_both_starts_are_fine_tuned_alike_but_for_their_weights(tmp_path):
    matrix = demo_matrix(tmp_path, SIZE)
    assert len(matrix.cells) == 4
    random, captions = (
        options_of(matrix.cells[Cell(start, "scenes", 0.5, 1)]) for start in matrix.starts
    )
    (pretraining,) = matrix.pretraining()
    assert random.pop("MODEL.WEIGHTS") == ""
    assert captions.pop("MODEL.WEIGHTS") == str(pretraining.folder / "model_final.pth")
    assert random == captions
    assert random["SEED"] == random["DATASETS.SUBSET_SEED"] == "1"


def test_the_full_demo_is_what_the_readme_shows(tmp_path):
    matrix = demo_matrix(tmp_path, FULL)
    (pretraining,) = matrix.pretraining()
    assert pretraining.config == ROOT / "configs/pretrain/scenes_bicaptioning.yaml"
    assert (pretraining.iterations, options_of(pretraining)["SOLVER.WARMUP_ITERS"]) == (650, "65")
    assert options_of(pretraining)["SEED"] == "0"
    run = matrix.cells[Cell("captions", "scenes", 0.1, 1)]
    assert run.config == ROOT / "configs/detectron2/scenes_segm.yaml"
    schedule = {key: options_of(run)[key] for key in ("SOLVER.WARMUP_ITERS", "TEST.EVAL_PERIOD")}
    assert (run.iterations, schedule) == (
        150,
        {"SOLVER.WARMUP_ITERS": "15", "TEST.EVAL_PERIOD": "50"},
    )


def test_scenes_and_vocabulary_lie_in_the_demos_folder(tmp_path):
    generate, vocabulary = preparation(tmp_path, SIZE)
    assert generate[0] == "generate_scenes" and "--val=2" in generate
    assert str(tmp_path / "datasets" / "scenes") in generate
    assert vocabulary[-1] == str(tmp_path / "vocabulary.model")


@pytest.mark.parametrize("written", ["{}", '{"train": 6'])
def test_a_folder_with_a_demo_of_another_size_is_refused(tmp_path, written):
    (tmp_path / "demo.json").write_text(written)
    with pytest.raises(UserError, match="another size"):
        run_demo(tmp_path, SIZE)


@pytest.mark.slow
def test_the_whole_road_makes_a_page_and_with_more_seeds_does_nothing_again(tmp_path, capfd):
    before = dict(os.environ)
    try:
        page = run_demo(tmp_path, dataclasses.replace(SIZE, seeds=(0,)))
        html = page.read_text()
        assert (
            "captions, 50 % of the labels" in html
            and "image/jpeg" in html
            and "an easy transfer" in html
        )
        assert "export DETECTRON2_DATASETS=$OUTPUT/datasets" in html
        assert str(tmp_path) not in html
        assert capfd.readouterr().out.strip().endswith(str(page))
        written = {path: path.stat().st_mtime for path in tmp_path.rglob("model_final.pth")}
        assert len(written) == 3
        run_demo(tmp_path, SIZE)
        assert len(list(tmp_path.rglob("model_final.pth"))) == 5
        assert written == {path: path.stat().st_mtime for path in written}
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_the_command_line_names_its_options():
    done = run_script("tools/demo.py", "--help", cwd=ROOT)
    assert "--quick" in done.stdout
