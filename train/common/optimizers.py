"""The optimisers that `--optimizer` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from agents.resnet import parameter_groups
from train.common.options import OptimizerOptions

NARROW = 16
"""A matrix with fewer rows or columns has few directions, and its steps are AdamW's."""
MUON_SCALE = 20.0
"""Spectral norm of Muon's step as a multiple of the learning rate, which AdamW reads as it is."""


def make_optimizer(
    module: nn.Module,
    learning_rate: float,
    how: OptimizerOptions,
    own_rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of all of a module's parameters that want a gradient.

    Args:
        module: what learns.
        learning_rate: the schedule's peak.
        how: weights move.
        own_rates: peaks of some parts of the module, by their names in it; of no part of theirs.
            Muon moves none of them.

    Returns:
        One whose groups say their peak each, ``group["peak"]``.
    """
    own = _peaks(module, own_rates or {})
    groups = [
        part
        for group in parameter_groups(module, how.weight_decay, how.decay_norms)
        for part in _by_peak(group, own, learning_rate)
    ]
    if how.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    if how.optimizer == "muon":
        hidden = [p for p in hidden_matrices(module) if p not in own]
        if hidden:
            return MuonBesideAdamW(hidden, groups, learning_rate, how.weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


def _peaks(module: nn.Module, own_rates: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """The peak of each parameter that has its own."""
    return {
        parameter: rate
        for name, rate in own_rates.items()
        for parameter in module.get_submodule(name).parameters()
    }


def _by_peak(
    group: dict[str, Any], own: Mapping[nn.Parameter, float], learning_rate: float
) -> list[dict[str, Any]]:
    """A group of parameters as groups of one peak each, the common one first."""
    peaks: dict[float, list[nn.Parameter]] = {learning_rate: []}
    for parameter in group["params"]:
        peaks.setdefault(own.get(parameter, learning_rate), []).append(parameter)
    return [
        group | {"params": part, "lr": peak, "peak": peak} for peak, part in peaks.items() if part
    ]


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """What Muon moves: the learning matrices between wide layers, but not the stopper's.

    The stopper learns from fixed states in few batches, whose recipe is AdamW's.
    """
    return [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and parameter.ndim == 2
        and min(parameter.shape) >= NARROW
        and not name.startswith("stopper.")
    ]


class MuonBesideAdamW(torch.optim.Optimizer):
    """Two optimisers as one: `torch.optim.Muon` for some matrices, AdamW for the rest.

    Muon makes each step of a matrix orthogonal, so that directions with small gradients move as far
    as those with large ones. Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein, "Muon: An
    optimizer for hidden layers in neural networks" (2024).

    Args:
        hidden: the matrices, at least one.
        groups: all parameters, as optimisers take them.
        learning_rate: AdamW's; Muon's is `MUON_SCALE` times as large.
        weight_decay: of the matrices.
    """

    def __init__(
        self,
        hidden: list[nn.Parameter],
        groups: list[dict[str, Any]],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        chosen = {id(parameter) for parameter in hidden}
        rest = [
            group | {"params": [p for p in group["params"] if id(p) not in chosen]}
            for group in groups
        ]
        self._muon = torch.optim.Muon(
            hidden, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="original"
        )
        self._muon.param_groups[0]["peak"] = learning_rate
        self._adamw = torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), fused=True)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Lets both work on the one state and the groups that are saved and restored."""
        self._muon.param_groups = self.param_groups[:1]
        self._adamw.param_groups = self.param_groups[1:]
        self._muon.state = self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both; a closure is not supported.

        Raises:
            ValueError: a closure was given.
        """
        if closure is not None:
            raise ValueError("closure: expected None; call backward() before step()")
        (group,) = self._muon.param_groups
        learning_rate = group["lr"]
        group["lr"] = MUON_SCALE * learning_rate
        self._muon.step()
        group["lr"] = learning_rate
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
