"""Bicaptioning: equal to the authors' implementation, and a good citizen of Detectron2."""

import json
import math
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from numpy.random import RandomState
from torch import Tensor, nn
from torch.nn import functional as F

import virtex_det.modeling  # noqa: F401  (registers the model)
from virtex_det.config import get_cfg
from virtex_det.modeling import TransformerDecoderTextualHead

GOLDEN = Path(os.environ.get("VIRTEX_DET_GOLDEN", Path(__file__).parents[4] / "shared/golden/virtex.json"))
FULL_SIZE = [
    "bicaptioning_R_50_L1_H1024",
    "bicaptioning_R_50W2X_L1_H1024",
    "bicaptioning_R_101_L1_H1024",
    "bicaptioning_R_50_L4_H1024",
]


@cache
def golden(name: str) -> dict[str, Any]:
    if not GOLDEN.is_file():
        pytest.skip(f"no outputs of the authors' implementation at {GOLDEN} (set VIRTEX_DET_GOLDEN)")
    return json.loads(GOLDEN.read_text())[name]


def golden_tensor(key: str, shape: list[int], salt: str) -> Tensor:
    """The weight that a rule gives to a name, so that no file of weights is needed."""
    x = RandomState(zlib.crc32(f"{salt}/{key}".encode())).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        x = np.zeros(shape)
    elif last == "running_var":
        x = 0.5 + np.abs(x)
    elif last == "running_mean" or last.endswith("bias"):
        x = 0.1 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    elif len(shape) == 4:
        x = x / math.sqrt(math.prod(shape[1:]))
    else:
        x = 0.05 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def tied_to(key: str) -> str:
    if key.endswith(("embedding.words.weight", "textual.output.weight")):
        return "textual.embedding.words.weight"
    shared = ("backward_textual.output.", "backward_textual.visual_projection.", "backward_textual.embedding.")
    return key.removeprefix("backward_") if key.startswith(shared) else key


def detectron2_name(key: str) -> str:
    """The name in our model of a tensor in a VirTex checkpoint."""
    if not key.startswith("visual.cnn."):
        return key
    head, _, rest = key.removeprefix("visual.cnn.").partition(".")
    if head in ("conv1", "bn1"):
        return f"backbone.stem.{'conv1' if head == 'conv1' else 'conv1.norm'}.{rest}"
    rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for index in (1, 2, 3):
        rest = rest.replace(f"bn{index}.", f"conv{index}.norm.")
    return f"backbone.res{int(head[-1]) + 1}.{rest}"


def config(case: dict[str, Any]) -> CfgNode:
    """Our config for the authors' names, such as "torchvision::resnet50" and "transdec_postnorm::L1_H64_A2_F256"."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "BicaptioningModel"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1.0] * 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_caption_resnet_backbone", 0
    resnet = case["config"]["MODEL.VISUAL.NAME"].split("::")[1]
    depth = int(resnet.removeprefix("wide_").removeprefix("resnet").split("_")[0])
    cfg.MODEL.RESNETS.update({"DEPTH": depth, "NORM": "BN", "STRIDE_IN_1X1": False, "OUT_FEATURES": ["res5"]})
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 128 if resnet.startswith("wide") else 64
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    decoder, sizes = case["config"]["MODEL.TEXTUAL.NAME"].split("::")
    size = {part[0]: int(part[1:]) for part in sizes.split("_")}
    cfg.MODEL.TEXTUAL.NUM_LAYERS, cfg.MODEL.TEXTUAL.HIDDEN_SIZE = size["L"], size["H"]
    cfg.MODEL.TEXTUAL.ATTENTION_HEADS, cfg.MODEL.TEXTUAL.FEEDFORWARD_SIZE = size["A"], size["F"]
    cfg.MODEL.TEXTUAL.NORM_FIRST = decoder == "transdec_prenorm"
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = case["config"]["DATA.VOCAB_SIZE"]
    return cfg


def fill(model: nn.Module, case: dict[str, Any]) -> None:
    """Give each tensor the golden weight of its name, demanding that the names are the authors', all of them."""
    wanted = model.state_dict()
    for key, shape, _ in case["state"]:
        target = wanted.pop(detectron2_name(key))
        with torch.no_grad():
            target.copy_(golden_tensor(tied_to(key), shape, case["salt"]))
            if tied_to(key) == "textual.embedding.words.weight":
                target[0] = 0
    assert not wanted


def examples(case: dict[str, Any]) -> list[dict[str, Tensor]]:
    size = case["image_size"]
    draw = RandomState(zlib.crc32(f"{case['salt']}/input".encode()))
    images = torch.from_numpy(draw.standard_normal((3, 3, size, size)).astype(np.float32))
    captions = [torch.tensor(t[:n]) for t, n in zip(case["tokens"], case["lengths"], strict=True)]
    return [{"image": i, "caption_tokens": c} for i, c in zip(images, captions, strict=True)]


def assert_equals_the_authors(name: str) -> None:
    case = golden(name)
    model = build_model(config(case)).eval()
    fill(model, case)
    inputs = examples(case)
    with torch.no_grad():
        grid = model.visual_grid(inputs)
        losses = model(inputs)
        features = model.textual(torch.tensor(case["tokens"]), model.textual.project(grid))
        predicted = model.textual.output(features).argmax(dim=-1)
    assert list(grid.shape) == case["visual"]["shape"]
    assert float(grid.mean()) == pytest.approx(case["visual"]["mean"], rel=1e-4)
    assert float(grid.std()) == pytest.approx(case["visual"]["std"], rel=1e-4)
    assert grid.flatten()[:8].tolist() == pytest.approx(case["visual"]["first8"], rel=1e-3, abs=1e-4)
    for direction, loss in case["loss_components"].items():
        assert float(losses[f"loss_{direction}"]) == pytest.approx(loss, rel=1e-4)
    assert float(sum(losses.values())) == pytest.approx(case["loss"], rel=1e-4)
    for ours, theirs, length in zip(predicted.tolist(), case["argmax"], case["lengths"], strict=True):
        assert ours[:length] == theirs[:length]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_equals_the_authors_implementation_at_full_size(name: str) -> None:
    assert_equals_the_authors(name)


def test_equals_the_authors_implementation() -> None:
    assert_equals_the_authors("bicaptioning_R_18_L1_H64")


@pytest.mark.parametrize("name", ["captioning_R_18_L2_H64", "captioning_prenorm_R_18_L2_H64"])
def test_the_forward_half_alone_equals_the_authors_captioning_model(name: str) -> None:
    case = golden(name)
    model = build_model(config(case)).eval()
    del model.backward_textual
    fill(model, case)
    inputs, tokens = examples(case), torch.tensor(case["tokens"])
    with torch.no_grad():
        features = model.textual(tokens, model.textual.project(model.visual_grid(inputs)))
        logits = model.textual.output(features)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)
    assert float(loss) == pytest.approx(case["loss"], rel=1e-4)
    for ours, theirs, length in zip(logits.argmax(dim=-1).tolist(), case["argmax"], case["lengths"], strict=True):
        assert ours[:length] == theirs[:length]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "BicaptioningModel", "build_caption_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.update({"DEPTH": 18, "NORM": "BN", "OUT_FEATURES": ["res5"], "RES2_OUT_CHANNELS": 8})
    cfg.MODEL.TEXTUAL.update({"VOCAB_SIZE": 40, "HIDDEN_SIZE": 16, "ATTENTION_HEADS": 2, "FEEDFORWARD_SIZE": 32})
    cfg.MODEL.TEXTUAL.DROPOUT = 0.0
    return build_model(cfg)


def batch() -> list[dict[str, Tensor]]:
    captions = [[1, 5, 9, 7, 2], [1, 6, 2], [1, 2]]
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [{"image": i, "caption_tokens": torch.tensor(c)} for i, c in zip(images, captions, strict=True)]


def test_losses_are_means_over_the_tokens_that_follow_another(model: nn.Module) -> None:
    model.eval()
    losses = model(batch())
    assert list(losses) == ["loss_captioning_forward", "loss_captioning_backward"]
    for head, flip, loss in zip((model.textual, model.backward_textual), (False, True), losses.values(), strict=True):
        total, count = 0.0, 0
        for example in batch():
            tokens = example["caption_tokens"].flip(0) if flip else example["caption_tokens"]
            features = head(tokens[None, :-1], head.project(model.visual_grid([example])))
            total += F.cross_entropy(head.output(features[0]), tokens[1:], reduction="sum").item()
            count += len(tokens) - 1
        assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_an_unknown_token_is_no_target_but_the_caption_goes_on(model: nn.Module) -> None:
    model.eval()
    (example, *_), tokens = batch(), torch.tensor([1, 5, 0, 7, 2])
    loss = model([{**example, "caption_tokens": tokens}])["loss_captioning_forward"]
    features = model.textual(tokens[None, :-1], model.textual.project(model.visual_grid([example])))
    expected = F.cross_entropy(model.textual.output(features[0]), tokens[1:], ignore_index=0)
    torch.testing.assert_close(loss, expected)


def test_both_directions_share_all_but_the_transformer(model: nn.Module) -> None:
    shared = {n for n, _ in model.named_parameters(remove_duplicate=False)} - {n for n, _ in model.named_parameters()}
    assert {name.split(".")[1] for name in shared if name.startswith("backward_")} == {
        "visual_projection",
        "embedding",
        "output",
    }
    forward, backward = model.textual.transformer, model.backward_textual.transformer
    assert all(a is not b for a, b in zip(forward.parameters(), backward.parameters(), strict=True))


def test_every_parameter_learns(model: nn.Module) -> None:
    sum(model(batch()).values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_pixels_are_normalised_in_the_model(model: nn.Module) -> None:
    model.eval()
    shifted = [{**example, "image": example["image"].float() * 2 + 10} for example in batch()]
    expected = model.visual_grid(batch())
    model.pixel_mean.copy_(model.pixel_mean * 2 + 10)
    model.pixel_std.copy_(model.pixel_std * 2)
    torch.testing.assert_close(model.visual_grid(shifted), expected)
    assert not any(name.startswith("pixel") for name in model.state_dict())


def test_a_few_steps_lower_the_loss(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = sum(model(batch()).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_the_head_is_built_from_the_config(model: nn.Module) -> None:
    assert isinstance(model.textual, TransformerDecoderTextualHead)
    assert model.textual.visual_projection.in_features == 64
    assert model.textual.output.out_features == 40
