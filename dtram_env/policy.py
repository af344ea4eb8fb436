"""The interface of a policy, and three policies that need no learning."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from .backends import to_host
from .checks import check_integer
from .views import grid_centres

State = TypeVar("State")


class Policy(Protocol[State]):
    """Acts on a batch of episodes, each at its own pace.

    `evaluate` calls ``state = reset(batch)``, then ``action, state = step(observation, state)``
    until all episodes have ended. All episodes of a batch begin together: with an autoreset, which
    starts new episodes in some slots, the caller has to give those slots a new state.

    A policy may also define ``check_env(env)``. `evaluate` calls it first, with the unwrapped
    vector environment, and it raises `ValueError` if the policy was made for another environment:
    other glimpses, other classes, another budget.
    """

    def reset(self, batch: int) -> State:
        """The state before the first glimpse of `batch` episodes."""

    def step(self, observation: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Acts on a batch of native observations.

        Args:
            observation: arrays or tensors of the environment's `observation_space`, batched.
            state: the last result of `reset` or `step`.

        Returns:
            A native action, and the next state. The action has ``location (B, 2)`` in [-1, 1],
            ``stop (B,)`` 0 or 1, and ``prediction (B,)`` in [0, num_classes), which must be absent
            in policy-only environments.
        """


@dataclass(eq=False)
class _FixedPolicy:
    """What the policies below share; their state counts the glimpses seen, ``(B,)`` int64."""

    num_classes: int | None
    _: KW_ONLY
    stop_after: int | None = None
    guess: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_classes", "stop_after"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        if self.guess is not None:
            if self.num_classes is None:
                raise ValueError(f"guess={self.guess}: expected None with num_classes=None")
            check_integer("guess", self.guess, 0, self.num_classes - 1)
        self._random = np.random.default_rng(self.seed)

    def check_env(self, env: Any) -> None:
        """Raises `ValueError` unless the environment expects the predictions of this policy."""
        own = f"{type(self).__name__}(num_classes={self.num_classes})"
        expected = None if env.classifier is not None else env.num_classes
        if (expected is None) != (self.num_classes is None):
            raise ValueError(f"{own}: the environment expects num_classes={expected}")
        if self.num_classes is not None and self.num_classes > env.num_classes:
            raise ValueError(f"{own}: {env.dataset} has {env.num_classes} classes")

    def reset(self, batch: int) -> np.ndarray:
        return np.zeros(batch, dtype=np.int64)

    def step(
        self, observation: dict[str, Any], state: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        # At time 0 (first_glimpse="choose") there is no glimpse to count.
        batch, taken = len(state), state + (to_host(observation["time"])[:, 0] > 0)
        action = {}
        if self.guess is not None:
            action["prediction"] = np.full(batch, self.guess, dtype=np.int64)
        elif self.num_classes is not None:
            action["prediction"] = self._random.integers(self.num_classes, size=batch)
        action |= {"location": self._locations(state), "stop": self._stops(taken)}
        return action, taken

    def _locations(self, state: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _stops(self, taken: np.ndarray) -> np.ndarray:
        return (taken >= (self.stop_after or np.inf)).astype(np.int64)


@dataclass(eq=False)
class RandomPolicy(_FixedPolicy):
    """Looks at uniformly random locations and stops at random.

    Args:
        num_classes, guess: as for `CenterPolicy`.
        stop_after: stop after exactly this many glimpses; None: with probability 1/2 after each.
        seed: seed of its choices; two policies with one seed choose alike.
    """

    def _locations(self, state: np.ndarray) -> np.ndarray:
        return self._random.uniform(-1, 1, (len(state), 2)).astype(np.float32)

    def _stops(self, taken: np.ndarray) -> np.ndarray:
        if self.stop_after is not None:
            return super()._stops(taken)
        return (self._random.random(len(taken)) < 0.5).astype(np.int64)


@dataclass(eq=False)
class CenterPolicy(_FixedPolicy):
    """Always looks at the centre.

    Args:
        num_classes: number of classes; None for policy-only environments.
        stop_after: number of glimpses after which it stops; None for the whole budget.
        guess: the class it always predicts; None for a random class each time.
        seed: seed of its random predictions.
    """

    def _locations(self, state: np.ndarray) -> np.ndarray:
        return np.zeros((len(state), 2), dtype=np.float32)


@dataclass(eq=False)
class ScanPolicy(_FixedPolicy):
    """Visits the cells of a grid row by row from the top left, then starts over.

    Args:
        num_classes, stop_after, guess, seed: as for `CenterPolicy`.
        grid: cells per side.
    """

    grid: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._centres = grid_centres(check_integer("grid", self.grid, 1))

    def _locations(self, state: np.ndarray) -> np.ndarray:
        return self._centres[state % len(self._centres)]
