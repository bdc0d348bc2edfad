from pathlib import Path

from tests.processes import run_script
from virtex_det.data import SentencePieceTokenizer
from virtex_det.data.datasets import load_dataset
from virtex_det.data.region_texts import RegionTexts

TOOL = Path(__file__).parents[2] / "tools" / "build_vocabulary.py"


def build_vocabulary(*arguments):
    return run_script(TOOL, *arguments)


def test_captions_of_several_datasets_become_a_vocabulary(scenes, tmp_path):
    names = ["scenes_train_captions", "scenes_unlabelled_captions"]
    captions = [
        caption for name in names for image in load_dataset(name) for caption in image["captions"]
    ]
    path = tmp_path / "new" / "scenes.model"
    run = build_vocabulary("--dataset", *names, "--vocab-size", 60, "--output", path)
    assert run.returncode == 0 and f"60 pieces from {len(captions)} captions" in run.stdout
    tokenizer = SentencePieceTokenizer(path)
    assert tokenizer.vocab_size == 60 and tokenizer.unk_id not in tokenizer.encode(captions[-1])


def test_datasets_may_be_named_by_where_they_lie(scenes, tmp_path):
    for number, caption in enumerate(["a small red star", "a big blue circle"]):
        (tmp_path / f"{number}.jpg").touch()
        (tmp_path / f"{number}.txt").write_text(f"{caption}\n{caption} again")
    captions = f"captions:{scenes}/annotations/captions_val.json:{scenes}/val"
    run = build_vocabulary(
        "--dataset", f"pairs:{tmp_path}", captions, "--vocab-size", 60, "--output", tmp_path / "v"
    )
    total = 4 + sum(len(image["captions"]) for image in load_dataset(captions))
    assert run.returncode == 0 and f"60 pieces from {total} captions" in run.stdout


def test_a_data_set_that_is_not_there_is_one_screen(tmp_path):
    run = build_vocabulary(
        "--dataset", f"pairs:{tmp_path}/nothing", "--output", tmp_path / "v.model"
    )
    assert run.returncode == 1 and "nothing in" in run.stderr and "Traceback" not in run.stderr


def test_a_mistake_is_one_screen_and_exit_code_1(scenes, tmp_path):
    words = "--dataset scenes_train_captions --vocab-size 1000000 --output".split()
    run = build_vocabulary(*words, tmp_path / "v.model")
    assert run.returncode == 1 and "--vocab-size" in run.stderr and "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_boxes_add_the_prompts_and_numbers_of_locca(scenes, tmp_path):
    path = tmp_path / "boxes.model"
    names = ("--dataset", "scenes_train_captions", "--boxes", 50, "--vocab-size", 120)
    run = build_vocabulary(*names, "--output", path)
    assert run.returncode == 0, run.stderr
    tokenizer = SentencePieceTokenizer(path)
    RegionTexts(tokenizer, max_length=40, bins=50)
    assert tokenizer.decode(tokenizer.encode("aref: a ring : 4 49 0 37")) == (
        "aref: a ring : 4 49 0 37"
    )
