"""Several captions of an image in one example: the same rule for every mapper."""

import numpy as np
import pytest
import torch
from PIL import Image

from virtex_det import get_cfg
from virtex_det.data import (
    CaptionMapper,
    MaskedCaptionMapper,
    SentencePieceTokenizer,
    train_tokenizer,
)
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.mappers.cluster import ClusterMapper
from virtex_det.data.mappers.concept import ConceptMapper
from virtex_det.data.mappers.narrative import NarrativeMapper

CAPTIONS = ["a star on the left", "a small star", "a red star", "a blue star", "two bright lights"]
MAPPERS = [CaptionMapper, MaskedCaptionMapper, ConceptMapper, NarrativeMapper, ClusterMapper]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "t.model"
    train_tokenizer([*CAPTIONS, "on the right"] * 20, path, vocab_size=60)
    return path


@pytest.fixture
def cfg(tokenizer_file, tmp_path):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    caption = cfg.INPUT.CAPTION
    caption.TOKENIZER, caption.CROP_SIZE, caption.PER_IMAGE = str(tokenizer_file), 16, 3
    tokenizer = SentencePieceTokenizer(tokenizer_file)
    star = Concept("star", "noun", 4, *tokenizer.encode("star"))
    ConceptSet(tokenizer.sha256, ("noun",), (star,)).write(tmp_path / "concepts.json")
    caption.CONCEPTS = str(tmp_path / "concepts.json")
    numbers = {caption: number for number, caption in enumerate(CAPTIONS)}
    CaptionClusters(9, 0, "tf-idf", numbers).write(tmp_path / "clusters.json")
    caption.CLUSTERS = str(tmp_path / "clusters.json")
    return cfg


@pytest.fixture
def entry(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    spoken = [
        {"utterances": [(caption, 0.0, 1.0)], "points": np.zeros((0, 3), np.float32)}
        for caption in CAPTIONS
    ]
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 3,
        "height": 16,
        "width": 16,
        "captions": CAPTIONS,
        "traces": spoken,
    }


def _texts(cfg, mapped):
    """The captions of an example without masks, or its clusters."""
    tokenizer = SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER)
    texts = []
    for caption in mapped["by_caption"]:
        if "caption_tokens" not in caption:
            texts.append(int(caption["tags"]))
            continue
        tokens = caption["caption_tokens"]
        if "masked_labels" in caption:
            tokens = torch.where(tokens == tokenizer.mask_id, caption["masked_labels"], tokens)
        texts.append(tokenizer.decode(tokens[1:-1].tolist()))
    return texts


@pytest.mark.parametrize("mapper", MAPPERS)
def test_a_step_reads_as_many_different_captions_as_asked_for(cfg, entry, mapper):
    torch.manual_seed(0)
    make = mapper(cfg, True)
    seen = [_texts(cfg, make(entry)) for _ in range(40)]
    assert {len(texts) for texts in seen} == {len(set(texts)) for texts in seen} == {3}
    assert len({text for texts in seen for text in texts}) >= 4


@pytest.mark.parametrize("mapper", MAPPERS)
def test_an_image_with_fewer_gives_each_once(cfg, entry, mapper):
    two = {**entry, "captions": CAPTIONS[:2], "traces": entry["traces"][:2]}
    assert len(set(_texts(cfg, mapper(cfg, True)(two)))) == 2
    one = {**entry, "captions": CAPTIONS[:1], "traces": entry["traces"][:1]}
    assert "by_caption" not in mapper(cfg, True)(one)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_evaluation_reads_the_first_alone(cfg, entry, mapper):
    mapped = mapper(cfg, False)(entry)
    assert "by_caption" not in mapped and mapped.keys() & {"caption_tokens", "tags"}


def test_a_flip_exchanges_words_in_every_caption(cfg, entry):
    cfg.INPUT.CAPTION.FLIP_PROB = 1.0
    cfg.INPUT.CAPTION.PER_IMAGE = 2
    sided = {**entry, "captions": ["a star on the left", "two lights on the left"]}
    assert all("right" in text for text in _texts(cfg, CaptionMapper(cfg, True)(sided)))


def test_captions_without_a_concept_are_left_out(cfg, entry):
    cfg.INPUT.CAPTION.PER_IMAGE, cfg.INPUT.CAPTION.FLIP_PROB = 5, 0.0
    texts = _texts(cfg, ConceptMapper(cfg, True)(entry))
    assert sorted(texts) == sorted(CAPTIONS[:4])
