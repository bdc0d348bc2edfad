"""A small model of each pretraining task, and a batch for it."""

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

import virtex_det.modeling  # noqa: F401  (registers the models)
from virtex_det.config import get_cfg

Examples = list[dict[str, Tensor]]


@pytest.fixture
def small_cfg() -> CfgNode:
    """The config of `small_config`."""
    return small_config()


def small_config() -> CfgNode:
    """Return the config of a narrow ResNet-18 and a decoder of width 16, which writes nothing."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.update(
        {"DEPTH": 18, "NORM": "BN", "OUT_FEATURES": ["res5"], "RES2_OUT_CHANNELS": 8}
    )
    cfg.MODEL.TEXTUAL.update(
        {"VOCAB_SIZE": 40, "HIDDEN_SIZE": 16, "ATTENTION_HEADS": 2, "FEEDFORWARD_SIZE": 32}
    )
    cfg.MODEL.TEXTUAL.DROPOUT = 0.0
    cfg.MODEL.TEXTUAL.DECODING.METHOD = "none"
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 7
    return cfg


@pytest.fixture
def build(small_cfg: CfgNode) -> Callable[..., nn.Module]:
    """Builds the model of a meta-architecture; takes ``KEY, VALUE`` pairs."""

    def make(meta_architecture: str, *options: object) -> nn.Module:
        torch.manual_seed(0)
        small_cfg.merge_from_list(["MODEL.META_ARCHITECTURE", meta_architecture, *options])
        return build_model(small_cfg)

    return make


def images(number: int = 3) -> Examples:
    drawn = torch.randint(
        256, (number, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return [{"image": image} for image in drawn]


def with_targets(key: str, targets: list[list[int]]) -> Examples:
    """Images with a target each."""
    return [
        example | {key: torch.tensor(t)}
        for example, t in zip(images(len(targets)), targets, strict=True)
    ]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_a_few_steps_lower_the_loss(model: nn.Module, examples: Examples) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = sum(model(examples).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def assert_every_parameter_learns(model: nn.Module, examples: Examples) -> None:
    sum(model(examples).values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
