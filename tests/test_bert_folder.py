import shutil
import sys

import pytest

from tests.tiny_bert import make_bert
from virtex_det.bert_folder import CONFIG, VOCABULARY, WEIGHTS, bert_folder
from virtex_det.data.wordpiece import WordPieceTokenizer
from virtex_det.errors import UserError
from virtex_det.modeling.textual.bert import BertTextEncoder


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


def test_a_whole_folder_is_taken_as_it_is(whole):
    assert bert_folder(str(whole), VOCABULARY, CONFIG, WEIGHTS) == whole


@pytest.mark.parametrize(
    "missing, reader",
    [
        ("vocab.txt", WordPieceTokenizer),
        ("config.json", BertTextEncoder),
        ("model.safetensors", BertTextEncoder),
    ],
)
def test_an_incomplete_folder_is_refused_with_what_is_missing(whole, tmp_path, missing, reader):
    folder = shutil.copytree(whole, tmp_path / "bert")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"incomplete: it has no {missing}"):
        reader(folder)


def test_a_name_is_asked_of_the_hub_once_and_only_for_what_is_read(whole, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(whole)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert bert_folder("google-bert/bert-base-uncased", VOCABULARY) == whole
    [(name, patterns)] = asked
    assert name == "google-bert/bert-base-uncased" and not [
        p for p in patterns if p.endswith((".bin", ".py"))
    ]


@pytest.mark.parametrize("name", ["", "no/such/folder", "/no/such/folder"])
def test_what_no_hub_can_have_is_an_error_that_says_what_to_give(name):
    with pytest.raises(
        UserError, match=r"no folder(?s:.*)vocab\.txt, config\.json and model\.safetensors"
    ):
        bert_folder(name)


def test_a_hub_out_of_reach_is_one_line_and_what_to_do(monkeypatch):
    def download(name, allow_patterns):
        raise OSError("no route to the hub\nand twenty lines more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError, match=r"no route to the hub\nGive the folder"):
        bert_folder("google-bert/bert-base-uncased")


@pytest.mark.parametrize("reader", [WordPieceTokenizer, BertTextEncoder])
def test_without_transformers_the_error_names_the_extra(whole, monkeypatch, reader):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'pip install "virtex_det\[pretrain\]"'):
        reader(whole)
