import pytest
import torch
import torchvision

from virtex_det.checkpoint.architecture import describe
from virtex_det.checkpoint.recognition import recognise


def described(name: str):
    with torch.device("meta"):
        tensors = torchvision.models.get_model(name, weights=None).state_dict()
    return recognise(tensors, name).architecture


@pytest.mark.parametrize(
    ("name", "depth", "groups", "width", "res2"),
    [
        ("resnet18", 18, 1, None, 64),
        ("resnet34", 34, 1, None, 64),
        ("resnet50", 50, 1, 64, 256),
        ("resnet101", 101, 1, 64, 256),
        ("resnet152", 152, 1, 64, 256),
        ("wide_resnet50_2", 50, 1, 128, 256),
        ("resnext50_32x4d", 50, 32, 4, 256),
    ],
)
def test_torchvision_networks_are_read_from_their_shapes(name, depth, groups, width, res2):
    widths = {"MODEL.RESNETS.WIDTH_PER_GROUP": width} if width else {}  # of bottlenecks alone
    assert described(name).config() == {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        **widths,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": res2,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
        "MODEL.CAPTION_RESNET.STEM": "basic",
        "MODEL.CAPTION_RESNET.DOWNSAMPLE": "conv",
        "MODEL.CAPTION_RESNET.BLOCKS": (),
    }


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "timm.resnet50d",
            {"CAPTION_RESNET.STEM": "deep", "CAPTION_RESNET.DOWNSAMPLE": "avg_shortcut"},
        ),
        ("timm.resnet50c", {"CAPTION_RESNET.STEM": "deep", "CAPTION_RESNET.DOWNSAMPLE": "conv"}),
        ("timm.resnet50s", {"CAPTION_RESNET.STEM": "deep", "RESNETS.STEM_OUT_CHANNELS": 128}),
        (
            "timm.resnet50_clip",
            {"CAPTION_RESNET.STEM": "clip", "CAPTION_RESNET.DOWNSAMPLE": "clip"},
        ),
        ("timm.resnet101_clip", {"CAPTION_RESNET.STEM": "clip", "RESNETS.DEPTH": 101}),
        (
            "timm.resnet50x4_clip",
            {
                "RESNETS.DEPTH": 50,
                "CAPTION_RESNET.BLOCKS": (4, 6, 10, 6),
                "RESNETS.WIDTH_PER_GROUP": 80,
                "RESNETS.RES2_OUT_CHANNELS": 320,
                "RESNETS.STEM_OUT_CHANNELS": 80,
            },
        ),
    ],
)
def test_published_deep_stems_are_read_from_their_shapes(name, keys):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with torch.device("meta"):
        tensors = timm.create_model(name.removeprefix("timm."), pretrained=False).state_dict()
    config = recognise(tensors, name).architecture.config()
    assert {f"MODEL.{key}": value for key, value in keys.items()}.items() <= config.items()


def test_a_network_of_an_unlisted_depth_shows_its_blocks():
    architecture = describe(
        {"res2.0.conv3.weight": torch.ones(8, 4, 1, 1), "res3.1.conv1.weight": torch.ones(1)}
    )
    assert architecture.depth is None and "MODEL.RESNETS.DEPTH" not in architecture.config()
    assert "1-1-0-0" in str(architecture)


def test_the_family_tells_clips_stem_from_the_deep_stem_with_the_same_tensors():
    stem = {f"stem.conv{number}.weight": torch.ones(8, 4, 3, 3) for number in (1, 2, 3)}
    assert describe(stem, "clip", "clip").config()["MODEL.CAPTION_RESNET.STEM"] == "clip"
    assert describe(stem, "deep").config()["MODEL.CAPTION_RESNET.STEM"] == "deep"
    assert "MODEL.CAPTION_RESNET.STEM" not in describe(stem).config()
