"""The shipped configs: that each loads, and that the published ones say what was published."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from virtex_det.engine import load_config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").glob("*/*.yaml"))


def load(name: str, *overrides: object) -> CfgNode:
    return load_config(str(ROOT / "configs" / name), list(overrides))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_loads_and_uses_our_backbones_on_rgb(path):
    cfg = load(str(path))
    assert cfg.MODEL.BACKBONE.NAME.startswith("build_caption_resnet")
    assert cfg.INPUT.FORMAT == "RGB"
    assert not cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert cfg.SOLVER.WARMUP_ITERS < cfg.SOLVER.MAX_ITER


PUBLISHED = (
    "coco_segm_default_init_2x",
    "lvis_segm_default_init_2x",
    "lvis_segm_imagenet_init_2x",
    "voc_det_default_init_24k",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_protocols_share_these_values(name):
    cfg = load(f"detectron2/{name}.yaml")
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (16, 0.02, 0.9)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM) == (1e-4, 0.0)
    assert (cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.ENABLED) == (False, False)
    assert cfg.SOLVER.OPTIMIZER == "SGD"
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
    assert list(cfg.MODEL.PIXEL_MEAN) == [123.675, 116.280, 103.530]
    assert list(cfg.MODEL.PIXEL_STD) == [58.395, 57.120, 57.375]
    assert (cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER) == (True, 200)
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TRAIN) == (800, 1333)
    assert (cfg.MODEL.BF16, cfg.INPUT.FAST_RESIZE, cfg.DATASETS.TRAIN_FRACTION) == (False, False, 1.0)


@pytest.mark.parametrize(
    ("name", "backbone_norm", "fpn_norm"),
    [
        ("coco_segm_default_init_2x", "SyncBN", "SyncBN"),
        ("lvis_segm_default_init_2x", "SyncBN", "SyncBN"),
        ("lvis_segm_imagenet_init_2x", "FrozenBN", ""),
    ],
)
def test_mask_rcnn_protocols(name, backbone_norm, fpn_norm):
    cfg = load(f"detectron2/{name}.yaml")
    assert cfg.MODEL.RESNETS.NORM == backbone_norm
    assert cfg.MODEL.FPN.NORM == fpn_norm
    assert (cfg.MODEL.ROI_BOX_HEAD.NORM, cfg.MODEL.ROI_MASK_HEAD.NORM) == ("", "")
    assert (cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_MASK_HEAD.NUM_CONV) == (2, 4)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == ((120000, 160000), 180000)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR) == (1000, 1 / 1000)
    assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (1000, 1000)


def test_the_lvis_protocol_differs_from_coco_in_sampler_classes_and_detections():
    cfg = load("detectron2/lvis_segm_default_init_2x.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("lvis_v1_train",), ("lvis_v1_val",))
    assert (cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD) == ("RepeatFactorTrainingSampler", 0.001)
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST) == (1203, 0.0001)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 300


def test_the_voc_protocol():
    cfg = load("detectron2/voc_det_default_init_24k.yaml")
    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm"
    assert (cfg.MODEL.RESNETS.NORM, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.MASK_ON) == ("SyncBN", 20, False)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("voc_2007_trainval", "voc_2012_trainval"), ("voc_2007_test",))
    assert [*cfg.INPUT.MIN_SIZE_TRAIN] == [*range(480, 801, 32)]
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == ((18000, 22000), 24000, 100)
    assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)
    assert (cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST) == (100, 0.05)


CLIP_CONFIGS = (
    "coco_segm_clip_init_1x",
    "coco_segm_clip_init_1x_RN101",
    "coco_segm_clip_init_1x_RN50x4",
    "coco_segm_clip_init_1x_C4",
)


@pytest.mark.parametrize("name", CLIP_CONFIGS)
def test_clip_configs_see_clips_pixels_and_follow_the_recipe_of_denseclip(name):
    cfg = load(f"detectron2/{name}.yaml")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert cfg.MODEL.PIXEL_MEAN == pytest.approx([255 * value for value in mean], rel=1e-9)
    assert cfg.MODEL.PIXEL_STD == pytest.approx([255 * value for value in std], rel=1e-9)
    assert (cfg.MODEL.CAPTION_RESNET.STEM, cfg.MODEL.CAPTION_RESNET.DOWNSAMPLE) == ("clip", "clip")
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.BACKBONE_MULTIPLIER, solver.BACKBONE_LR) == ("AdamW", 2e-4, 0.1, 0)
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM) == (1e-4, 0.0)
    clipping = solver.CLIP_GRADIENTS
    assert (clipping.ENABLED, clipping.CLIP_TYPE, clipping.CLIP_VALUE, clipping.NORM_TYPE) == (
        *(True, "full_model"),
        *(0.1, 2.0),
    )
    assert (solver.STEPS, solver.MAX_ITER, solver.IMS_PER_BATCH) == ((60000, 80000), 90000, 16)
    assert (solver.WARMUP_ITERS, solver.WARMUP_FACTOR) == (500, 1 / 1000)
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.RESNETS.NORM) == (0, "SyncBN")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("coco_2017_train",), ("coco_2017_val",))


def test_clip_with_a_feature_pyramid_has_no_norm_in_it_and_one_training_size():
    cfg = load("detectron2/coco_segm_clip_init_1x.yaml")
    assert (cfg.MODEL.FPN.NORM, cfg.INPUT.MIN_SIZE_TRAIN) == ("", (800,))


def test_clip_without_one_is_a_mask_rcnn_c4():
    cfg = load("detectron2/coco_segm_clip_init_1x_C4.yaml")
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.MASK_ON) == ("build_caption_resnet_backbone", True)
    assert (cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == ("Res5ROIHeadsExtraNorm", 80)
    assert cfg.MODEL.RESNETS.OUT_FEATURES == cfg.MODEL.ROI_HEADS.IN_FEATURES == ["res4"]
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)


@pytest.mark.parametrize(
    ("name", "base", "differences"),
    [
        ("coco_segm_default_init_2x_R_101", "coco_segm_default_init_2x", {"MODEL.RESNETS.DEPTH": 101}),
        ("coco_segm_default_init_2x_R_50W2X", "coco_segm_default_init_2x", {"MODEL.RESNETS.WIDTH_PER_GROUP": 128}),
        (
            *("coco_segm_default_init_2x_R_50D", "coco_segm_default_init_2x"),
            {"MODEL.CAPTION_RESNET.STEM": "deep", "MODEL.CAPTION_RESNET.DOWNSAMPLE": "avg_shortcut"},
        ),
        ("coco_segm_clip_init_1x_RN101", "coco_segm_clip_init_1x", {"MODEL.RESNETS.DEPTH": 101}),
        (
            *("coco_segm_clip_init_1x_RN50x4", "coco_segm_clip_init_1x"),
            {
                "MODEL.CAPTION_RESNET.BLOCKS": (4, 6, 10, 6),
                "MODEL.RESNETS.STEM_OUT_CHANNELS": 80,
                "MODEL.RESNETS.RES2_OUT_CHANNELS": 320,
                "MODEL.RESNETS.WIDTH_PER_GROUP": 80,
            },
        ),
    ],
)
def test_another_network_is_all_that_a_config_of_its_own_changes(name, base, differences):
    cfg = load(f"detectron2/{name}.yaml")
    protocol = f"{load(f'detectron2/{base}.yaml').PROTOCOL}-{name.removeprefix(base + '_').replace('_', '-')}"
    settings = [part for pair in {**differences, "PROTOCOL": protocol}.items() for part in pair]
    assert cfg == load(f"detectron2/{base}.yaml", *settings)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Millions of parameters of timm's and open_clip's networks, without classifiers and attention pools.
    [
        ("coco_segm_default_init_2x_R_101", 42.500),
        ("coco_segm_default_init_2x_R_50W2X", 66.834),
        ("coco_segm_default_init_2x_R_50D", 23.527),
        ("coco_segm_clip_init_1x", 23.527),
        ("coco_segm_clip_init_1x_RN101", 42.519),
        ("coco_segm_clip_init_1x_RN50x4", 65.620),
        ("coco_segm_clip_init_1x_C4", 23.527),
    ],
)
def test_the_size_of_the_backbone_is_that_of_the_published_network(name, parameters):
    cfg = load(f"detectron2/{name}.yaml", "MODEL.DEVICE", "meta")
    with torch.device("meta"):
        named = build_model(cfg).named_parameters()
    resnet = re.compile(r"backbone\.(bottom_up\.)?(stem|res)|roi_heads\.res5\.\d")
    assert sum(p.numel() for name, p in named if resnet.match(name)) / 1e6 == pytest.approx(parameters, abs=0.001)


def test_the_published_pretraining_recipe():
    cfg = load("pretrain/bicaptioning_R_50_L1_H2048.yaml")
    textual, solver = cfg.MODEL.TEXTUAL, cfg.SOLVER
    assert (textual.NUM_LAYERS, textual.HIDDEN_SIZE, textual.ATTENTION_HEADS) == (1, 2048, 32)
    assert (textual.FEEDFORWARD_SIZE, textual.VOCAB_SIZE, textual.NORM_FIRST) == (8192, 10000, False)
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.BACKBONE_LR) == ("SGD", 0.001, 0.2)
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.WARMUP_ITERS) == (256, 500000, 10000)
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.MOMENTUM) == (1e-4, 1e-4, 0.9)
    assert (solver.LOOKAHEAD.ENABLED, solver.LOOKAHEAD.STEPS, solver.LOOKAHEAD.ALPHA) == (True, 5, 0.5)
    assert (solver.CLIP_GRADIENTS.CLIP_TYPE, solver.CLIP_GRADIENTS.CLIP_VALUE) == ("full_model", 10.0)
    assert solver.AMP.ENABLED
    assert cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL
    assert (cfg.INPUT.CAPTION.CROP_SIZE, cfg.INPUT.CAPTION.CROP_SCALE) == (224, (0.2, 1.0))
