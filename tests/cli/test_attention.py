from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, TINY_PRETRAINING
from tests.processes import run_script
from virtex_det.cli.attention import main
from virtex_det.engine import Trainer, load_config
from virtex_det.errors import UserError

TOOL = Path(__file__).parents[2] / "tools" / "visualize_attention.py"


def visualize(*arguments, cwd):
    return run_script(TOOL, *arguments, cwd=cwd)


@pytest.fixture
def config(scenes, vocabulary, tmp_path):
    """The config file of a tiny LocTex model with weights."""
    weights = tmp_path / "weights.pth"
    files = ("INPUT.CAPTION.TOKENIZER", vocabulary, "MODEL.WEIGHTS", weights)
    files += ("INPUT.CAPTION.CONCEPTS", "")
    options = (*TINY_PRETRAINING, "MODEL.LOCTEX.EMBED_SIZE", 16, *files)
    cfg = load_config(str(ROOT / "configs/pretrain/scenes_loctex.yaml"), list(map(str, options)))
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    (tmp_path / "model.yaml").write_text(cfg.dump())
    return tmp_path / "model.yaml"


def test_it_draws_a_dataset_of_narratives_as_far_as_the_limit(config, scenes, tmp_path):
    name = f"narratives:{scenes}/annotations/narratives_val.jsonl:{scenes}/val"
    options = "--limit 2 --output out SEED 1".split()
    run = visualize("--config-file", config, "--dataset", name, *options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "2 drawn, 0 skipped. Open this page:\nout/attention.html" in run.stdout
    page = (tmp_path / "out" / "attention.html").read_text()
    assert "LocTexModel" in page and "pointer while the word is said" in page
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_it_draws_images_with_one_caption_and_says_what_it_skipped(config, scenes, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    options = ("--config-file", config, "--caption", "a red ring", "--output", "out")
    words = ("broken.jpg", scenes / "val", "INPUT.CAPTION.MAX_LENGTH", 30)
    run = visualize(*options, *words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (
        "4 drawn, 1 skipped" in run.stdout
        and "skipped: broken.jpg: image cannot be read\n" in run.stderr
    )
    page = (tmp_path / "out" / "attention.html").read_text()
    assert "broken.jpg: image cannot be read" in page and page.count("data:image/jpeg") == 4 * (
        1 + 3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg"], "There is no caption for a.jpg"),
        (["broken.jpg", "--caption", "a"], "No image was drawn"),
        ([], "Neither images nor a --dataset is named"),
        (["a.jpg", "--dataset", "scenes_val_captions"], "Both images and a --dataset are named"),
        (["--dataset", "scenes_val_captions", "--caption", "a"], "--caption and --dataset"),
    ],
)
def test_invalid_arguments_are_an_error_of_one_screen_and_leave_nothing(
    arguments, message, config, tmp_path
):
    for name in ("a.jpg", "broken.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    run = visualize("--config-file", config, *arguments, cwd=tmp_path)
    assert run.returncode == 1 and message in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "output").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file, not a folder"):
        main(["--run", "/no/run", "--output", str(tmp_path / "file/out"), "photo.jpg"])
