"""Attention: which word it belongs to, and how it is drawn."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, TINY_PRETRAINING
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.narratives import load_narratives
from virtex_det.data.mappers.narrative import encode_utterances
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import Trainer, load_config
from virtex_det.errors import UserError
from virtex_det.inference.attention import AttentionDrawer, TracedCaption, with_captions
from virtex_det.inference.attention_sheets import Sheets, write_sheets

SIDE = 64
CONCEPTS = ("red", "small", "large", "ring", "circle", "square")


@pytest.fixture
def make_cfg(scenes, vocabulary, tmp_path):
    """Makes configs of a tiny model with random weights."""

    def make(config, *options):
        paths = ["INPUT.CAPTION.TOKENIZER", vocabulary, "INPUT.CAPTION.CONCEPTS", ""]
        paths += ["MODEL.WEIGHTS", tmp_path / f"{config}.pth"]
        options = [*TINY_PRETRAINING, *paths, *options]
        cfg = load_config(str(ROOT / f"configs/pretrain/{config}.yaml"), list(map(str, options)))
        torch.manual_seed(0)
        torch.save({"model": Trainer.build_model(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
        return cfg

    return make


# The configs of the scenes are in bfloat16, which rounds one caption and several differently.
EXACT = ("SOLVER.AMP.ENABLED", False)


@pytest.fixture
def loctex(make_cfg):
    return AttentionDrawer(make_cfg("scenes_loctex", "MODEL.LOCTEX.EMBED_SIZE", 16, *EXACT))


@pytest.fixture
def concepts(vocabulary, tmp_path):
    tokenizer = read_tokenizer(str(vocabulary))
    # The word as it is at the start of a caption is its one piece, or its first one: a set is
    # allowed no other.
    pieces = {word: tokenizer.encode(word) for word in CONCEPTS}
    found = [
        Concept(word, "noun", 1, *tokens) for word, tokens in pieces.items() if len(tokens) == 1
    ]
    assert len(found) > 2
    ConceptSet(tokenizer.sha256, ("noun",), tuple(found)).write(tmp_path / "concepts.json")
    return [concept.word for concept in found]


@pytest.fixture(params=["scenes_icmlm_tfm", "scenes_icmlm_att_fc"])
def icmlm(request, make_cfg, concepts, tmp_path):
    return AttentionDrawer(
        make_cfg(request.param, "INPUT.CAPTION.CONCEPTS", tmp_path / "concepts.json", *EXACT)
    )


@pytest.fixture
def picture(scenes):
    return scenes / "val" / "000000.png"


@pytest.fixture
def narrated(scenes):
    annotations = scenes / "annotations" / "narratives_val.jsonl"
    return load_narratives(annotations, scenes / "val")


def drawn(drawer, path, caption):
    [sheet] = drawer.draw(with_captions([path], caption)).drawn
    return sheet


def looks(drawer, path, caption):
    """The image and the tokens that the model is given, and where it looks for each word."""
    tokenizer = drawer.mapper.tokenizer
    words = [(word, 0.0, 0.0) for word in caption.split()]
    tokens, word_of = encode_utterances(tokenizer, words, max_length=30)
    image = drawer.mapper.map_image({"file_name": str(path), "image_id": 0})[0]["image"]
    bounded = torch.tensor([tokenizer.sos_id, *tokens, tokenizer.eos_id])
    with torch.no_grad():
        found = list(
            drawer.look(image, bounded, TracedCaption(words, tokens, word_of, torch.zeros(0, 3)))
        )
    return image, bounded, found


def opened(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image).astype(int)


def test_a_words_attention_is_the_mean_over_its_pieces(loctex, picture):
    caption = "a zebra ring"
    image, tokens, found = looks(loctex, picture, caption)
    rows = loctex.model([{"image": image, "caption_tokens": tokens}])[0]["attention"]
    lengths = [len(loctex.mapper.tokenizer.encode(word)) for word in caption.split()]
    assert lengths[1] > 1
    assert [look.text for look in found] == caption.split()
    for look, of_word in zip(found, rows[1:-1].split(lengths), strict=True):
        torch.testing.assert_close(look.attention, of_word.mean(dim=0))
        assert float(look.attention.sum()) == pytest.approx(1, abs=1e-5) and look.guesses == ()


def test_words_alone_are_drawn_a_sheet_each(loctex, scenes, tmp_path):
    words = load_dataset("scenes_val_words")
    sheets = loctex.draw(words)
    assert [sheet.caption for sheet in sheets.drawn] == [word["captions"][0] for word in words]
    write_sheets(tmp_path, sheets, loctex.describe())
    assert len(list(tmp_path.glob("*.png"))) == len(words)


def test_hidden_words_are_not_drawn(make_cfg, concepts, picture, tmp_path):
    options = ["INPUT.CAPTION.CONCEPTS", tmp_path / "concepts.json"]
    options += ["INPUT.CAPTION.HIDE_OTHER_WORDS", True, "MODEL.LOCTEX.EMBED_SIZE", 16]
    drawer = AttentionDrawer(make_cfg("scenes_loctex", *options))
    sheet = drawn(drawer, picture, f"a {concepts[0]} zebra {concepts[1]}")
    assert [word.text for word in sheet.words] == concepts[:2]
    assert sheet.caption == f"a {concepts[0]} zebra {concepts[1]}"


def test_plain_contrastive_models_are_drawn_too(make_cfg, picture):
    drawer = AttentionDrawer(make_cfg("scenes_contrastive", "MODEL.LOCTEX.EMBED_SIZE", 16))
    assert [word.text for word in drawn(drawer, picture, "a red ring").words] == [
        "a",
        "red",
        "ring",
    ]


def test_each_concept_is_masked_in_turn_and_all_else_is_seen(icmlm, concepts, picture):
    caption = f"a {concepts[0]} {concepts[1]} and a {concepts[0]}, too"
    image, tokens, found = looks(icmlm, picture, caption)
    assert [(look.text, look.word) for look in found] == [
        (concepts[0], 1),
        (concepts[1], 2),
        (concepts[0], 5),
    ]
    tokenizer = icmlm.mapper.tokenizer
    positions = [
        p for p, token in enumerate(tokens.tolist()) if tokenizer.decode([token]) in concepts[:2]
    ]
    for position, look in zip(positions, found, strict=True):
        masked, labels = tokens.clone(), torch.zeros_like(tokens)
        masked[position], labels[position] = tokenizer.mask_id, tokens[position]
        example = {"image": image, "caption_tokens": masked, "masked_labels": labels}
        [output] = icmlm.model([example])
        torch.testing.assert_close(look.attention, output["attention"][position])
        true = [guess.probability for guess in look.guesses if guess.is_right]
        if true:
            assert true[0] == pytest.approx(
                float(torch.exp(-output["losses"]["loss_masked_concept"][0])), rel=1e-4
            )


def test_guesses_are_the_five_most_probable_and_the_right_one_is_marked(icmlm, concepts, picture):
    with torch.no_grad():  # no image, no text: the bias decides
        icmlm.model.fusion.output.weight.zero_()
        icmlm.model.fusion.output.bias.zero_()
        best = icmlm.mapper.tokenizer.encode(" ".join(concepts[:2]))
        icmlm.model.fusion.output.bias[best] = torch.tensor([4.0, 5.0])
    guesses = drawn(icmlm, picture, f"a {concepts[0]}").words[0].guesses
    assert [guess.word for guess in guesses[:2]] == [concepts[1], concepts[0]] and len(guesses) == 5
    assert [guess.is_right for guess in guesses] == [False, True, False, False, False]
    assert guesses[0].probability == pytest.approx(np.exp(5) / (np.exp(5) + np.exp(4) + 238))


def test_a_caption_without_concepts_is_shown_without_words(icmlm, picture, tmp_path):
    sheet = drawn(icmlm, picture, "a zebra")
    assert sheet.words == () and sheet.caption == "a zebra"
    assert "No word of it is drawn" in write_sheets(tmp_path, Sheets([sheet], []), {}).read_text()


def test_narratives_have_the_trace_beside_the_attention(loctex, narrated):
    sheets = loctex.draw(narrated).drawn
    assert len(sheets) == len(narrated)
    for sheet, image in zip(sheets, narrated, strict=True):
        utterances = image["traces"][0]["utterances"]
        assert sheet.has_trace and sheet.caption == " ".join(text for text, _, _ in utterances)
        assert [word.text for word in sheet.words] == sheet.caption.split()[: len(sheet.words)]
        assert any(word.points for word in sheet.words)
        plain = loctex.draw([{**image, "traces": None}]).drawn[0]
        assert not plain.has_trace and all(word.trace is None for word in plain.words)
        assert (opened(plain.picture) != opened(sheet.picture)).any()


def test_a_words_picture_has_the_points_of_its_time_alone(loctex, tmp_path):
    Image.new("RGB", (SIDE, SIDE), "white").save(tmp_path / "white.png")
    said = [("a", 0.0, 0.9), ("red ring", 1.0, 2.0), ("too", 3.0, 3.0)]
    points = [[0.25, 0.25, 0.5], [0.75, 0.75, 1.5], [1.05, 0.75, 1.7]]
    trace = {"utterances": said, "points": np.array(points, np.float32)}
    image = {
        "file_name": str(tmp_path / "white.png"),
        "image_id": 0,
        "captions": ["a red ring too"],
        "traces": [trace],
    }
    sheet = loctex.draw([image]).drawn[0]
    assert [(word.text, word.points) for word in sheet.words] == [
        ("a", 1),
        ("red", 1),
        ("ring", 1),
        ("too", 0),
    ]

    def places(jpeg):
        dark = np.argwhere(opened(jpeg).min(axis=2) < 128)
        return {
            (int(row > len(opened(jpeg)) / 2), int(column > len(opened(jpeg)) / 2))
            for row, column in dark
        }

    assert [places(word.trace) for word in sheet.words] == [{(0, 0)}, {(1, 1)}, {(1, 1)}, set()]
    assert places(sheet.picture) == {(0, 0), (1, 1)}


def test_the_trace_lies_on_the_crop_that_the_model_sees(loctex, tmp_path):
    wide = Image.new("RGB", (2 * SIDE, SIDE), "white")
    wide.save(tmp_path / "wide.png")
    trace = {"utterances": [("ring", 0.0, 1.0)], "points": np.array([[0.3, 0.5, 0.5]], np.float32)}
    image = {
        "file_name": str(tmp_path / "wide.png"),
        "image_id": 0,
        "captions": ["ring"],
        "traces": [trace],
    }
    dark = np.argwhere(opened(loctex.draw([image]).drawn[0].picture).min(axis=2) < 128)
    # the middle half: 0.3 is a tenth of it
    assert abs(dark.mean(axis=0) / 200 - [0.5, 0.1]).max() < 0.02


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_pictures_have_their_own_colours(image_format, make_cfg, tmp_path):
    Image.new("RGB", (SIDE, SIDE), (200, 100, 0)).save(tmp_path / "orange.png")
    cfg = make_cfg("scenes_loctex", "MODEL.LOCTEX.EMBED_SIZE", 16, "INPUT.FORMAT", image_format)
    cfg.defrost()
    cfg.MODEL.FOLLOW_WEIGHTS = False
    sheet = drawn(AttentionDrawer(cfg), tmp_path / "orange.png", "a ring")
    assert abs(opened(sheet.picture).mean(axis=(0, 1)) - [200, 100, 0]).max() < 4


def test_words_that_the_model_does_not_read_are_counted(make_cfg, picture):
    options = ("MODEL.LOCTEX.EMBED_SIZE", 16, "INPUT.CAPTION.MAX_LENGTH", 5)
    sheet = drawn(AttentionDrawer(make_cfg("scenes_loctex", *options)), picture, "a a a a a")
    assert len(sheet.words) == 3 and sheet.cut == 2


def test_broken_images_are_skipped_and_counted(loctex, picture, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    sheets = loctex.draw(
        with_captions([tmp_path / "broken.jpg", picture, tmp_path / "gone.jpg"], "a ring")
    )
    assert [sheet.file_name for sheet in sheets.drawn] == [str(picture)]
    assert [reason.split(": ")[0] for reason in sheets.skipped] == [
        str(tmp_path / n) for n in ("broken.jpg", "gone.jpg")
    ]


def test_captions_come_from_the_text_beside_an_image_or_are_given(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff\n  a dog \nanother\n", encoding="utf-8")
    [found] = with_captions([tmp_path / "a.jpg"])
    assert found["captions"] == ["a dog"]
    assert [
        image["captions"]
        for image in with_captions([tmp_path / "a.jpg", tmp_path / "b.jpg"], "a cat")
    ] == [
        ["a cat"],
        ["a cat"],
    ]


def test_images_without_a_caption_are_an_error_that_says_where_to_write_it(tmp_path):
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(
        UserError, match=r"no caption for .*b\.jpg and 1 more.*\n.*--caption TEXT.*b\.txt"
    ):
        with_captions([tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")])
    with pytest.raises(UserError, match="no caption"):
        with_captions([tmp_path / "b.jpg"], "  ")


def test_a_caption_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt is UTF-16, not UTF-8"):
        with_captions([tmp_path / "a.jpg"])


def test_a_dataset_without_captions_is_an_error(loctex):
    with pytest.raises(UserError, match="There is no caption for .*Name a dataset with captions"):
        loctex.draw(load_dataset("scenes_val")[:1])


def test_models_without_such_attention_are_refused_before_anything_is_read(pretraining_cfg):
    with pytest.raises(
        UserError, match=r"captioning model \(BicaptioningModel\).* needs a LocTexModel"
    ):
        AttentionDrawer(pretraining_cfg("MODEL.WEIGHTS", "/gone.pth"))


def test_no_weights_is_an_error(make_cfg):
    cfg = make_cfg("scenes_loctex")
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        AttentionDrawer(cfg)


def test_pictures_on_the_page_are_at_most_200_pixels_wide(loctex, narrated):
    for sheet in loctex.draw(narrated[:2]).drawn:
        jpegs = [
            sheet.picture,
            *(word.attention for word in sheet.words),
            *(word.trace for word in sheet.words),
        ]
        assert all(max(opened(jpeg).shape) <= 200 for jpeg in jpegs)


def test_a_bert_reads_whole_words_too(make_cfg, picture, tmp_path):
    from tests.tiny_bert import make_bert

    bert = str(make_bert(tmp_path / "bert"))
    tokenizer = read_tokenizer(bert)
    dog = Concept("dog", "noun", 1, *tokenizer.encode("dog"))
    ConceptSet(tokenizer.sha256, ("noun",), (dog,)).write(tmp_path / "bert.json")
    options = ("MODEL.TEXT_ENCODER.WEIGHTS", bert, "INPUT.CAPTION.TOKENIZER", bert)
    options += ("MODEL.ICMLM.ATTENTION_HEADS", 2, "INPUT.CAPTION.CONCEPTS", tmp_path / "bert.json")
    drawer = AttentionDrawer(make_cfg("scenes_icmlm_tfm", *options))
    [word] = drawn(drawer, picture, "a catfish, a dog").words
    assert word.text == "dog" and len(word.guesses) == 5


def test_real_narrations_are_drawn(loctex, samples, tmp_path):
    folder = samples / "vidln_sample"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    images = load_narratives(folder / "derived_localized_narratives.jsonl", folder / "images")
    sheets = loctex.draw(images[:2])
    assert len(sheets.drawn) == 2 and not sheets.skipped
    assert sum(word.points for sheet in sheets.drawn for word in sheet.words) > 0
    write_sheets(tmp_path, sheets, loctex.describe())
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_run_folder_gives_all_that_is_needed(make_cfg, vocabulary, picture, tmp_path):
    cfg = make_cfg("scenes_loctex", "MODEL.LOCTEX.EMBED_SIZE", 16)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    shutil.copy(cfg.MODEL.WEIGHTS, folder / "model_final.pth")
    shutil.copy(vocabulary, folder / "vocabulary.model")
    drawer = AttentionDrawer(folder)
    assert drawn(drawer, picture, "a ring").words
    assert json.dumps(drawer.describe()).count("vocabulary.model") == 1
