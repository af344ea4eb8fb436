"""The optimizers that ``--optimizer`` names, and their learning-rate schedule."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from agents.resnet import parameter_groups
from train.common.options import SGD, Muon, Optimizer

NARROW = 16
"""AdamW, not Muon, updates matrices with fewer rows or columns: they have few directions."""
LATER_PEAK = 1 / 3
"""Peak of the second of `two_cycles`, as a share of the first one's."""
MUON_SCALE = 20.0
"""Muon's learning rate divided by AdamW's; the spectral norm of Muon's step is its rate."""


class Optimizers:
    """The optimizers of a stage of `steps`, with gradient clipping and learning-rate schedules.

    The gradients of `parameters` are clipped together; for all else see `make_optimizers`. If what
    is learned changes after `first` steps, a one-cycle schedule ends there, and a lower one follows
    (`two_cycles`).
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        steps: int,
        learning_rate: float,
        settings: Optimizer,
        first: int = 0,
        **keywords: Any,
    ) -> None:
        self.parameters, self.max_grad_norm = parameters, settings.max_grad_norm
        self.optimizers = make_optimizers(module, learning_rate, settings, **keywords)
        name = settings.schedule if isinstance(settings, SGD) else "one_cycle"
        schedule = SCHEDULES[name]
        if first and name == "one_cycle":
            schedule = partial(two_cycles, first=first)
        self.schedules = [schedule(optimizer, steps) for optimizer in self.optimizers]
        self._parts: list[Any] = [*self.optimizers, *self.schedules]

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def clip_gradient(self) -> None:
        """Scales the gradient of all parameters together to at most `max_grad_norm`."""
        nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)

    def gradient_norm(self, module: nn.Module) -> Tensor:
        """Norm ``()`` of the gradient of a module's parameters; 0 if they have none."""
        found = [p.grad for p in module.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(found) if found else self.parameters[0].new_zeros(())

    def step(self) -> None:
        """Steps every optimizer and its learning-rate schedule."""
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizers(
    module: nn.Module,
    learning_rate: float,
    settings: Optimizer,
    *,
    own_rates: Mapping[str, float | None] | None = None,
    decay_norms: bool = True,
) -> list[torch.optim.Optimizer]:
    """AdamW or SGD alone, or Muon for hidden matrices and AdamW for the rest.

    Parameters that require no gradient are left out. `learning_rate` is the peak; `own_rates` has
    those of submodules by name, which must not nest and which Muon does not update; None: as the
    rest. `decay_norms`: whether weight decay applies to norms and biases.
    """
    rates = {
        parameter: rate
        for name, rate in (own_rates or {}).items()
        if rate is not None
        for parameter in module.get_submodule(name).parameters()
    }
    hidden = hidden_matrices(module) if isinstance(settings, Muon) else []
    matrices = [p for p in hidden if p not in rates]
    by_muon = set(matrices)
    groups = []
    for group in parameter_groups(module, settings.weight_decay, decay_norms):
        rest = [p for p in group["params"] if p not in by_muon]
        for rate in dict.fromkeys([learning_rate, *rates.values()]):
            if parameters := [p for p in rest if rates.get(p, learning_rate) == rate]:
                groups.append(group | {"params": parameters, "lr": rate})
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        own: Any = {"lr": MUON_SCALE * learning_rate, "weight_decay": settings.weight_decay}
        optimizers.append(torch.optim.Muon(matrices, **own, adjust_lr_fn="original"))
    if groups and isinstance(settings, SGD):
        optimizers.append(
            torch.optim.SGD(groups, momentum=0.9, nesterov=settings.nesterov, fused=True)
        )
    elif groups:
        optimizers.append(torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True))
    return optimizers


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The matrices that Muon updates: those between wide layers, except the stopper's.

    The stopper learns from fixed states in few batches, and its recipe was tuned with AdamW.
    """
    named = [(n, p) for n, p in module.named_parameters() if not n.startswith("stopper.")]
    return [p for _, p in named if p.requires_grad and p.ndim == 2 and min(p.shape) >= NARROW]


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
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


def two_cycles(optimizer: torch.optim.Optimizer, steps: int, first: int) -> LRScheduler:
    """`one_cycle` over the `first` steps, then over the others with a peak of `LATER_PEAK`."""

    def share(step: int, steps: int) -> float:
        rise = 0.15 * steps
        low, done = (0.04, step / rise) if step < rise else (1e-3, (steps - step) / (steps - rise))
        return low + (1 - low) * (1 - math.cos(math.pi * done)) / 2

    def factor(step: int) -> float:
        if step < first:
            return share(step, first)
        return LATER_PEAK * share(min(step, steps) - first, steps - first)

    return LambdaLR(optimizer, factor)


def linear(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Each group's rate falls from its peak to a thousandth, by the same amount a step."""
    return LinearLR(optimizer, start_factor=1.0, end_factor=1e-3, total_iters=steps)


def by_thirds(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Each group's rate is its peak in the first third of the steps, then a tenth, a hundredth."""
    return MultiStepLR(optimizer, [-(-steps // 3), -(-2 * steps // 3)], gamma=0.1)


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], LRScheduler]] = {
    "one_cycle": one_cycle,
    "linear": linear,
    "steps": by_thirds,
}
