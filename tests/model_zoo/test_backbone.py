"""A trained backbone has the features of its original and the pixel format of its training."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import BACKBONE_REGISTRY
from PIL import Image

from tests.inference.conftest import write_run
from virtex_det import load_backbone, load_config, model_zoo
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.engine import Trainer
from virtex_det.errors import UserError
from virtex_det.model_zoo import catalog

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture
def torchvision_file(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    return network, tmp_path / "resnet18.pth"


@torch.no_grad()
def test_features_and_pixels_are_those_of_torchvision(torchvision_file):
    network, file = torchvision_file
    backbone = load_backbone(file, device="cpu")
    images = backbone.transform(PIXELS)[None]
    normalize = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    theirs = normalize(torchvision.transforms.functional.to_tensor(PIXELS))[None]
    torch.testing.assert_close(images, theirs, rtol=1e-4, atol=1e-4)
    expected = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    found = backbone(images)
    assert list(found) == ["res2", "res3", "res4", "res5"]
    for stage, number in zip(found, (1, 2, 3, 4), strict=True):
        expected = getattr(network, f"layer{number}")(expected)
        torch.testing.assert_close(found[stage], expected)
    assert backbone.channel_order == "RGB" and backbone.pixel_mean == tuple(MEAN)
    assert backbone.report.format == "torchvision" and len(backbone.report.loaded) == 120
    assert not backbone.training and all(
        parameter.requires_grad for parameter in backbone.parameters()
    )
    assert backbone.output_shape()["res5"].channels == 512 and backbone.device == torch.device(
        "cpu"
    )


@torch.no_grad()
def test_bottlenecks_stride_where_those_of_torchvision_do(tmp_path):
    bottleneck = torchvision.models.resnet.Bottleneck
    network = torchvision.models.ResNet(bottleneck, [1, 1, 1, 1], width_per_group=4).eval()
    torch.save(network.state_dict(), tmp_path / "small.pth")
    backbone = load_backbone(tmp_path / "small.pth", device="cpu")
    images = torch.rand(1, 3, 64, 64)
    expected = torch.nn.Sequential(*[*network.children()][:-2])(images)
    torch.testing.assert_close(backbone(images)["res5"], expected)


def test_a_central_square_has_the_pixels_of_pretraining(torchvision_file, tmp_path):
    backbone = load_backbone(torchvision_file[1], device="cpu")
    cfg = load_config(overrides={"INPUT.CAPTION.CROP_SIZE": 32, "INPUT.FORMAT": "RGB"})
    cut = PretrainingMapper(cfg, is_train=False).augment(PIXELS)[0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert torch.equal(backbone.transform(PIXELS, size=32), (cut - mean) / std)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # PyTorch's too, of pixels of a file that must not be written to
        assert torch.equal(backbone.transform(tmp_path / "a.png"), backbone.transform(PIXELS))


@pytest.mark.parametrize(
    "images",
    [
        *[
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(3, 8, 8),
            torch.zeros(1, 8, 8, 3),
        ],
        *["photo.jpg", None, [torch.zeros(3, 8, 8)]],
    ],
    ids=["uint8", "one image", "channels last", "a name", "nothing", "a list"],
)
def test_images_that_were_not_prepared_are_refused(images, torchvision_file):
    with pytest.raises(
        UserError, match=r"expected a float batch \(N, 3, H, W\).\nStack the results of transform"
    ):
        load_backbone(torchvision_file[1], device="cpu")(images)


def test_images_follow_the_network_to_its_device(torchvision_file):
    backbone = load_backbone(torchvision_file[1], device="cpu")
    images = backbone.transform(PIXELS, size=32)[None]
    assert backbone.to("meta")(images)["res5"].device == backbone.device == torch.device("meta")


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_detectors_run_gives_the_backbone_and_the_pixels_of_its_detector(
    order, detector_cfg, tmp_path
):
    step = 1 if order == "RGB" else -1
    cfg = detector_cfg("INPUT.FORMAT", order, "MODEL.PIXEL_MEAN", MEAN[::step])
    run = write_run(cfg, tmp_path / "run")
    backbone = load_backbone(run, device="cpu")
    model = Trainer.build_model(cfg).eval()
    model.load_state_dict(torch.load(run / "model_final.pth", weights_only=True)["model"])
    image = torch.from_numpy(PIXELS[:, :, ::step].transpose(2, 0, 1).copy())
    with torch.no_grad():
        normalized = (image - model.pixel_mean) / model.pixel_std
        expected, found = model.backbone.bottom_up(normalized[None]), backbone(normalized[None])
    torch.testing.assert_close(backbone.transform(PIXELS), normalized)
    torch.testing.assert_close(found["res5"], expected["res5"])
    assert backbone.channel_order == order and list(backbone.pixel_mean) == MEAN[::step]


def test_unknown_pixels_must_be_set_completely(detector_cfg, tmp_path):
    run = write_run(detector_cfg(), tmp_path / "run")
    file = run / "model_final.pth"
    given = {"INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": MEAN, "MODEL.PIXEL_STD": STD}
    for part in ({}, {"INPUT.FORMAT": "RGB"}):
        with pytest.raises(
            UserError, match="is unknown or only partly set.*\nSet all of INPUT.FORMAT, MODEL.PIX"
        ):
            load_backbone(file, part, device="cpu")
    backbone = load_backbone(file, given, device="cpu")
    assert backbone.pixel_std == tuple(STD) and not backbone.report.missing


def test_partly_set_pixels_are_refused(torchvision_file):
    with pytest.raises(UserError, match="is unknown or only partly set"):
        load_backbone(torchvision_file[1], {"INPUT.FORMAT": "RGB"}, device="cpu")


def test_pixels_that_contradict_the_file_are_refused(torchvision_file):
    given = {
        "INPUT.FORMAT": "BGR",
        "MODEL.PIXEL_MEAN": MEAN[::-1],
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    }
    with pytest.raises(UserError, match="(?s)contradicts the weights.*INPUT.FORMAT"):
        load_backbone(torchvision_file[1], given, device="cpu")


def test_a_file_with_a_part_of_the_network_is_refused(torchvision_file):
    network, file = torchvision_file
    content = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith("layer4.1.bn2")
    }
    torch.save(content, file)
    with pytest.raises(UserError, match="does not fill the backbone; nothing was loaded"):
        load_backbone(file, device="cpu")


def test_a_zoo_name_has_the_stem_and_pixels_of_its_record(tmp_path, monkeypatch):
    name = "clip_RN50"
    small = {
        f"MODEL.RESNETS.{key}": value
        for key, value in [("RES2_OUT_CHANNELS", 16), ("STEM_OUT_CHANNELS", 8)]
    }
    records = [
        dataclasses.replace(record, network=record.network | small, sha256=None)
        if record.name == name
        else record
        for record in catalog.catalog()
    ]
    monkeypatch.setattr(catalog, "catalog", lambda: tuple(records))
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    published = model_zoo.get(name, trained=False, device="cpu")
    torch.save({"model": published.network.state_dict()}, tmp_path / f"{name}.pt")
    for backbone in (
        load_backbone(f"virtex://{name}", device="cpu"),
        model_zoo.get(name, device="cpu"),
    ):
        assert backbone.pixel_mean == pytest.approx((122.7709, 116.746, 104.0937))
        assert backbone.report.path == f"virtex://{name}"
        image = backbone.transform(PIXELS, size=64)[None]
        with torch.no_grad():
            assert torch.equal(backbone(image)["res5"], published(image)["res5"])


def test_the_error_for_a_backbone_that_is_not_a_resnet_says_what_builds_it(
    pretraining_cfg, tmp_path
):
    run = write_run(pretraining_cfg(), tmp_path / "run")
    if "plain_network_of_this_test" not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(plain_network_of_this_test)
    config = run / "config.yaml"
    config.write_text(
        config.read_text().replace("build_caption_resnet_backbone", "plain_network_of_this_test")
    )
    with pytest.raises(
        UserError,
        match="is plain_network_of_this_test; load_backbone builds ResNets.\n.*build_model",
    ):
        load_backbone(run)


def plain_network_of_this_test(cfg, input_shape):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["gone.pth", "virtex://gone"])
def test_a_missing_source_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gone"):
        load_backbone(name)


@pytest.mark.parametrize(
    ("source", "message"), [("", "name of the weights is empty"), (None, "given as a NoneType")]
)
def test_a_source_that_is_not_a_name_is_an_error(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=message):
        load_backbone(source)
