"""The optimisers: which weights Muon moves, by how much, and that its state comes back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from agents.dtram import DTRAM, DTRAMConfig
from train.common.optimizers import MUON_SCALE, MuonBesideAdamW, hidden_matrices, make_optimizer
from train.common.options import OptimizerOptions

MUON = OptimizerOptions(optimizer="muon", weight_decay=0.0)


def small_agent() -> DTRAM:
    torch.manual_seed(0)
    return DTRAM(DTRAMConfig(10, (8, 8, 1), 3, hidden_size=32, locator_grid=5))


def gradients(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_muon_moves_the_hidden_layers_alone() -> None:
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
    optimizer = make_optimizer(agent, 1e-3, MUON)
    gradients(agent, 1)
    optimizer.step()
    step = (agent.core.recurrent.weight - before) / (1e-3 * MUON_SCALE)
    # Five steps of its iteration bring singular values between 0.7 and 1.2.
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.5 and values.max() < 1.5
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_the_rest_moves_as_adamw_alone_would_move_it() -> None:
    agent, other = small_agent(), small_agent()
    how = OptimizerOptions(optimizer="adamw", weight_decay=0.0)
    for module, options in ((agent, MUON), (other, how)):
        optimizer = make_optimizer(module, 1e-2, options)
        gradients(module, 1)
        optimizer.step()
    assert torch.equal(agent.classifier.weight, other.classifier.weight)
    assert torch.equal(agent.stopper[0].weight, other.stopper[0].weight)
    assert not torch.equal(agent.encoder.join.weight, other.encoder.join.weight)


def test_every_parameter_is_in_one_group() -> None:
    agent = small_agent()
    groups = make_optimizer(agent, 1e-2, MUON).param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in agent.parameters())


def test_a_part_with_its_own_rate_moves_by_that_and_not_by_muon() -> None:
    agent = small_agent()
    before = agent.locator.weight.detach().clone()
    optimizer = make_optimizer(agent, 1e-2, MUON, {"locator": 1e-4})
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in agent.parameters())
    peaks = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in agent.locator.parameters()}
    assert {peaks[i] for i in own} == {1e-4} and {peaks[i] for i in set(ids) - own} == {1e-2}
    gradients(agent, 1)
    optimizer.step()
    # AdamW's first step is its rate, whatever the gradient.
    moved = (agent.locator.weight - before).abs()
    assert moved.max() <= 1.01e-4 and moved.median() > 0.99e-4


def test_a_restored_state_goes_on_as_if_nothing_had_been() -> None:
    agent = small_agent()
    optimizer = make_optimizer(agent, 1e-3, MUON)
    gradients(agent, 1)
    optimizer.step()
    twin = copy.deepcopy(agent)
    again = make_optimizer(twin, 1e-3, MUON)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, used in ((agent, optimizer), (twin, again)):
        gradients(module, 2)
        used.step()
    assert all(
        torch.equal(a, b) for a, b in zip(agent.parameters(), twin.parameters(), strict=True)
    )


def test_what_has_no_hidden_matrix_is_adamws_and_a_closure_is_refused() -> None:
    assert isinstance(make_optimizer(nn.Linear(4, 4), 1e-3, MUON), torch.optim.AdamW)
    optimizer = make_optimizer(small_agent(), 1e-3, MUON)
    assert isinstance(optimizer, MuonBesideAdamW)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
