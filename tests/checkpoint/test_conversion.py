import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file

from tests.checkpoint.conftest import FROZEN_TENSORS, torchvision_tensors, with_classifier
from tests.checkpoint.layouts import LAYOUTS, detector_and_heads
from tests.checkpoint.originals import config, detector, detector_features, features, network
from virtex_det.checkpoint.conversion import convert
from virtex_det.checkpoint.loading import load_weights
from virtex_det.checkpoint.reading import read_file
from virtex_det.errors import UserError


@pytest.fixture
def source(tmp_path):
    def write(layout: str) -> str:
        path = tmp_path / "source"
        LAYOUTS[layout].write(LAYOUTS[layout].content(network(LAYOUTS[layout].original)), path)
        return str(path)

    return write


def assert_same_features(model, original: str) -> None:
    computed = detector_features(model)
    for stage, expected in features(original).items():
        torch.testing.assert_close(computed[stage], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("kind", ["FPN", "C4"])
@pytest.mark.parametrize("layout", ["virtex training", "openai clip RN50", "timm 50d", "detectron2 MSRA"])
def test_stock_detectron2_loads_what_is_written(source, tmp_path, layout, kind, suffix):
    original = LAYOUTS[layout].original
    report = convert(source(layout), tmp_path / f"converted{suffix}")
    assert report.format == LAYOUTS[layout].family and len(report.loaded) >= FROZEN_TENSORS and report.sha256
    model = detector(original, kind, "FrozenBN")
    DetectionCheckpointer(model).load(str(tmp_path / f"converted{suffix}"))
    assert_same_features(model, original)


def test_a_detector_is_converted_with_its_heads(tmp_path, save):
    content = detector_and_heads(network("ResNet-50"))
    convert(save(content), tmp_path / "detector.pkl")
    written = read_file(tmp_path / "detector.pkl")
    assert set(written["model"]) == set(content["model"]) and not written["matching_heuristics"]


@pytest.mark.parametrize("layout", ["moco v1", "open_clip", "timm 50s"])
def test_safetensors_hold_canonical_names_in_single_precision(source, tmp_path, layout):
    convert(source(layout), tmp_path / "weights.safetensors")
    tensors = load_file(tmp_path / "weights.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32, torch.int64}
    model = detector(LAYOUTS[layout].original, "FPN")
    assert load_weights(model, str(tmp_path / "weights.safetensors")).format == "detectron2_backbone"
    assert_same_features(model, LAYOUTS[layout].original)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_way_back_to_torchvision(source, tmp_path, suffix):
    path = tmp_path / f"torchvision{suffix}"
    convert(source("own pretraining"), path, to="torchvision")
    tensors = torch.load(path, weights_only=True) if suffix == ".pth" else load_file(path)
    outcome = copy.deepcopy(network("ResNet-50")).load_state_dict(tensors, strict=False)
    assert outcome.missing_keys == ["fc.weight", "fc.bias"] and not outcome.unexpected_keys


def test_the_way_back_to_clip_has_clips_names(source, tmp_path):
    convert(source("timm clip"), tmp_path / "clip.pth", to="torchvision")
    tensors = torch.load(tmp_path / "clip.pth", weights_only=True)
    found = copy.deepcopy(network("CLIP RN50")).load_state_dict(tensors, strict=False)
    assert all(name.startswith("attnpool.") for name in found.missing_keys) and not found.unexpected_keys


def test_a_converted_archive_is_no_larger_than_its_tensors(source, tmp_path):
    convert(source("openai clip RN50"), tmp_path / "clip.pth")
    elements = sum(value.numel() for name, value in network("CLIP RN50").state_dict().items() if "attnpool" not in name)
    assert (tmp_path / "clip.pth").stat().st_size < 4 * elements + 200_000


def refusal(source: str, target, **options) -> str:
    with pytest.raises(UserError) as caught:
        convert(source, target, **options)
    assert not target.exists() and not list(target.parent.glob(".*"))
    return str(caught.value)


def test_a_deep_stem_has_no_name_in_torchvision(source, tmp_path):
    assert "no network with a deep stem" in refusal(source("timm 50d"), tmp_path / "d.pth", to="torchvision")


@pytest.mark.parametrize(("name", "to"), [("w.bin", "detectron2"), ("w", "detectron2"), ("w.pkl", "torchvision")])
def test_a_target_of_an_unknown_suffix_is_refused(source, tmp_path, name, to):
    assert ".safetensors" in refusal(source("virtex zoo"), tmp_path / name, to=to)


def test_half_a_network_is_not_converted(tmp_path, save, backbone_tensors):
    without = {name: value for name, value in backbone_tensors.items() if name != "res4.2.conv1.weight"}
    assert "res4.2.conv1.weight is missing" in refusal(save(torchvision_tensors(without)), tmp_path / "w.pth")


def test_a_named_family_is_taken(tmp_path, save, backbone_tensors):
    path = save(with_classifier(torchvision_tensors(backbone_tensors)))
    assert convert(path, tmp_path / "w.pth", family="virtex_backbone").format == "resnet_backbone"
    assert "no weights family 'x'" in refusal(path, tmp_path / "x.pth", family="x")


def test_a_target_that_cannot_be_written_is_one_message(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        convert(source("virtex zoo"), tmp_path / "file" / "w.pth")


def test_config_of_a_converted_clip_is_whole(source, tmp_path):
    convert(source("openai clip RN50x4"), tmp_path / "x4.pth")
    model = detector("CLIP RN50x4", "C4")
    load_weights(model, str(tmp_path / "x4.pth"), cfg=config("CLIP RN50x4", "C4"))
    assert_same_features(model, "CLIP RN50x4")
