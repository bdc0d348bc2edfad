"""A C4 detector's last stage is of its backbone's variety."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

import virtex_det.modeling  # noqa: F401  (registers the heads)
from tests.modeling.backbone.references import REFERENCES, build_reference, canonical, config, load
from virtex_det.errors import UserError


def c4_config(variety: str, norm: str = "BN", head: str = "CaptionRes5ROIHeads") -> CfgNode:
    cfg = config(REFERENCES[variety], norm)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    cfg.MODEL.ROI_HEADS.NAME = head
    return cfg


def load_reference(detector: nn.Module, variety: str) -> nn.Module:
    """Load the published network into a detector, res5 into its head; return the network."""
    reference = build_reference(REFERENCES[variety])
    weights = canonical(reference)
    res5 = {
        name.removeprefix("res5."): tensor
        for name, tensor in weights.items()
        if name.startswith("res5.")
    }
    load(detector.roi_heads.res5, res5)
    load(
        detector.backbone,
        {name: tensor for name, tensor in weights.items() if not name.startswith("res5.")},
    )
    return reference


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("size", [14, 7])
@pytest.mark.parametrize("variety", [name for name in REFERENCES if "200" not in name])
def test_res5_of_the_head_equals_the_published_network(variety: str, size: int) -> None:
    detector = build_model(c4_config(variety)).eval()
    reference = load_reference(detector, variety)
    regions = torch.randn(3, detector.roi_heads.res5[0].in_channels, size, size)
    with torch.no_grad():
        ours, theirs = detector.roi_heads.res5(regions), reference.layer4(regions)
    assert ours.shape == theirs.shape
    assert relative_difference(ours, theirs) < 1e-4


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
def test_res5_equals_clips_with_another_norm(norm: str) -> None:
    detector = build_model(c4_config("CLIP RN50x4", norm)).eval()
    reference = load_reference(detector, "CLIP RN50x4")
    assert len(detector.roi_heads.res5) == 6
    regions = torch.randn(2, 128, 14, 14)
    with torch.no_grad():
        assert (
            relative_difference(detector.roi_heads.res5(regions), reference.layer4(regions)) < 1e-4
        )


def test_it_is_that_of_detectron2_for_a_plain_resnet() -> None:
    cfg = c4_config("CLIP RN50")
    cfg.MODEL.CAPTION_RESNET.STEM, cfg.MODEL.CAPTION_RESNET.DOWNSAMPLE = "basic", "conv"
    ours = build_model(cfg).eval()
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    theirs = build_model(cfg).eval()
    ours.load_state_dict(theirs.state_dict())
    regions = torch.randn(2, 128, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.roi_heads.res5(regions), theirs.roi_heads.res5(regions), rtol=0, atol=0
        )


def test_the_extra_norm_comes_after_all_of_its_blocks() -> None:
    res5 = build_model(c4_config("CLIP RN50x4", head="Res5ROIHeadsExtraNorm")).roi_heads.res5
    assert [name for name, _ in res5.named_children()] == ["0", "1", "2", "3", "4", "5", "norm"]
    assert res5.norm.num_features == res5[5].out_channels


def test_residual_branches_start_at_zero_there_too() -> None:
    cfg = c4_config("CLIP RN50")
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = True
    assert not any(block.conv3.norm.weight.any() for block in build_model(cfg).roi_heads.res5)


def test_detectron2s_own_head_with_another_variety_is_an_error_naming_ours() -> None:
    with pytest.raises(UserError, match="MODEL.ROI_HEADS.NAME.*CaptionRes5ROIHeads"):
        build_model(c4_config("CLIP RN50", head="Res5ROIHeads"))
