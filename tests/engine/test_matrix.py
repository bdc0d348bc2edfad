import dataclasses
from pathlib import Path

import pytest

from virtex_det.benchmark.comparison import Cell
from virtex_det.engine.matrix import measured, read_matrix
from virtex_det.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MATRIX = """
title: Two starts
output: {output}
detector: configs/detectron2/scenes_segm.yaml
starts:
  random init: ""
  VirTex, again: {{pretrain: configs/pretrain/scenes_bicaptioning.yaml}}
fractions: [0.1, 1]
seeds: [0, 3]
"""


@pytest.fixture
def matrix(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "matrix.yaml").write_text(MATRIX.format(output=tmp_path / "runs"))
    return read_matrix(tmp_path / "matrix.yaml")


def options_of(run) -> dict[str, str]:
    return dict(zip(run.options[::2], run.options[1::2], strict=True))


def test_runs_of_a_seed_differ_in_their_weights_alone(matrix):
    runs = matrix.finetuning()
    assert len(runs) == 8 and len({run.folder for run in runs.values()}) == 8
    random, captions = (options_of(runs[Cell(start, 1.0, 3)]) for start in matrix.starts)
    (pretraining,) = matrix.pretraining()
    assert random.pop("MODEL.WEIGHTS") == ""
    assert captions.pop("MODEL.WEIGHTS") == str(pretraining.folder / "model_final.pth")
    assert random == captions
    assert (random["SEED"], random["DATASETS.SUBSET_SEED"], random["DATASETS.TRAIN_FRACTION"]) == ("3", "3", "1.0")


def test_schedules_are_those_of_the_configs(matrix):
    assert [run.iterations for run in matrix.pretraining()] == [1300]
    assert {run.iterations for run in matrix.finetuning().values()} == {150}


def test_runs_that_are_missing_are_counted_and_not_taken_for_zero(matrix):
    with pytest.raises(UserError, match="8 of the 8 runs in .* not complete"):
        measured(matrix)


def test_what_was_measured_is_read_from_the_last_record_of_each_run(matrix, make_record):
    for cell, run in matrix.finetuning().items():
        run.folder.mkdir(parents=True)
        (run.folder / "model_final.pth").touch()
        dataclasses.replace(make_record(1.0, iteration=50), seed=cell.seed).write(run.folder)
        dataclasses.replace(make_record(9.0, iteration=150), seed=cell.seed).write(run.folder)
    comparison = measured(matrix)
    assert {record.metrics["bbox"]["AP"] for record in comparison.records.values()} == {9.0}
    assert all(cell.seed == record.seed for cell, record in comparison.records.items())


@pytest.mark.parametrize("broken", ["- a list", "title: no more", "{", "title: a\noutput: b\ndetector: c\nstarts: [1]"])
def test_a_file_that_is_no_matrix_says_what_one_looks_like(tmp_path, broken):
    (tmp_path / "matrix.yaml").write_text(broken)
    with pytest.raises(UserError, match=r"is no matrix(?s:.*)Expected:"):
        read_matrix(tmp_path / "matrix.yaml")


def test_a_matrix_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="There is no matrix"):
        read_matrix(tmp_path / "matrix.yaml")


def test_the_shipped_matrix_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    matrix = read_matrix("configs/benchmarks/scenes_methods.yaml")
    assert len(matrix.finetuning()) == 36 and len(matrix.pretraining()) == 5
