"""Which parameter is updated how, and by which rule."""

import copy
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import virtex_det.modeling  # noqa: F401  (registers what the configs here name)
from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.solver import build_optimizer, parameter_groups


class Model(nn.Module):
    """A stand-in with the names that matter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.textual = nn.ModuleDict(
            {"transformer": nn.ModuleDict({"norm1": nn.LayerNorm(4)}), "output": nn.Linear(4, 5)}
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.textual["output"](
            self.textual["transformer"]["norm1"](self.backbone(images).mean(dim=(2, 3)))
        )


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WEIGHT_DECAY = 0.1
    return cfg


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def settings(groups: list[dict[str, Any]], model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by name."""
    found = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters()}


def train(model: nn.Module, optimizer: Optimizer, steps: int = 4) -> list[torch.Tensor]:
    for step in range(steps):
        images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (10 * model(images).square().sum()).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_detectron2_keys_mean_what_they_mean_there(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY_BIAS, cfg.SOLVER.WEIGHT_DECAY_NORM = (
        2.0,
        0.5,
        0.25,
    )
    theirs = build_detectron2_optimizer(cfg, model).param_groups
    assert settings(parameter_groups(cfg, model), model) == settings(theirs, model)


def test_the_backbone_has_a_rate_of_its_own(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.BACKBONE_MULTIPLIER = 20.0
    for name, (rate, _) in settings(parameter_groups(cfg, model), model).items():
        assert rate == (0.2 if name.startswith("backbone.") else 0.01), name


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_backbone_learns_at_a_multiple_of_the_base_rate(
    cfg: CfgNode, model: Model, optimizer: str
) -> None:
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BACKBONE_MULTIPLIER = optimizer, 0.1
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    for name, (rate, decay) in settings(build_optimizer(cfg, model).param_groups, model).items():
        assert rate == pytest.approx(0.001 if name.startswith("backbone.") else 0.01), name
        assert decay == (0.0 if name.startswith("backbone.1.") or "norm" in name else 0.1), name


def test_a_multiple_of_one_leaves_detectron2s_factor_of_biases_alone(
    cfg: CfgNode, model: Model
) -> None:
    cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.BACKBONE_MULTIPLIER = 2.0, 1.0
    assert settings(parameter_groups(cfg, model), model)["backbone.0.weight"][0] == 0.01
    model.backbone[0].bias = nn.Parameter(torch.zeros(4))
    assert settings(parameter_groups(cfg, model), model)["backbone.0.bias"][0] == 0.02


def test_a_multiple_of_zero_holds_the_backbone_still(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BACKBONE_MULTIPLIER = "AdamW", 0.0
    before = copy.deepcopy(model)
    train(model, build_optimizer(cfg, model))
    assert all(map(torch.equal, model.backbone.parameters(), before.backbone.parameters()))
    assert not torch.equal(model.textual["output"].weight, before.textual["output"].weight)


def test_no_decay_exempts_what_it_matches_anywhere_in_the_name(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.1
    cfg.SOLVER.NO_DECAY = r"textual.*(norm.*|bias)"
    decays = {
        name: decay for name, (_, decay) in settings(parameter_groups(cfg, model), model).items()
    }
    assert {name for name, decay in decays.items() if decay == 0.0} == {
        "textual.transformer.norm1.weight",
        "textual.transformer.norm1.bias",
        "textual.output.bias",
    }
    assert {decay for decay in decays.values() if decay} == {0.1}


def test_groups_are_as_few_as_their_settings(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.NO_DECAY = 20.0, "bias"
    groups = parameter_groups(cfg, model)
    assert len(groups) == len({(group["lr"], group["weight_decay"]) for group in groups}) == 4


def test_an_fpn_and_heads_do_not_get_the_rate_of_the_backbone(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 8
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.IN_FEATURES = (
        "StandardROIHeads",
        ["p2", "p3", "p4", "p5"],
    )
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = (
        "FastRCNNConvFCHead",
        1,
        8,
    )
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.SOLVER.BACKBONE_MULTIPLIER = 20.0
    detector = build_model(cfg)
    rates = {
        name: rate
        for name, (rate, _) in settings(parameter_groups(cfg, detector), detector).items()
    }
    assert {name for name, rate in rates.items() if rate == 0.2} == {
        n for n in rates if n.startswith("backbone.bottom_up.")
    }
    assert any(name.startswith("backbone.fpn_") for name in rates)


def test_res5_of_a_c4_head_is_the_backbone_but_its_extra_norm_is_not(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeadsExtraNorm"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = (
        16,
        "BN",
        0,
    )
    cfg.SOLVER.BACKBONE_MULTIPLIER = 20.0
    detector = build_model(cfg)
    rates = {
        name: rate
        for name, (rate, _) in settings(parameter_groups(cfg, detector), detector).items()
    }
    assert rates["roi_heads.res5.0.conv1.weight"] == rates["backbone.stem.conv1.weight"] == 0.2
    assert (
        rates["roi_heads.res5.norm.weight"]
        == rates["roi_heads.box_predictor.cls_score.weight"]
        == 0.01
    )


def test_frozen_parameters_are_left_out(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.NO_DECAY = 20.0, "weight"
    model.backbone.requires_grad_(False)
    kept = {id(p) for group in parameter_groups(cfg, model) for p in group["params"]}
    assert kept == {id(p) for p in model.textual.parameters()}


@pytest.mark.parametrize(("name", "rule"), [("SGD", SGD), ("AdamW", AdamW)])
def test_a_fused_step_is_the_same_update(
    cfg: CfgNode, model: Model, name: str, rule: type[Optimizer]
) -> None:
    cfg.SOLVER.OPTIMIZER = name
    plain = copy.deepcopy(model)
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is rule and optimizer.defaults["fused"]
    arguments = {"momentum": cfg.SOLVER.MOMENTUM} if rule is SGD else {}
    reference = rule(parameter_groups(cfg, plain), lr=0.01, fused=False, foreach=False, **arguments)
    torch.testing.assert_close(
        train(model, optimizer), train(plain, reference), rtol=1e-5, atol=1e-6
    )


def test_the_default_is_the_optimizer_of_detectron2(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.NESTEROV = True
    plain = copy.deepcopy(model)
    theirs = build_detectron2_optimizer(cfg, plain)
    torch.testing.assert_close(
        train(model, build_optimizer(cfg, model)), train(plain, theirs), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_resuming_with_another_memory_layout_changes_nothing(
    cfg: CfgNode, model: Model, name: str
) -> None:
    cfg.SOLVER.OPTIMIZER = name
    optimizer = build_optimizer(cfg, model)
    train(model, optimizer)
    resumed = copy.deepcopy(model).to(memory_format=torch.channels_last)
    after = build_optimizer(cfg, resumed)
    after.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.testing.assert_close(train(resumed, after), train(model, optimizer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_type", ["value", "norm"])
def test_clipping_per_parameter_is_that_of_detectron2(
    cfg: CfgNode, model: Model, clip_type: str
) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    plain = copy.deepcopy(model)
    theirs = build_detectron2_optimizer(cfg, plain)
    torch.testing.assert_close(
        train(model, build_optimizer(cfg, model)), train(plain, theirs), rtol=1e-5, atol=1e-6
    )


def test_clipping_the_full_model_bounds_the_norm_of_all_gradients_together(
    cfg: CfgNode, model: Model
) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    cfg.SOLVER.MOMENTUM = cfg.SOLVER.WEIGHT_DECAY = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    after = train(model, build_optimizer(cfg, model), steps=1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5 * cfg.SOLVER.BASE_LR, rel=1e-3)


def test_clipping_and_lookahead_count_each_step_once(cfg: CfgNode, model: Model) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = cfg.SOLVER.LOOKAHEAD.ENABLED = True
    SGD(model.parameters(), lr=1.0)  # PyTorch prepares a class for hooks at its first use
    optimizer = build_optimizer(cfg, model)
    train(model, optimizer, steps=3)
    assert optimizer.state["lookahead"]["updates"] == 3


def test_under_gradient_scaling_gradients_are_clipped_after_they_are_unscaled(
    cfg: CfgNode, model: Model
) -> None:
    cfg.SOLVER.AMP.ENABLED = cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "full_model", 1e3
    plain = copy.deepcopy(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = build_optimizer(cfg, model)
    scaler.scale(model(torch.ones(1, 3, 5, 5)).square().sum()).backward()
    scaler.step(optimizer)
    reference = build_optimizer(cfg, plain)
    plain(torch.ones(1, 3, 5, 5)).square().sum().backward()
    reference.step()
    torch.testing.assert_close(list(model.parameters()), list(plain.parameters()))


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("SOLVER.OPTIMIZER", "Adan", ["Adan", "AdamW"]),
        ("SOLVER.NO_DECAY", "(", ["SOLVER.NO_DECAY", "regular expression"]),
        ("SOLVER.BACKBONE_MULTIPLIER", -0.1, ["SOLVER.BACKBONE_MULTIPLIER", "-0.1"]),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all", ["'all'", "full_model"]),
    ],
)
def test_a_setting_that_does_not_exist_is_named(
    cfg: CfgNode, model: Model, key: str, value: str | float, names: list[str]
) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError) as error:
        build_optimizer(cfg, model)
    assert all(name in str(error.value) for name in names)
