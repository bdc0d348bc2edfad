import dataclasses
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from virtex_det.experiments.commands import portable, repeat_commands
from virtex_det.experiments.matrix import Matrix, Pretraining

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ROOT / "configs/detectron2/scenes_segm.yaml"
CAPTIONS = ROOT / "configs/pretrain/scenes_bicaptioning.yaml"


@pytest.fixture
def matrix() -> Matrix:
    return Matrix(
        title="Two starts",
        output=Path("runs"),
        protocols={"scenes-segm": DETECTOR},
        starts={"random init": "", "captions": Pretraining(CAPTIONS)},
        fractions=(0.1, 1.0),
        seeds=(0, 3),
    )


def test_the_commands_of_a_row_repeat_it_from_pretraining_on(matrix):
    commands = repeat_commands(matrix.cells, matrix.output)
    lines = commands["captions, 10 % of the labels"]
    start = "virtex-det train --resume --config-file configs/"
    assert len(lines) == 4 and all(line.startswith(start) for line in lines)
    assert "configs/pretrain/scenes_bicaptioning.yaml" in lines[0]
    assert "configs/detectron2/scenes_segm.yaml" in lines[1]
    assert len(commands["random init, 100 % of the labels"]) == 2


def test_one_pretraining_for_all_seeds_is_one_line(matrix):
    starts = {"captions": Pretraining(CAPTIONS, seed=0)}
    cells = dataclasses.replace(matrix, starts=starts).cells
    assert len(repeat_commands(cells, matrix.output)["captions, 10 % of the labels"]) == 3


def test_preparation_comes_first(matrix):
    commands = repeat_commands(matrix.cells, matrix.output, ["make data"])
    assert next(iter(commands.items())) == ("data and vocabulary", ["make data"])


def test_several_protocols_are_named_in_the_rows(matrix):
    both = dataclasses.replace(matrix, protocols={"one": DETECTOR, "two": DETECTOR})
    commands = repeat_commands(both.cells, matrix.output)
    assert "captions, two, 10 % of the labels" in commands


def test_a_probe_is_repeated_by_its_own_command(matrix):
    probe = ROOT / "configs/probes/scenes_svm.yaml"
    frozen = dataclasses.replace(matrix, protocols={"svm": probe}, fractions=(1.0,), seeds=(0,))
    commands = repeat_commands(frozen.cells, matrix.output)
    assert [line.split()[1] for line in commands["captions, 100 % of the labels"]] == [
        "train",
        "probe",
    ]


def test_commands_name_a_folder_elsewhere_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = {"random": ["python tools/train_net.py OUTPUT_DIR /data/me/runs/random_0"]}
    assert portable(commands, Path("/data/me/runs")) == {
        "folder of the runs": ["export OUTPUT=runs  # or another folder"],
        "random": ["python tools/train_net.py OUTPUT_DIR $OUTPUT/random_0"],
    }
    for near in (Path("output"), tmp_path / "output"):
        assert portable(commands, near) == commands


@pytest.mark.parametrize(
    "words",
    [
        ["OUTPUT_DIR", "/data/my runs/a/b c"],
        ["X=/data/my runs/a/b", "--output=/data/my runs/a/b"],
        ["('coco:/data/my runs/a/t.json:/data/my runs/a/t',)"],
        ['/data/my runs/a/cost $5 `x` "y" \\z'],
        ["/mnt/data/my runs/a/b", "/data/my runs/ab", "/data/my runs/a"],
    ],
)
def test_a_shell_reads_commands_with_the_variable_as_it_read_them_without(words):
    folder = Path("/data/my runs/a")
    [setting], [line] = portable({"a": [shlex.join(["printf", "%s\\n", *words])]}, folder).values()
    assert setting == "export OUTPUT=a  # or another folder"
    shell = {"OUTPUT": str(folder), "PATH": os.environ["PATH"]}
    said = subprocess.run(["sh", "-c", line], env=shell, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == words
    assert line.count("$OUTPUT/") == sum(
        len(re.findall(r"(?<!/mnt)/data/my runs/a/", word)) for word in words
    )


def test_the_name_of_a_folder_elsewhere_is_quoted():
    [setting] = portable({}, Path("/data/my runs"))["folder of the runs"]
    assert setting == "export OUTPUT='my runs'  # or another folder"
