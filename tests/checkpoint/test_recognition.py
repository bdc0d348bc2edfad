import pytest
import torch

from tests.checkpoint.conftest import torchvision_tensors, virtex_full_model
from virtex_det.checkpoint.formats import FORMATS, IMAGENET_RGB
from virtex_det.checkpoint.recognition import recognise
from virtex_det.errors import UserError


def test_every_layout_is_recognised_and_gives_the_same_backbone(layout, backbone_tensors):
    make, family = layout
    weights = recognise(make(backbone_tensors), "weights.pth")
    assert weights.format.name == family
    assert set(weights.backbone) == set(backbone_tensors)
    for canonical, name in weights.backbone.items():
        assert weights.tensors[name] is backbone_tensors[canonical]


@pytest.mark.parametrize(
    "prefix", ["resnet.", "net.0.", "encoder_x.", "_blocks.", "module.visual.trunk."]
)
def test_one_whole_network_is_found_under_any_prefix_which_is_reported(backbone_tensors, prefix):
    weights = recognise(
        {"state_dict": torchvision_tensors(backbone_tensors, prefix)}, "foreign.pth"
    )
    assert set(weights.backbone) == set(backbone_tensors)
    assert weights.location == f"state_dict.{prefix}"


def test_the_error_without_a_resnet_shows_the_first_names(backbone_tensors):
    renamed = {
        name.replace("layer", "stage"): value
        for name, value in torchvision_tensors(backbone_tensors).items()
    }
    with pytest.raises(UserError) as caught:
        recognise({"state_dict": renamed}, "foreign.pth")
    message = str(caught.value)
    assert "conv1.weight" in message
    assert all(entry.name in message for entry in FORMATS)
    assert "MODEL.WEIGHTS_FORMAT" in message


@pytest.mark.parametrize(
    "content", [torch.ones(3), [1, 2], {}, {"model": 3}, {"epoch": 1}, {3: torch.ones(1)}, None]
)
def test_content_without_named_tensors_is_an_error(content):
    with pytest.raises(UserError, match="not a weights file of a known family"):
        recognise(content, "weights.pth")


def test_a_named_family_is_preferred_to_the_recognised_one(backbone_tensors):
    content = torchvision_tensors(backbone_tensors) | {"fc.weight": torch.ones(2, 2)}
    assert recognise(content, "weights.pth").format.name == "torchvision"
    assert recognise(content, "weights.pth", "resnet_backbone").format.name == "resnet_backbone"


@pytest.mark.parametrize("family", ["redcaps", "virtex"])
def test_a_family_may_be_named_by_each_of_its_names(backbone_tensors, family):
    assert (
        recognise(virtex_full_model(backbone_tensors), "weights.pth", family).format.name
        == "virtex"
    )


@pytest.mark.parametrize(
    "family", ["moco", "virtex_backbone", "dino", "vicreg", "barlow_twins", "densecl", "vissl"]
)
def test_a_family_whose_backbones_look_like_others_may_be_named(backbone_tensors, family):
    weights = recognise(torchvision_tensors(backbone_tensors), "weights.pth", family)
    assert weights.format.name == "resnet_backbone" and set(weights.backbone) == set(
        backbone_tensors
    )


def test_a_file_of_another_family_than_the_one_named_is_an_error(backbone_tensors):
    with pytest.raises(UserError, match="is not a weights file of the family clip"):
        recognise(torchvision_tensors(backbone_tensors), "weights.pth", "clip")


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(UserError, match=r"no weights family 'moco_v4'.*nearest: moco_v3"):
        recognise({}, "weights.pth", "moco_v4")


def test_an_own_checkpoint_has_the_pixels_of_its_training(backbone_tensors):
    model = {f"backbone.{name}": value for name, value in backbone_tensors.items()}
    pixels = {"format": "BGR", "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}
    assert recognise({"model": model, "pixels": pixels}, "a.pth").format.pixels[0].mean == (1, 2, 3)
    assert recognise({"model": model}, "a.pth").format.pixels == ()


@pytest.mark.parametrize("pixels", [3, {"format": "BGR"}, torch.ones(3)])
def test_pixels_of_another_meaning_are_ignored(backbone_tensors, pixels):
    content = {
        "model": {f"backbone.{name}": value for name, value in backbone_tensors.items()},
        "pixels": pixels,
    }
    assert recognise(content, "a.pth").format.pixels == ()
    assert (
        recognise(torchvision_tensors(backbone_tensors), "a.pth").format.pixels[0] == IMAGENET_RGB
    )
