"""Location policies: how l_t is sampled from the locator's output, and its log-probability.

A *choice* is a location ``(..., 2)`` of the Gaussian, or the number ``(...)`` of a cell of the
grid. It carries no gradient: the locator learns from the choice's log-probability. `params` are
what `DTRAM.location_params` returns, ``(..., 2)`` or ``(..., G * G)``.

Scripted locations. Early in training the agent cannot classify yet, so the reward of a location
tells the locator nothing. For this warm-up `unroll.Unroll.scripted_locations` gives targets for
glimpses 2...T, and locations are sampled from the policy `centred_at` the target. The locator
learns to imitate them by maximum likelihood: `expected_log_prob` is its score, and
``Objective.location_reward="imitation"`` pays every choice 1.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from . import draws

FORBIDDEN = -1e4
"""Score of a cell that must not be chosen: its probability is 0, and a finite number keeps the
entropy's gradient finite."""
SCRIPT_SPREAD = 0.2
"""Standard deviation, in image halves, with which cells are sampled about a scripted location."""


@dataclass(frozen=True)
class GaussianLocations:
    """The paper's policy: a Gaussian whose mean is the locator's output."""

    std: float
    """standard deviation, in image halves"""

    def noise(self, steps: int, params: Tensor) -> Tensor:
        """Random numbers ``(steps, *params.shape)`` for the choices of `steps` glimpses."""
        shape = (steps, *params.shape)
        return self.std * draws.randn(*shape, dim=1, device=params.device, dtype=params.dtype)

    def choose(self, params: Tensor, noise: Tensor) -> Tensor:
        """Samples a choice, given the noise of one glimpse."""
        return params + noise

    def location(self, choice: Tensor) -> Tensor:
        """Locations ``(..., 2)`` of choices, not clipped to the image."""
        return choice

    def log_prob(self, choice: Tensor, params: Tensor) -> Tensor:
        """Log-density (of cells, log-probability) ``(...)`` of choices."""
        error = (choice - params) / self.std
        normaliser = 2 * math.log(self.std) + math.log(2 * math.pi)
        return -0.5 * error.square().sum(dim=-1) - normaliser

    def entropy(self, params: Tensor) -> Tensor | None:
        """Entropy ``(...)`` in nats; None here, as it does not depend on the parameters."""
        return None

    def centred_at(self, target: Tensor, params: Tensor) -> Tensor:
        """Parameters, shaped as `params`, of the policy whose mode is `target` ``(2,)``."""
        return target.expand_as(params)

    def expected_log_prob(self, script: Tensor, params: Tensor) -> Tensor:
        """Mean `log_prob` ``(...)`` of choices drawn with parameters `script`, up to a constant."""
        return self.log_prob(script, params)


@dataclass(frozen=True)
class CellLocations:
    """A softmax over the cells of a grid; methods as those of `GaussianLocations`."""

    centres: Tensor
    """``(G * G, 2)`` in [-1, 1], the locations that it chooses among"""
    exploration: float | Tensor | None = None
    """share of random choices; all others take the cell with the largest score. None: all are
    sampled from the softmax"""

    def noise(self, steps: int, params: Tensor) -> Tensor:
        # Gumbel noise: the cell with the largest sum of logit and noise is a draw of the softmax.
        like = {"device": params.device, "dtype": params.dtype}
        uniform = draws.rand(steps, *params.shape, dim=1, **like)
        return -torch.log(-torch.log(uniform.clamp(min=1e-20)))

    def choose(self, params: Tensor, noise: Tensor) -> Tensor:
        if self.exploration is None:
            return (params + noise).argmax(dim=-1)
        allowed = noise.masked_fill(params <= FORBIDDEN, -torch.inf)
        explores = draws.rand(*params.shape[:-1], device=params.device) < self.exploration
        return torch.where(explores, allowed.argmax(dim=-1), params.argmax(dim=-1))

    def location(self, choice: Tensor) -> Tensor:
        return self.centres[choice]

    def log_prob(self, choice: Tensor, params: Tensor) -> Tensor:
        return torch.log_softmax(params, dim=-1).gather(-1, choice[..., None]).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor | None:
        log_p = torch.log_softmax(params, dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1)

    def centred_at(self, target: Tensor, params: Tensor) -> Tensor:
        squared_distance = (self.centres - target).square().sum(dim=-1)
        return (squared_distance / (-2 * SCRIPT_SPREAD**2)).expand_as(params)

    def expected_log_prob(self, script: Tensor, params: Tensor) -> Tensor:
        return (torch.softmax(script, dim=-1) * torch.log_softmax(params, dim=-1)).sum(dim=-1)


LocationPolicy: TypeAlias = GaussianLocations | CellLocations
