import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from tests.data.conftest import CAPTIONS
from virtex_det import get_cfg
from virtex_det.data import CaptionMapper, SentencePieceTokenizer
from virtex_det.data.datasets.narratives import load_narratives
from virtex_det.data.mappers.narrative import NarrativeMapper, encode_utterances
from virtex_det.errors import UserError

CROP = 32
BLOB = 4  # radius in pixels


@pytest.fixture
def cfg(tokenizer_file):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.TOKENIZER = str(tokenizer_file)
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 60
    cfg.INPUT.CAPTION.CROP_SIZE = CROP
    return cfg


@pytest.fixture
def plain_cfg(cfg):
    """No crop, no jitter, no flip."""
    cfg.merge_from_list(
        ["INPUT.CAPTION.CROP_SCALE", (1.0, 1.0), "INPUT.CAPTION.COLOR_JITTER_PROB", 0.0]
    )
    cfg.INPUT.CAPTION.FLIP_PROB = 0.0
    return cfg


def _trace(utterances, points):
    return {"utterances": utterances, "points": np.array(points, dtype=np.float32).reshape(-1, 3)}


@pytest.fixture
def narrated(tmp_path):
    """A square image and one narrative of three words."""

    def narrated(utterances, points, **other):
        Image.new("RGB", (CROP, CROP)).save(tmp_path / "square.png")
        caption = " ".join(text for text, _, _ in utterances)
        entry = {
            "file_name": str(tmp_path / "square.png"),
            "image_id": 3,
            "height": CROP,
            "width": CROP,
        }
        return {**entry, "captions": [caption], "traces": [_trace(utterances, points)], **other}

    return narrated


def _words(cfg, tokens):
    return SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER).decode(
        torch.as_tensor(tokens).tolist()
    )


@pytest.mark.parametrize("caption", [*CAPTIONS, "Un café,  naïve & 12½ [MASK] rings…"])
def test_words_encoded_one_by_one_are_the_caption_encoded_whole(tokenizer_file, caption):
    tokenizer = SentencePieceTokenizer(tokenizer_file)
    words = caption.split()
    utterances = [(" ".join(words[:2]), 0, 1), *((word, 1, 2) for word in words[2:])]
    tokens, positions = encode_utterances(tokenizer, utterances, max_length=1000)
    assert tokens == tokenizer.encode(caption)
    assert positions == sorted(positions) and set(positions) == set(range(len(utterances)))


def test_each_token_gets_the_points_of_its_utterance(plain_cfg, narrated):
    utterances = [("a small", 0.0, 0.5), ("red", 0.5, 1.0), ("star", 2.0, 2.0)]
    points = [(0.1, 0.2, 0.25), (0.3, 0.4, 0.5), (0.5, 0.6, 1.5), (0.7, 0.8, 2.0)]
    example = NarrativeMapper(plain_cfg, True)(narrated(utterances, points))
    tokenizer = SentencePieceTokenizer(plain_cfg.INPUT.CAPTION.TOKENIZER)
    counts = [len(tokenizer.encode(text)) for text, _, _ in utterances]
    assert example["caption_tokens"].tolist() == [1, *tokenizer.encode("a small red star"), 2]
    # The point at 0.5 s belongs to two utterances, that at 1.5 s to none.
    spans = np.split(np.arange(1, 1 + sum(counts)), np.cumsum(counts)[:-1])
    expected = [(token, *point[:2]) for token in spans[0] for point in points[:2]]
    expected += [(token, *points[1][:2]) for token in spans[1]] + [
        (token, *points[3][:2]) for token in spans[2]
    ]
    assert example["trace_points"].dtype == torch.float32
    assert example["trace_points"].tolist() == torch.tensor(expected, dtype=torch.float32).tolist()


def test_a_point_at_the_end_of_an_utterance_belongs_to_it_in_float32_too(plain_cfg, narrated):
    # 2.3 as float32 is below 2.3, and 2.9 above.
    for time in (2.3, 2.9):
        example = narrated([("a", time, time)], [(0.5, 0.5, time)])
        assert len(NarrativeMapper(plain_cfg, True)(example)["trace_points"]) == 1


def test_points_outside_the_image_are_dropped_and_not_clamped(plain_cfg, narrated):
    points = [(-0.01, 0.5, 0), (0.5, 1.01, 0), (1.0, 0.5, 0), (0.5, 0.5, 0)]
    trace_points = NarrativeMapper(plain_cfg, True)(narrated([("a", 0, 1)], points))["trace_points"]
    assert trace_points[:, 1:].tolist() == [[0.5, 0.5]]


def test_a_flip_mirrors_points_and_exchanges_words_without_touching_their_times(
    plain_cfg, narrated
):
    plain_cfg.INPUT.CAPTION.FLIP_PROB = 1.0
    utterances = [("a", 0.0, 0.1), ("red left", 0.1, 0.2), ("star", 0.2, 0.3)]
    example = NarrativeMapper(plain_cfg, True)(narrated(utterances, [(0.25, 0.5, 0.25)]))
    assert _words(plain_cfg, example["caption_tokens"]) == "a red right star"
    tokenizer = SentencePieceTokenizer(plain_cfg.INPUT.CAPTION.TOKENIZER)
    first = 1 + len(tokenizer.encode("a red right"))
    star = range(first, first + len(tokenizer.encode("star")))
    assert example["trace_points"].tolist() == [[token, 0.75, 0.5] for token in star]


def test_a_long_narrative_is_cut_with_its_points_and_keeps_both_boundaries(plain_cfg, narrated):
    plain_cfg.INPUT.CAPTION.MAX_LENGTH = 4
    utterances = [("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]
    entry = narrated(utterances, [(0.5, 0.5, 1), (0.5, 0.5, 2)])
    example = NarrativeMapper(plain_cfg, True)(entry)
    assert len(example["caption_tokens"]) == 4 and example["caption_tokens"][[0, -1]].tolist() == [
        1,
        2,
    ]
    assert example["trace_points"].tolist() == [[2, 0.5, 0.5]]


@pytest.mark.parametrize("utterances", [[], [("a small", 1.0, 0.5), ("star", np.nan, 1.0)]])
def test_words_without_a_time_have_no_points(plain_cfg, narrated, utterances):
    example = narrated(utterances, [(0.5, 0.5, 0.0), (0.5, 0.5, 0.7)], captions=["a small star"])
    mapped = NarrativeMapper(plain_cfg, True)(example)
    assert _words(plain_cfg, mapped["caption_tokens"]) == "a small star"
    assert mapped["trace_points"].shape == (0, 3)


def test_a_narrative_without_trace_has_no_points(plain_cfg, narrated):
    assert NarrativeMapper(plain_cfg, True)(narrated([("a", 0, 1)], []))["trace_points"].shape == (
        0,
        3,
    )


def test_training_draws_from_all_narratives_and_evaluation_takes_the_first(plain_cfg, narrated):
    traces = [_trace([("a", 0, 1)], [(0.1, 0.1, 0.5)]), _trace([("star", 0, 1)], [(0.9, 0.9, 0.5)])]
    entry = narrated([("a", 0, 1)], [], captions=["a", "star"], traces=traces)
    for is_train, expected in ((True, {("a", 1), ("star", 9)}), (False, {("a", 1)})):
        mapper = NarrativeMapper(plain_cfg, is_train)
        drawn = [mapper(entry) for _ in range(20)]
        found = {
            (_words(plain_cfg, e["caption_tokens"]), round(float(e["trace_points"][0, 1]) * 10))
            for e in drawn
        }
        assert found == expected


@pytest.mark.parametrize("is_train", [True, False])
def test_the_image_is_the_caption_mappers_under_the_same_seed(cfg, photo, is_train):
    utterances = [("a", 0.0, 1.0)]
    entry = {"file_name": str(photo), "image_id": 7, "height": 40, "width": 60, "captions": ["a"]}
    for seed in range(5):
        examples = []
        for mapper in (CaptionMapper(cfg, is_train), NarrativeMapper(cfg, is_train)):
            torch.manual_seed(seed)
            examples.append(mapper({**entry, "traces": [_trace(utterances, [])]}))
        assert torch.equal(examples[0]["image"], examples[1]["image"])
        assert torch.equal(examples[0]["caption_tokens"], examples[1]["caption_tokens"])


@pytest.mark.parametrize("traces", [None, [], [_trace([], []), _trace([], [])]])
def test_an_image_without_a_trace_per_caption_is_an_error_that_names_it(
    plain_cfg, narrated, traces
):
    with pytest.raises(
        UserError, match=r"square\.png has 1 captions and \d traces(?s:.*)_narratives"
    ):
        NarrativeMapper(plain_cfg, True)(narrated([("a", 0, 1)], [], traces=traces))


def _blob(path, height, width, column, row):
    """Draw a bright disc around the centre of a pixel; return its place in shares of the image."""
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - row, columns - column)
    pixels = (255 * np.clip(BLOB - distance, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).convert("RGB").save(path)
    return (column + 0.5) / width, (row + 0.5) / height


def _brightest(image):
    """Return the centre of mass of the brightness, x and y in shares of the image."""
    weights = image[0].double()
    ticks = (torch.arange(len(weights)) + 0.5) / len(weights)
    return (
        torch.stack([(weights.sum(0) * ticks).sum(), (weights.sum(1) * ticks).sum()])
        / weights.sum()
    )


@pytest.mark.parametrize("is_train", [True, False])
def test_a_point_drawn_into_the_image_lands_where_its_trace_says(cfg, tmp_path, is_train):
    cfg.INPUT.CAPTION.COLOR_JITTER_PROB = 0.0
    mapper = NarrativeMapper(cfg, is_train)
    path, seen, dropped = tmp_path / "blob.png", 0, 0
    for seed in range(150):
        torch.manual_seed(seed)
        height, width, row, column = (
            np.random.default_rng(seed).integers([40, 40, 0, 0], [90, 90, 40, 40]).tolist()
        )
        place = _blob(path, height, width, column, row)
        entry = {
            "file_name": str(path),
            "image_id": 1,
            "height": height,
            "width": width,
            "captions": ["a"],
        }
        example = mapper({**entry, "traces": [_trace([("a", 0, 1)], [(*place, 0.5)])]})
        points = example["trace_points"][:, 1:].double()
        plane = example["image"][0]
        is_whole = bool(plane.any()) and not _touches_border(plane)
        # A disc that is whole has its point; of one without its point no more than half is left, at
        # the border.
        assert len(points) == 1 or not is_whole
        dropped += not len(points)
        if is_whole:
            seen += 1
            # Far less than the pixel by which a flip of pixel centres would be off.
            assert (points[0] - _brightest(example["image"])).abs().max() < 0.3 / CROP
    assert seen > 30 and dropped > 10


def _touches_border(plane):
    return bool(plane[[0, -1]].any() or plane[:, [0, -1]].any())


def test_points_of_scenes_stay_on_the_named_object(scenes, vocabulary, cfg, tmp_path):
    cfg.merge_from_list(
        ["INPUT.CAPTION.TOKENIZER", str(vocabulary), "MODEL.TEXTUAL.VOCAB_SIZE", 240]
    )
    cfg.INPUT.CAPTION.COLOR_JITTER_PROB = 0.0
    mapper = NarrativeMapper(cfg, True)
    coco = COCO(str(scenes / "annotations" / "instances_train.json"))
    on_object = []
    for seed, entry in enumerate(
        load_narratives(scenes / "annotations/narratives_train.jsonl", scenes / "train")
    ):
        torch.manual_seed(seed)
        trace = entry["traces"][0]
        named = next(number for number in trace["grounding"] if number)
        words = [
            said
            for said, number in zip(trace["utterances"], trace["grounding"], strict=True)
            if number == named
        ]
        Image.fromarray(255 * coco.annToMask(coco.anns[named])).save(tmp_path / "mask.png")
        masked = {
            **entry,
            "file_name": str(tmp_path / "mask.png"),
            "traces": [{**trace, "utterances": words}],
        }
        example = mapper({**masked, "captions": ["any"]})
        columns, rows = (example["trace_points"][:, 1:] * CROP).long().unbind(1)
        on_object.append(example["image"][0, rows, columns] > 127)
    found = torch.cat(on_object).float()
    assert len(found) > 150 and found.mean() > 0.85


RED_CAT = [("a", 0.0, 0.1), ("red", 0.2, 0.3), ("cat", 0.4, 0.5), ("left of", 0.6, 0.7)]
RED_CAT_POINTS = [(0.1, 0.1, 0.05), (0.2, 0.2, 0.25), (0.3, 0.3, 0.45), (0.4, 0.4, 0.65)]


def test_with_concepts_only_their_words_have_points(concepts_cfg, narrated):
    mapper = NarrativeMapper(concepts_cfg(), True)
    example = mapper(narrated(RED_CAT, RED_CAT_POINTS))
    expected = torch.tensor([[3, 0.3, 0.3]])
    assert torch.equal(example["trace_points"], expected)
    assert example["caption_tokens"][1:-1].tolist() == mapper.tokenizer.encode("a red cat left of")


def test_hidden_words_of_a_narrative_are_those_of_the_same_caption(concepts_cfg, narrated):
    entry = narrated([*RED_CAT, ("the star", 0.8, 0.9)], [(0.5, 0.5, 0.85)])
    examples = [
        make(concepts_cfg(hide=True), True)(entry) for make in (CaptionMapper, NarrativeMapper)
    ]
    assert torch.equal(examples[0]["caption_tokens"], examples[1]["caption_tokens"])
    assert torch.equal(examples[1]["trace_points"], torch.tensor([[7, 0.5, 0.5]]))


def test_localized_words_by_a_set_of_another_tokenizer_are_refused(concepts_cfg, tokenizer_file):
    cfg = concepts_cfg()
    cfg.INPUT.CAPTION.TOKENIZER = str(tokenizer_file)
    with pytest.raises(UserError, match="INPUT.CAPTION.CONCEPTS was built with another tokenizer"):
        NarrativeMapper(cfg, True)
