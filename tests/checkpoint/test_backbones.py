"""Models with several networks: MODEL.BACKBONE is filled and the others are reported."""

import doctest
import logging
from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from torch import nn

from tests.checkpoint.conftest import Tensors, random_tensors, torchvision_tensors
from virtex_det.checkpoint import TransferCheckpointer, backbones, load_weights
from virtex_det.checkpoint.backbones import find_backbone
from virtex_det.errors import UserError

LAYERS = ("stem.conv1.weight", "res2.0.conv1.weight", "res4.0.conv1.weight")
OTHER = "stages.0.weight"


def test_the_examples_are_right():
    results = doctest.testmod(backbones)
    assert results.attempted >= 3 and not results.failed


def resnets(*places: str) -> list[str]:
    return [place + layer for place in places for layer in LAYERS]


# What a model has: where its backbone is, what could be meant as well, what else there is.
MODELS = {
    "an FPN detector": (
        [*resnets("backbone.bottom_up."), "backbone.fpn_output2.weight"],
        "backbone.bottom_up.",
        (),
        (),
    ),
    "a bare ResNet": (resnets(""), "", (), ()),
    "a bare FPN": ([*resnets("bottom_up."), "fpn_output2.weight"], "bottom_up.", (), ()),
    "ViTDet": (
        ["backbone.net.blocks.0.weight", "backbone.simfp_2.0.weight"],
        "backbone.net.",
        (),
        (),
    ),
    "a bare network of another kind": ([OTHER, "head.weight"], "", (), ()),
    "one ResNet under another name": ([*resnets("encoder."), "head.weight"], "encoder.", (), ()),
    "a detector in a model": (
        [*resnets("detector.backbone."), "head.weight"],
        "detector.backbone.",
        (),
        (),
    ),
    "a teacher beside the backbone": (
        resnets("teacher.", "backbone."),
        "backbone.",
        (),
        ("teacher.",),
    ),
    "a teacher's FPN beside a backbone without": (
        [*resnets("teacher.backbone.bottom_up."), f"backbone.{OTHER}"],
        "backbone.",
        (),
        ("teacher.backbone.bottom_up.",),
    ),
    "student and teacher": (
        resnets("student.backbone.bottom_up.", "teacher.backbone.bottom_up."),
        "student.backbone.bottom_up.",
        ("teacher.backbone.bottom_up.",),
        ("teacher.backbone.bottom_up.",),
    ),
    "student and teacher, bare": (
        resnets("student.", "teacher."),
        "student.",
        ("teacher.",),
        ("teacher.",),
    ),
    "student and teacher of another kind": (
        [f"student.backbone.{OTHER}", f"teacher.backbone.{OTHER}"],
        "student.backbone.",
        ("teacher.backbone.",),
        ("teacher.backbone.",),
    ),
    "a ResNet in the heads": (
        resnets("backbone.", "roi_heads.trunk."),
        "backbone.",
        (),
        ("roi_heads.trunk.",),
    ),
    "a ResNet that the heads are": (
        resnets("backbone.bottom_up.", "roi_heads."),
        "backbone.bottom_up.",
        (),
        ("roi_heads.",),
    ),
    "a backbone in the heads": (
        resnets("roi_heads.backbone.", "backbone.bottom_up."),
        "backbone.bottom_up.",
        (),
        ("roi_heads.backbone.",),
    ),
    "heads of a ResNet over another kind": (
        [f"backbone.{OTHER}", *resnets("roi_heads.")],
        "backbone.",
        (),
        ("roi_heads.",),
    ),
    "two ResNets in the backbone": (
        [*resnets("backbone.a.", "backbone.b."), "backbone.fuse.weight"],
        "backbone.",
        (),
        (),
    ),
    "a second ResNet in an FPN": (
        resnets("backbone.depth.", "backbone.bottom_up."),
        "backbone.bottom_up.",
        (),
        ("backbone.depth.",),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_backbone_of_a_model_is_found_and_the_others_are_named(name):
    names, prefix, rivals, others = MODELS[name]
    for order in (names, names[::-1]):  # only of equals does the first count
        found = find_backbone(order)
        assert set(found.others) | {found.prefix} == {*others, prefix}
        assert bool(found.rivals) == bool(rivals)
        assert rivals or (found.prefix, found.others) == (prefix, others)


@pytest.mark.parametrize("prefix", ["", "detector."])
def test_res5_of_a_c4_detector_is_in_its_heads(prefix):
    names = [
        prefix + name
        for name in (
            *resnets("backbone."),
            "roi_heads.res5.0.conv1.weight",
            "roi_heads.res5.norm.bias",
        )
    ]
    assert list(find_backbone(names).layers.values()) == [*LAYERS, "res5.0.conv1.weight"]


class Model(nn.Module):
    """Networks under names of a test's own."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)


@pytest.fixture
def resnet(cfg: CfgNode) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        changed = cfg.clone()
        changed.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        return build_backbone(changed)

    return build


@pytest.fixture
def file(save, backbone_tensors) -> str:
    return save(torchvision_tensors(backbone_tensors))


def holds(network: nn.Module, tensors: Tensors) -> bool:
    own = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    return all(torch.equal(value, tensors[name]) for name, value in own.items())


@pytest.mark.parametrize("place", ["teacher", "roi_heads", "bottom_up"])
def test_the_backbone_is_filled_and_the_other_network_named(
    resnet, file, backbone_tensors, caplog, place
):
    model = Model(**{place: resnet(), "backbone": resnet()})
    with caplog.at_level(logging.WARNING):
        report = load_weights(model, file)
    assert holds(model.backbone, backbone_tensors) and not holds(
        model.get_submodule(place), backbone_tensors
    )
    assert report.also_in_model == (f"{place}.",)
    said = f"the model's other network at {place}. stays as it was built"
    assert f"not filled: {said}" in report.table() and said in caplog.text


def test_training_warns_of_a_network_that_stays_at_random_init(resnet, file, caplog):
    with caplog.at_level(logging.WARNING):
        TransferCheckpointer(Model(backbone=resnet(), teacher=resnet())).load(
            file, checkpointables=[]
        )
    assert "other network at teacher. stays as it was built" in caplog.text


@pytest.mark.parametrize("inside", ["", "backbone", "backbone.bottom_up"])
@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_file_for_student_or_teacher_is_refused(resnet, file, inside, allow_partial):
    def wrapped() -> nn.Module:
        network = resnet()
        for name in reversed(list(filter(None, inside.split(".")))):
            network = Model(**{name: network})
        return network

    model = Model(student=wrapped(), teacher=wrapped())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match="2 networks that could be MODEL.BACKBONE") as caught:
        load_weights(model, file, allow_partial=allow_partial)
    places = [f"{name}.{inside}.".replace("..", ".") for name in ("student", "teacher")]
    assert " and ".join(places) in str(caught.value) and "self.backbone" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_network_under_two_names_is_filled_under_both(resnet, file, backbone_tensors):
    shared = resnet()
    for model in (Model(first=shared, second=shared), Model(backbone=shared, branch=shared)):
        assert load_weights(model, file).also_in_model == ()
        assert holds(shared, backbone_tensors)


def test_one_network_under_two_names_is_recognised_by_shapes(resnet, file):
    with torch.device("meta"):
        shared = resnet()
    assert load_weights(Model(first=shared, second=shared), file).also_in_model == ()


@pytest.mark.parametrize("names", [("backbone", "teacher"), ("student", "teacher")])
def test_a_models_own_checkpoint_fills_all_of_its_networks(resnet, save, names):
    model = Model(**{name: resnet() for name in names})
    saved = random_tensors(model.state_dict())
    report = load_weights(model, save({"model": saved}))
    assert not report.also_in_model and len(report.loaded) == len(saved)


def test_a_backbone_of_two_networks_is_filled_as_a_whole_or_not_at_all(resnet, file):
    model = Model(backbone=Model(a=resnet(), b=resnet()))
    with pytest.raises(
        UserError,
        match=r"It contains 2 of Detectron2's ResNets \(backbone\.a\. and backbone\.b\.\)",
    ):
        load_weights(model, file)


def test_a_backbone_of_two_networks_loads_its_own_checkpoint(resnet, save):
    model = Model(backbone=Model(a=resnet(), b=resnet()))
    saved = random_tensors(model.state_dict())
    load_weights(model, save({"model": saved}))
    assert holds(model, saved)


def test_the_only_network_of_a_model_is_its_backbone_under_any_name(resnet, file, backbone_tensors):
    model = Model(encoder=resnet(), head=nn.Linear(2, 2))
    load_weights(model, file)
    assert holds(model.encoder, backbone_tensors)


def test_a_c4_detector_within_a_model_is_filled_in_its_heads_too(c4, file, backbone_tensors):
    model = Model(detector=c4())
    load_weights(model, file)
    own = model.detector.roi_heads.res5.state_dict()
    assert all(
        torch.equal(value, backbone_tensors[f"res5.{name}"])
        for name, value in own.items()
        if "num_b" not in name
    )


@pytest.mark.parametrize("require", ["backbone", "model"])
@pytest.mark.parametrize("names", [("detector",), ("student", "teacher"), ("backbone", "teacher")])
def test_detectors_within_a_model_load_its_own_checkpoint_by_its_own_names(
    c4, save, names, require
):
    model = Model(**{name: c4() for name in names})
    saved = random_tensors(model.state_dict())
    report = load_weights(model, save({"model": saved, "iteration": 9}), require=require)
    assert len(report.loaded) == len(saved) and holds(model, saved)
