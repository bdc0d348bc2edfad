"""Known ways in which published weights end up half loaded or in another network silently."""

from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from tests.checkpoint.conftest import (
    FROZEN_TENSORS,
    random_tensors,
    torchvision_tensors,
    virtex_full_model,
    with_classifier,
)
from tests.checkpoint.layouts import LAYOUTS, bare, clip, full, other, under
from tests.checkpoint.originals import config, detector, network
from virtex_det.checkpoint.loading import load_weights
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.errors import UserError


def backbone_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        canonical: value
        for name, value in model.state_dict().items()
        if (canonical := from_detectron2(name))
    }


def assert_filled(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    assert [
        name for name, value in backbone_of(model).items() if not torch.equal(value, expected[name])
    ] == []


def refusal(model: nn.Module, path: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(model, path, **options)
    return str(caught.value)


# 3.1 The VirTex family


def test_virtex_issue_21_a_hub_file_is_read_flat_and_wrapped(fpn, save, backbone_tensors):
    tensors = torchvision_tensors(backbone_tensors)
    for content in (tensors, {"model": tensors}):
        model = fpn()
        load_weights(model, save(content))
        assert_filled(model, backbone_tensors)


def test_virtex_text_keys_of_any_version_are_beside_the_backbone(fpn, save, backbone_tensors):
    older = {"textual.transformer.decoder.weight": torch.ones(2), "linear.weight": torch.ones(2)}
    report = load_weights(fpn(), save({"model": virtex_full_model(backbone_tensors) | older}))
    assert set(older) < set(report.unused) and report.format == "virtex"


def test_virtex_parts_stored_twice_are_read_once(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save({"model": virtex_full_model(backbone_tensors)}))
    assert len(report.loaded) == len(set(report.loaded)) == len(backbone_tensors)


# 3.2 Peers


def test_a_clip_archive_is_not_a_dict_and_has_half_precision(tmp_path):
    layout = LAYOUTS["openai clip RN50"]
    layout.write(network("CLIP RN50"), tmp_path / "RN50.pt")
    model = detector("CLIP RN50", "FPN")
    report = load_weights(model, str(tmp_path / "RN50.pt"), cfg=config("CLIP RN50"))
    assert all(value.dtype != torch.half for value in model.state_dict().values())
    assert {"input_resolution", "context_length", "vocab_size"} < set(report.unused)


def test_clips_attention_pool_is_not_part_of_the_backbone(save):
    report = load_weights(detector("CLIP RN50", "FPN"), save(clip(network("CLIP RN50"))))
    assert "visual.attnpool.positional_embedding" in report.unused


def test_clips_shortcut_has_a_pool_without_tensors_before_its_convolution():
    names = network("CLIP RN50").state_dict()
    assert "layer2.0.downsample.0.weight" in names and not any(
        "downsample.-1" in name for name in names
    )


def test_clip_rn50x4_has_six_blocks_in_a_c4_head(save):
    path = save(clip(network("CLIP RN50x4")))
    model = detector("CLIP RN50x4", "C4")
    assert len(model.roi_heads.res5) == 6
    report = load_weights(model, path, cfg=config("CLIP RN50x4", "C4"))
    assert "roi_heads.res5.5.conv3.weight" in report.loaded
    assert "MODEL.CAPTION_RESNET.BLOCKS (4, 6, 10, 6)" in refusal(detector("CLIP RN50", "C4"), path)


def test_regionclips_pixels_in_0_to_1_are_refused_with_those_in_0_to_255(save):
    path = save(LAYOUTS["regionclip"].content(network("CLIP RN50")))
    cfg = config("CLIP RN50")
    cfg.MODEL.PIXEL_MEAN = [0.48145466, 0.4578275, 0.40821073]
    cfg.MODEL.PIXEL_STD = [0.26862954, 0.26130258, 0.27577711]
    message = refusal(detector("CLIP RN50", "FPN"), path, cfg=cfg)
    assert (
        'MODEL.PIXEL_MEAN "[122.7709, 116.746, 104.0937]"' in message
        and "MODEL.PIXEL_STD" in message
    )


@pytest.mark.parametrize(
    ("chosen", "not_chosen"), [("encoder_q.", "encoder_k."), ("base_encoder.", "momentum_encoder.")]
)
def test_moco_the_trained_encoder_is_loaded_and_not_its_momentum_copy(
    fpn, save, backbone_tensors, chosen, not_chosen
):
    tensors = torchvision_tensors(backbone_tensors)
    for first, second in ((chosen, not_chosen), (not_chosen, chosen)):
        both = under(first, tensors if first == chosen else other(tensors))
        both |= under(second, tensors if second == chosen else other(tensors))
        model = fpn()
        load_weights(model, save({"state_dict": under("module.", both)}))
        assert_filled(model, backbone_tensors)


def test_mocos_converter_keeps_the_classifier_in_the_stem(fpn, save, backbone_tensors):
    kept = backbone_tensors | {
        "stem.fc.0.weight": torch.ones(2, 2),
        "stem.fc.2.weight": torch.ones(2, 2),
    }
    report = load_weights(
        fpn(), save({"model": kept, "__author__": "MOCO", "matching_heuristics": True})
    )
    assert report.unused == ("stem.fc.0.weight", "stem.fc.2.weight") and not report.partial


@pytest.mark.parametrize("family", ["swav", "vissl", "vicreg"])
def test_w2_widens_every_channel_and_the_stem_too_unlike_wide_resnet50_2(fpn, save, family):
    widened = fpn(STEM_OUT_CHANNELS=8, RES2_OUT_CHANNELS=32, WIDTH_PER_GROUP=8)
    tensors = random_tensors(backbone_of(widened))
    prefix = {"swav": "module.", "vissl": "_feature_blocks.", "vicreg": ""}[family]
    path = save(torchvision_tensors(tensors, prefix))
    message = refusal(fpn(), path)
    for key in ("WIDTH_PER_GROUP 8", "RES2_OUT_CHANNELS 32", "STEM_OUT_CHANNELS 8"):
        assert f"MODEL.RESNETS.{key}" in message
    load_weights(widened, path)
    assert_filled(widened, tensors)


def test_wide_resnet50_2_widens_the_middle_of_the_blocks_alone(fpn, save):
    path = save(torchvision_tensors(random_tensors(backbone_of(fpn(WIDTH_PER_GROUP=8)))))
    message = refusal(fpn(), path)
    assert (
        "MODEL.RESNETS.WIDTH_PER_GROUP 8\n" in message
        and "MODEL.RESNETS.RES2_OUT_CHANNELS" not in message
    )


@pytest.mark.parametrize("layout", ["dino, full file", "dino, teacher not of DDP"])
def test_dino_the_teacher_is_loaded_and_its_namespace_skipped(save, layout):
    model = detector("ResNet-50", "FPN")
    report = load_weights(model, save(LAYOUTS[layout].content(network("ResNet-50"))))
    expected = network("ResNet-50").state_dict()["conv1.weight"]
    assert (
        torch.equal(model.backbone.bottom_up.stem.conv1.weight, expected)
        and "teacher" in report.note
    )


def test_msra_differs_from_torchvision_in_channel_order_std_and_stride(tmp_path):
    layout = LAYOUTS["detectron2 MSRA"]
    layout.write(layout.content(network(layout.original)), tmp_path / "R-50.pkl")
    message = refusal(
        detector("ResNet-50", "FPN"), str(tmp_path / "R-50.pkl"), cfg=config("ResNet-50")
    )
    for setting in ('INPUT.FORMAT "BGR"', 'PIXEL_STD "[1.0, 1.0, 1.0]"', 'STRIDE_IN_1X1 "True"'):
        assert setting in message


def test_msras_convolution_bias_and_classifier_are_unused(tmp_path):
    layout = LAYOUTS["detectron2 MSRA"]
    layout.write(layout.content(network(layout.original)), tmp_path / "R-50.pkl")
    report = load_weights(detector(layout.original, "FPN"), str(tmp_path / "R-50.pkl"))
    assert report.unused == ("conv1_b", "fc1000_b", "fc1000_w")


def test_timm_the_averaged_weights_are_loaded(save):
    model = detector("timm's ResNet-50", "FPN")
    load_weights(model, save(LAYOUTS["timm, averaged"].content(network("timm's ResNet-50"))))
    expected = network("timm's ResNet-50").state_dict()["conv1.weight"]
    assert torch.equal(model.backbone.bottom_up.stem.conv1.weight, expected)


@pytest.mark.parametrize(
    ("layout", "mean"), [("timm 50d", 127.5), ("timm", 127.5), ("moco v1", None)]
)
def test_timm_trained_a_few_networks_with_mean_and_std_of_a_half(save, layout, mean):
    original = LAYOUTS[layout].original
    path = save(LAYOUTS[layout].content(network(original)))
    cfg = config(original)
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5] * 3
    if mean:
        assert not load_weights(detector(original, "FPN"), path, cfg=cfg).partial
    else:
        assert "MODEL.PIXEL_MEAN" in refusal(detector(original, "FPN"), path, cfg=cfg)


def test_icmlm_a_prefix_slip_would_load_nothing_and_here_loads_everything(
    fpn, save, backbone_tensors
):
    model = fpn()
    report = load_weights(model, save({"cnn": torchvision_tensors(backbone_tensors, "resnet.")}))
    assert_filled(model, backbone_tensors)
    assert report.format == "icmlm" and report.location == "cnn.resnet."


# 3.3 What Detectron2's own loader makes of them


def stock_loads(
    model: nn.Module, content: dict, tmp_path: Path, heuristics: bool = False
) -> set[str]:
    """The backbone names that Detectron2's loader changes in a model."""
    path = tmp_path / "stock.pth"
    torch.save({"model": content, "matching_heuristics": heuristics}, path)
    for value in model.state_dict().values():
        value.fill_(9)
    DetectionCheckpointer(model).load(str(path))
    return {name for name, value in backbone_of(model).items() if not (value == 9).all()}


@pytest.mark.parametrize(
    "prefix", ["visual.cnn.", "module.encoder_q.", "_feature_blocks.", "module.backbone."]
)
def test_a_prefix_left_on_loads_nothing_in_detectron2_and_everything_here(
    fpn, save, tmp_path, backbone_tensors, prefix
):
    content = torchvision_tensors(backbone_tensors, prefix)
    changed = stock_loads(fpn(NORM="FrozenBN"), dict(content), tmp_path)
    assert len(changed) == 106 and all(
        "running" in name for name in changed
    )  # made up by FrozenBatchNorm2d
    model = fpn(NORM="FrozenBN")
    assert len(load_weights(model, save({"state_dict": content})).loaded) == FROZEN_TENSORS
    assert_filled(model, backbone_tensors)


def test_torchvision_names_not_renamed_load_the_first_convolution_in_detectron2_and_everything_here(
    fpn, save, tmp_path, backbone_tensors
):
    content = with_classifier(torchvision_tensors(backbone_tensors))
    assert stock_loads(fpn(), dict(content), tmp_path, heuristics=True) == {"stem.conv1.weight"}
    model = fpn()
    load_weights(model, save(content))
    assert_filled(model, backbone_tensors)


def test_clip_without_its_prefix_fits_a_plain_resnet_but_for_the_stem_and_is_refused(
    fpn, save, cfg
):
    narrow = {"STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 8}
    path = save(full(network("CLIP RN50")))
    message = refusal(fpn(**narrow), path)
    assert "260 tensors fit" in refusal(fpn(NORM="FrozenBN", **narrow), path)
    assert (
        "MODEL.CAPTION_RESNET.STEM clip" in message
        and "MODEL.CAPTION_RESNET.DOWNSAMPLE clip" in message
    )
    assert "CAPTION_RESNET.DOWNSAMPLE" in refusal(fpn(**narrow), path, cfg=cfg, allow_partial=True)


def test_resnet_ds_shortcuts_and_last_stem_norm_do_not_land_on_a_plain_stem(fpn, save, cfg):
    narrow = {"STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 8}
    model = fpn(**narrow)
    before = model.backbone.bottom_up.stem.conv1.norm.weight.clone()
    message = refusal(model, save(full(network("ResNet-50-D"))))
    assert "MODEL.CAPTION_RESNET.STEM deep" in message and "DOWNSAMPLE avg_shortcut" in message
    assert torch.equal(model.backbone.bottom_up.stem.conv1.norm.weight, before)


def test_statistics_that_frozen_norms_make_up_are_counted_as_missing(fpn, save, backbone_tensors):
    without = {name: value for name, value in backbone_tensors.items() if "running" not in name}
    assert "106 missing" in refusal(fpn(NORM="FrozenBN"), save(torchvision_tensors(without)))


def test_batch_counters_are_no_reason_to_refuse_a_frozen_model(fpn, save, backbone_tensors):
    assert not load_weights(
        fpn(NORM="FrozenBN"), save(torchvision_tensors(backbone_tensors))
    ).partial


@pytest.mark.parametrize("norm", ["GN", "BN", "FrozenBN", "SyncBN"])
def test_every_kind_of_norm_is_filled_whole_or_refused(fpn, save, norm):
    wide = {"STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 128, "WIDTH_PER_GROUP": 32}
    source, target = fpn(NORM="GN", **wide), fpn(NORM=norm, **wide)
    path = save(
        {"model": {f"backbone.{name}": value for name, value in backbone_of(source).items()}}
    )
    if norm == "GN":
        load_weights(target, path)
        assert_filled(target, backbone_of(source))
    else:
        assert "106 missing" in refusal(target, path)


def test_c4_keeps_its_new_norm_after_res5(c4, save, backbone_tensors):
    report = load_weights(c4(extra_norm=True), save(torchvision_tensors(backbone_tensors)))
    assert not any("res5.norm" in name for name in (*report.loaded, *report.missing))


def test_socos_pyramid_is_loaded_if_the_detectors_has_the_same_shapes(save):
    model = detector("ResNet-50", "FPN")
    report = load_weights(model, save(LAYOUTS["soco"].content(network("ResNet-50"))))
    assert torch.equal(model.backbone.fpn_output2.weight, torch.full((8, 8, 3, 3), 5.0))
    assert "roi_heads.box_head.fc1.weight" in {mismatch.name for mismatch in report.mismatched}
    assert not report.partial and "FPN" in report.note


def test_the_note_of_pixpro_says_that_only_the_backbone_is_loaded(save):
    content = LAYOUTS["pixpro"].content(network("ResNet-50"))
    report = load_weights(detector("ResNet-50", "FPN"), save(content))
    assert "only the backbone" in report.note and "note: only the backbone" in report.table()


def test_a_named_family_in_the_config_decides(save):
    cfg = config("ResNet-50")
    cfg.MODEL.WEIGHTS_FORMAT = "dino"
    assert load_weights(
        detector("ResNet-50", "FPN"), save(bare(network("ResNet-50"))), cfg=cfg
    ).loaded
    cfg.MODEL.WEIGHTS_FORMAT = "moco_v3"
    assert "is not a weights file of the family moco_v3" in refusal(
        detector("ResNet-50", "FPN"), save(bare(network("ResNet-50"))), cfg=cfg
    )
