"""The options that only DT-RAM has: where it looks next, and how it learns to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from train.common.options import check


def _check_locator(locator: Gaussian | Cells) -> None:
    check("locator hidden", locator.hidden, locator.hidden >= 0, "0 or more")
    rate = locator.learning_rate
    check("locator learning_rate", rate, rate is None or 0 < rate < math.inf, "a positive number")


@dataclass(frozen=True)
class Gaussian:
    """The paper's location policy: a Gaussian about the locator's output."""

    name: Literal["gaussian"] = "gaussian"
    std: float = 0.1
    """standard deviation, where the image is 2 wide"""
    gradient: Literal["detached", "state"] = "detached"
    """whether the policy gradient stops at the recurrent state or flows into it"""
    hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    learning_rate: float | None = None
    """the locator's own peak; that of all other weights if none"""

    def __post_init__(self) -> None:
        check("locator std", self.std, 0 < self.std < math.inf, "a positive number")
        _check_locator(self)


@dataclass(frozen=True)
class Cells:
    """A location policy that chooses among the centres of grid x grid cells of the image."""

    name: Literal["cells"] = "cells"
    grid: int = 7
    """cells along a side"""
    entropy: float = 0.0
    """weight of the entropy bonus, in a stage's first epoch"""
    entropy_last: float | None = None
    """the same in its last epoch, with equal steps between; constant if none"""
    gradient: Literal["detached", "state"] = "detached"
    """whether the policy gradient stops at the recurrent state or flows into it"""
    hidden: int = 0
    """hidden units of the locator; 0 makes it linear"""
    learning_rate: float | None = None
    """the locator's own peak; that of all other weights if none"""

    def __post_init__(self) -> None:
        check("locator grid", self.grid, self.grid >= 1, "at least 1")
        for name in ("entropy", "entropy_last"):
            value = getattr(self, name)
            check(f"locator {name}", value, value is None or 0 <= value < math.inf, "0 or more")
        _check_locator(self)

    def entropy_at(self, progress: float) -> float:
        """The weight of the entropy bonus after a share of the stage's epochs, in [0, 1]."""
        last = self.entropy if self.entropy_last is None else self.entropy_last
        return self.entropy + progress * (last - self.entropy)


Locator = Gaussian | Cells


def _check_learned(stop: StopAfter | StopJoint) -> None:
    check("stop entropy", stop.entropy, 0 <= stop.entropy < math.inf, "0 or more")
    bound = stop.max_mean_glimpses
    check("stop max_mean_glimpses", bound, bound is None or bound >= 1, "1 or more, or none")


def _check_stage(stop: StopAfter | ACT) -> None:
    for name in ("epochs", "batch_size"):
        check(f"stop {name}", getattr(stop, name), getattr(stop, name) >= 1, "at least 1")


@dataclass(frozen=True)
class StopAfter:
    """The stopper learns after the trunk, which stays as it is. It begins as a threshold on the
    classifier's confidence."""

    name: Literal["after"] = "after"
    gradient: Literal["exact", "reinforce"] = "exact"
    """expectation over the stopping time, or sampled"""
    entropy: float = 5e-4
    """weight of the entropy bonus on stop decisions"""
    max_mean_glimpses: float | None = 3.5
    """validation chooses the stop threshold with the lowest error within this bound; with none,
    the one with the highest return"""
    epochs: int = 20
    """passes over the training split"""
    batch_size: int = 1000
    """images in a batch"""

    def __post_init__(self) -> None:
        _check_learned(self)
        _check_stage(self)


@dataclass(frozen=True)
class StopJoint:
    """Encoder, core and all heads learn together; the stopper begins at even odds."""

    name: Literal["joint"] = "joint"
    gradient: Literal["exact", "reinforce"] = "exact"
    """expectation over the stopping time, or sampled"""
    entropy: float = 5e-4
    """weight of the entropy bonus on stop decisions"""
    max_mean_glimpses: float | None = 3.5
    """as for after"""

    def __post_init__(self) -> None:
        _check_learned(self)


@dataclass(frozen=True)
class StopOff:
    """RAM: every image gets the whole budget."""

    name: Literal["off"] = "off"


@dataclass(frozen=True)
class ACT:
    """Adaptive Computation Time in place of DT-RAM's stop, on a given trunk."""

    name: Literal["act"] = "act"
    ponder_cost: float = 0.01
    """cost of a glimpse, in nats"""
    epochs: int = 20
    """passes over the training split"""
    batch_size: int = 1000
    """images in a batch"""

    def __post_init__(self) -> None:
        cost = self.ponder_cost
        check("stop ponder_cost", cost, 0 <= cost < math.inf, "0 or more")
        _check_stage(self)


Stop = StopAfter | StopJoint | StopOff | ACT
