from pathlib import Path

import pytest

from tests.processes import run_script
from tests.tiny_bert import make_bert
from virtex_det.cli.concepts import main
from virtex_det.data.concepts import ConceptSet
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.errors import UserError

TOOL = Path(__file__).parents[2] / "tools" / "build_concepts.py"


@pytest.fixture
def arguments(scenes, tmp_path):
    names = ("scenes_train_captions", "scenes_unlabelled_captions")
    return ["--dataset", *names, "--output", str(tmp_path / "concepts.json"), "--tokenizer"]


def build(*arguments):
    main(list(map(str, arguments)))


def test_concepts_of_several_datasets_are_written_and_shown(
    arguments, vocabulary, tmp_path, capsys
):
    build(*arguments, vocabulary, "--size", 6, "--parts-of-speech", "noun", "adjective")
    printed = capsys.readouterr().out
    concepts = ConceptSet.read(tmp_path / "concepts.json")
    assert "6 concepts from" in printed and "warning" not in printed
    assert (
        concepts.tokenizer_sha256 == read_tokenizer(str(vocabulary)).sha256
        and len(concepts.concepts) == 6
    )
    for concept in concepts.concepts:
        assert f"{concept.word} {concept.count}" in printed and concept.part_of_speech in (
            "noun",
            "adjective",
        )


def test_fewer_than_asked_for_is_a_warning(arguments, tmp_path, capsys):
    build(*arguments, make_bert(tmp_path / "bert", ("a", "red", "circle", "square")))
    assert "warning: only" in capsys.readouterr().out


def test_data_without_captions_are_refused(arguments, vocabulary):
    with pytest.raises(UserError, match="Check that the datasets have captions"):
        build(*arguments, vocabulary, "--dataset", "scenes_val")


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(arguments, vocabulary, size):
    with pytest.raises(UserError, match="--size must be 1 or more"):
        build(*arguments, vocabulary, "--size", size)


def test_a_mistake_is_one_screen_and_exit_code_1(arguments, tmp_path):
    run = run_script(TOOL, *arguments, "missing.model")
    assert (
        run.returncode == 1
        and "Tokenizer file not found" in run.stderr
        and "Traceback" not in run.stderr
    )
    assert not (tmp_path / "concepts.json").exists()
