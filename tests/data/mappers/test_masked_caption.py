import math

import pytest
import torch

from virtex_det import get_cfg
from virtex_det.data import CaptionMapper, MaskedCaptionMapper
from virtex_det.errors import UserError

LONG = "a small red star left of a blue circle a café with two bright lights one on the right"
MASK, UNLABELLED = 3, 0


@pytest.fixture
def cfg(tokenizer_file):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["INPUT.FORMAT", "RGB", "MODEL.TEXTUAL.VOCAB_SIZE", 60, "INPUT.CAPTION.CROP_SIZE", 8]
    )
    cfg.merge_from_list(
        ["INPUT.CAPTION.TOKENIZER", str(tokenizer_file), "INPUT.CAPTION.FLIP_PROB", 0.0]
    )
    return cfg


@pytest.fixture
def long_example(example):
    return {**example, "captions": [LONG]}


@pytest.fixture
def true_tokens(cfg, long_example):
    return CaptionMapper(cfg, False)(long_example)["caption_tokens"]


def draw(cfg, example, times):
    mapper = MaskedCaptionMapper(cfg, True)
    torch.manual_seed(0)
    mapped = [mapper(example) for _ in range(times)]
    return torch.stack([e["caption_tokens"] for e in mapped]), torch.stack(
        [e["masked_labels"] for e in mapped]
    )


def test_labels_are_the_true_tokens_where_and_only_where_the_caption_is_masked(
    cfg, long_example, true_tokens
):
    tokens, labels = draw(cfg, long_example, 200)
    assert labels.dtype == tokens.dtype == torch.int64 and labels.shape == tokens.shape
    assert torch.equal(tokens == MASK, labels != UNLABELLED)
    assert torch.equal(
        labels[labels != UNLABELLED], true_tokens.expand_as(labels)[labels != UNLABELLED]
    )


def test_boundaries_are_never_chosen_and_every_word_is(cfg, long_example, true_tokens):
    cfg.INPUT.CAPTION.MASK_PROPORTION = 0.4
    tokens, _ = draw(cfg, long_example, 300)
    changed = (tokens != true_tokens).any(dim=0)
    assert not changed[0] and not changed[-1] and changed[1:-1].all()


def test_of_the_chosen_tokens_the_published_parts_are_masked_and_replaced(
    cfg, long_example, true_tokens
):
    tokens, labels = draw(cfg, long_example, 1000)
    chosen = 1000 * math.ceil(0.15 * (len(true_tokens) - 2))
    masked = int((labels != UNLABELLED).sum())
    replaced = int(((tokens != true_tokens) & (tokens != MASK)).sum())
    assert masked / chosen == pytest.approx(0.85, abs=0.03)
    # One in 56 is replaced by itself.
    assert replaced / chosen == pytest.approx(0.10 * 55 / 56, abs=0.03)


def test_replacements_are_never_special_tokens_and_have_no_label(cfg, long_example):
    cfg.merge_from_list(["INPUT.CAPTION.MASK_PROB", 0.0, "INPUT.CAPTION.REPLACE_PROB", 1.0])
    cfg.INPUT.CAPTION.MASK_PROPORTION = 1.0
    tokens, labels = draw(cfg, long_example, 300)
    words = tokens[:, 1:-1]
    assert (labels == UNLABELLED).all() and words.min() == 4 and words.max() == 59


def test_the_share_is_rounded_up(cfg, long_example, true_tokens):
    cfg.INPUT.CAPTION.MASK_PROB = 1.0
    _, labels = draw(cfg, long_example, 20)
    assert set((labels != UNLABELLED).sum(dim=1).tolist()) == {
        math.ceil(0.15 * (len(true_tokens) - 2))
    }


@pytest.mark.parametrize("mask_prob", [0.0, 0.85])
def test_a_lone_token_is_always_masked(cfg, example, mask_prob):
    cfg.INPUT.CAPTION.MASK_PROB = mask_prob
    tokens, labels = draw(cfg, {**example, "captions": ["star"]}, 50)
    assert ((labels != UNLABELLED).sum(dim=1) == 1).all()


def test_a_share_of_nothing_still_chooses_one(cfg, long_example):
    cfg.INPUT.CAPTION.MASK_PROPORTION = 0.0
    _, labels = draw(cfg, long_example, 20)
    assert ((labels != UNLABELLED).sum(dim=1) == 1).all()


def test_a_caption_without_a_word_has_nothing_to_predict(cfg, example):
    cfg.INPUT.CAPTION.MAX_LENGTH = 2
    assert MaskedCaptionMapper(cfg, True)(example)["masked_labels"].tolist() == [UNLABELLED] * 2


def test_evaluation_hides_the_same_tokens_each_time_and_others_in_other_images(cfg, long_example):
    mapper = MaskedCaptionMapper(cfg, False)
    first, second = mapper(long_example), mapper(long_example)
    assert (
        torch.equal(first["masked_labels"], second["masked_labels"])
        and first["masked_labels"].any()
    )
    others = [
        mapper({**long_example, "image_id": image_id})["masked_labels"] for image_id in range(20)
    ]
    assert len({tuple(labels.tolist()) for labels in others}) > 5


def test_the_rest_of_an_example_is_that_of_the_caption_mapper(cfg, example):
    mapped = MaskedCaptionMapper(cfg, False)(example)
    plain = CaptionMapper(cfg, False)(example)
    assert mapped.keys() == plain.keys() | {"masked_labels"} and torch.equal(
        mapped["image"], plain["image"]
    )


def test_an_image_without_captions_is_an_error(cfg, example):
    with pytest.raises(UserError, match="No caption"):
        MaskedCaptionMapper(cfg, True)({**example, "captions": []})
