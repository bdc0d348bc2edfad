"""The configs of ICMLM and LocTex: their values, and a step of training of each scenes config."""

import re

import pytest
import torch
from detectron2.modeling import build_model

from tests.conftest import TINY_PRETRAINING
from tests.method_configs import check_recipe, check_task, load
from tests.tiny_bert import make_bert
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import Trainer

# Meta-architecture, mapper, training set.
PAPER = {
    "icmlm/icmlm_tfm_R_50": ("ICMLMModel", "ConceptMapper", "coco_2017_train_captions"),
    "icmlm/icmlm_att_fc_R_50": ("ICMLMModel", "ConceptMapper", "coco_2017_train_captions"),
    "icmlm/tag_postag_R_50": ("TagPredictionModel", "ConceptMapper", "coco_2017_train_captions"),
    "icmlm/tag_cluster_R_50": ("TagPredictionModel", "ClusterMapper", "coco_2017_train_captions"),
    "icmlm/tag_label_R_50": (
        "MultilabelClassificationModel",
        "MultilabelMapper",
        "coco_2017_train",
    ),
    "loctex/loctex_R_50": ("LocTexModel", "NarrativeMapper", "coco_2017_train_narratives"),
    "loctex/contrastive_R_50": ("LocTexModel", "CaptionMapper", "coco_2017_train_captions"),
}
SCENES = {
    "scenes_icmlm_tfm": ("ICMLMModel", "ConceptMapper", "scenes_unlabelled_captions"),
    "scenes_icmlm_att_fc": ("ICMLMModel", "ConceptMapper", "scenes_unlabelled_captions"),
    "scenes_tag_postag": ("TagPredictionModel", "ConceptMapper", "scenes_unlabelled_captions"),
    "scenes_loctex": ("LocTexModel", "NarrativeMapper", "scenes_unlabelled_narratives"),
    "scenes_contrastive": ("LocTexModel", "CaptionMapper", "scenes_unlabelled_captions"),
}
NINETEEN_TAGS = (
    *("MODEL.TAG_PREDICTION.NUM_TAGS", 19),
    *("MODEL.TEXTUAL.VOCAB_SIZE", 130, "MODEL.DEVICE", "cpu"),
    # A user of the scenes has the files that the configs name, of other sizes.
    *("INPUT.CAPTION.TOKENIZER", "none.model", "INPUT.CAPTION.CONCEPTS", "none.json"),
)


@pytest.mark.parametrize(("name", "says"), [*PAPER.items(), *SCENES.items()])
def test_task_mapper_and_training_set(name, says):
    check_task(name, says)


@pytest.mark.parametrize("name", PAPER)
def test_what_no_paper_is_known_to_say_is_virtex_recipe(name):
    check_recipe(name)


@pytest.mark.parametrize(
    ("name", "head"), [("icmlm/icmlm_tfm_R_50", "tfm"), ("icmlm/icmlm_att_fc_R_50", "att_fc")]
)
def test_icmlm_has_a_frozen_bert_whose_vocabulary_it_reads(name, head, tmp_path):
    cfg = load(name)
    assert (cfg.MODEL.ICMLM.HEAD, cfg.MODEL.TEXT_ENCODER.FREEZE) == (head, True)
    assert (
        cfg.MODEL.TEXT_ENCODER.WEIGHTS
        == cfg.INPUT.CAPTION.TOKENIZER
        == "google-bert/bert-base-uncased"
    )
    bert = make_bert(tmp_path / "bert", hidden_size=24, num_attention_heads=12)
    text = ("MODEL.TEXT_ENCODER.WEIGHTS", str(bert), "MODEL.TEXTUAL.VOCAB_SIZE", 22)
    others = ("MODEL.TAG_PREDICTION.NUM_TAGS", 19, "MODEL.DEVICE", "cpu")
    model = build_model(load(name, *text, *others))
    learning = {parameter_name.split(".")[0] for parameter_name, _ in model.named_parameters()}
    assert learning == {"backbone", "fusion", "tag_head"} and model.text_encoder.frozen


def test_loctex_sizes_and_that_contrastive_is_it_without_the_loss_on_attention():
    cfg, contrastive = load("loctex/loctex_R_50"), load("loctex/contrastive_R_50")
    textual = cfg.MODEL.TEXTUAL
    assert (textual.NUM_LAYERS, textual.HIDDEN_SIZE, textual.ATTENTION_HEADS) == (4, 1024, 16)
    assert (textual.FEEDFORWARD_SIZE, cfg.INPUT.CAPTION.MAX_LENGTH) == (4096, 128)
    assert cfg.MODEL.TEXT_ENCODER.WEIGHTS == ""
    assert (cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT, contrastive.MODEL.LOCTEX.LOCALIZATION_WEIGHT) == (
        1,
        0,
    )
    assert (
        load("loctex/contrastive_R_50", "MODEL.LOCTEX.LOCALIZATION_WEIGHT", 1.0).MODEL == cfg.MODEL
    )


def test_loctex_on_the_scenes_reads_the_same_text_as_contrastive():
    loctex, contrastive = load("scenes_loctex"), load("scenes_contrastive")
    # The set of words to localize, which hides none: contrastive does not read it.
    assert loctex.INPUT.CAPTION.CONCEPTS and not contrastive.INPUT.CAPTION.CONCEPTS
    assert {**loctex.INPUT.CAPTION, "CONCEPTS": ""} == contrastive.INPUT.CAPTION
    assert {**loctex.INPUT, "CAPTION": {}} == {**contrastive.INPUT, "CAPTION": {}}
    assert loctex.MODEL.TEXTUAL == contrastive.MODEL.TEXTUAL
    localization = loctex.MODEL.LOCTEX
    assert localization.LOCALIZATION_FEATURES == ("res4",)
    assert localization.LOCALIZATION_LOSS == "cross_entropy"
    assert loctex.MODEL.RESNETS.OUT_FEATURES == ["res4", "res5"]
    assert contrastive.MODEL.RESNETS.OUT_FEATURES == ["res5"]


@pytest.mark.parametrize(("name", "says"), SCENES.items())
def test_a_model_of_the_scenes_learns_from_an_example(name, says):
    cfg = load(name, *NINETEEN_TAGS)
    model = build_model(cfg)
    assert says[1] in model.mappers(cfg)
    tokens = torch.tensor([1, 5, 7, 2])
    example = {"image": torch.rand(3, 96, 96), "caption_tokens": tokens, "tags": tokens}
    targets = {
        "masked_labels": torch.tensor([0, 9, 0, 0]),
        "trace_points": torch.tensor([[1, 0.5, 0.5]]),
    }
    sum(model([example | targets] * 2).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["scenes_icmlm_att_fc", "scenes_loctex"])
def test_a_model_of_the_scenes_trains_with_a_bert(name, scenes, tmp_path):
    bert = str(make_bert(tmp_path / "bert", ["a", "and", "the", "ring", "star", "circle", "heart"]))
    tokenizer = read_tokenizer(bert)
    nouns = [Concept(word, "noun", 1, *tokenizer.encode(word)) for word in ("ring", "star")]
    ConceptSet(tokenizer.sha256, ("noun",), tuple(nouns)).write(tmp_path / "concepts.json")
    options = [*TINY_PRETRAINING, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    options += ["MODEL.TEXT_ENCODER.WEIGHTS", bert, "INPUT.CAPTION.TOKENIZER", bert]
    options += ["INPUT.CAPTION.CONCEPTS", str(tmp_path / "concepts.json")]
    trainer = Trainer(load(name, *options))
    trainer.resume_or_load(resume=False)
    trainer.train()
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert saved["text_encoder"] == "bert"


@pytest.mark.parametrize("name", SCENES)
def test_methods_on_the_scenes_share_backbone_schedule_and_augmentation(name):
    ours, virtex = load(name), load("scenes_bicaptioning")
    assert {**ours.MODEL.RESNETS, "OUT_FEATURES": ["res5"]} == virtex.MODEL.RESNETS
    own = {"NO_DECAY": "", "BASE_LR": 0.0}  # tests/test_results.py has the rates
    assert {**ours.SOLVER, **own} == {**virtex.SOLVER, **own}
    own = {"CONCEPTS": "", "CONCEPT_MASKS": 1}
    assert {**ours.INPUT.CAPTION, **own} == {**virtex.INPUT.CAPTION, **own}


def test_icmlm_learns_tags_too_and_on_the_scenes_from_all_concepts_of_a_caption():
    scenes, paper = load("scenes_icmlm_att_fc"), load("icmlm/icmlm_att_fc_R_50")
    assert scenes.INPUT.CAPTION.CONCEPT_MASKS == 0 and paper.INPUT.CAPTION.CONCEPT_MASKS == 1
    assert scenes.MODEL.ICMLM.TAG_WEIGHT > 0 and paper.MODEL.ICMLM.TAG_WEIGHT > 0


@pytest.mark.parametrize(
    "name", ["scenes_icmlm_tfm", "scenes_icmlm_att_fc", "scenes_loctex", "scenes_contrastive"]
)
def test_norms_and_biases_of_text_encoder_and_head_have_no_decay_and_weights_have(name):
    cfg = load(name, *NINETEEN_TAGS)
    names = [
        n
        for n, _ in build_model(cfg).named_parameters()
        if n.startswith(("text_encoder.", "fusion."))
    ]
    exempt = [name for name in names if re.search(cfg.SOLVER.NO_DECAY, name)]
    assert exempt == [name for name in names if "norm" in name or name.endswith("bias")]
    assert 0 < len(exempt) < len(names)


@pytest.mark.parametrize("bert", ["", "a bert that learns, too"])
def test_so_it_is_at_paper_scale_with_a_text_encoder_that_learns(bert, tmp_path):
    if bert:
        bert = str(make_bert(tmp_path / "bert", hidden_size=24, num_attention_heads=12))
    options = ["MODEL.TEXT_ENCODER.WEIGHTS", bert, "MODEL.TEXT_ENCODER.FREEZE", False]
    options += ["MODEL.TEXTUAL.HIDDEN_SIZE", 24, "MODEL.TEXTUAL.ATTENTION_HEADS", 2]
    options += ["MODEL.TAG_PREDICTION.NUM_TAGS", 19]
    cfg = load(
        "icmlm/icmlm_tfm_R_50", *options, "MODEL.TEXTUAL.VOCAB_SIZE", 22, "MODEL.DEVICE", "cpu"
    )
    names = [
        n
        for n, _ in build_model(cfg).named_parameters()
        if n.startswith(("text_encoder.", "fusion."))
    ]
    exempt = [name for name in names if re.search(cfg.SOLVER.NO_DECAY, name)]
    assert exempt == [name for name in names if "norm" in name.lower() or name.endswith("bias")]
