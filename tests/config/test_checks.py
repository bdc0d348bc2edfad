from functools import reduce
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY

from virtex_det.config import get_cfg, leaves, load_config
from virtex_det.config.checks import check_config
from virtex_det.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs/detectron2/scenes_segm.yaml")
CONFIGS = [
    path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "benchmarks"
]


def config(overrides):
    """The scenes' detector with these keys and values."""
    cfg = load_config(CONFIG, [])
    cfg.defrost()
    for key, value in overrides.items():
        set_key(cfg, key, value)
    return cfg


def set_key(cfg, key, value):
    """Set a value without yacs's check of its type."""
    *sections, name = key.split(".")
    reduce(getattr, sections, cfg)[name] = value


NAMES = """
    MODEL.META_ARCHITECTURE MODEL.BACKBONE.NAME MODEL.PROPOSAL_GENERATOR.NAME
    MODEL.ANCHOR_GENERATOR.NAME MODEL.RPN.HEAD_NAME MODEL.ROI_HEADS.NAME MODEL.ROI_BOX_HEAD.NAME
    MODEL.ROI_MASK_HEAD.NAME MODEL.ROI_KEYPOINT_HEAD.NAME MODEL.SEM_SEG_HEAD.NAME MODEL.RESNETS.NORM
    MODEL.FPN.NORM MODEL.ROI_BOX_HEAD.NORM MODEL.ROI_MASK_HEAD.NORM MODEL.SEM_SEG_HEAD.NORM
    MODEL.RETINANET.NORM MODEL.ROI_BOX_HEAD.POOLER_TYPE MODEL.ROI_MASK_HEAD.POOLER_TYPE
    MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE MODEL.RPN.BBOX_REG_LOSS_TYPE
    MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE MODEL.FPN.FUSE_TYPE MODEL.CAPTION_RESNET.STEM
    MODEL.CAPTION_RESNET.DOWNSAMPLE MODEL.ICMLM.HEAD MODEL.TAG_PREDICTION.LOSS
    MODEL.TEXTUAL.DECODING.METHOD DATALOADER.SAMPLER_TRAIN INPUT.MIN_SIZE_TRAIN_SAMPLING
    INPUT.FORMAT INPUT.RANDOM_FLIP INPUT.MASK_FORMAT INPUT.CROP.TYPE SOLVER.OPTIMIZER
    SOLVER.LR_SCHEDULER_NAME SOLVER.AMP.DTYPE SOLVER.WARMUP_METHOD SOLVER.CLIP_GRADIENTS.CLIP_TYPE
    TEST.METRICS_LIBRARY
""".split()
AT_LEAST_ONE = """
    MODEL.CLASSIFIER.NUM_CLASSES
    MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE MODEL.RPN.BATCH_SIZE_PER_IMAGE MODEL.FPN.OUT_CHANNELS
    MODEL.RESNETS.DEPTH MODEL.RESNETS.STEM_OUT_CHANNELS MODEL.RESNETS.RES2_OUT_CHANNELS
    MODEL.RESNETS.WIDTH_PER_GROUP MODEL.RESNETS.NUM_GROUPS MODEL.ROI_BOX_HEAD.FC_DIM
    MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION MODEL.ROI_MASK_HEAD.CONV_DIM MODEL.RPN.PRE_NMS_TOPK_TRAIN
    MODEL.RPN.POST_NMS_TOPK_TEST MODEL.TEXTUAL.NUM_LAYERS MODEL.TEXTUAL.HIDDEN_SIZE
    MODEL.TEXTUAL.ATTENTION_HEADS MODEL.TEXTUAL.FEEDFORWARD_SIZE MODEL.TEXTUAL.DECODING.BEAM_SIZE
    MODEL.ICMLM.NUM_LAYERS MODEL.LOCTEX.EMBED_SIZE DATALOADER.TEST_BATCH_SIZE
    DATALOADER.SHARD_SHUFFLE_SIZE INPUT.MAX_SIZE_TRAIN INPUT.MAX_SIZE_TEST INPUT.CAPTION.CROP_SIZE
    INPUT.CAPTION.MAX_LENGTH INPUT.CLASSIFICATION.CROP_SIZE INPUT.CLASSIFICATION.RESIZE
    SOLVER.IMS_PER_BATCH SOLVER.CHECKPOINT_PERIOD SOLVER.LOOKAHEAD.STEPS TEST.DETECTIONS_PER_IMAGE
    TEST.PRECISE_BN.NUM_ITER
""".split()
NOT_NEGATIVE = """
    INPUT.MAX_VALUE SOLVER.BASE_LR SOLVER.BASE_LR_END SOLVER.BACKBONE_MULTIPLIER SOLVER.WEIGHT_DECAY
    SOLVER.WEIGHT_DECAY_NORM SOLVER.WEIGHT_DECAY_BIAS SOLVER.MOMENTUM SOLVER.GAMMA
    SOLVER.WARMUP_FACTOR SOLVER.BIAS_LR_FACTOR SOLVER.CLIP_GRADIENTS.CLIP_VALUE
    SOLVER.CLIP_GRADIENTS.NORM_TYPE SOLVER.REFERENCE_FRACTION SOLVER.LOOKAHEAD.ALPHA
    MODEL.RPN.LOSS_WEIGHT MODEL.RPN.SMOOTH_L1_BETA MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA
    MODEL.RPN.POSITIVE_FRACTION MODEL.ROI_HEADS.POSITIVE_FRACTION MODEL.ROI_HEADS.SCORE_THRESH_TEST
    MODEL.ROI_HEADS.NMS_THRESH_TEST MODEL.RPN.NMS_THRESH MODEL.TEXTUAL.DROPOUT
    MODEL.TEXTUAL.INIT_STD MODEL.LOCTEX.TEMPERATURE MODEL.LOCTEX.LOCALIZATION_WEIGHT
    MODEL.ICMLM.TAG_WEIGHT DATASETS.TRAIN_FRACTION DATASETS.MAX_MISSING_FILES
    DATALOADER.REPEAT_THRESHOLD INPUT.CAPTION.FLIP_PROB INPUT.CAPTION.MASK_PROPORTION
    INPUT.CAPTION.COLOR_JITTER_PROB
""".split()
WHOLE_NOT_NEGATIVE = """
    SOLVER.WARMUP_ITERS TEST.EVAL_PERIOD VIS_PERIOD DATALOADER.NUM_WORKERS INPUT.MIN_SIZE_TEST
    DATASETS.CAPTIONS_PER_IMAGE MODEL.ROI_MASK_HEAD.NUM_CONV
    MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO SOLVER.REFERENCE_WORLD_SIZE
    MODEL.TAG_PREDICTION.NUM_TAGS SOLVER.MAX_ITER MODEL.BACKBONE.FREEZE_AT
""".split()
AT_MOST_ONE = """
    MODEL.RPN.POSITIVE_FRACTION MODEL.ROI_HEADS.NMS_THRESH_TEST SOLVER.MOMENTUM
    MODEL.TEXTUAL.DROPOUT DATASETS.TRAIN_FRACTION SOLVER.WARMUP_FACTOR SOLVER.LOOKAHEAD.ALPHA
    INPUT.CAPTION.FLIP_PROB MODEL.TEXTUAL.DECODING.NUCLEUS_SIZE DATASETS.MAX_MISSING_FILES
    SOLVER.REFERENCE_FRACTION
""".split()
OTHERS = (
    ("INPUT.CAPTION.MASK_PROB", 0.0),
    ("SEED", 10**20),
    ("SEED", 2**32),
    ("SEED", None),
    ("SEED", True),
    ("DATASETS.TRAIN", (3,)),
    ("DATASETS.TRAIN", ("",)),
    ("DATASETS.TRAIN", "scenes_train"),
    ("DATASETS.TEST", (None,)),
    ("DATASETS.TEST", [["scenes_val"]]),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0]),
    ("MODEL.PIXEL_MEAN", []),
    ("MODEL.PIXEL_MEAN", ["a", "b", "c"]),
    ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
    ("MODEL.PIXEL_STD", [1.0] * 4),
    ("MODEL.PIXEL_STD", [float("nan"), 1.0, 1.0]),
    ("MODEL.RESNETS.DEPTH", 51),
    ("MODEL.RESNETS.OUT_FEATURES", []),
    ("MODEL.RESNETS.OUT_FEATURES", ["res6"]),
    ("MODEL.RESNETS.OUT_FEATURES", [3]),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False]),
    ("MODEL.RESNETS.STRIDE_IN_1X1", 1),
    ("MODEL.BACKBONE.FREEZE_AT", 6),
    ("MODEL.FPN.IN_FEATURES", []),
    ("MODEL.FPN.IN_FEATURES", ["p2"]),
    ("MODEL.RPN.IN_FEATURES", ["p9"]),
    ("MODEL.RPN.IN_FEATURES", []),
    ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"]),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [32, 64]),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[0]]),
    ("MODEL.ANCHOR_GENERATOR.SIZES", []),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[-1.0]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]] * 3),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 1.0),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
    ("MODEL.RPN.IOU_THRESHOLDS", [30, 70]),
    ("MODEL.RPN.IOU_LABELS", [0, 1]),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", []),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0]),
    ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.0, 0.6, 0.7]),
    ("MODEL.ROI_HEADS.IOU_LABELS", [0, 2]),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 1.0)),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0,) * 5),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (0.0, 10.0, 5.0, 5.0)),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0,) * 5),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True),
    ("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p4"]),
    ("INPUT.FORMAT", "LAB"),
    ("MODEL.RPN.CONV_DIMS", [0]),
    ("MODEL.ROI_BOX_HEAD.NAME", ""),
    ("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
    ("MODEL.CAPTION_RESNET.BLOCKS", (3, 4, 0, 3)),
    ("MODEL.TEXTUAL.HIDDEN_SIZE", 1000),
    ("MODEL.TEXTUAL.ATTENTION_HEADS", 7),
    ("MODEL.TEXTUAL.VOCAB_SIZE", 4),
    ("INPUT.CAPTION.PER_IMAGE", 0),
    ("INPUT.CAPTION.CONCEPT_MASKS", -1),
    ("MODEL.TEXTUAL.PARALLEL_FRACTION", 1.5),
    ("MODEL.TEXTUAL.PARALLEL_FRACTION", -0.1),
    ("MODEL.LOCTEX.LOCALIZATION_FEATURES", (5,)),
    ("MODEL.LOCTEX.LOCALIZATION_LOSS", "l2"),
    ("MODEL.LOCTEX.CONTRASTIVE_LOSS", "clip"),
    ("MODEL.TOKEN_CLASSIFICATION.WEIGHTING", "idf"),
    ("INPUT.CAPTION.BOX_BINS", 1),
    ("INPUT.MIN_SIZE_TRAIN", ()),
    ("INPUT.MIN_SIZE_TRAIN", (0,)),
    ("INPUT.MIN_SIZE_TRAIN", (160.5,)),
    ("INPUT.MIN_SIZE_TRAIN", (9000,)),
    ("INPUT.MIN_SIZE_TRAIN", (1,)),
    ("INPUT.MIN_SIZE_TRAIN", (640, 15)),
    ("INPUT.MAX_SIZE_TRAIN", 1),
    ("INPUT.MIN_SIZE_TEST", 15),
    ("INPUT.CAPTION.CROP_SIZE", 1),
    ("INPUT.CLASSIFICATION.RESIZE", 1),
    ("TEST.AUG.MIN_SIZES", (400, 1)),
    ("INPUT.MIN_SIZE_TEST", 9000),
    ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
    ("INPUT.CROP.SIZE", [0.5]),
    ("INPUT.CROP.SIZE", [384, 600]),
    ("INPUT.CROP.SIZE", [0.001, 0.9]),
    ("INPUT.CROP.SIZE", [0, 0]),
    ("INPUT.FORMAT", "L"),
    ("INPUT.CAPTION.CROP_SCALE", (1.0, 0.2)),
    ("INPUT.CAPTION.CROP_SCALE", (0.2,)),
    ("INPUT.CLASSIFICATION.CROP_SCALE", (0.0, 1.0)),
    ("INPUT.CAPTION.COLOR_JITTER", (0.4, 0.4, 0.4)),
    ("INPUT.CAPTION.COLOR_JITTER", (0.4, 0.4, 0.4, 0.6)),
    ("INPUT.CAPTION.REPLACE_PROB", 0.9),
    ("SOLVER.BASE_LR", float("nan")),
    ("SOLVER.BASE_LR", float("inf")),
    ("SOLVER.BASE_LR", None),
    ("SOLVER.WEIGHT_DECAY_BIAS", "none"),
    ("SOLVER.STEPS", (0,)),
    ("SOLVER.STEPS", (0.5,)),
    ("SOLVER.STEPS", ("200",)),
    ("SOLVER.MAX_ITER", None),
    ("SOLVER.IMS_PER_BATCH", 2.0),
    ("SOLVER.NO_DECAY", "("),
    ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", float("nan")),
    ("SOLVER.AMP.ENABLED", "yes"),
    ("TEST.EXTRA_MAX_DETECTIONS", (0,)),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5]]),
    ("TEST.EXPECTED_RESULTS", ["bbox"]),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP", float("nan"), 1.0]]),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, -1]]),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, float("inf")]]),
    ("TEST.AUG.MIN_SIZES", ()),
    ("TEST.KEYPOINT_OKS_SIGMAS", [0.0]),
    ("TEST.DETECTIONS_PER_IMAGE", -2),
    ("OUTPUT_DIR", "a\0b"),
    ("OUTPUT_DIR", "s3://bucket/run"),
    ("OUTPUT_DIR", None),
    ("MODEL.WEIGHTS", None),
    ("MODEL.WEIGHTS", " "),
    ("GLOBAL.HACK", float("inf")),
)
INVALID = (
    *((key, "Nonsense") for key in NAMES),
    *((key, 0) for key in AT_LEAST_ONE),
    *((key, -0.5) for key in NOT_NEGATIVE),
    *((key, -1) for key in WHOLE_NOT_NEGATIVE),
    *((key, 1.5) for key in AT_MOST_ONE),
    *OTHERS,
)


def test_there_are_many_invalid_values():
    assert len(INVALID) > 200


OF_ANOTHER_TYPE = {
    bool: (1, "yes", []),
    int: (1.5, "3", [], True, 10**30, -(10**30), float("nan"), float("inf")),
    float: ("x", [], True, float("nan"), -float("inf")),
    str: (3, [], "\0", "two\nlines", "\ud800"),
    tuple: (3, "x", (None,), ([],)),
    list: (3, "x", (None,), ([],)),
}
LEAVES = [(key, default) for key, default in leaves(get_cfg()) if default is not None]


@pytest.fixture(scope="module")
def defaults():
    return get_cfg()


@pytest.mark.parametrize(("key", "default"), LEAVES, ids=[key for key, _ in LEAVES])
def test_no_key_takes_a_value_of_another_type(defaults, key, default):
    cfg = defaults.clone()
    for value in (None, CfgNode(), *OF_ANOTHER_TYPE[type(default)]):
        if key == "SOLVER.NO_DECAY" and isinstance(value, str):
            continue  # a pattern may hold any character
        set_key(cfg, key, value)
        with pytest.raises(UserError, match=key.rpartition(".")[2]):
            check_config(cfg)


@pytest.fixture(scope="module")
def valid():
    return load_config(CONFIG, [])


@pytest.mark.parametrize(("key", "value"), INVALID)
def test_an_invalid_value_is_named_with_what_it_must_be(valid, key, value):
    cfg = valid.clone()
    cfg.defrost()
    set_key(cfg, key, value)
    with pytest.raises(UserError) as caught:
        check_config(cfg)
    message = str(caught.value)
    name = key.rpartition(".")[2]
    assert name in message and len(message.splitlines()) <= 9 and len(message) < 2000


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_package_are_valid(path):
    load_config(str(path), [])


@pytest.mark.parametrize(
    "overrides",
    [
        {"SOLVER.CLIP_GRADIENTS.NORM_TYPE": float("inf")},
        {"SOLVER.WEIGHT_DECAY_BIAS": 0.0},
        {"SOLVER.STEPS": ()},
        {"TEST.DETECTIONS_PER_IMAGE": -1},
        {"MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals"},
        {"INPUT.MIN_SIZE_TEST": 0},
        {"MODEL.PIXEL_MEAN": [1, 2, 3]},
        {"MODEL.PIXEL_MEAN": [1.0], "MODEL.PIXEL_STD": [1.0], "INPUT.FORMAT": "L"},
        {"INPUT.CROP.TYPE": "absolute", "INPUT.CROP.SIZE": [384, 600]},
        {"SEED": -7},
        {"SEED": 3_000_000_000},
        {
            "MODEL.META_ARCHITECTURE": "RetinaNet",
            "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
            "MODEL.ANCHOR_GENERATOR.SIZES": [[32]],
            "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        },
    ],
)
def test_what_detectron2_allows_stays_allowed(overrides):
    check_config(config(overrides))


def test_the_error_for_an_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match=r"NAME is 'StandardRoiHead'.*nearest: StandardROIHeads"):
        load_config(CONFIG, {"MODEL.ROI_HEADS.NAME": "StandardRoiHead"})


@BACKBONE_REGISTRY.register()
def build_backbone_of_the_checks(cfg, input_shape):
    """Somebody's own backbone."""


def test_another_backbone_may_freeze_and_name_its_features_as_it_likes():
    own = {"MODEL.BACKBONE.NAME": "build_backbone_of_the_checks", "MODEL.BACKBONE.FREEZE_AT": -1}
    check_config(config(own | {"MODEL.RPN.IN_FEATURES": ["stage2"] * 4}))


def test_sizes_of_a_few_pixels_are_refused_with_sizes_that_make_sense():
    message = r"INPUT.MIN_SIZE_TRAIN is \(1,\).*pixels from 16 on. The default is \(800,\)"
    with pytest.raises(UserError, match=message):
        check_config(config({"INPUT.MIN_SIZE_TRAIN": (1,)}))
    with pytest.raises(UserError, match=r"INPUT.CROP.SIZE is \[384, 1\].*from 16 on"):
        check_config(config({"INPUT.CROP.TYPE": "absolute", "INPUT.CROP.SIZE": [384, 1]}))


def test_heads_that_read_one_map_are_named():
    with pytest.raises(UserError, match="ROI_HEADS.IN_FEATURES.*Res5ROIHeads reads one map"):
        check_config(config({"MODEL.ROI_HEADS.NAME": "Res5ROIHeads"}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator"},
            "RotatedAnchorGenerator and RRPN go together",
        ),
        ({"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN"}, "RotatedAnchorGenerator and RRPN go together"),
        (
            {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads"},
            "CLS_AGNOSTIC_BBOX_REG is False, but CascadeROIHeads needs it",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH": 18},
            "RES2_OUT_CHANNELS is 32, but build_resnet_fpn_backbone builds depth 18 with 64 only",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_named(overrides, message):
    with pytest.raises(UserError, match=message):
        check_config(config(overrides))


def test_steps_that_fall_are_an_error():
    falling = {"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER.STEPS": (300, 200)}
    with pytest.raises(UserError, match=r"SOLVER.STEPS is \(300, 200\), but steps must increase"):
        check_config(config(falling))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL.META_ARCHITECTURE": "LocTexModel"}, "names the file of the words that stay"),
        (
            {
                "MODEL.META_ARCHITECTURE": "BicaptioningModel",
                "INPUT.CAPTION.CONCEPTS": "concepts.json",
            },
            "BicaptioningModel cannot learn from captions with hidden words; LocTexModel can",
        ),
    ],
)
def test_words_are_hidden_by_a_set_and_from_a_model_that_does_not_predict_them(options, message):
    with pytest.raises(UserError, match=message):
        check_config(config({"INPUT.CAPTION.HIDE_OTHER_WORDS": True, **options}))


def test_one_error_names_all_faults():
    faults = {"SOLVER.BASE_LR": -1, "TEST.EVAL_PERIOD": -1, "MODEL.FPN.NORM": "bn"}
    with pytest.raises(UserError) as caught:
        load_config(CONFIG, faults)
    assert all(key in str(caught.value) for key in faults)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("DATASETS.TRAIN", "7"), r"DATASETS.TRAIN is 7.*Write a list, such as"),
        (("SOLVER.STEPS", "300"), r"such as \"\(300,\)\""),
        (("MODEL.RESNETS", "{}"), "MODEL.RESNETS.*is a section. Set its keys: DEPTH"),
        (("MODEL.MASK_ON.X", "1"), "MODEL.MASK_ON.X 1"),
        (("SOLVER.BASE_LR", "nan"), "SOLVER.BASE_LR is nan"),
        (("SOLVER.BASE_LR", "1e999"), "SOLVER.BASE_LR is inf"),
        (("MODEL.WEIGHTS",), "but the last key, 'MODEL.WEIGHTS', has no value"),
        (("MODEL", "None"), "MODEL is None.*section"),
        (("SOLVER.STEPS", "(" * 300 + ")" * 300), "SOLVER.STEPS"),
    ],
)
def test_what_does_not_fit_a_key_is_named_with_its_key(words, expected):
    with pytest.raises(UserError, match=expected):
        load_config(CONFIG, [*words])


@pytest.mark.parametrize(
    "text",
    ["MODEL: 3", "MODEL: null", "SOLVER: {BASE_LR: .nan}", "MODEL: {DEVICE: null}", "SEED: yes"],
)
def test_what_does_not_fit_in_a_file_is_named(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    key = list(yaml.safe_load(text))[0]
    with pytest.raises(UserError, match=key):
        load_config(str(path), [])


def test_a_section_that_was_replaced_by_a_smaller_one_is_an_error():
    cfg = get_cfg()
    cfg.MODEL.RESNETS = CfgNode({"DEPTH": 50})
    with pytest.raises(UserError, match="has no MODEL.RESNETS"):
        check_config(cfg)


def test_every_key_has_a_rule_that_its_default_obeys():
    assert dict(leaves(get_cfg()))
    check_config(get_cfg())


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_an_override_with_an_unavailable_device_is_an_error(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=f"MODEL.DEVICE is '{device}'.*\n.*Leave MODEL.DEVICE out"):
        load_config(CONFIG, {"MODEL.DEVICE": device})


@pytest.mark.parametrize("device", ["gpu", "", "cuda:-1", "cpu cuda", "cuda:x"])
def test_an_unknown_device_is_an_error(device):
    with pytest.raises(UserError, match="which is not a device. Set cpu, cuda"):
        load_config(CONFIG, {"MODEL.DEVICE": device})


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_config_written_on_a_gpu_runs_on_the_cpu_with_a_warning(device, tmp_path, caplog):
    path = tmp_path / "config.yaml"
    path.write_text(f"MODEL:\n  DEVICE: {device}\n")
    assert load_config(str(path), []).MODEL.DEVICE == "cpu"
    assert f"sets MODEL.DEVICE {device}, which is not available here; cpu is used" in caplog.text


def test_an_unknown_device_in_a_file_is_an_error(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("MODEL:\n  DEVICE: gpu\n")
    with pytest.raises(UserError, match="not a device"):
        load_config(str(path), [])


def test_the_metadata_device_builds_without_memory():
    assert load_config(CONFIG, {"MODEL.DEVICE": "meta"}).MODEL.DEVICE == "meta"


def test_more_captions_in_a_step_than_are_kept_are_refused():
    kept = {"DATASETS.CAPTIONS_PER_IMAGE": 2}
    check_config(config(kept | {"INPUT.CAPTION.PER_IMAGE": 2}))
    with pytest.raises(UserError, match="PER_IMAGE asks for 3 captions .* keeps 2"):
        check_config(config(kept | {"INPUT.CAPTION.PER_IMAGE": 3}))
