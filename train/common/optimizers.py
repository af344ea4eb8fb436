"""The optimizers that ``--optimizer`` names, and their learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from agents.resnet import parameter_groups
from train.common.options import AdamW, Muon, Optimizer

NARROW = 16
"""AdamW, not Muon, updates matrices with fewer rows or columns: they have few directions."""
MUON_SCALE = 20.0
"""Muon's learning rate divided by AdamW's; the spectral norm of Muon's step is its rate."""


def make_optimizers(
    module: nn.Module,
    learning_rate: float,
    settings: Optimizer,
    *,
    own_rates: Mapping[str, float] | None = None,
    decay_norms: bool = True,
) -> list[torch.optim.Optimizer]:
    """The optimizers of a module's parameters that require a gradient.

    Args:
        module: the network.
        learning_rate: peak learning rate.
        settings: which optimizer, and its weight decay.
        own_rates: peak learning rate by submodule name; names must not nest. Muon does not update
            these submodules.
        decay_norms: whether weight decay applies to norms and biases.

    Returns:
        AdamW or SGD alone, or Muon for hidden matrices and AdamW for the rest.
    """
    rates = {
        parameter: rate
        for name, rate in (own_rates or {}).items()
        for parameter in module.get_submodule(name).parameters()
    }
    matrices: list[nn.Parameter] = []
    if isinstance(settings, Muon):
        matrices = [p for p in hidden_matrices(module) if p not in rates]
    by_muon = set(matrices)
    groups = [
        group | {"params": parameters, "lr": rate}
        for group in parameter_groups(module, settings.weight_decay, decay_norms)
        for rate in dict.fromkeys([learning_rate, *rates.values()])
        if (
            parameters := [
                p
                for p in group["params"]
                if p not in by_muon and rates.get(p, learning_rate) == rate
            ]
        )
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=MUON_SCALE * learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="original",
            )
        )
    if groups and isinstance(settings, AdamW | Muon):
        optimizers.append(torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True))
    elif groups:
        optimizers.append(torch.optim.SGD(groups, momentum=0.9, nesterov=True))
    return optimizers


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The matrices that Muon updates: those between wide layers, except the stopper's.

    The stopper learns from fixed states in few batches, and its recipe was tuned with AdamW.
    """
    return [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and parameter.ndim == 2
        and min(parameter.shape) >= NARROW
        and not name.startswith("stopper.")
    ]


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> OneCycleLR:
    """Each group's rate rises from 4 % of its peak over 15 % of the steps, then falls to 0.1 %."""
    peaks: Any = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer,
        max_lr=peaks,
        total_steps=steps + 1,  # the loop calls it after the last batch, too
        pct_start=0.15,
        div_factor=25,
        final_div_factor=40,
        cycle_momentum=False,
    )
