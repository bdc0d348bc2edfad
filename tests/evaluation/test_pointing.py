"""The pointing game: which words count, and what a hit is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from virtex_det import get_cfg
from virtex_det.data import SentencePieceTokenizer, train_tokenizer
from virtex_det.data.datasets import load_captions
from virtex_det.evaluation.pointing import PointingGameEvaluator

NAME = "pointing_test"
STAR, CIRCLE = 7, 8
CAPTION = "a red star left of a blue circle"
GROUNDING = [None, STAR, STAR, None, None, None, CIRCLE, CIRCLE]
# What is wide is cropped to its middle: the image shown to the model is columns 4 to 12 of these
# 16.
HEIGHT, WIDTH = 8, 16


def trace(caption: str, grounding: list[int | None]) -> dict:
    words = [(word, float(number), number + 1.0) for number, word in enumerate(caption.split())]
    return {
        "utterances": words,
        "points": np.zeros((0, 3), dtype=np.float32),
        "grounding": grounding,
    }


def annotation(number: int, category: int, box: list[int]) -> dict:
    x, y, width, height = box
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    rest = {"bbox": box, "area": width * height, "iscrowd": 0, "segmentation": [outline]}
    return {"id": number, "image_id": 1, "category_id": category, **rest}


@pytest.fixture(scope="module")
def vocabulary(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary so small that words have several pieces."""
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    train_tokenizer(load_captions(["scenes_unlabelled_captions"]), path, vocab_size=80)
    return path


@pytest.fixture
def tokenizer(vocabulary: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(vocabulary)


@pytest.fixture
def evaluator(vocabulary: Path, tmp_path: Path):
    """The evaluator of an image with a star and a circle.

    The star is in the upper left quarter of the model's input, the circle in its lower right
    corner.
    """
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "0.png")
    annotations = [annotation(STAR, 1, [5, 1, 3, 3]), annotation(CIRCLE, 2, [11, 7, 1, 1])]
    categories = [{"id": 1, "name": "star"}, {"id": 2, "name": "circle"}]
    images = [{"id": 1, "file_name": "0.png", "height": HEIGHT, "width": WIDTH}]
    json_file = tmp_path / "instances.json"
    json_file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    example = {
        "file_name": str(tmp_path / "0.png"),
        "image_id": "0",
        "height": HEIGHT,
        "width": WIDTH,
    }
    traces = [trace("a small star", [None, None, None]), trace(CAPTION, GROUNDING)]
    captions = ["a small star", CAPTION]
    DatasetCatalog.register(NAME, lambda: [{**example, "captions": captions, "traces": traces}])
    MetadataCatalog.get(NAME).set(instances_json=str(json_file))
    cfg = get_cfg()
    cfg.INPUT.CAPTION.TOKENIZER = str(vocabulary)
    yield PointingGameEvaluator(cfg, NAME)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def encode(tokenizer: SentencePieceTokenizer, caption: str) -> torch.Tensor:
    return torch.tensor([1, *tokenizer.encode(caption), 2])


def positions(tokenizer: SentencePieceTokenizer, word: str) -> list[int]:
    """Where the pieces of a word of the caption are."""
    before = CAPTION.split()[: CAPTION.split().index(word)]
    start = 1 + len(tokenizer.encode(" ".join(before)))
    return [*range(start, start + len(tokenizer.encode(word)))]


def look(tokenizer: SentencePieceTokenizer, **cells: tuple[int, int]) -> torch.Tensor:
    """Attention over 2 x 2 cells, even but for words that look at a cell."""
    attention = torch.full((len(encode(tokenizer, CAPTION)), 2, 2), 0.25)
    for word, (row, column) in cells.items():
        attention[positions(tokenizer, word)] = torch.eye(4)[2 * row + column].view(2, 2)
    return attention


def play(
    evaluator: PointingGameEvaluator,
    caption: torch.Tensor,
    attention: torch.Tensor,
    **example: torch.Tensor,
):
    evaluator.reset()
    evaluator.process(
        [{"image_id": "0", "caption_tokens": caption, **example}], [{"attention": attention}]
    )
    return evaluator.evaluate()


def test_a_word_hits_when_the_centre_of_its_largest_cell_is_on_its_object(evaluator, tokenizer):
    caption = encode(tokenizer, CAPTION)
    hit = play(evaluator, caption, look(tokenizer, star=(0, 0), circle=(1, 1)))["pointing"]
    miss = play(evaluator, caption, look(tokenizer, star=(0, 1), circle=(1, 1)))["pointing"]
    # The star covers one centre of four, the circle none.
    assert hit == {"accuracy": 50, "chance": 12.5, "ceiling": 50, "words": 2}
    assert miss == {**hit, "accuracy": 0}


def test_finer_cells_find_smaller_objects(evaluator, tokenizer):
    attention = torch.zeros(len(encode(tokenizer, CAPTION)), 8, 8)
    attention[positions(tokenizer, "circle"), 7, 7] = 1
    found = play(evaluator, encode(tokenizer, CAPTION), attention)["pointing"]
    assert found == {"accuracy": 100, "chance": 100 / 64, "ceiling": 100, "words": 1}


def test_pieces_of_a_word_point_together(evaluator, tokenizer):
    pieces = positions(tokenizer, "star")
    assert len(pieces) > 1
    attention = look(tokenizer, star=(0, 0))
    attention[pieces[0]] = torch.tensor([[0.4, 0.6], [0.0, 0.0]])
    attention[positions(tokenizer, "circle")] = 0
    assert play(evaluator, encode(tokenizer, CAPTION), attention)["pointing"]["accuracy"] == 100


def test_only_words_with_attention_count(evaluator, tokenizer):
    """A masked word stands in the caption as [MASK], and it alone looks anywhere."""
    caption = encode(tokenizer, CAPTION)
    labels, attention = torch.zeros_like(caption), look(tokenizer, star=(0, 0))
    hidden = positions(tokenizer, "star")
    labels[hidden] = caption[hidden]
    attention[labels == 0] = 0
    masked = caption.masked_fill(labels > 0, 3)
    found = play(evaluator, masked, attention, masked_labels=labels)["pointing"]
    assert (found["accuracy"], found["words"]) == (100, 1)


def test_hidden_words_do_not_count(evaluator, tokenizer):
    caption = encode(tokenizer, CAPTION)
    shown = torch.full_like(caption, tokenizer.mask_id)
    kept = [0, *positions(tokenizer, "star"), len(caption) - 1]
    shown[kept] = caption[kept]
    found = play(evaluator, shown, look(tokenizer, star=(0, 0)))["pointing"]
    assert (found["accuracy"], found["words"]) == (100, 1)


def test_words_about_nothing_and_captions_of_no_narrative_do_not_count(evaluator, tokenizer):
    for caption in ("a small star", "a large star"):
        tokens = encode(tokenizer, caption)
        assert play(evaluator, tokens, torch.ones(len(tokens), 2, 2)) == {}


def test_an_image_that_two_processes_saw_counts_once(evaluator, tokenizer):
    example = {"image_id": "0", "caption_tokens": encode(tokenizer, CAPTION)}
    for _ in range(2):
        evaluator.process([example], [{"attention": look(tokenizer)}])
    assert evaluator.evaluate()["pointing"]["words"] == 2


def test_images_without_attention_are_passed_over(evaluator, tokenizer):
    evaluator.process([{"image_id": "0", "caption_tokens": encode(tokenizer, CAPTION)}], [{}])
    assert evaluator.evaluate() == {}
