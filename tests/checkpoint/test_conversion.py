import copy
import resource
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from safetensors.torch import load_file
from torch import nn

from tests.checkpoint.conftest import (
    FROZEN_TENSORS,
    torchvision_tensors,
    virtex_training_file,
    with_classifier,
)
from tests.checkpoint.layouts import LAYOUTS, detector_and_heads
from tests.checkpoint.originals import config, detector, detector_features, features, network
from tests.golden import (
    BICAPTIONING,
    CAPTIONING,
    FULL_SIZE,
    SMALL,
    golden,
    golden_config,
    golden_state,
)
from virtex_det.checkpoint import TransferCheckpointer
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
        torch.testing.assert_close(
            computed[stage], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("kind", ["FPN", "C4"])
@pytest.mark.parametrize(
    "layout", ["virtex training", "openai clip RN50", "timm 50d", "detectron2 MSRA"]
)
def test_stock_detectron2_loads_what_is_written(source, tmp_path, layout, kind, suffix):
    original = LAYOUTS[layout].original
    report = convert(source(layout), tmp_path / f"converted{suffix}")
    assert (
        report.format == LAYOUTS[layout].family
        and len(report.loaded) >= FROZEN_TENSORS
        and report.sha256
    )
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
    assert (
        load_weights(model, str(tmp_path / "weights.safetensors")).format == "detectron2_backbone"
    )
    assert_same_features(model, LAYOUTS[layout].original)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_converting_back_to_torchvision(source, tmp_path, suffix):
    path = tmp_path / f"torchvision{suffix}"
    convert(source("own pretraining"), path, to="torchvision")
    tensors = torch.load(path, weights_only=True) if suffix == ".pth" else load_file(path)
    outcome = copy.deepcopy(network("ResNet-50")).load_state_dict(tensors, strict=False)
    assert outcome.missing_keys == ["fc.weight", "fc.bias"] and not outcome.unexpected_keys


def test_converting_back_to_clip_gives_clips_names(source, tmp_path):
    convert(source("timm clip"), tmp_path / "clip.pth", to="torchvision")
    tensors = torch.load(tmp_path / "clip.pth", weights_only=True)
    found = copy.deepcopy(network("CLIP RN50")).load_state_dict(tensors, strict=False)
    assert (
        all(name.startswith("attnpool.") for name in found.missing_keys)
        and not found.unexpected_keys
    )


def test_a_converted_archive_is_no_larger_than_its_tensors(source, tmp_path):
    convert(source("openai clip RN50"), tmp_path / "clip.pth")
    elements = sum(
        value.numel()
        for name, value in network("CLIP RN50").state_dict().items()
        if "attnpool" not in name
    )
    assert (tmp_path / "clip.pth").stat().st_size < 4 * elements + 200_000


def refusal(source: str, target, **options) -> str:
    with pytest.raises(UserError) as caught:
        convert(source, target, **options)
    assert not target.exists() and not list(target.parent.glob(".*"))
    return str(caught.value)


def test_a_deep_stem_has_no_name_in_torchvision(source, tmp_path):
    assert "no network with a deep stem" in refusal(
        source("timm 50d"), tmp_path / "d.pth", to="torchvision"
    )


@pytest.mark.parametrize(
    ("name", "to"), [("w.bin", "detectron2"), ("w", "detectron2"), ("w.pkl", "torchvision")]
)
def test_a_target_of_an_unknown_suffix_is_refused(source, tmp_path, name, to):
    assert ".safetensors" in refusal(source("virtex zoo"), tmp_path / name, to=to)


def test_half_a_network_is_not_converted(tmp_path, save, backbone_tensors):
    without = {
        name: value for name, value in backbone_tensors.items() if name != "res4.2.conv1.weight"
    }
    assert "res4.2.conv1.weight is missing" in refusal(
        save(torchvision_tensors(without)), tmp_path / "w.pth"
    )


def test_a_named_family_is_used(tmp_path, save, backbone_tensors):
    path = save(with_classifier(torchvision_tensors(backbone_tensors)))
    assert convert(path, tmp_path / "w.pth", family="virtex_backbone").format == "resnet_backbone"
    assert "no weights family 'x'" in refusal(path, tmp_path / "x.pth", family="x")


def test_a_target_that_cannot_be_written_is_one_message(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        convert(source("virtex zoo"), tmp_path / "file" / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_a_full_disk_is_one_message_and_leaves_nothing(source, tmp_path, suffix):
    path = source("virtex zoo")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        assert "the free disk space" in refusal(path, tmp_path / f"w{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_config_of_a_converted_clip_is_whole(source, tmp_path):
    convert(source("openai clip RN50x4"), tmp_path / "x4.pth")
    model = detector("CLIP RN50x4", "C4")
    load_weights(model, str(tmp_path / "x4.pth"), cfg=config("CLIP RN50x4", "C4"))
    assert_same_features(model, "CLIP RN50x4")


def published(name: str, save) -> str:
    return save({"model": golden_state(name), "iteration": 500000}, "published.pth")


def own_model(name: str) -> tuple[nn.Module, CfgNode]:
    """A pretraining model at random, with the pixels that published weights were trained with."""
    cfg = golden_config(name)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    return build_model(cfg), cfg


HEADS = ("textual", "backward_textual")
FULL = [pytest.param(name, marks=pytest.mark.slow) for name in FULL_SIZE]


@pytest.mark.parametrize("name", [*SMALL, *FULL])
def test_a_published_model_is_loaded_whole_and_converted_back_unchanged(tmp_path, save, name):
    model, cfg = own_model(name)
    checkpointer = TransferCheckpointer(model, require="model", cfg=cfg)
    checkpointer.load(published(name, save))
    assert checkpointer.report.format == "virtex" and set(checkpointer.report.loaded) == set(
        model.state_dict()
    )
    assert not (
        checkpointer.report.unused or checkpointer.report.missing or checkpointer.report.partial
    )
    ours = save(
        {"model": model.state_dict()}, "published.pth"
    )  # in its place: the large ones are half a gigabyte
    assert not convert(ours, tmp_path / "back.pth", to="virtex").unused
    Path(ours).unlink()
    written = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(written) == ["model"]
    kinds = [[key, list(value.shape), str(value.dtype)] for key, value in written["model"].items()]
    assert kinds == golden(name)["state"]
    assert all(
        torch.equal(written["model"][key], value) for key, value in golden_state(name).items()
    )


def test_tied_tensors_are_written_once_to_virtex(tmp_path, save):
    convert(published(BICAPTIONING, save), tmp_path / "w.pth", to="virtex")
    model = torch.load(tmp_path / "w.pth", weights_only=True)["model"]
    tied = [
        model[f"{head}.{name}"]
        for head in HEADS
        for name in ("embedding.words.weight", "output.weight")
    ]
    assert len({tensor.data_ptr() for tensor in tied}) == 1
    transformers = {model[f"{head}.transformer.layers.0.norm1.weight"].data_ptr() for head in HEADS}
    assert len(transformers) == 2


def test_a_model_with_heads_of_another_task_cannot_be_evaluated(save):
    model, cfg = own_model(BICAPTIONING)
    with pytest.raises(UserError, match="backward_textual.*is missing"):
        load_weights(model, published(CAPTIONING[0], save), require="model", cfg=cfg)


def test_heads_that_fit_are_loaded_for_further_pretraining(save):
    model, cfg = own_model(BICAPTIONING)
    before = model.backward_textual.transformer.layers[0].linear1.weight.clone()
    report = load_weights(model, published(CAPTIONING[0], save), cfg=cfg)
    state = golden_state(CAPTIONING[0])
    assert torch.equal(
        model.textual.visual_projection.weight, state["textual.visual_projection.weight"]
    )
    assert torch.equal(model.backward_textual.transformer.layers[0].linear1.weight, before)
    assert all(name.startswith("textual.transformer.layers.1.") for name in report.unused)


def test_in_a_detector_the_textual_heads_are_unused(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(virtex_training_file(backbone_tensors)))
    assert report.unused and all(name.startswith(HEADS) for name in report.unused)


def test_a_backbone_alone_can_be_written_in_virtexs_layout(source, tmp_path):
    report = convert(source("moco v1"), tmp_path / "w.pth", to="virtex")
    model = torch.load(tmp_path / "w.pth", weights_only=True)["model"]
    assert len(model) == len(report.loaded) and all(
        name.startswith("visual.cnn.") for name in model
    )
    assert load_weights(detector("ResNet-50", "FPN"), str(tmp_path / "w.pth")).format == "virtex"


@pytest.mark.parametrize("layout", ["timm 50d", "openai clip RN50"])
def test_virtex_has_no_deep_stem(source, tmp_path, layout):
    assert "no network with a deep stem" in refusal(source(layout), tmp_path / "w.pth", to="virtex")


def test_virtexs_layout_is_a_pth_file(source, tmp_path):
    assert "an invalid suffix" in refusal(
        source("virtex zoo"), tmp_path / "w.safetensors", to="virtex"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_heads_with_values_that_no_network_has_are_not_written(fpn, save, tmp_path, value):
    saved = fpn().state_dict() | {"roi_heads.box_predictor.cls_score.bias": torch.full((4,), value)}
    with pytest.raises(UserError, match="cls_score.bias"):
        convert(save({"model": saved}), tmp_path / "converted.pth")
    assert not (tmp_path / "converted.pth").exists()
