"""A config whose tokenizer has each word as one token, and a concept set of some of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from tests.tiny_bert import make_bert
from virtex_det import get_cfg
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.tokenizers import read_tokenizer


@pytest.fixture
def concepts_cfg(tmp_path: Path) -> Callable[..., CfgNode]:
    """Makes configs with the INPUT.CAPTION.CONCEPTS cat, dog and star, without augmentation."""

    def make(hide: bool = False) -> CfgNode:
        bert = make_bert(tmp_path / "bert")
        tokenizer = read_tokenizer(str(bert))
        nouns = [
            Concept(word, "noun", 9, *tokenizer.encode(word)) for word in ("cat", "dog", "star")
        ]
        ConceptSet(tokenizer.sha256, ("noun",), tuple(nouns)).write(tmp_path / "nouns.json")
        cfg = get_cfg()
        cfg.INPUT.FORMAT = "RGB"
        caption = cfg.INPUT.CAPTION
        caption.TOKENIZER, caption.CONCEPTS = str(bert), str(tmp_path / "nouns.json")
        caption.HIDE_OTHER_WORDS = hide
        caption.CROP_SIZE, caption.CROP_SCALE = 16, (1.0, 1.0)
        caption.FLIP_PROB = caption.COLOR_JITTER_PROB = 0.0
        return cfg

    return make
