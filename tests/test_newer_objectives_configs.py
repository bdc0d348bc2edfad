"""The configs of newer objectives: their values, and a step of training of each scenes config."""

import math
import re

import pytest

from tests.method_configs import PRETRAIN, check_recipe, check_task, load
from tests.test_configs import values

# Meta-architecture, mapper, training set.
PAPER = {
    "cappa/cappa_R_50": ("CaptioningModel", "CaptionMapper", "coco_2017_train_captions"),
    "locca/locca_R_50": ("LocCaModel", "RegionMapper", "coco_2017_train_narratives"),
    "superclass/superclass_R_50": (
        *("TokenClassificationModel", "CaptionMapper"),
        "coco_2017_train_captions",
    ),
    "siglip/siglip_R_50": ("LocTexModel", "CaptionMapper", "coco_2017_train_captions"),
}
SCENES = {
    "scenes_cappa": ("CaptioningModel", "CaptionMapper", "scenes_unlabelled_captions"),
    "scenes_locca": ("LocCaModel", "RegionMapper", "scenes_unlabelled_narratives"),
    "scenes_superclass": (
        *("TokenClassificationModel", "CaptionMapper"),
        "scenes_unlabelled_captions",
    ),
    "scenes_siglip": ("LocTexModel", "CaptionMapper", "scenes_unlabelled_captions"),
}
# What differs from the config of another task; tests/test_results.py has the rates.
DIFFERENCES = {
    ("scenes_cappa", "scenes_captioning"): {"MODEL.TEXTUAL.PARALLEL_FRACTION", "SOLVER.BASE_LR"},
    ("scenes_locca", "scenes_captioning"): {
        *("MODEL.META_ARCHITECTURE", "MODEL.TEXTUAL.PARALLEL_FRACTION", "DATASETS.TRAIN"),
        *("DATALOADER.MAPPER", "INPUT.CAPTION.TOKENIZER"),
        *("INPUT.CAPTION.BOX_BINS", "INPUT.CAPTION.MAX_LENGTH", "SOLVER.BASE_LR"),
    },
    ("scenes_superclass", "scenes_token_classification"): {"MODEL.TOKEN_CLASSIFICATION.WEIGHTING"},
    ("superclass/superclass_R_50", "task_ablations/token_classification_R_50"): {
        "MODEL.TOKEN_CLASSIFICATION.WEIGHTING"
    },
    ("scenes_siglip", "scenes_contrastive"): {
        *("MODEL.LOCTEX.CONTRASTIVE_LOSS", "MODEL.LOCTEX.SIGMOID_BIAS"),
        *("SOLVER.NO_DECAY", "SOLVER.BASE_LR"),
    },
}


@pytest.mark.parametrize(("name", "says"), [*PAPER.items(), *SCENES.items()])
def test_task_mapper_and_training_set(name, says):
    check_task(name, says)


@pytest.mark.parametrize("name", PAPER)
def test_the_recipe_is_virtex(name):
    check_recipe(name)


@pytest.mark.parametrize("name", PAPER)
def test_the_header_says_what_was_read_and_what_is_ours(name):
    header = (PRETRAIN / f"{name}.yaml").read_text().partition("_BASE_")[0]
    assert "Read in" in header and "Ours:" in header and "Never run at this size." in header


@pytest.mark.parametrize(("pair", "expected"), DIFFERENCES.items())
def test_an_objective_differs_from_its_counterpart_in_its_keys_alone(pair, expected):
    one, other = (values(load(name)) | {"OUTPUT_DIR": ""} for name in pair)
    assert {key for key in one if one[key] != other[key]} == expected


def test_cappa_has_the_published_decoder_and_share():
    textual = load("cappa/cappa_R_50").MODEL.TEXTUAL
    sizes = (textual.NUM_LAYERS, textual.HIDDEN_SIZE, textual.ATTENTION_HEADS)
    assert (*sizes, textual.FEEDFORWARD_SIZE) == (6, 768, 12, 3072)
    assert (textual.NORM_FIRST, textual.DROPOUT, textual.PARALLEL_FRACTION) == (True, 0.0, 0.75)
    assert load("scenes_cappa").MODEL.TEXTUAL.PARALLEL_FRACTION == 0.75


@pytest.mark.parametrize("name", ["scenes_locca", "locca/locca_R_50"])
def test_locca_predicts_half_of_the_captions_in_parallel(name):
    assert load(name).MODEL.TEXTUAL.PARALLEL_FRACTION == 0.5


@pytest.mark.parametrize("name", ["scenes_siglip", "siglip/siglip_R_50"])
def test_siglip_starts_with_a_bias_for_its_batch_and_decays_neither_of_its_numbers(name):
    cfg = load(name)
    assert cfg.MODEL.LOCTEX.TEMPERATURE == 0.1
    expected = -math.log(cfg.SOLVER.IMS_PER_BATCH - 1)
    assert expected == pytest.approx(cfg.MODEL.LOCTEX.SIGMOID_BIAS, abs=0.05)
    exempt = re.compile(cfg.SOLVER.NO_DECAY)
    assert exempt.search("sigmoid.log_scale") and exempt.search("sigmoid.bias")
