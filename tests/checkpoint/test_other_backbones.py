"""Backbones that are not ResNets: loaded whole or refused, from own and other checkpoints."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem
from torch import nn

from tests.checkpoint.conftest import random_tensors, torchvision_tensors
from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.checkpoint.loading import load_weights
from virtex_det.errors import UserError


class ConvNeXt(Backbone):
    """Names like ConvNeXt's, of few channels."""

    def __init__(self, depth: int = 3, width: int = 4) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, width, 2, 2)]
        )
        self.stages = nn.ModuleList(
            [
                nn.ModuleDict({"dwconv": nn.Conv2d(width, width, 3), "norm": nn.LayerNorm(width)})
                for _ in range(depth)
            ]
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"c2": ShapeSpec(channels=4, stride=4), "c3": ShapeSpec(channels=4, stride=8)}


def regnet() -> Backbone:
    widths = {"stem_width": 8, "w_a": 8, "w_0": 8, "w_m": 2, "group_width": 8}
    return RegNet(
        stem_class=SimpleStem,
        block_class=ResBottleneckBlock,
        depth=3,
        norm="BN",
        out_features=["s1", "s2"],
        **widths,
    )


class Detector(nn.Module):
    """The names of a detector, with or without a pyramid."""

    def __init__(self, backbone: nn.Module, classes: int = 3, pyramid: bool = True) -> None:
        super().__init__()
        features = list(backbone.output_shape()) if pyramid else []
        self.backbone = (
            FPN(backbone, features, 4, top_block=LastLevelMaxPool()) if pyramid else backbone
        )
        self.roi_heads = nn.Linear(4, classes)


BACKBONES = {"ConvNeXt": ConvNeXt, "RegNet": regnet}


@pytest.fixture(params=BACKBONES)
def build(request):
    return BACKBONES[request.param]


def trained(model: nn.Module) -> nn.Module:
    model.load_state_dict(random_tensors(model.state_dict()))
    return model


def assert_filled(model: nn.Module, expected: dict, prefix: str = "backbone.bottom_up.") -> None:
    own = {n.removeprefix(prefix): v for n, v in model.state_dict().items() if n.startswith(prefix)}
    assert (
        own
        and [
            n for n, v in own.items() if "num_batches" not in n and not torch.equal(v, expected[n])
        ]
        == []
    )


def refusal(model: nn.Module, path: str, **options) -> str:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, path, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def test_a_runs_own_checkpoint_is_transferred_evaluated_and_resumed(build, tmp_path):
    run, folder = trained(Detector(build())), str(tmp_path)
    TransferCheckpointer(run, folder).save("model_final")
    for load in (
        lambda model: TransferCheckpointer(model, require="model").load(
            f"{folder}/model_final.pth"
        ),
        lambda model: TransferCheckpointer(model, folder).resume(),
        lambda model: TransferCheckpointer(model).load(f"{folder}/model_final.pth"),
    ):
        model = Detector(build())
        load(model)
        assert all(
            torch.equal(value, run.state_dict()[name]) for name, value in model.state_dict().items()
        )


def test_a_model_of_another_number_of_classes_is_transferred_but_not_evaluated(build, save):
    run, other = trained(Detector(build())), Detector(build(), classes=7)
    path = save({"model": run.state_dict()})
    report = load_weights(other, path)
    assert_filled(other, run.backbone.bottom_up.state_dict())
    assert {mismatch.name for mismatch in report.mismatched} == {
        "roi_heads.weight",
        "roi_heads.bias",
    }
    assert "does not fill the whole model" in refusal(other, path, require="model")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "backbone.",
        "backbone.bottom_up.",
        "module.",
        "model._orig_mod.backbone.",
        "encoder.",
        "x.y.",
    ],
)
def test_the_backbones_names_are_found_under_any_prefix(build, save, prefix):
    source, model = trained(build()), Detector(build())
    load_weights(
        model,
        save({"state_dict": {prefix + n: v for n, v in source.state_dict().items()}, "epoch": 3}),
    )
    assert_filled(model, source.state_dict())


def test_a_pyramid_is_filled_from_a_model_without_one(build, save):
    run, model = trained(Detector(build(), pyramid=False)), Detector(build())
    load_weights(model, save({"model": run.state_dict()}))
    assert_filled(model, run.backbone.state_dict())
    assert torch.equal(model.roi_heads.weight, run.roi_heads.weight)


def test_a_backbone_alone_is_filled_from_a_detector(build, save):
    run, model = trained(Detector(build())), build()
    load_weights(model, save({"model": run.state_dict()}))
    assert_filled(model, run.backbone.bottom_up.state_dict(), prefix="")


def test_a_missing_tensor_is_refused_and_named(build, save):
    tensors = trained(Detector(build())).state_dict()
    gone = list(build().state_dict())[4]
    del tensors[f"backbone.bottom_up.{gone}"]
    assert f"backbone.bottom_up.{gone} is missing" in refusal(
        Detector(build()), save({"model": tensors})
    )


def test_another_depth_and_another_width_are_refused(save):
    deeper = save({"model": trained(Detector(ConvNeXt(depth=4))).state_dict()})
    assert "stages.3.dwconv.weight of the file is not in the model" in refusal(
        Detector(ConvNeXt()), deeper
    )
    assert "stages.3.dwconv.weight is missing" in refusal(
        Detector(ConvNeXt(depth=4)), save({"model": trained(Detector(ConvNeXt())).state_dict()})
    )
    wider = save(trained(ConvNeXt(width=8)).state_dict())
    assert "of another shape" in refusal(Detector(ConvNeXt()), wider)


def test_two_networks_are_refused_and_one_is_chosen_by_hand(build, save, cfg):
    one, two, model = trained(build()).state_dict(), build().state_dict(), Detector(build())
    both = {f"student.{n}": v for n, v in two.items()} | {f"teacher.{n}": v for n, v in one.items()}
    message = refusal(model, save(both))
    assert "student." in message and "teacher." in message and "MODEL.WEIGHTS_PREFIX" in message
    chosen = cfg.clone()
    chosen.MODEL.WEIGHTS_PREFIX = "teacher."
    load_weights(model, save(both), cfg=chosen)
    assert_filled(model, one)


def test_a_resnets_file_is_refused(build, save, backbone_tensors):
    assert "backbone of the model begins with" in refusal(
        Detector(build()), save(torchvision_tensors(backbone_tensors))
    )


def test_a_resnet_refuses_files_of_other_backbones(build, save, fpn):
    assert "of a known family" in refusal(fpn(), save({"model": Detector(build()).state_dict()}))


def test_values_are_checked(build, save):
    tensors = trained(Detector(build())).state_dict()
    name = next(
        name for name in tensors if name.endswith("norm.weight") or name.endswith("bn.weight")
    )
    tensors[name][0] = float("nan")
    assert f"{name}: NaN" in refusal(Detector(build()), save({"model": tensors}))


class Siamese(nn.Module):
    """A model with two ResNets of its own."""

    def __init__(self, make) -> None:
        super().__init__()
        self.student, self.teacher = make(), make()


def test_a_model_with_two_resnets_is_evaluated_from_its_own_checkpoint(pretraining, save):
    run, model = trained(Siamese(pretraining)), Siamese(pretraining)
    run.teacher.load_state_dict({n: v + 1 for n, v in run.teacher.state_dict().items()})
    load_weights(model, save({"model": run.state_dict()}), require="model")
    assert all(
        torch.equal(value, run.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_detector_with_res5_in_two_places_gives_a_c4_model_neither(
    c4, fpn, save, backbone_tensors
):
    both = {f"backbone.bottom_up.{n}": v for n, v in backbone_tensors.items()}
    both |= {f"roi_heads.{n}": v + 1 for n, v in backbone_tensors.items() if n.startswith("res5")}
    message = refusal(c4(), save({"model": both}))
    assert "could be backbone.bottom_up.res5.0" in message and "or roi_heads.res5.0" in message
    assert message == refusal(c4(), save({"model": both}), allow_partial=True)
    model = fpn()
    load_weights(model, save({"model": both}))
    assert_filled(model, backbone_tensors)
