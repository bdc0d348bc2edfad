import resource

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from virtex_det import get_cfg
from virtex_det.data import CaptionMapper, SentencePieceTokenizer
from virtex_det.data.mappers.caption import LEFT_AND_RIGHT, WordExchange
from virtex_det.data.mappers.pretraining import build_image_transform
from virtex_det.errors import UserError


@pytest.fixture
def cfg(tokenizer_file):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.TOKENIZER = str(tokenizer_file)
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 60
    cfg.INPUT.CAPTION.CROP_SIZE = 16
    return cfg


@pytest.fixture
def plain_cfg(cfg):
    """No crop, no jitter: what is left is the flip and the caption."""
    cfg.merge_from_list(
        ["INPUT.CAPTION.CROP_SCALE", (1.0, 1.0), "INPUT.CAPTION.COLOR_JITTER_PROB", 0.0]
    )
    return cfg


@pytest.fixture
def square(tmp_path, example):
    """A red left half, a blue right half."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, :8, 0] = pixels[:, 8:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "square.png")
    return {
        "file_name": str(tmp_path / "square.png"),
        "image_id": 3,
        "height": 16,
        "width": 16,
        "captions": ["a star on the left"],
    }


def words(cfg, tokens):
    return SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER).decode(tokens.tolist())


def test_an_example_has_a_square_uint8_image_and_tokens_between_boundaries(cfg, example):
    mapped = CaptionMapper(cfg, True)(example)
    assert mapped["image"].shape == (3, 16, 16) and mapped["image"].dtype == torch.uint8
    assert mapped["image"].is_contiguous()
    tokens = mapped["caption_tokens"]
    assert tokens.dtype == torch.int64 and tokens.ndim == 1
    assert tokens[0] == 1 and tokens[-1] == 2 and (tokens[1:-1] > 3).all()
    assert mapped["image_id"] == 7 and mapped["height"] == mapped["width"] == 16


def test_without_flip_image_and_words_stay(plain_cfg, square):
    plain_cfg.INPUT.CAPTION.FLIP_PROB = 0.0
    mapped = CaptionMapper(plain_cfg, True)(square)
    assert mapped["image"][:, 0, 0].tolist() == [255, 0, 0] and mapped["image"][
        :, 0, -1
    ].tolist() == [0, 0, 255]
    assert words(plain_cfg, mapped["caption_tokens"]) == "a star on the left"


def test_a_flip_mirrors_the_image_and_its_words(plain_cfg, square):
    plain_cfg.INPUT.CAPTION.FLIP_PROB = 1.0
    mapped = CaptionMapper(plain_cfg, True)(square)
    assert mapped["image"][:, 0, 0].tolist() == [0, 0, 255]
    assert words(plain_cfg, mapped["caption_tokens"]) == "a star on the right"


def test_bgr_is_the_same_image_with_its_channels_reversed(cfg, example):
    images = {}
    for image_format in ("RGB", "BGR"):
        cfg.INPUT.FORMAT = image_format
        torch.manual_seed(0)
        images[image_format] = CaptionMapper(cfg, True)(example)["image"]
    assert torch.equal(images["BGR"], images["RGB"].flip(0))


def test_evaluation_takes_the_first_caption_and_the_centre_whatever_the_seed(cfg, example):
    mapper = CaptionMapper(cfg, False)
    mapped = [mapper(example) for _ in range(3)]
    assert all(torch.equal(mapped[0]["image"], other["image"]) for other in mapped)
    assert words(cfg, mapped[0]["caption_tokens"]) == example["captions"][0]
    # 40 x 60 becomes 16 x 24, of which the middle 16 columns stay.
    whole = np.asarray(
        Image.open(example["file_name"]).resize((24, 16), Image.Resampling.BILINEAR)
    )[:, 4:20]
    assert np.abs(mapped[0]["image"].permute(1, 2, 0).numpy().astype(int) - whole).max() <= 1


@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1)])
def test_an_image_however_long_takes_no_memory(cfg, tmp_path, size):
    path = tmp_path / "thin.png"
    Image.fromarray(np.full((*size, 3), 7, np.uint8)).save(path)
    example = {"file_name": str(path), "image_id": 1, "captions": ["a line"]}
    cfg.INPUT.CAPTION.CROP_SIZE = 224
    for is_train in (True, False):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert CaptionMapper(cfg, is_train)(example)["image"].shape == (3, 224, 224)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_long_image_keeps_its_middle(cfg):
    pixels = torch.arange(3 * 4 * 1000).reshape(3, 4, 1000).remainder(251).to(torch.uint8)
    cfg.INPUT.CAPTION.CROP_SIZE = 8
    resized = v2.functional.center_crop(v2.functional.resize(pixels, [8]), [8])
    assert (build_image_transform(cfg, False)(pixels).int() - resized.int()).abs().max() <= 1


def test_training_draws_from_all_captions(cfg, example):
    cfg.INPUT.CAPTION.FLIP_PROB = 0.0
    mapper = CaptionMapper(cfg, True)
    assert len({tuple(mapper(example)["caption_tokens"].tolist()) for _ in range(30)}) == 2


def test_a_torch_seed_fixes_pixels_and_words(cfg, example):
    mapper = CaptionMapper(cfg, True)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append([mapper(example) for _ in range(4)])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["caption_tokens"], second["caption_tokens"])
    assert not torch.equal(runs[0][0]["image"], runs[0][1]["image"])


@pytest.mark.parametrize(
    "key, value", [("COLOR_JITTER_PROB", 0.0), ("COLOR_JITTER", (0.0, 0.0, 0.0, 0.0))]
)
def test_colour_jitter_can_be_turned_off(cfg, square, key, value):
    cfg.merge_from_list(
        ["INPUT.CAPTION.COLOR_JITTER_PROB", 1.0, "INPUT.CAPTION.CROP_SCALE", (1.0, 1.0)]
    )
    torch.manual_seed(0)
    assert set(CaptionMapper(cfg, True)(square)["image"].unique().tolist()) != {0, 255}
    cfg.merge_from_list([f"INPUT.CAPTION.{key}", value])
    assert set(CaptionMapper(cfg, True)(square)["image"].unique().tolist()) == {0, 255}


def test_a_long_caption_is_cut_and_keeps_both_boundaries(cfg, example):
    whole = CaptionMapper(cfg, False)(example)["caption_tokens"]
    cfg.INPUT.CAPTION.MAX_LENGTH = 6
    cut = CaptionMapper(cfg, False)(example)["caption_tokens"]
    assert cut.tolist() == [*whole[:5].tolist(), 2]


@pytest.mark.parametrize("captions", [None, []])
def test_an_image_without_captions_is_an_error_that_names_it(cfg, example, captions):
    with pytest.raises(UserError, match=r"photo\.jpg(?s:.*)_captions"):
        CaptionMapper(cfg, True)({**example, "captions": captions})


def test_a_format_without_colours_is_an_error(cfg):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(UserError, match="INPUT.FORMAT is 'L'"):
        CaptionMapper(cfg, True)


@pytest.mark.parametrize(
    "caption, exchanged",
    [
        ("a star left of a ring", "a star right of a ring"),
        ("left and right", "right and left"),
        ("a bright light leftover", "a bright light leftover"),
        ("Left, RIGHT. left-hand", "Right, LEFT. right-hand"),
    ],
)
def test_left_and_right_change_places_as_whole_words_in_their_case(caption, exchanged):
    exchange = WordExchange(LEFT_AND_RIGHT)
    assert exchange(caption) == exchanged and exchange(exchanged) == caption


def test_a_vocabulary_of_another_size_than_the_model_is_refused_with_both(cfg):
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 61
    with pytest.raises(UserError, match=r"MODEL.TEXTUAL.VOCAB_SIZE is 61, .*\.model has 60 tokens"):
        CaptionMapper(cfg)


@pytest.mark.parametrize(
    ("pairs", "caption", "exchanged"),
    [
        (
            [("links", "rechts")],
            "Links ein Hund, RECHTS eine Katze",
            "Rechts ein Hund, LINKS eine Katze",
        ),
        (
            [("linken", "rechten"), ("links", "rechts")],
            "rechts im linken Bild",
            "links im rechten Bild",
        ),
        (
            [("links", "rechts")],
            "der Linksverkehr am linken Rand",
            "der Linksverkehr am linken Rand",
        ),
        ([("gauche", "droite")], "à gauche d'un chat", "à droite d'un chat"),
        ([("лево", "право")], "Лево и ПРАВО", "Право и ЛЕВО"),
        ([("左", "右")], "一只狗在左边，猫在右边", "一只狗在右边，猫在左边"),
        ([("ซ้าย", "ขวา")], "แมวอยู่ซ้ายมือ", "แมวอยู่ขวามือ"),
        ([("à gauche", "à droite")], "a\u0300 gauche", "à droite"),
        ([], "left of a right shoe", "left of a right shoe"),
    ],
)
def test_other_languages_have_words_of_their_own_for_a_flip(pairs, caption, exchanged):
    exchange = WordExchange(pairs)
    assert exchange(caption) == exchanged
    assert exchange(exchange(exchanged)) == exchanged


@pytest.mark.parametrize(
    "pairs",
    [
        "left",
        [("left",)],
        [("left", "")],
        [("left", "right"), ("right", "wrong")],
        [("left", "LEFT")],
        3,
        [3],
    ],
)
def test_words_that_are_no_pairs_are_refused(pairs):
    with pytest.raises(UserError, match="FLIP_WORDS"):
        WordExchange(pairs)


def test_the_config_names_the_words(cfg):
    cfg.INPUT.CAPTION.FLIP_WORDS = (("red", "blue"),)
    assert CaptionMapper(cfg, is_train=True).exchange("a red left star") == "a blue left star"


def test_words_that_no_caption_has_are_said(cfg, caplog):
    def said(*captions, is_train=True):
        caplog.clear()
        CaptionMapper(cfg, is_train).warn_of_missing_words([{"captions": [*captions]}, {}])
        return caplog.text

    assert not said("on the Left", "the right, too")
    assert "No caption has right (INPUT.CAPTION.FLIP_WORDS" in said("on the left", "rightly")
    assert "No caption has left, right (" in said("ein Stern links")
    assert not said("ein Stern links", is_train=False)
    cfg.INPUT.CAPTION.FLIP_PROB = 0.0
    assert not said("ein Stern links")
    cfg.INPUT.CAPTION.FLIP_PROB, cfg.INPUT.CAPTION.FLIP_WORDS = 0.5, ()
    assert not said("ein Stern links")


def test_words_that_are_not_concepts_are_hidden_and_boundaries_are_not(concepts_cfg, example):
    mapper = CaptionMapper(concepts_cfg(hide=True), True)
    tokenizer = mapper.tokenizer
    hidden, [cat, dog] = tokenizer.mask_id, tokenizer.encode("cat dog")
    mapped = mapper({**example, "captions": ["a red cat on the left , dog ."]})
    inner = [hidden, hidden, cat, hidden, hidden, hidden, hidden, dog, hidden]
    assert mapped["caption_tokens"].tolist() == [tokenizer.sos_id, *inner, tokenizer.eos_id]


def test_a_hidden_word_that_begins_like_a_concept_is_hidden_whole(concepts_cfg, example):
    mapper = CaptionMapper(concepts_cfg(hide=True), True)
    mapped = mapper({**example, "captions": ["a catfish sits"]})
    assert mapper.tokenizer.encode("catfish")[0] == mapper.tokenizer.encode("cat")[0]
    assert set(mapped["caption_tokens"][1:-1].tolist()) == {mapper.tokenizer.mask_id}


def test_a_concept_set_alone_hides_nothing(concepts_cfg, example):
    mapper = CaptionMapper(concepts_cfg(), True)
    mapped = mapper({**example, "captions": ["a red cat"]})
    assert mapped["caption_tokens"][1:-1].tolist() == mapper.tokenizer.encode("a red cat")


def test_words_to_hide_by_a_set_of_another_tokenizer_are_refused(concepts_cfg, tokenizer_file):
    cfg = concepts_cfg(hide=True)
    cfg.INPUT.CAPTION.TOKENIZER = str(tokenizer_file)
    with pytest.raises(UserError, match="INPUT.CAPTION.CONCEPTS was built with another tokenizer"):
        CaptionMapper(cfg, True)
