import doctest

import pytest

from virtex_det.checkpoint import names
from virtex_det.checkpoint.names import (
    from_caffe2,
    from_deep_stem,
    from_detectron2,
    from_resnet_d,
    from_soco_heads,
    from_timm_clip,
    from_torchvision,
    to_torchvision,
)


def test_the_examples_of_every_function_are_right():
    results = doctest.testmod(names)
    assert results.attempted >= 8 and not results.failed


def test_the_norm_after_res5_is_not_part_of_the_backbone():
    assert from_detectron2("roi_heads.res5.norm.weight") is None
    assert from_detectron2("roi_heads.res5.0.conv1.norm.weight") == "res5.0.conv1.norm.weight"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "backbone.fpn_lateral2.weight",
            "roi_heads.box_head.fc1.weight",
            "textual.weight",
            "pixel_mean",
        ),
        *("stem.fc.weight", "stem.fc.0.weight"),
    ],
)
def test_heads_and_kept_classifiers_are_not_part_of_the_backbone(name):
    assert from_detectron2(name) is None


@pytest.mark.parametrize(
    ("rename", "name"),
    [
        (from_torchvision, "fc.weight"),
        (from_torchvision, "attnpool.q_proj.weight"),
        (from_timm_clip, "head.proj.weight"),
        (from_deep_stem, "head.fc.weight"),
        (from_caffe2, "fc1000_w"),
        (from_caffe2, "conv1_w_momentum"),
        (from_soco_heads, "projector.0.weight"),
    ],
)
def test_tensors_outside_the_backbone_have_no_canonical_name(rename, name):
    assert rename(name) is None


@pytest.mark.parametrize(
    ("rename", "name", "canonical"),
    [
        (from_torchvision, "bn1.running_var", "stem.conv1.norm.running_var"),
        (from_torchvision, "conv3.weight", "stem.conv3.weight"),
        (from_torchvision, "bn3.weight", "stem.conv3.norm.weight"),
        (from_deep_stem, "conv1.0.weight", "stem.conv1.weight"),
        (from_deep_stem, "conv1.4.bias", "stem.conv2.norm.bias"),
        (from_deep_stem, "bn1.bias", "stem.conv3.norm.bias"),
        (from_deep_stem, "stem.7.bias", "stem.conv3.norm.bias"),
        (from_deep_stem, "layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        (from_resnet_d, "layer2.0.downsample.2.bias", "res3.0.shortcut.norm.bias"),
        (from_timm_clip, "stem.conv3.bn.bias", "stem.conv3.norm.bias"),
        (from_timm_clip, "stages.3.2.conv2_kxk.conv.weight", "res5.2.conv2.weight"),
        (from_caffe2, "res_conv1_bn_s", "stem.conv1.norm.weight"),
        (from_caffe2, "res4_22_branch2c_bn_riv", "res4.22.conv3.norm.running_var"),
        (from_soco_heads, "head.bn4.bias", "roi_heads.box_head.conv4.norm.bias"),
    ],
)
def test_published_names(rename, name, canonical):
    assert rename(name) == canonical


@pytest.mark.parametrize(
    "name",
    ["conv1.weight", "bn1.bias", "bn3.bias", "layer4.2.bn3.weight", "layer1.0.downsample.0.weight"],
)
def test_names_of_torchvision_convert_back(name):
    canonical = from_torchvision(name)
    assert canonical is not None and to_torchvision(canonical) == name
