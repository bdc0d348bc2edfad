import json
from pathlib import Path

import pytest
import torch

from tests.processes import run_script
from virtex_det.cli.caption import main
from virtex_det.engine import Trainer
from virtex_det.errors import UserError

TOOL = Path(__file__).parents[2] / "tools" / "caption.py"


def caption(*arguments, cwd):
    return run_script(TOOL, *arguments, cwd=cwd)


@pytest.fixture
def config(pretraining_cfg, tmp_path):
    """The config file of a tiny model with weights."""
    weights = tmp_path / "weights.pth"
    cfg = pretraining_cfg("MODEL.WEIGHTS", weights)
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    (tmp_path / "model.yaml").write_text(cfg.dump())
    return tmp_path / "model.yaml"


def test_it_captions_a_folder_and_says_what_it_skipped(config, scenes, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    overrides = ("MODEL.TEXTUAL.DECODING.METHOD", "nucleus_sampling", "SEED", 1)
    options = ("--config-file", config, "--output", "out")
    run = caption(*options, scenes / "val", "broken.jpg", *overrides, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert len(rows) == 4
    assert all(f"{row['file_name']}: {row['caption']}" in run.stdout for row in rows)
    assert (
        "skipped: broken.jpg: not an image\n" in run.stderr
        and "4 captioned, 1 skipped" in run.stdout
    )
    page = (tmp_path / "out" / "captions.html").read_text()
    assert (
        "nucleus sampling" in page and "broken.jpg" in page and page.count("data:image/jpeg") == 4
    )


def test_only_unreadable_files_are_an_error_of_one_screen_and_leave_nothing(config, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    run = caption("--config-file", config, "broken.jpg", cwd=tmp_path)
    assert (
        run.returncode == 1
        and "No image was captioned" in run.stderr
        and "Traceback" not in run.stderr
    )
    assert not (tmp_path / "output").exists()


def test_a_run_folder_is_enough(pretraining_cfg, vocabulary, scenes, tmp_path, capsys):
    cfg = pretraining_cfg()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    torch.save(
        {"model": Trainer.build_model(cfg).state_dict()}, tmp_path / "run" / "model_final.pth"
    )
    main(["--run", str(tmp_path / "run"), "--output", str(tmp_path / "out"), str(scenes / "val")])
    assert "4 captioned, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "x"])
def test_an_invalid_batch_size_is_refused(size, capsys):
    with pytest.raises(SystemExit):
        main(["--run", "output", "photo.jpg", "--batch-size", size])
    assert f"'{size}' is not an integer from 1" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file, not a folder"):
        main(["--run", "/no/run", "--output", str(tmp_path / "file/out"), "photo.jpg"])
