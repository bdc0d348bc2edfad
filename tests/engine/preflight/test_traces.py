"""Traces from which LocTex cannot learn where a word is are refused before the first step."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from tests.conftest import ROOT, TINY_PRETRAINING
from tests.engine.preflight.conftest import CHANGED
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import load_config
from virtex_det.engine.preflight import check_training
from virtex_det.errors import UserError


@pytest.fixture
def narrated(change_scenes: Callable[..., None]) -> Callable[..., None]:
    """Registers narrated scenes: ``narrated(spoil)``, where spoil changes each trace."""

    def register(spoil: Callable[[dict], object] = lambda trace: None) -> None:
        def spoil_all(entry: dict) -> None:
            for trace in entry["traces"]:
                spoil(trace)

        change_scenes("scenes_train_narratives", spoil_all)

    return register


@pytest.fixture
def loctex_cfg(vocabulary: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    """Makes configs of a tiny LocTexModel on these scenes; takes ``KEY, VALUE`` pairs."""

    def make(*options: object) -> CfgNode:
        config = str(ROOT / "configs/pretrain/scenes_loctex.yaml")
        own = ["DATASETS.TRAIN", f"('{CHANGED}',)", "OUTPUT_DIR", tmp_path / "run"]
        own += ["INPUT.CAPTION.TOKENIZER", vocabulary, "INPUT.CAPTION.CONCEPTS", ""]
        own += ["INPUT.CAPTION.HIDE_OTHER_WORDS", False]
        return load_config(config, [*TINY_PRETRAINING, *map(str, [*own, *options])])

    return make


@pytest.fixture
def unsaid(vocabulary: Path, tmp_path: Path) -> Path:
    """The file of a concept set whose words are in no narrative."""
    tokenizer = read_tokenizer(str(vocabulary))
    letters = [tokenizer.encode(letter) for letter in "bcdefgh"]
    concepts = [
        Concept(tokenizer.decode(tokens), "noun", 1, *tokens)
        for tokens in letters
        if len(tokens) == 1
    ]
    ConceptSet(tokenizer.sha256, ("noun",), tuple(concepts)).write(tmp_path / "concepts.json")
    return tmp_path / "concepts.json"


def without_points(trace: dict) -> None:
    trace["points"] = np.zeros((0, 3), np.float32)


def in_pixels(trace: dict) -> None:
    trace["points"] = 1000 + 64 * np.abs(trace["points"])


def in_milliseconds(trace: dict) -> None:
    trace["points"] = trace["points"] * np.float32([1, 1, 1000]) + np.float32([0, 0, 1e6])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_points, f"no trace of {CHANGED} has a point"),
        (
            in_pixels,
            rf"trace points of {CHANGED} lie outside their images: .* x 10(?s:.*)pixels",
        ),
        (in_milliseconds, r"belongs to a word: none lies between(?s:.*)Expected times in seconds"),
    ],
)
def test_traces_that_no_word_has_a_point_of_are_refused(narrated, loctex_cfg, spoil, message):
    narrated(spoil)
    with pytest.raises(UserError, match=message):
        check_training(loctex_cfg())


def test_a_concept_set_without_a_word_of_the_narratives_is_refused(narrated, loctex_cfg, unsaid):
    narrated()
    with pytest.raises(
        UserError, match=r"belongs to a word of the concept set(?s:.*)Build the set"
    ):
        check_training(loctex_cfg("INPUT.CAPTION.CONCEPTS", unsaid))


@pytest.mark.parametrize("hide", [False, True])
def test_words_of_another_tokenizers_set_are_refused(narrated, loctex_cfg, unsaid, hide):
    narrated()
    concepts = ConceptSet.read(unsaid)
    dataclasses.replace(concepts, tokenizer_sha256="0" * 64).write(unsaid)
    options = ("INPUT.CAPTION.CONCEPTS", unsaid, "INPUT.CAPTION.HIDE_OTHER_WORDS", hide)
    with pytest.raises(UserError, match="was built with another tokenizer"):
        check_training(loctex_cfg(*options))


def test_an_image_without_a_trace_is_refused(narrated, loctex_cfg):
    narrated()
    DatasetCatalog.get(CHANGED)[0]["traces"] = []
    with pytest.raises(UserError, match="captions and 0 traces"):
        check_training(loctex_cfg())


@pytest.mark.parametrize(
    "options",
    [(), ("MODEL.LOCTEX.LOCALIZATION_WEIGHT", 0, "DATALOADER.MAPPER", "NarrativeMapper")],
)
def test_whole_traces_pass_and_without_localization_any_trace_does(narrated, loctex_cfg, options):
    narrated(without_points if options else lambda trace: None)
    check_training(loctex_cfg(*options))
