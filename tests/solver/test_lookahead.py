"""LookAhead against the rule written out, and across a resume."""

import copy
import io
from pathlib import Path

import pytest
import torch
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from virtex_det.solver import add_lookahead

RULES = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "adamw": lambda parameters: AdamW(parameters, lr=0.1, fused=True),
}
pytestmark = pytest.mark.parametrize("rule", RULES)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_every_few_steps_the_weights_go_back_towards_where_they_started(rule: str) -> None:
    ours, plain = network(), network()
    optimizer, inner = RULES[rule](ours.parameters()), RULES[rule](plain.parameters())
    add_lookahead(optimizer, steps=3, alpha=0.4)
    slow = copy.deepcopy(plain)
    for step in range(8):
        train(ours, optimizer, range(step, step + 1))
        train(plain, inner, range(step, step + 1))
        if step in (2, 5):
            for fast, start in zip(plain.parameters(), slow.parameters(), strict=True):
                start.data = start.data + 0.4 * (fast.data - start.data)
                fast.data.copy_(start.data)
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_resuming_in_the_middle_of_a_cycle_changes_nothing(rule: str, tmp_path: Path) -> None:
    whole, first = network(), network()
    optimizer, before = RULES[rule](whole.parameters()), RULES[rule](first.parameters())
    add_lookahead(optimizer, steps=5, alpha=0.5)
    add_lookahead(before, steps=5, alpha=0.5)
    train(whole, optimizer, range(7))
    train(first, before, range(3))
    torch.save(
        {"model": first.state_dict(), "optimizer": before.state_dict()}, tmp_path / "checkpoint.pth"
    )

    resumed = network(seed=1)
    after = RULES[rule](resumed.parameters())
    add_lookahead(after, steps=5, alpha=0.5)
    checkpoint = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    after.load_state_dict(checkpoint["optimizer"])
    train(resumed, after, range(3, 7))
    assert_equal(resumed, whole)


def test_weights_loaded_after_the_optimizer_was_built_are_where_the_slow_ones_start(
    rule: str,
) -> None:
    ours, loaded = network(), network(seed=1)
    optimizer = RULES[rule](ours.parameters())
    add_lookahead(optimizer, steps=1, alpha=0.0)
    ours.load_state_dict(loaded.state_dict())
    train(ours, optimizer, range(2))
    assert_equal(ours, loaded)


def test_parameters_without_a_gradient_stay(rule: str) -> None:
    model = network()
    unused = nn.Parameter(torch.ones(2))
    optimizer = RULES[rule]([*model.parameters(), unused])
    add_lookahead(optimizer, steps=2, alpha=0.5)
    train(model, optimizer, range(4))
    assert torch.equal(unused, torch.ones(2))


def test_the_schedule_of_detectron2_drives_it(rule: str) -> None:
    model = network()
    optimizer = RULES[rule](model.parameters())
    add_lookahead(optimizer, steps=2, alpha=0.5)
    schedule = LRMultiplier(optimizer, LinearParamScheduler(1.0, 0.0), max_iter=4)
    rates = []
    for step in range(4):
        train(model, optimizer, range(step, step + 1))
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_step_that_the_gradient_scaler_skips_does_not_count(rule: str) -> None:
    model = network()
    optimizer = RULES[rule](model.parameters())
    # not fused, as our builder makes it under scaling
    optimizer = type(optimizer)(model.parameters(), lr=0.1)
    add_lookahead(optimizer, steps=2, alpha=0.5)
    scaler = torch.amp.GradScaler("cpu")
    for poison in (0.0, float("inf"), 0.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 3)).sum() + poison * model[0].bias.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state["lookahead"]["updates"] == 2


def test_its_state_is_plain_data(rule: str) -> None:
    model = network()
    optimizer = RULES[rule](model.parameters())
    add_lookahead(optimizer, steps=2, alpha=0.5)
    train(model, optimizer, range(1))
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    assert torch.load(stream, weights_only=True)["state"]["lookahead"]["updates"] == 1
