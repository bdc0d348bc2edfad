"""LocCa's mapper: boxes follow crops and flips, and traces give boxes to words."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import CAPTIONS
from virtex_det import get_cfg
from virtex_det.data import RegionMapper, SentencePieceTokenizer, train_tokenizer
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.mappers.region import Region, trace_regions, visible_box
from virtex_det.data.region_texts import vocabulary_texts
from virtex_det.data.traces import Window
from virtex_det.errors import UserError

CROP = 64
WHOLE = Window(0, 0, 1, 1)


@pytest.fixture(scope="module")
def boxes_model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("regions") / "boxes.model"
    train_tokenizer([*CAPTIONS, "dog", *vocabulary_texts(CROP)], path, vocab_size=200)
    return str(path)


@pytest.fixture
def cfg(boxes_model):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.TOKENIZER = boxes_model
    cfg.INPUT.CAPTION.CROP_SIZE = CROP
    cfg.INPUT.CAPTION.BOX_BINS = CROP  # a number is a pixel of the crop
    cfg.INPUT.CAPTION.MAX_LENGTH = 40
    cfg.INPUT.CAPTION.COLOR_JITTER_PROB = 0.0
    return cfg


@pytest.fixture
def plain_cfg(cfg):
    """No crop and no flip."""
    cfg.merge_from_list(["INPUT.CAPTION.CROP_SCALE", (1.0, 1.0), "INPUT.CAPTION.FLIP_PROB", 0.0])
    return cfg


@pytest.fixture
def entry(tmp_path):
    """Makes a dataset dict of a square image."""

    def make(**other):
        Image.new("RGB", (CROP, CROP)).save(tmp_path / "square.png")
        image = {"file_name": str(tmp_path / "square.png"), "image_id": 3}
        return {**image, "height": CROP, "width": CROP, "captions": ["a small star"], **other}

    return make


def trace(utterances, points, **other):
    points = np.array(points, dtype=np.float32).reshape(-1, 3)
    return {"utterances": utterances, "points": points, **other}


def said(cfg, example, name):
    tokenizer = SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER)
    return tokenizer.decode(example[f"{name}_tokens"].tolist())


def test_an_example_has_the_three_texts(plain_cfg, entry):
    regions = [{"text": "dog", "box": (0.25, 0.5, 0.75, 1.0)}]
    example = RegionMapper(plain_cfg, True)(entry(regions=regions))
    assert said(plain_cfg, example, "caption") == "cap: a small star"
    assert said(plain_cfg, example, "referring") == "aref: dog : 16 32 48 63"
    assert said(plain_cfg, example, "grounded") == "gcap: 16 32 48 63 : dog"
    assert {key for key in example if key.endswith("labels")} == {
        *("caption_labels", "referring_labels", "grounded_labels")
    }


@pytest.mark.parametrize("regions", [{}, {"regions": []}, {"traces": [trace([], [])]}])
def test_an_image_without_a_region_has_its_caption_alone(plain_cfg, entry, regions):
    example = RegionMapper(plain_cfg, True)(entry(**regions))
    assert said(plain_cfg, example, "caption") == "cap: a small star"
    assert not any(key.startswith(("referring", "grounded")) for key in example)


def test_a_flip_mirrors_the_box_and_exchanges_words(plain_cfg, entry):
    plain_cfg.INPUT.CAPTION.FLIP_PROB = 1.0
    regions = [{"text": "left dog", "box": (0.25, 0.5, 0.375, 0.75)}]
    example = RegionMapper(plain_cfg, True)(entry(regions=regions, captions=["a left star"]))
    assert said(plain_cfg, example, "caption") == "cap: a right star"
    assert said(plain_cfg, example, "referring") == "aref: right dog : 40 32 48 48"


def test_training_draws_a_region_and_evaluation_takes_the_first_that_is_there(plain_cfg, entry):
    regions = [
        {"text": name, "box": (0.0, 0.0, 0.5, 0.5)} for name in ("a dog", "a star", "a circle")
    ]
    for is_train, expected in ((True, {"a dog", "a star", "a circle"}), (False, {"a dog"})):
        mapper = RegionMapper(plain_cfg, is_train)
        drawn = [mapper(entry(regions=regions)) for _ in range(20)]
        assert {said(plain_cfg, each, "grounded").split(" : ")[1] for each in drawn} == expected


def test_a_box_is_clipped_by_the_crop_and_left_out_if_less_than_half_stays():
    def crop(left):
        corners = torch.tensor([[left, 0.0], [left + 0.4, 1.0]])
        return visible_box(Region("", corners, is_box=True), Window(0.5, 0, 0.5, 1), False)

    assert crop(0.6) == pytest.approx((0.2, 0, 1, 1))
    assert crop(0.4) == pytest.approx((0, 0, 0.6, 1))
    assert crop(0.25) is None and crop(0.0) is None


def test_points_outside_the_crop_do_not_widen_the_box_of_a_trace():
    points = torch.tensor([[0.1, 0.1], [0.6, 0.2], [0.9, 0.8], [1.2, 0.9]])
    box = visible_box(Region("", points, is_box=False), Window(0.5, 0, 0.5, 1), False)
    assert box == pytest.approx((0.2, 0.2, 0.8, 0.8))


@pytest.mark.parametrize("points", [[], [[0.5, 0.5]], [[0.2, 0.5], [0.8, 0.5]], [[-1, -1], [2, 2]]])
def test_a_trace_without_an_extent_in_the_image_is_no_region(points):
    region = Region("", torch.tensor(points, dtype=torch.float32).view(-1, 2), is_box=False)
    assert visible_box(region, WHOLE, False) is None


def test_each_utterance_has_the_points_of_its_time(plain_cfg, entry):
    utterances = [("a small", 0.0, 0.5), ("star", 0.5, 1.0), ("circle", 2.0, 2.3)]
    points = [(0.25, 0.25, 0.1), (0.5, 0.5, 0.5), (0.75, 0.625, 0.9), (0.1, 0.1, 1.5)]
    found = trace_regions(trace(utterances, points))
    assert [region.text for region in found] == ["a small", "star"]
    assert found[1].points.tolist() == [[0.5, 0.5], [0.75, 0.625]]
    example = RegionMapper(plain_cfg, False)(entry(traces=[trace(utterances, points)]))
    assert said(plain_cfg, example, "referring") == "aref: a small : 16 16 32 32"


def test_neighbouring_words_of_one_instance_are_one_region():
    words = ["a", "red", "star", "above", "a", "circle"]
    utterances = [(word, number, number + 0.9) for number, word in enumerate(words)]
    points = [(number / 10, 0.5, number + 0.5) for number in range(6)]
    grounding = [7, 7, 7, None, 9, 9]
    found = trace_regions(trace(utterances, points, grounding=grounding))
    assert [region.text for region in found] == ["a red star", "a circle"]
    assert [len(region.points) for region in found] == [3, 2]


@pytest.mark.parametrize("times", [(1.0, 0.5), (math.nan, 1.0), (0.0, math.nan)])
def test_words_without_a_time_are_no_region(times):
    assert not trace_regions(trace([("a", *times)], [(0.1, 0.1, 0.2), (0.5, 0.5, 0.7)]))


def test_a_point_at_the_end_of_a_word_belongs_to_it_in_float32_too():
    for time in (2.3, 2.9):
        assert trace_regions(trace([("a", time, time)], [(0.5, 0.5, time)]))


def test_the_box_of_the_caption_that_was_drawn_is_taken(plain_cfg, entry):
    traces = [
        trace([("star", 0, 1)], [(0.0, 0.0, 0.1), (0.25, 0.25, 0.9)]),
        trace([("circle", 0, 1)], [(0.5, 0.5, 0.1), (0.75, 0.75, 0.9)]),
    ]
    mapper = RegionMapper(plain_cfg, True)
    found = set()
    for _ in range(20):
        example = mapper(entry(captions=["a star", "a circle"], traces=traces))
        found.add((said(plain_cfg, example, "caption"), said(plain_cfg, example, "referring")))
    assert found == {
        ("cap: a star", "aref: star : 0 0 16 16"),
        ("cap: a circle", "aref: circle : 32 32 48 48"),
    }


def test_each_of_several_captions_has_a_region_of_its_own(plain_cfg, entry):
    plain_cfg.INPUT.CAPTION.PER_IMAGE = 2
    traces = [
        trace([("star", 0, 1)], [(0.0, 0.0, 0.1), (0.25, 0.25, 0.9)]),
        trace([("circle", 0, 1)], [(0.5, 0.5, 0.1), (0.75, 0.75, 0.9)]),
    ]
    example = RegionMapper(plain_cfg, True)(entry(captions=["a star", "a circle"], traces=traces))
    found = {
        (said(plain_cfg, each, "caption"), said(plain_cfg, each, "grounded"))
        for each in example["by_caption"]
    }
    assert found == {
        ("cap: a star", "gcap: 0 0 16 16 : star"),
        ("cap: a circle", "gcap: 32 32 48 48 : circle"),
    }


def test_with_a_concept_set_a_region_needs_one_of_its_words(plain_cfg, entry, tmp_path):
    tokenizer = SentencePieceTokenizer(plain_cfg.INPUT.CAPTION.TOKENIZER)
    star = Concept("star", "noun", 9, *tokenizer.encode("star"))
    ConceptSet(tokenizer.sha256, ("noun",), (star,)).write(tmp_path / "nouns.json")
    plain_cfg.INPUT.CAPTION.CONCEPTS = str(tmp_path / "nouns.json")
    utterances = [("a", 0, 1), ("small star", 1, 2)]
    points = [(0.0, 0.0, 0.1), (0.2, 0.2, 0.9), (0.5, 0.5, 1.1), (0.75, 0.75, 1.9)]
    example = RegionMapper(plain_cfg, False)(entry(traces=[trace(utterances, points)]))
    assert said(plain_cfg, example, "grounded") == "gcap: 32 32 48 48 : small star"


def test_an_image_without_a_caption_is_an_error_that_names_it(plain_cfg, entry):
    with pytest.raises(UserError, match=r"No caption for image .*square\.png"):
        RegionMapper(plain_cfg, True)(entry(captions=[]))


@pytest.mark.parametrize("is_train", [True, False])
def test_a_bright_object_lies_in_its_box_after_crop_and_flip(cfg, tmp_path, is_train):
    mapper, seen, without = RegionMapper(cfg, is_train), 0, 0
    for seed in range(60):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        height, width = rng.integers(60, 120, 2).tolist()
        top, left = rng.integers(0, 30, 2).tolist()
        bottom, right = top + int(rng.integers(12, 30)), left + int(rng.integers(12, 30))
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[top:bottom, left:right] = 255
        Image.fromarray(pixels).save(tmp_path / "box.png")
        box = (left / width, top / height, right / width, bottom / height)
        example = mapper(
            {
                **{"file_name": str(tmp_path / "box.png"), "image_id": 1, "captions": ["a star"]},
                **{"height": height, "width": width, "regions": [{"text": "dog", "box": box}]},
            }
        )
        rows, columns = (example["image"][0] > 127).nonzero(as_tuple=True)
        if "referring_tokens" not in example:
            without += 1
            continue
        seen += 1
        numbers = said(cfg, example, "referring").split(" : ")[1].split()
        found = torch.tensor([*map(int, numbers)])
        bright = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (found - bright).abs().max() <= 1.5, seed
    assert seen > 30 and (without > 2 or not is_train)
