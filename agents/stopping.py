"""Stopping rules: they decide after each glimpse, from the same outputs of one agent."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dtram_env.episodes import ends

from .checks import require

PROBABILITY = "a probability, from 0 to 1"


class StoppingRule(Protocol):
    """Decides after each glimpse whether to stop; batched over any leading shape."""

    def stops(self, time: Tensor, logits: Tensor, stop_logit: Tensor) -> Tensor:
        """Which images stop now.

        Args:
            time: number of glimpses taken so far, int64, broadcastable to ``stop_logit``.
            logits: ``(..., K)``, of the classes.
            stop_logit: ``(...)``, of p(stop).

        Returns:
            bool ``(...)``.
        """
        ...


@dataclass(frozen=True)
class LearnedStop:
    """DT-RAM: stop when p(stop) exceeds `threshold`, in [0, 1]; at 1 it never does."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        require("LearnedStop.threshold", self.threshold, 0 <= self.threshold <= 1, PROBABILITY)

    def stops(self, time: Tensor, logits: Tensor, stop_logit: Tensor) -> Tensor:
        # Compares logits, as float32 has too few digits for probabilities near 1.
        return stop_logit > _logit(self.threshold)


@dataclass(frozen=True)
class FixedStop:
    """RAM: stop after `glimpses` glimpses, at least 1."""

    glimpses: int

    def __post_init__(self) -> None:
        require("FixedStop.glimpses", self.glimpses, self.glimpses >= 1, "at least 1")

    def stops(self, time: Tensor, logits: Tensor, stop_logit: Tensor) -> Tensor:
        return (time >= self.glimpses).expand(stop_logit.shape)


@dataclass(frozen=True)
class ConfidenceStop:
    """The talk's Table 7: stop when a class's probability exceeds `threshold`, in [0, 1]."""

    threshold: float

    def __post_init__(self) -> None:
        require("ConfidenceStop.threshold", self.threshold, 0 <= self.threshold <= 1, PROBABILITY)

    def stops(self, time: Tensor, logits: Tensor, stop_logit: Tensor) -> Tensor:
        return torch.softmax(logits, dim=-1).amax(dim=-1) > self.threshold


def _logit(probability: float) -> float:
    """log(p / (1 - p)), infinite at 0 and 1."""
    if probability in (0.0, 1.0):
        return math.inf if probability else -math.inf
    return math.log(probability) - math.log1p(-probability)


def glimpses_taken(stops: Tensor) -> Tensor:
    """Glimpses ``(B,)`` of each image, from a rule's decisions ``(T, B)`` after glimpses 1 ... T.

    They end at the first stop, or after T if there is none.
    """
    time = torch.arange(1, len(stops) + 1, device=stops.device)[:, None]
    return ends(time, stops, len(stops)).to(torch.uint8).argmax(dim=0) + 1
