"""What a file says of its network besides shapes is followed: strides, pixels, norms, dilation."""

import pytest
import torch
from detectron2.config import CfgNode

from tests.checkpoint.conftest import random_tensors, torchvision_tensors
from tests.checkpoint.layouts import ONES, caffe2_name, under, without_counters
from virtex_det.checkpoint import contradictions
from virtex_det.checkpoint.loading import load_weights
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.checkpoint.recognition import recognise
from virtex_det.errors import UserError

CAFFE_STYLE = """
model = dict(
    type='MaskRCNN',
    backbone=dict(
        type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=False), style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe')),
    rpn_head=dict(
        bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0])))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""
# Newer versions sort the names and have a preprocessor instead of a pipeline.
NEW_STYLE = """
model = dict(
    backbone=dict(depth=50, style='pytorch', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], pad_size_divisor=32,
        std=[58.395, 57.12, 57.375]))
"""
DILATED = """
model = dict(
    backbone=dict(
        type='ResNetV1c', depth=50, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), style='pytorch'),
    decode_head=dict(type='ASPPHead', dilations=(1, 12, 24, 36)))
"""
ONLY_THE_HEAD_IS_DILATED = DILATED.replace(
    "dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)", "strides=(1, 2, 2, 2)"
)


def openmmlab(backbone, text, key="config"):
    model = torchvision_tensors(backbone, "backbone.") | {"neck.lateral_convs.0.conv.weight": ONES}
    return {"meta": {key: text, "CLASSES": ("nut",)}, "state_dict": model}


def entry_of(content):
    return recognise(content, "weights.pth").format


def test_openmmlabs_caffe_style_has_caffes_strides_and_pixels(backbone_tensors, cfg):
    entry = entry_of(openmmlab(backbone_tensors, CAFFE_STYLE))
    assert contradictions(entry, cfg) == {
        "INPUT.FORMAT": "BGR",
        "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
        "MODEL.RESNETS.STRIDE_IN_1X1": True,
    }


def test_openmmlabs_pytorch_style_is_that_of_torchvision(backbone_tensors, cfg):
    assert not contradictions(entry_of(openmmlab(backbone_tensors, NEW_STYLE, "cfg")), cfg)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "backbone=dict(",
            "backbone=dict(" * 1000,
            "mean=[a], std=[1], to_rgb=True",
            "x" * (2 << 20),
            "style='caffe'",
        ),
        "backbone=dict(style='caffe')\nbackbone=dict(style='pytorch')".replace("\n", ")("),
        "mean=[1.0, 2.0, 3.0], std=[0.0, 1.0, 1.0], to_rgb=False",
        "mean=[1.0, 2.0], std=[1.0], to_rgb=False",
        *(3, None, ["backbone=dict(style='caffe')"]),
    ],
)
def test_an_invalid_config_of_openmmlab_is_ignored(backbone_tensors, cfg, text):
    if isinstance(text, str) and text.startswith("backbone=dict(style"):
        assert entry_of(
            openmmlab(backbone_tensors, text)
        ).stride_in_1x1  # the first backbone counts
    else:
        assert not contradictions(entry_of(openmmlab(backbone_tensors, text)), cfg)


def test_openmmlabs_dilated_backbone_is_refused_and_a_dilated_head_is_not(backbone_tensors):
    with pytest.raises(UserError, match=r"dilations=\(1, 1, 2, 4\), which its shapes do not show"):
        entry_of(openmmlab(backbone_tensors, DILATED))
    assert entry_of(openmmlab(backbone_tensors, ONLY_THE_HEAD_IS_DILATED)).stride_in_1x1 is False


@pytest.mark.parametrize(
    "head",
    [
        {"classifier.4.weight": torch.ones(21, 2, 1, 1)},
        {"aux_classifier.0.weight": ONES},
        {"classifier.0.convs.0.0.weight": ONES},
    ],
)
def test_torchvisions_dilated_segmentation_is_refused(backbone_tensors, head):
    with pytest.raises(UserError, match="torchvision's segmentation"):
        entry_of(torchvision_tensors(backbone_tensors, "backbone.") | head)


def test_a_classifier_of_linear_layers_is_not_segmentation(backbone_tensors):
    assert entry_of(
        torchvision_tensors(backbone_tensors, "backbone.") | {"classifier.4.weight": ONES}
    )


def test_pixels_among_the_tensors_of_a_detector_are_compared(backbone_tensors, cfg):
    mean, std = torch.tensor([103.53, 116.28, 123.675]), torch.ones(3)
    model = under("backbone.bottom_up.", backbone_tensors) | {"roi_heads.x.weight": ONES}
    bgr = model | {"pixel_mean": mean.view(3, 1, 1), "pixel_std": std.view(3, 1, 1)}
    assert contradictions(entry_of({"model": bgr}), cfg) == {
        "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    }
    odd = model | {"pixel_mean": torch.ones(100), "pixel_std": torch.zeros(3)}
    assert not contradictions(entry_of({"model": odd}), cfg)


@pytest.mark.parametrize(
    "own",
    [
        *(
            {"format": 3, "mean": None, "std": None},
            {"format": "RGB", "mean": "abc", "std": "abc"},
            3,
            "RGB",
        ),
        {"format": "RGB", "mean": [float("nan")] * 3, "std": [1] * 3},
        {"format": "RGB", "mean": [1] * 3, "std": [0] * 3},
        {"format": "RGB", "mean": [[1]], "std": [[1]]},
        {"format": "RGB", "mean": torch.ones(3), "std": torch.ones(3)},
    ],
)
def test_invalid_pixels_in_an_own_checkpoint_are_ignored_and_reported(backbone_tensors, cfg, own):
    model = under("backbone.bottom_up.", backbone_tensors) | {"roi_heads.x.weight": ONES}
    entry = entry_of(
        {
            "model": model,
            "pixels": own,
            "network": {"stem": [], "downsample": 3, "stride_in_1x1": torch.ones(2)},
        }
    )
    assert not contradictions(entry, cfg) and "is invalid" in entry.note


# Caffe2's


def caffe2(backbone, norm="bn"):
    named = {caffe2_name(name): value for name, value in without_counters(backbone).items()}
    short = {
        n.replace("bn_gamma", f"{norm}_s").replace("bn_beta", f"{norm}_b"): v
        for n, v in named.items()
    }
    return {"blobs": {n.replace("res_conv1_gn", "conv1_gn"): value for n, value in short.items()}}


def without_statistics(content):
    return {
        "blobs": {name: value for name, value in content["blobs"].items() if "running" not in name}
    }


@pytest.mark.parametrize(
    ("resnets", "norm", "strides_in_1x1"),
    [
        ({}, "bn", True),
        ({"NUM_GROUPS": 2, "WIDTH_PER_GROUP": 4}, "bn", False),
        (
            {"NORM": "GN", "STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32},
            "gn",
            False,
        ),
    ],
)
def test_caffe2s_networks_of_groups_or_group_norm_stride_where_torchvisions_do(
    fpn, pretraining, save, resnets, norm, strides_in_1x1
):
    source = random_tensors(pretraining(**resnets).backbone.state_dict())
    content = caffe2(source, norm)
    assert recognise(content, "weights.pkl").format.stride_in_1x1 is strides_in_1x1
    model = fpn(**resnets)
    load_weights(model, save(content))
    loaded = {
        layer: value
        for name, value in model.state_dict().items()
        if (layer := from_detectron2(name))
    }
    assert [
        n for n, v in loaded.items() if "num_batches" not in n and not torch.equal(v, source[n])
    ] == []


def test_norms_that_detectron_folded_into_scales_compute_the_same_when_frozen(
    fpn, save, backbone_tensors
):
    model = fpn(NORM="FrozenBN")
    model.load_state_dict(random_tensors(model.state_dict()))
    report = load_weights(model, save(without_statistics(caffe2(backbone_tensors))))
    norm = model.backbone.bottom_up.res2[0].conv1.norm
    features = torch.rand(1, 4, 3, 3)
    scale, shift = (
        backbone_tensors[f"res2.0.conv1.norm.{name}"].view(1, -1, 1, 1)
        for name in ("weight", "bias")
    )
    torch.testing.assert_close(norm(features), features * scale + shift, rtol=1e-6, atol=1e-6)
    assert len(report.folded) == 106 and not report.missing and "106 statistics" in report.table()


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_trained_norms_are_not_filled_with_made_up_statistics(fpn, save, backbone_tensors, norm):
    with pytest.raises(
        UserError, match=r"(?s)106 missing.*no running statistics.*FrozenBN"
    ) as caught:
        load_weights(fpn(NORM=norm), save(without_statistics(caffe2(backbone_tensors))))
    assert len(str(caught.value).splitlines()) < 22


def test_a_model_without_statistics_says_which_norm_the_file_needs(fpn, save, backbone_tensors):
    wide = CfgNode(
        {"NORM": "GN", "STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32}
    )
    with pytest.raises(UserError, match="set MODEL.RESNETS.NORM BN, SyncBN or FrozenBN"):
        load_weights(fpn(**wide), save(torchvision_tensors(backbone_tensors)))


def test_a_statistic_that_a_file_with_statistics_lacks_is_missing(fpn, save, backbone_tensors):
    content = caffe2(backbone_tensors)
    del content["blobs"]["res2_0_branch2a_bn_running_var"]
    with pytest.raises(UserError, match="1 missing"):
        load_weights(fpn(NORM="FrozenBN"), save(content))
