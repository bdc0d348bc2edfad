"""The shipped configs: that each loads, and that the published ones say what was published."""

import re
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from virtex_det.engine import load_config
from virtex_det.protocols.matching import protocol_id

ROOT = Path(__file__).resolve().parents[1]
# Of runs; configs/benchmarks has matrices of them.
FOLDERS = ("detectron2", "pretrain", "probes")
CONFIGS = sorted(
    path.relative_to(ROOT / "configs")
    for name in FOLDERS
    for path in (ROOT / "configs" / name).rglob("*.yaml")
)


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
    "lvis_v0.5_segm_default_init_2x",
    "lvis_v0.5_segm_imagenet_init_2x",
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
    assert (cfg.INPUT.FAST_RESIZE, cfg.DATASETS.TRAIN_FRACTION) == (False, 1.0)


@pytest.mark.parametrize(
    ("name", "backbone_norm", "fpn_norm"),
    [
        ("coco_segm_default_init_2x", "SyncBN", "SyncBN"),
        ("lvis_segm_default_init_2x", "SyncBN", "SyncBN"),
        ("lvis_segm_imagenet_init_2x", "FrozenBN", ""),
        ("lvis_v0.5_segm_default_init_2x", "SyncBN", "SyncBN"),
        ("lvis_v0.5_segm_imagenet_init_2x", "FrozenBN", ""),
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
    assert (cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD) == (
        "RepeatFactorTrainingSampler",
        0.001,
    )
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST) == (
        1203,
        0.0001,
    )
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 300


@pytest.mark.parametrize("init", ["default", "imagenet"])
def test_lvis_v05_differs_from_v1_in_data_classes_and_the_threshold_of_its_time(init):
    cfg = load(f"detectron2/lvis_v0.5_segm_{init}_init_2x.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("lvis_v0.5_train",), ("lvis_v0.5_val",))
    heads = cfg.MODEL.ROI_HEADS
    assert (heads.NUM_CLASSES, heads.SCORE_THRESH_TEST) == (1230, 0.0)
    v1 = '("lvis_v1_train",)', '("lvis_v1_val",)'
    settings = [
        "DATASETS.TRAIN",
        v1[0],
        "DATASETS.TEST",
        v1[1],
        "MODEL.ROI_HEADS.NUM_CLASSES",
        1203,
    ]
    settings += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0001]
    assert load(f"detectron2/lvis_v0.5_segm_{init}_init_2x.yaml", *settings) == load(
        f"detectron2/lvis_segm_{init}_init_2x.yaml"
    )


def test_the_voc_protocol():
    cfg = load("detectron2/voc_det_default_init_24k.yaml")
    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm"
    assert (cfg.MODEL.RESNETS.NORM, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.MASK_ON) == (
        "SyncBN",
        20,
        False,
    )
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (
        ("voc_2007_trainval", "voc_2012_trainval"),
        ("voc_2007_test",),
    )
    assert [*cfg.INPUT.MIN_SIZE_TRAIN] == [*range(480, 801, 32)]
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (
        (18000, 22000),
        24000,
        100,
    )
    assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)
    assert (cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST) == (100, 0.05)


@pytest.mark.parametrize(
    ("name", "base", "differences"),
    [
        (
            *("coco_segm_d2_default_1x", "coco_segm_default_init_1x"),
            {
                **{
                    "MODEL.BACKBONE.FREEZE_AT": 2,
                    "MODEL.RESNETS.NORM": "FrozenBN",
                    "MODEL.FPN.NORM": "",
                },
                "TEST.PRECISE_BN.ENABLED": False,
            },
        ),
        (
            *("coco_segm_4conv1fc_1x", "coco_segm_default_init_1x"),
            {
                **{"MODEL.ROI_BOX_HEAD.NUM_CONV": 4, "MODEL.ROI_BOX_HEAD.NUM_FC": 1},
                **{"MODEL.ROI_BOX_HEAD.NORM": "SyncBN", "MODEL.ROI_MASK_HEAD.NORM": "SyncBN"},
            },
        ),
        ("coco_segm_soco_1x", "coco_segm_4conv1fc_1x", {"SOLVER.WEIGHT_DECAY": 2.5e-5}),
        (
            *("coco_segm_vissl_1x", "coco_segm_default_init_1x"),
            {"SOLVER.BASE_LR": 0.001, "SOLVER.WARMUP_ITERS": 100, "MODEL.FPN.NORM": ""},
        ),
        (
            *("coco_segm_default_init_1x_C4", "coco_segm_default_init_2x_C4"),
            {"SOLVER.STEPS": (60000, 80000), "SOLVER.MAX_ITER": 90000},
        ),
    ],
)
def test_protocols_of_one_name_differ_in_these_values(name, base, differences):
    settings = [part for pair in differences.items() for part in pair]
    assert load(f"detectron2/{name}.yaml") == load(f"detectron2/{base}.yaml", *settings)


def test_detectron2s_own_protocol_is_that_of_its_model_zoo():
    theirs = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    ours = load("detectron2/coco_segm_d2_default_1x.yaml")
    assert {key for key in values(theirs) if values(ours)[key] != values(theirs)[key]} == {
        *("MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "MODEL.DEVICE"),
        *("MODEL.RESNETS.STRIDE_IN_1X1", "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    } - ({"MODEL.DEVICE"} if torch.cuda.is_available() else set())


def values(cfg: CfgNode, prefix: str = "") -> dict[str, object]:
    """All values of a config by dotted key, lists as tuples."""
    found: dict[str, object] = {}
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            found |= values(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = tuple(value) if isinstance(value, list) else value
    return found


def test_mask_rcnn_c4_has_the_detector_of_voc_and_the_data_and_sizes_of_coco():
    cfg = load("detectron2/coco_segm_default_init_2x_C4.yaml")
    assert (cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.RESNETS.NORM) == (
        *(True, "Res5ROIHeadsExtraNorm"),
        "SyncBN",
    )
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("coco_2017_train",), ("coco_2017_val",))
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (
        (120000, 160000),
        180000,
        1000,
    )
    assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)


CLIP_CONFIGS = (
    "coco_segm_clip_init_1x",
    "coco_segm_clip_init_1x_RN101",
    "coco_segm_clip_init_1x_RN50x4",
    "coco_segm_clip_init_1x_RN50x16",
    "coco_segm_clip_init_1x_RN50x64",
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
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.BACKBONE_MULTIPLIER) == ("AdamW", 2e-4, 0.1)
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
    assert (cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (
        "Res5ROIHeadsExtraNorm",
        80,
    )
    assert cfg.MODEL.RESNETS.OUT_FEATURES == cfg.MODEL.ROI_HEADS.IN_FEATURES == ["res4"]
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)


@pytest.mark.parametrize(
    ("name", "base", "differences"),
    [
        *(
            (
                f"coco_segm_default_init_2x_R_{depth}",
                "coco_segm_default_init_2x",
                {"MODEL.RESNETS.DEPTH": depth} | basic_blocks,
            )
            for depth, basic_blocks in [
                (18, {"MODEL.RESNETS.RES2_OUT_CHANNELS": 64}),
                (34, {"MODEL.RESNETS.RES2_OUT_CHANNELS": 64}),
                (101, {}),
            ]
        ),
        (
            "coco_segm_default_init_2x_R_50W2X",
            "coco_segm_default_init_2x",
            {"MODEL.RESNETS.WIDTH_PER_GROUP": 128},
        ),
        (
            *("coco_segm_default_init_2x_R_50D", "coco_segm_default_init_2x"),
            {
                "MODEL.CAPTION_RESNET.STEM": "deep",
                "MODEL.CAPTION_RESNET.DOWNSAMPLE": "avg_shortcut",
            },
        ),
        ("coco_segm_clip_init_1x_RN101", "coco_segm_clip_init_1x", {"MODEL.RESNETS.DEPTH": 101}),
        *(
            (
                *(f"coco_segm_clip_init_1x_{net}", "coco_segm_clip_init_1x"),
                {
                    "MODEL.CAPTION_RESNET.BLOCKS": blocks,
                    "MODEL.RESNETS.STEM_OUT_CHANNELS": width,
                    "MODEL.RESNETS.RES2_OUT_CHANNELS": 4 * width,
                    "MODEL.RESNETS.WIDTH_PER_GROUP": width,
                },
            )
            for net, blocks, width in [
                ("RN50x4", (4, 6, 10, 6), 80),
                ("RN50x16", (6, 8, 18, 8), 96),
                ("RN50x64", (3, 15, 36, 10), 128),
            ]
        ),
    ],
)
def test_another_network_is_all_that_a_config_of_its_own_changes(name, base, differences):
    cfg, base_cfg = load(f"detectron2/{name}.yaml"), load(f"detectron2/{base}.yaml")
    settings = [part for pair in differences.items() for part in pair]
    assert cfg == load(f"detectron2/{base}.yaml", *settings)
    assert protocol_id(cfg).startswith(f"{protocol_id(base_cfg)}+MODEL.")


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Millions of parameters of timm's and open_clip's networks, without classifiers and attention
    # pools.
    [
        ("coco_segm_default_init_2x_R_18", 11.177),
        ("coco_segm_default_init_2x_R_34", 21.285),
        ("coco_segm_default_init_2x_R_101", 42.500),
        ("coco_segm_default_init_2x_R_50W2X", 66.834),
        ("coco_segm_default_init_2x_R_50D", 23.527),
        ("coco_segm_clip_init_1x", 23.527),
        ("coco_segm_clip_init_1x_RN101", 42.519),
        ("coco_segm_clip_init_1x_RN50x4", 65.620),
        ("coco_segm_clip_init_1x_RN50x16", 136.203),
        ("coco_segm_clip_init_1x_RN50x64", 365.034),
        ("coco_segm_clip_init_1x_C4", 23.527),
    ],
)
def test_the_size_of_the_backbone_is_that_of_the_published_network(name, parameters):
    cfg = load(f"detectron2/{name}.yaml", "MODEL.DEVICE", "meta")
    with torch.device("meta"):
        named = build_model(cfg).named_parameters()
    resnet = re.compile(r"backbone\.(bottom_up\.)?(stem|res)|roi_heads\.res5\.\d")
    assert sum(p.numel() for name, p in named if resnet.match(name)) / 1e6 == pytest.approx(
        parameters, abs=0.001
    )


PUBLISHED_PRETRAINING = {
    "task_ablations/bicaptioning_R_50_L1_H2048": (1, 2048, 32, 8192, 50, 64),
    "task_ablations/captioning_R_50_L1_H2048": (1, 2048, 32, 8192, 50, 64),
    "task_ablations/masked_lm_R_50_L1_H2048": (1, 2048, 32, 8192, 50, 64),
    "task_ablations/token_classification_R_50": None,
    "task_ablations/multilabel_classification_R_50": None,
    "width_ablations/bicaptioning_R_50_L1_H512": (1, 512, 8, 2048, 50, 64),
    "width_ablations/bicaptioning_R_50_L1_H768": (1, 768, 12, 3072, 50, 64),
    "width_ablations/bicaptioning_R_50_L1_H1024": (1, 1024, 16, 4096, 50, 64),
    "width_ablations/bicaptioning_R_50_L1_H2048": (1, 2048, 32, 8192, 50, 64),
    "depth_ablations/bicaptioning_R_50_L1_H1024": (1, 1024, 16, 4096, 50, 64),
    "depth_ablations/bicaptioning_R_50_L2_H1024": (2, 1024, 16, 4096, 50, 64),
    "depth_ablations/bicaptioning_R_50_L3_H1024": (3, 1024, 16, 4096, 50, 64),
    "depth_ablations/bicaptioning_R_50_L4_H1024": (4, 1024, 16, 4096, 50, 64),
    "backbone_ablations/bicaptioning_R_50_L1_H1024": (1, 1024, 16, 4096, 50, 64),
    "backbone_ablations/bicaptioning_R_50W2X_L1_H1024": (1, 1024, 16, 4096, 50, 128),
    "backbone_ablations/bicaptioning_R_101_L1_H1024": (1, 1024, 16, 4096, 101, 64),
}
TASKS = {
    "bicaptioning": ("BicaptioningModel", "CaptionMapper"),
    "captioning": ("CaptioningModel", "CaptionMapper"),
    "masked_lm": ("MaskedLanguageModel", "MaskedCaptionMapper"),
    "token_classification": ("TokenClassificationModel", "CaptionMapper"),
    "multilabel_classification": ("MultilabelClassificationModel", "MultilabelMapper"),
}


@pytest.mark.parametrize("name", PUBLISHED_PRETRAINING)
def test_the_published_pretraining_recipe(name):
    cfg = load(f"pretrain/{name}.yaml")
    solver, caption = cfg.SOLVER, cfg.INPUT.CAPTION
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.BASE_LR * solver.BACKBONE_MULTIPLIER) == (
        "SGD",
        0.001,
        0.2,
    )
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER) == (256, 500000)
    assert (solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS, solver.WARMUP_FACTOR) == (
        "WarmupCosineLR",
        10000,
        0,
    )
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.MOMENTUM) == (1e-4, 1e-4, 0.9)
    assert (solver.LOOKAHEAD.ENABLED, solver.LOOKAHEAD.STEPS, solver.LOOKAHEAD.ALPHA) == (
        True,
        5,
        0.5,
    )
    assert (solver.CLIP_GRADIENTS.CLIP_TYPE, solver.CLIP_GRADIENTS.CLIP_VALUE) == (
        "full_model",
        10.0,
    )
    assert (solver.AMP.ENABLED, solver.AMP.DTYPE) == (True, "float16")
    assert cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL
    assert (caption.CROP_SIZE, caption.CROP_SCALE, caption.MAX_LENGTH) == (224, (0.2, 1.0), 30)
    assert (caption.MASK_PROPORTION, caption.MASK_PROB, caption.REPLACE_PROB) == (0.15, 0.85, 0.10)


@pytest.mark.parametrize(("name", "sizes"), PUBLISHED_PRETRAINING.items())
def test_the_published_models(name, sizes):
    cfg = load(f"pretrain/{name}.yaml")
    textual, resnet = cfg.MODEL.TEXTUAL, cfg.MODEL.RESNETS
    task = Path(name).name.partition("_R_")[0]
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.MAPPER) == TASKS[task]
    if sizes:
        decoder = (
            textual.NUM_LAYERS,
            textual.HIDDEN_SIZE,
            textual.ATTENTION_HEADS,
            textual.FEEDFORWARD_SIZE,
        )
        assert (*decoder, resnet.DEPTH, resnet.WIDTH_PER_GROUP) == sizes
    assert (textual.NORM_FIRST, textual.DROPOUT, textual.VOCAB_SIZE) == (False, 0.1, 0)


def test_multilabel_classification_learns_from_instances_and_the_others_from_captions():
    multilabel = "task_ablations/multilabel_classification_R_50"
    cfg = load(f"pretrain/{multilabel}.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("coco_2017_train",), ())
    assert cfg.MODEL.CLASSIFIER.NUM_CLASSES == 80
    for name in PUBLISHED_PRETRAINING.keys() - {multilabel}:
        datasets = load(f"pretrain/{name}.yaml").DATASETS
        assert (datasets.TRAIN, datasets.TEST) == (
            ("coco_2017_train_captions",),
            ("coco_2017_val_captions",),
        )


def test_sixteen_published_names_are_thirteen_models_each_a_diff_of_one_base():
    folder = ROOT / "configs/pretrain"
    names = {
        str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*_ablations/*.yaml")
    }
    assert names == set(PUBLISHED_PRETRAINING) and len(names) == 16
    assert len({load(f"pretrain/{name}.yaml").dump() for name in names}) == 13
    assert all(
        bases(folder / f"{name}.yaml")[-1] == "_base_bicaptioning_R_50_L1_H1024.yaml"
        for name in names
    )


def bases(path: Path) -> list[str]:
    """The names of the config's base, its base's base and so on."""
    found = re.search(r"^_BASE_: (.+)$", path.read_text(), re.MULTILINE)
    return [Path(found[1]).name, *bases(path.parent / found[1])] if found else []


SCENES = {
    "scenes_bicaptioning": "caption_tokens",
    "scenes_captioning": "caption_tokens",
    "scenes_token_classification": "caption_tokens",
    "scenes_masked_lm": "masked_labels",
    "scenes_multilabel": "labels",
}


@pytest.mark.parametrize(("name", "target"), SCENES.items())
def test_a_model_of_the_scenes_learns_from_an_example(name, target):
    # A user of the scenes has the vocabulary that the config names, of another size.
    settings = ["MODEL.TEXTUAL.VOCAB_SIZE", 130, "INPUT.CAPTION.TOKENIZER", "none.model"]
    cfg = load(f"pretrain/{name}.yaml", "MODEL.DEVICE", "cpu", *settings)
    model = build_model(cfg)
    tokens = torch.tensor([1, 5, 7, 2])
    examples = [
        {
            "image": torch.rand(3, 64, 64),
            "caption_tokens": tokens,
            target: tokens if target != "labels" else tokens[:2],
        }
        for _ in range(2)
    ]
    sum(model(examples).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (model.target, model.mappers(cfg)[0]) == (target, cfg.DATALOADER.MAPPER)
