"""The optimizers: which weights Muon updates, own rates, weight decay, and the schedule."""

import copy
from itertools import chain

import pytest
import torch
from torch import nn

from agents.dtram import DTRAM, DTRAMConfig
from train.common.optimizers import (
    MUON_SCALE,
    Optimizers,
    hidden_matrices,
    make_optimizers,
    one_cycle,
)
from train.common.options import SGD, AdamW, Muon

MUON, ADAMW = Muon(weight_decay=0.0), AdamW(weight_decay=0.0)


def small_agent() -> DTRAM:
    torch.manual_seed(0)
    return DTRAM(DTRAMConfig(10, (8, 8, 1), 3, hidden_size=32, locator_grid=5))


def groups_of(optimizers: list[torch.optim.Optimizer]) -> list[dict]:
    return list(chain.from_iterable(optimizer.param_groups for optimizer in optimizers))


def step(module: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int = 1) -> None:
    """A step with random gradients."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    for optimizer in optimizers:
        optimizer.step()


def test_muon_updates_hidden_matrices_alone() -> None:
    agent = small_agent()
    chosen = {id(p) for p in hidden_matrices(agent)}
    names = {name for name, p in agent.named_parameters() if id(p) in chosen}
    layers = ("encoder.what", "encoder.join", "encoder.out", "core.recurrent", "locator")
    assert names == {f"{layer}.weight" for layer in layers}
    agent.core.requires_grad_(False)
    assert len(hidden_matrices(agent)) == 4


def test_a_step_of_a_matrix_is_nearly_orthogonal_and_scaled() -> None:
    agent = small_agent()
    before = agent.core.recurrent.weight.detach().clone()
    step(agent, make_optimizers(agent, 1e-3, MUON))
    change = (agent.core.recurrent.weight - before) / (1e-3 * MUON_SCALE)
    # Muon's five iterations bring singular values between 0.7 and 1.2.
    values = torch.linalg.svdvals(change)
    assert values.min() > 0.5 and values.max() < 1.5


def test_muon_decays_matrices_by_hand() -> None:
    """Without a gradient only the decay is left, by 1 - rate * decay at each step."""
    agent = small_agent()
    before = agent.core.recurrent.weight.detach().clone()
    optimizers = make_optimizers(agent, 1e-3, Muon(weight_decay=0.5))
    for parameter in agent.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):
        optimizers[0].step()
    factor = (1 - 1e-3 * MUON_SCALE * 0.5) ** 2
    torch.testing.assert_close(agent.core.recurrent.weight, factor * before, rtol=1e-5, atol=0)


def test_muon_looks_ahead_by_hand() -> None:
    """With gradients G and -0.95 G the momentum is 0.0475 G - 0.0475 G = 0 after two steps.

    Nesterov's step then follows the second gradient alone, back to the start.
    """
    agent = small_agent()
    weight = agent.core.recurrent.weight
    before, gradient = weight.detach().clone(), torch.randn_like(weight)
    optimizers = make_optimizers(agent, 1e-3, MUON)
    moved = []
    for factor in (1.0, -0.95):
        weight.grad = factor * gradient
        optimizers[0].step()
        moved.append((weight - before).norm().item())
    assert moved[1] < 0.05 * moved[0]


def test_the_other_weights_move_as_with_adamw_alone() -> None:
    agent, other = small_agent(), small_agent()
    for module, settings in ((agent, MUON), (other, ADAMW)):
        step(module, make_optimizers(module, 1e-2, settings))
    assert torch.equal(agent.classifier.weight, other.classifier.weight)
    assert torch.equal(agent.stopper[0].weight, other.stopper[0].weight)
    assert not torch.equal(agent.encoder.join.weight, other.encoder.join.weight)


@pytest.mark.parametrize("settings", [AdamW(), SGD(), Muon()])
@pytest.mark.parametrize("own_rates", [{}, {"locator": 1e-4}])
def test_every_parameter_is_in_one_group_with_its_rate(settings, own_rates) -> None:
    agent = small_agent()
    optimizers = make_optimizers(agent, 1e-2, settings, own_rates=own_rates)
    assert [type(optimizer) for optimizer in optimizers] == {
        "adamw": [torch.optim.AdamW],
        "sgd": [torch.optim.SGD],
        "muon": [torch.optim.Muon, torch.optim.AdamW],
    }[settings.name]
    rates = {p: group["lr"] for group in groups_of(optimizers) for p in group["params"]}
    assert sum(len(group["params"]) for group in groups_of(optimizers)) == len(rates)
    assert set(rates) == set(agent.parameters())
    matrices, locator = set(hidden_matrices(agent)), set(agent.locator.parameters())
    for parameter, rate in rates.items():
        if parameter in locator and own_rates:
            assert rate == 1e-4
        else:
            by_muon = settings.name == "muon" and parameter in matrices
            assert rate == pytest.approx(1e-2 * (MUON_SCALE if by_muon else 1))


def test_a_submodule_with_its_own_rate_moves_by_that_rate_and_not_by_muon() -> None:
    agent = small_agent()
    before = agent.locator.weight.detach().clone()
    step(agent, make_optimizers(agent, 1e-2, MUON, own_rates={"locator": 1e-4}))
    # AdamW's first step is its rate, whatever the gradient.
    moved = (agent.locator.weight - before).abs()
    assert moved.max() <= 1.01e-4 and moved.median() > 0.99e-4


@pytest.mark.parametrize("decay_norms", [True, False])
def test_weight_decay_may_spare_norms_and_biases(decay_norms: bool) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizers = make_optimizers(module, 1.0, AdamW(weight_decay=0.3), decay_norms=decay_norms)
    decay = {p: g["weight_decay"] for g in groups_of(optimizers) for p in g["params"]}
    expected = [0.3 if decay_norms or p.dim() > 1 else 0.0 for p in module.parameters()]
    assert [decay[p] for p in module.parameters()] == expected


@pytest.mark.parametrize("settings", [Muon(), SGD()])
def test_a_restored_state_continues_unchanged(settings) -> None:
    agent = small_agent()
    optimizers = make_optimizers(agent, 1e-3, settings)
    step(agent, optimizers)
    twin = copy.deepcopy(agent)
    restored = make_optimizers(twin, 1e-3, settings)
    for old, new in zip(optimizers, restored, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    step(agent, optimizers, seed=2)
    step(twin, restored, seed=2)
    pairs = zip(agent.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_module_without_hidden_matrices_is_left_to_adamw() -> None:
    (optimizer,) = make_optimizers(nn.Linear(4, 4), 1e-3, MUON)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_each_group_rises_from_4_percent_to_its_peak_and_falls_to_a_thousandth() -> None:
    agent = small_agent()
    (optimizer,) = make_optimizers(agent, 1e-2, ADAMW, own_rates={"locator": 1e-4})
    schedule = one_cycle(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    rates.append(schedule.get_last_lr())  # after the last batch
    peaks = [
        1e-2 if group["params"][0] not in set(agent.locator.parameters()) else 1e-4
        for group in optimizer.param_groups
    ]
    assert set(peaks) == {1e-2, 1e-4}
    for peak, *curve in zip(peaks, *rates, strict=True):
        share = [rate / peak for rate in curve]
        highest = share.index(max(share))
        assert 14 <= highest <= 15 and share[highest] == pytest.approx(1, rel=0.01)
        assert share[0] == pytest.approx(0.04) and share[-1] == pytest.approx(0.001)
        assert share[: highest + 1] == sorted(share[: highest + 1])
        assert share[highest:] == sorted(share[highest:], reverse=True)


def test_a_second_cycle_has_a_third_of_the_peak() -> None:
    """Of 100 steps 60 belong to the first cycle; by cosines, so half way up is half way up."""
    module = nn.Linear(2, 2)
    optimizers = Optimizers(module, list(module.parameters()), 100, 2.0, ADAMW, 60)
    rates = []
    for _ in range(101):
        rates.append(optimizers.optimizers[0].param_groups[0]["lr"] / 2)
        optimizers.step()
    assert rates[0] == pytest.approx(0.04) and rates[9] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.04 / 3) and rates[66] == pytest.approx(1 / 3)
    assert rates[63] == pytest.approx((0.04 + 1) / 2 / 3)  # half of the rise of 6 steps
    assert rates[83] == pytest.approx((1e-3 + 1) / 2 / 3)  # half of the fall of 34
    assert rates[59] < 0.003 and rates[100] == pytest.approx(1e-3 / 3)
    for start, peak, end in ((0, 9, 59), (60, 66, 100)):
        assert rates[start : peak + 1] == sorted(rates[start : peak + 1])
        assert rates[peak : end + 1] == sorted(rates[peak : end + 1], reverse=True)


def test_the_norm_of_a_gradient_by_hand() -> None:
    module = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1), "none": nn.Flatten()})
    optimizers = Optimizers(module, list(module.parameters()), 6, 1.0, AdamW(max_grad_norm=1.0))
    module["a"].weight.grad = torch.tensor([[3.0]])
    module["a"].bias.grad = torch.tensor([-4.0])
    module["b"].weight.grad = torch.tensor([[12.0]])
    assert optimizers.gradient_norm(module["a"]).item() == pytest.approx(5)
    assert optimizers.gradient_norm(module).item() == pytest.approx(13)
    assert optimizers.gradient_norm(module["none"]).item() == 0
    optimizers.clip_gradient()
    assert optimizers.gradient_norm(module).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1.0, 0.8335, 0.667, 0.5005, 0.334, 0.1675, 0.001]),
        ("steps", [1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01]),
    ],
)
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_original_codes_sgd(schedule: str, expected: list[float], nesterov: bool) -> None:
    """Rates at the start and after each of 6 steps, of a peak of 2."""
    module = nn.Linear(2, 2)
    settings = SGD(schedule=schedule, nesterov=nesterov)
    optimizers = Optimizers(module, list(module.parameters()), 6, 2.0, settings)
    rates = []
    for _ in range(6):
        rates.append(optimizers.optimizers[0].param_groups[0]["lr"])
        optimizers.step()
    rates.append(optimizers.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([2 * share for share in expected])
    group = optimizers.optimizers[0].param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, nesterov)
