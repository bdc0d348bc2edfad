import pytest
import torch
import torchvision

from virtex_det.checkpoint.architecture import describe
from virtex_det.checkpoint.formats import recognise


def described(name: str):
    with torch.device("meta"):
        tensors = torchvision.models.get_model(name, weights=None).state_dict()
    weights = recognise(tensors, name)
    return describe({canonical: weights.tensors[source] for canonical, source in weights.backbone.items()})


@pytest.mark.parametrize(
    ("name", "depth", "groups", "width", "res2"),
    [
        ("resnet18", 18, 1, 64, 64),
        ("resnet34", 34, 1, 64, 64),
        ("resnet50", 50, 1, 64, 256),
        ("resnet101", 101, 1, 64, 256),
        ("resnet152", 152, 1, 64, 256),
        ("wide_resnet50_2", 50, 1, 128, 256),
        ("resnext50_32x4d", 50, 32, 4, 256),
    ],
)
def test_torchvision_networks_are_read_from_their_shapes(name, depth, groups, width, res2):
    assert described(name).config() == {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": res2,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    }


def test_a_network_of_no_listed_depth_shows_its_blocks():
    architecture = describe({"res2.0.conv3.weight": torch.ones(8, 4, 1, 1), "res3.1.conv1.weight": torch.ones(1)})
    assert architecture.depth is None and "MODEL.RESNETS.DEPTH" not in architecture.config()
    assert "1-1-0-0" in str(architecture)
