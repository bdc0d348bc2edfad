from pathlib import Path

import pytest
import torch

from tests.checkpoint.layouts import LAYOUTS
from tests.checkpoint.originals import network
from tests.processes import run_script

TOOL = Path(__file__).parents[2] / "tools" / "convert_weights.py"


def convert_weights(*arguments):
    return run_script(TOOL, *arguments)


@pytest.fixture
def source(tmp_path):
    torch.save(LAYOUTS["moco v1"].content(network("ResNet-50")), tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar"


def test_it_writes_the_file_and_prints_the_report(source, tmp_path):
    run = convert_weights(source, tmp_path / "moco.pkl")
    assert run.returncode == 0 and (tmp_path / "moco.pkl").exists()
    assert "format moco" in run.stdout and "res5" in run.stdout and "318" in run.stdout


def test_a_mistake_is_one_screen_and_exit_code_1(source, tmp_path):
    run = convert_weights(source, tmp_path / "moco.pth", "--format", "virtex")
    assert (
        run.returncode == 1
        and "is not a weights file of the family virtex" in run.stderr
        and "Traceback" not in run.stderr
    )
    assert not (tmp_path / "moco.pth").exists()


def test_a_prefix_says_which_network_of_the_file_is_written(source, tmp_path):
    run = convert_weights(source, tmp_path / "moco.pth", "--prefix", "encoder_k")
    assert run.returncode == 0 and "network at: state_dict.module.encoder_k." in run.stdout
