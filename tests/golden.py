"""Outputs of the authors' implementation of VirTex, with the weights and inputs that gave them.

The weights are computed from their names by the rule in the file, so no weights file is needed.
"""

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

import virtex_det.modeling  # noqa: F401  (registers the models)
from virtex_det.config import get_cfg

GOLDEN = Path(
    os.environ.get("VIRTEX_DET_GOLDEN", Path(__file__).parents[2] / "shared/golden/virtex.json")
)
CAPTIONING = ("captioning_R_18_L2_H64", "captioning_prenorm_R_18_L2_H64")
BICAPTIONING = "bicaptioning_R_18_L1_H64"
MASKED_LM = "masked_lm_R_18_L1_H64"
TOKEN_CLASSIFICATION = "token_classification_R_18"
MULTILABEL_CLASSIFICATION = "multilabel_classification_R_18"
SMALL = (*CAPTIONING, BICAPTIONING, MASKED_LM, TOKEN_CLASSIFICATION, MULTILABEL_CLASSIFICATION)
FULL_SIZE = (
    "bicaptioning_R_50_L1_H1024",
    "bicaptioning_R_50W2X_L1_H1024",
    "bicaptioning_R_101_L1_H1024",
    "bicaptioning_R_50_L4_H1024",
)
META_ARCHITECTURES = {
    "virtex": "BicaptioningModel",
    "captioning": "CaptioningModel",
    "masked_lm": "MaskedLanguageModel",
    "token_classification": "TokenClassificationModel",
    "multilabel_classification": "MultilabelClassificationModel",
}


@cache
def golden(name: str) -> dict[str, Any]:
    """The case of that name; without the file, the test is skipped."""
    if not GOLDEN.is_file():
        pytest.skip(
            f"no outputs of the authors' implementation at {GOLDEN} (set VIRTEX_DET_GOLDEN)"
        )
    return json.loads(GOLDEN.read_text())[name]


def golden_state(name: str) -> dict[str, Tensor]:
    """The whole state of the authors' model, in its order; tied tensors are one."""
    case = golden(name)
    tied: dict[str, Tensor] = {}
    for key, shape, _ in case["state"]:
        source = _tied_to(key, case)
        if source not in tied:
            tied[source] = _filled(source, shape, case["salt"])
    return {key: tied[_tied_to(key, case)] for key, _, _ in case["state"]}


def golden_config(name: str) -> CfgNode:
    """Return virtex_det's config for the authors' names.

    The names are such as "torchvision::resnet50" and "transdec_postnorm::L1_H64_A2_F256".
    """
    theirs = golden(name)["config"]
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = META_ARCHITECTURES[theirs["MODEL.NAME"]]
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1.0] * 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_caption_resnet_backbone", 0
    resnet = theirs["MODEL.VISUAL.NAME"].split("::")[1]
    depth = int(resnet.removeprefix("wide_").removeprefix("resnet").split("_")[0])
    cfg.MODEL.RESNETS.update(
        {"DEPTH": depth, "NORM": "BN", "STRIDE_IN_1X1": False, "OUT_FEATURES": ["res5"]}
    )
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 128 if resnet.startswith("wide") else 64
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = theirs["DATA.VOCAB_SIZE"]
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = theirs["DATA.VOCAB_SIZE"] - 1  # theirs counts the background
    cfg.MODEL.TEXTUAL.DECODING.KEEP_START = False  # as the authors' beam search
    if theirs["MODEL.TEXTUAL.NAME"] != "none":
        decoder, sizes = theirs["MODEL.TEXTUAL.NAME"].split("::")
        size = {part[0]: int(part[1:]) for part in sizes.split("_")}
        cfg.MODEL.TEXTUAL.update(
            {"NUM_LAYERS": size["L"], "HIDDEN_SIZE": size["H"], "ATTENTION_HEADS": size["A"]}
        )
        cfg.MODEL.TEXTUAL.update(
            {"FEEDFORWARD_SIZE": size["F"], "NORM_FIRST": decoder == "transdec_prenorm"}
        )
    return cfg


def golden_model(name: str) -> nn.Module:
    """Our model with the authors' weights, in evaluation; its names must be theirs, all of them."""
    model = build_model(golden_config(name)).eval()
    targets = model.state_dict()
    with torch.no_grad():
        for key, value in golden_state(name).items():
            targets.pop(_our_name(key)).copy_(value)
    assert not targets
    return model


def golden_examples(name: str) -> list[dict[str, Tensor]]:
    """The images, normalised already, and what the task is to predict of them."""
    case = golden(name)
    size = case["image_size"]
    draw = RandomState(zlib.crc32(f"{case['salt']}/input".encode()))
    images = torch.from_numpy(draw.standard_normal((3, 3, size, size)).astype(np.float32))
    is_caption = case["config"]["MODEL.NAME"] != "multilabel_classification"
    lengths = case["lengths"] if is_caption else [None] * len(images)
    return [
        {
            "image": image,
            **{ours: torch.tensor(case[theirs][i][:n]) for theirs, ours in _targets(case).items()},
        }
        for i, (image, n) in enumerate(zip(images, lengths, strict=True))
    ]


def assert_same_visual_features(name: str, grid: Tensor) -> None:
    expected = golden(name)["visual"]
    assert list(grid.shape) == expected["shape"]
    assert float(grid.mean()) == pytest.approx(expected["mean"], rel=1e-4)
    assert float(grid.std()) == pytest.approx(expected["std"], rel=1e-4)
    assert grid.flatten()[:8].tolist() == pytest.approx(expected["first8"], rel=1e-4, abs=1e-5)


def mean_losses(outputs: list[dict[str, Any]]) -> dict[str, float]:
    """Losses over all targets of all images, from what a model returns in evaluation."""
    totals = {
        name: sum(output["losses"][name] for output in outputs) for name in outputs[0]["losses"]
    }
    return {name: float(total / count) for name, (total, count) in totals.items()}


def _targets(case: dict[str, Any]) -> dict[str, str]:
    """What the authors call a task's targets, and what we do."""
    task = case["config"]["MODEL.NAME"]
    if task == "masked_lm":
        return {"masked_tokens": "caption_tokens", "masked_labels": "masked_labels"}
    if task == "multilabel_classification":
        return {"labels": "labels"}
    return {"labels" if task == "token_classification" else "tokens": "caption_tokens"}


def _filled(key: str, shape: list[int], salt: str) -> Tensor:
    """The tensor that the rule gives to a name."""
    x = RandomState(zlib.crc32(f"{salt}/{key}".encode())).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "running_var":
        x = 0.5 + np.abs(x)
    elif last == "running_mean" or last.endswith("bias"):
        x = 0.1 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    elif len(shape) == 4:
        x = x / math.sqrt(math.prod(shape[1:]))
    else:
        x = 0.05 * x
    if key.endswith("embedding.words.weight"):
        x[0] = 0  # padding
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def _tied_to(key: str, case: dict[str, Any]) -> str:
    has_embedding = any(name == "textual.embedding.words.weight" for name, _, _ in case["state"])
    if has_embedding and key.endswith(("embedding.words.weight", "textual.output.weight")):
        return "textual.embedding.words.weight"
    shared = (
        "backward_textual.output.",
        "backward_textual.visual_projection.",
        "backward_textual.embedding.",
    )
    return key.removeprefix("backward_") if key.startswith(shared) else key


def _our_name(key: str) -> str:
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
