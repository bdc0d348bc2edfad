import json

import pytest
import torch
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from tests.checkpoint.conftest import (
    FROZEN_TENSORS,
    WEIGHTS_WITH_STATISTICS,
    c4_detector,
    fpn_detector,
    own_pretraining,
    random_tensors,
    torchvision_tensors,
    virtex_training_file,
    with_classifier,
)
from virtex_det.checkpoint.loading import LoadReport, Mismatch, load_weights
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.errors import UserError


def backbone_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        canonical: value
        for name, value in model.state_dict().items()
        if (canonical := from_detectron2(name))
    }


def assert_equal(found: dict, expected: dict) -> None:
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


def refusal(model: nn.Module, path: str, **options) -> str:
    """The message of a load that must fail, and leave the model as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, path, **options)
    assert_equal(model.state_dict(), before)
    assert len(str(caught.value).splitlines()) < 20
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "tensors"),
    [
        (("fpn", {"NORM": "BN"}), WEIGHTS_WITH_STATISTICS),
        (("fpn", {"NORM": "FrozenBN"}), FROZEN_TENSORS),
        (("c4", {"NORM": "BN"}), WEIGHTS_WITH_STATISTICS),
        (("c4", {"NORM": "FrozenBN"}), FROZEN_TENSORS),
        (("c4", {"NORM": "SyncBN", "extra_norm": True}), WEIGHTS_WITH_STATISTICS),
        (("pretraining", {"NORM": "BN"}), WEIGHTS_WITH_STATISTICS),
    ],
)
def test_every_layout_fills_every_backbone_tensor(
    request, save, layout, backbone_tensors, target, tensors
):
    (builder, settings), (make, family) = target, layout
    model = request.getfixturevalue(builder)(**settings)
    report = load_weights(model, save(make(backbone_tensors)))
    assert report.format == family
    assert not report.missing and not report.partial
    assert (
        len([name for name in report.loaded if from_detectron2(name)])
        == len(backbone_of(model))
        == tensors
    )
    assert_equal(backbone_of(model), backbone_tensors)


def test_the_loaded_network_computes_what_the_original_computes(cfg, save):
    original = ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=4)
    original.load_state_dict(realistic(original.state_dict()))
    changed = cfg.clone()
    changed.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    changed.MODEL.RESNETS.STEM_OUT_CHANNELS, changed.MODEL.RESNETS.RES2_OUT_CHANNELS = 64, 256
    ours = build_backbone(changed)
    load_weights(ours, save(original.state_dict()), cfg=changed)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = original.eval().maxpool(original.relu(original.bn1(original.conv1(image))))
        features = ours.eval()(image)
        for stage, layer in zip(
            ("res2", "res3", "res4", "res5"),
            (original.layer1, original.layer2, original.layer3, original.layer4),
            strict=True,
        ):
            expected = layer(expected)
            torch.testing.assert_close(features[stage], expected, rtol=1e-4, atol=1e-5)


def realistic(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Statistics unlike those of a fresh network, so that a lost one shows.
    return {
        name: value + 0.1 * torch.rand(value.shape) if "running" in name else value
        for name, value in tensors.items()
    }


def test_half_precision_becomes_float32(fpn, save, backbone_tensors):
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in backbone_tensors.items()
    }
    model = fpn()
    load_weights(model, save(torchvision_tensors(halves)))
    assert all(value.dtype != torch.half for value in model.state_dict().values())
    assert_equal(
        backbone_of(model),
        {name: halves[name].to(value.dtype) for name, value in backbone_of(model).items()},
    )


def test_the_norm_after_res5_keeps_its_initial_values(c4, save, backbone_tensors):
    model = c4(extra_norm=True)
    report = load_weights(model, save(virtex_training_file(backbone_tensors)))
    assert torch.equal(model.roi_heads.res5.norm.weight, torch.ones(128))
    assert not any("res5.norm" in name for name in (*report.loaded, *report.missing))


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_missing_running_statistics_are_not_made_up(fpn, save, backbone_tensors, norm):
    without = {name: value for name, value in backbone_tensors.items() if "running" not in name}
    message = refusal(fpn(NORM=norm), save(torchvision_tensors(without)))
    assert "106 missing" in message
    assert "stem.conv1.norm.running_mean is missing" in message
    assert "same architecture" in message


def test_batch_counters_are_not_required(fpn, save, backbone_tensors):
    without = {name: value for name, value in backbone_tensors.items() if "num_batches" not in name}
    report = load_weights(fpn(), save(torchvision_tensors(without)))
    assert len(report.loaded) == FROZEN_TENSORS and not report.missing


def test_batch_counters_are_unused_by_frozen_norms(fpn, save, backbone_tensors):
    report = load_weights(fpn(NORM="FrozenBN"), save(torchvision_tensors(backbone_tensors)))
    assert len(report.unused) == WEIGHTS_WITH_STATISTICS - FROZEN_TENSORS
    assert all(name.endswith("num_batches_tracked") for name in report.unused)


def test_what_a_pretraining_file_has_beside_the_backbone_is_unused(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(with_classifier(torchvision_tensors(backbone_tensors))))
    assert report.unused == ("fc.bias", "fc.weight")


def test_a_missing_tensor_is_named_by_its_stage(c4, save, backbone_tensors):
    without = {
        name: value for name, value in backbone_tensors.items() if name != "res5.1.conv2.weight"
    }
    message = refusal(c4(), save(virtex_training_file(without)))
    assert "res5: roi_heads.res5.1.conv2.weight is missing" in message


def test_a_wide_file_in_a_narrow_model_says_which_width_would_fit(fpn, save, cfg):
    wide = fpn(WIDTH_PER_GROUP=8)
    path = save(torchvision_tensors(random_tensors(backbone_of(wide))))
    message = refusal(fpn(), path)
    assert "Config keys that would fit the file: MODEL.RESNETS.WIDTH_PER_GROUP 8\n" in message
    assert (
        "backbone.bottom_up.res2.0.conv1.weight [8, 4, 1, 1] in the file, [4, 4, 1, 1] in the model"
        in message
    )
    load_weights(wide, path)


def test_a_narrow_file_in_a_wide_model_says_which_width_would_fit(fpn, save, backbone_tensors):
    message = refusal(fpn(WIDTH_PER_GROUP=8), save(torchvision_tensors(backbone_tensors)))
    assert "MODEL.RESNETS.WIDTH_PER_GROUP 4\n" in message


def test_resnet_50_in_resnet_101_says_which_depth_would_fit(fpn, save, backbone_tensors):
    message = refusal(fpn(DEPTH=101), save(torchvision_tensors(backbone_tensors)))
    assert "MODEL.RESNETS.DEPTH 50\n" in message
    assert "backbone.bottom_up.res4.6.conv1.weight is missing" in message


def test_resnet_101_fills_resnet_50_but_is_refused(fpn, save, cfg):
    path = save(torchvision_tensors(random_tensors(backbone_of(fpn(DEPTH=101)))))
    message = refusal(fpn(), path)
    assert "layer3.6.conv1.weight of the file is not in the model" in message
    assert "MODEL.RESNETS.DEPTH 101\n" in message


def test_a_network_with_more_in_its_blocks_is_refused(fpn, save, backbone_tensors):
    squeezed = torchvision_tensors(backbone_tensors) | {"layer1.0.se.fc1.weight": torch.ones(2, 2)}
    assert "layer1.0.se.fc1.weight of the file is not in the model" in refusal(
        fpn(), save(squeezed)
    )


def test_batch_norm_weights_do_not_fit_group_norm(fpn, save, cfg, backbone_tensors):
    model = fpn(NORM="GN", STEM_OUT_CHANNELS=32, RES2_OUT_CHANNELS=128, WIDTH_PER_GROUP=32)
    batch_norm = fpn(STEM_OUT_CHANNELS=32, RES2_OUT_CHANNELS=128, WIDTH_PER_GROUP=32)
    assert "bn1.running_mean of the file" in refusal(
        model, save(torchvision_tensors(backbone_of(batch_norm)))
    )


def test_a_model_without_a_resnet_is_refused(save, backbone_tensors):
    model = nn.ModuleDict({"patches": nn.Linear(2, 2), "blocks": nn.Linear(2, 2)})
    message = refusal(model, save(torchvision_tensors(backbone_tensors)))
    assert (
        "of a known family" in message
        and "backbone of the model begins with patches.weight" in message
    )


def test_a_partial_load_must_be_allowed_and_is_reported(fpn, save, backbone_tensors):
    without = {
        name: value for name, value in backbone_tensors.items() if not name.startswith("res5")
    }
    path = save(torchvision_tensors(without))
    assert "MODEL.ALLOW_PARTIAL_WEIGHTS" in refusal(fpn(), path)
    model = fpn()
    report = load_weights(model, path, allow_partial=True)
    assert report.partial and len(report.loaded) == len(without)
    assert all("res5" in name for name in report.missing)
    assert_equal(
        {name: value for name, value in backbone_of(model).items() if name in without}, without
    )


def test_a_load_of_nothing_is_refused_even_if_partial_loads_are_allowed(fpn, save):
    other = {
        "conv1.weight": torch.ones(3, 3, 7, 7),
        "layer1.0.conv1.weight": torch.ones(3, 3, 1, 1),
    }
    refusal(fpn(), save(other), allow_partial=True)


def test_a_contradicting_config_is_refused_before_anything_is_loaded(
    fpn, save, cfg, backbone_tensors
):
    bgr = cfg.clone()
    bgr.INPUT.FORMAT = "BGR"
    message = refusal(
        fpn(), save(torchvision_tensors(backbone_tensors)), cfg=bgr, allow_partial=True
    )
    assert 'INPUT.FORMAT "RGB"' in message


def test_heads_of_a_detector_are_loaded_if_their_shapes_agree(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(fpn_detector(backbone_tensors)))
    assert "backbone.fpn_lateral2.weight" in report.loaded
    assert "proposal_generator.rpn_head.conv.weight" in report.loaded
    assert (
        Mismatch("roi_heads.box_predictor.cls_score.weight", (81, 8), (4, 8)) in report.mismatched
    )
    assert not report.partial


def test_a_pretraining_file_gives_its_text_head_to_a_pretraining_model(
    pretraining, save, backbone_tensors
):
    model = pretraining()
    report = load_weights(model, save(own_pretraining(backbone_tensors)), require="model")
    assert torch.equal(model.textual.weight, torch.ones(3, 3)) and not report.unused


def test_virtexs_text_head_is_loaded(pretraining, save, backbone_tensors):
    published, model = virtex_training_file(backbone_tensors), pretraining()
    published["model"] = {
        name: v for name, v in published["model"].items() if not name.startswith("textual.")
    }
    published["model"] |= {"textual.weight": torch.ones(3, 3), "textual.bias": torch.ones(3)}
    load_weights(model, save(published), require="model")
    assert torch.equal(model.textual.weight, torch.ones(3, 3))


def test_text_heads_of_other_families_are_not_loaded(pretraining, save, backbone_tensors):
    foreign = torchvision_tensors(backbone_tensors) | {"textual.weight": torch.ones(3, 3)}
    report = load_weights(pretraining(), save(foreign))
    assert report.unused == ("textual.weight",)


def test_a_whole_detector_may_be_evaluated(c4, save):
    trained, fresh = c4(extra_norm=True), c4(extra_norm=True)
    trained.load_state_dict(random_tensors(trained.state_dict()))
    report = load_weights(fresh, save({"model": trained.state_dict()}), require="model")
    assert len(report.loaded) == len(fresh.state_dict())
    assert_equal(fresh.state_dict(), trained.state_dict())


def test_a_backbone_alone_may_not_be_evaluated(fpn, save, backbone_tensors):
    message = refusal(fpn(), save(virtex_training_file(backbone_tensors)), require="model")
    assert "does not fill the whole model" in message and "trained with this config" in message


def test_a_detector_of_other_classes_may_not_be_evaluated(fpn, save, cfg):
    other = cfg.clone()
    other.MODEL.ROI_HEADS.NUM_CLASSES = 5
    from detectron2.modeling import build_model

    message = refusal(fpn(), save({"model": build_model(other).state_dict()}), require="model")
    assert (
        "roi_heads.box_predictor.cls_score.weight [6, 8] in the file, [4, 8] in the model"
        in message
    )


def test_a_c4_detector_gives_its_backbone_to_fpn(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(c4_detector(backbone_tensors)))
    assert report.unused == ("roi_heads.res5.norm.weight",)


def test_the_table_has_a_row_per_stage(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(with_classifier(torchvision_tensors(backbone_tensors))))
    rows = {line.split("  ")[0]: line.split()[1:] for line in report.table().splitlines()}
    assert rows["stem"] == ["6", "0", "0"]
    assert rows["res2"] == ["60", "0", "0"]  # ten convolutions, each with a norm of five tensors
    assert rows["all"] == [str(WEIGHTS_WITH_STATISTICS), "0", "0"]
    assert "fc.weight" in report.table()


def test_the_report_is_written_as_json(fpn, save, tmp_path, backbone_tensors):
    path = save(fpn_detector(backbone_tensors))
    report = load_weights(fpn(), path)
    report.write(tmp_path / "run")
    written = json.loads((tmp_path / "run" / "load_report.json").read_text())
    assert tuple(written) == LoadReport._fields
    assert written["path"] == path and len(written["sha256"]) == 64
    assert written["loaded"] == list(report.loaded)
    assert {
        "name": "roi_heads.box_predictor.cls_score.weight",
        "file_shape": [81, 8],
        "model_shape": [4, 8],
    } in written["mismatched"]


def test_the_empty_report_has_a_table():
    assert "none" in LoadReport("random init").table()


def test_the_error_for_another_depth_begins_with_it_and_the_keys_to_set(fpn, save):
    path = save(ResNet(BasicBlock, [2, 2, 2, 2]).state_dict())
    lines = refusal(
        fpn(STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=256, WIDTH_PER_GROUP=64), path
    ).splitlines()
    assert lines[1] == "The file holds a ResNet-18, the config builds a ResNet-50."
    assert "MODEL.RESNETS.DEPTH 18" in lines[2] and "MODEL.RESNETS.RES2_OUT_CHANNELS 64" in lines[2]
    assert "165 missing, 23 of another shape" in lines[3]


def test_tensors_of_the_file_that_the_model_lacks_are_counted(fpn, save):
    path = save(torchvision_tensors(random_tensors(backbone_of(fpn(DEPTH=101)))))
    assert "0 missing, 0 of another shape, 255 of the file not in the model:" in refusal(
        fpn(), path
    )


@pytest.mark.parametrize("path", [None, 3, b"x.pth", {}, ["x.pth"]])
def test_a_path_that_is_not_a_name_is_an_error(path):
    with pytest.raises(UserError, match="The weights file is given as a .*; expected its name"):
        load_weights(nn.Linear(1, 1), path)


@pytest.mark.parametrize("model", [None, "x.pth", {}])
def test_a_model_that_is_not_a_module_is_an_error(model):
    with pytest.raises(UserError, match="The model is a .*; expected a torch.nn.Module"):
        load_weights(model, "x.pth")
