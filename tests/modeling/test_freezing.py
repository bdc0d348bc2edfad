import pytest
from detectron2.modeling import build_model

from virtex_det import get_cfg
from virtex_det.modeling.freezing import freeze_last_stage
from virtex_det.solver.build import _BACKBONE


def c4(freeze_at: int, heads: str = "CaptionRes5ROIHeads"):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4, 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.ROI_HEADS.NAME = heads
    cfg.MODEL.MASK_ON = False
    return cfg, build_model(cfg)


@pytest.mark.parametrize("heads", ["CaptionRes5ROIHeads", "Res5ROIHeads", "Res5ROIHeadsExtraNorm"])
def test_a_c4_detector_that_freezes_all_of_its_resnet_freezes_the_stage_in_the_head(heads):
    cfg, model = c4(5, heads)
    assert any(parameter.requires_grad for parameter in model.roi_heads.res5.parameters())
    freeze_last_stage(cfg, model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name in trained if _BACKBONE.match(name)] == []
    assert any(name.startswith("roi_heads.box_predictor") for name in trained)
    assert any(name.startswith("roi_heads.res5.norm") for name in trained) == (
        heads == "Res5ROIHeadsExtraNorm"
    )


@pytest.mark.parametrize("freeze_at", [0, 2, 4])
def test_fewer_frozen_stages_leave_the_head_as_it_is(freeze_at):
    cfg, model = c4(freeze_at)
    before = [parameter.requires_grad for parameter in model.parameters()]
    freeze_last_stage(cfg, model)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
