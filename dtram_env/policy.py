"""What an agent is to the task: a policy over batches, and three that need no learning."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from .backends import to_host
from .views import grid_centres

State = TypeVar("State")


class Policy(Protocol[State]):
    """Decides for a batch of episodes, each at its own pace.

    `evaluate` calls ``state = reset(batch)``, then ``action, state = step(observation, state)``
    until all have ended. An agent that drops episodes as they end keeps the others by `select`.
    The episodes of a batch begin together: under an autoreset, where a slot goes on with a new
    episode, the caller has to give that slot a new state.

    A policy may also have ``check_env(env)``. `evaluate` then calls it first, with the unwrapped
    vector environment, and it raises `ValueError` if the policy was made for another environment:
    other glimpses, other classes, another budget.
    """

    def reset(self, batch: int) -> State:
        """The state before the first glimpse of `batch` episodes."""
        ...

    def step(self, observation: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Acts on a batch of native observations.

        Args:
            observation: arrays or tensors of the environment's `observation_space`, batched.
            state: what `reset`, `step` or `select` returned last.

        Returns:
            A native action: ``location (B, 2)`` in [-1, 1], ``stop (B,)`` 0 or 1,
            ``prediction (B,)`` in [0, num_classes), which policy-only environments do not take; and
            the next state.
        """
        ...

    def select(self, state: State, keep: Any) -> State:
        """The state of the episodes in `keep`: integers ``(K,)``, or bool ``(B,)``."""
        ...


class _CountingPolicy:
    """What the policies below share: counting their glimpses, stopping, guessing.

    Their state is how many glimpses they saw in each episode, ``(B,)`` int64.
    """

    def __init__(
        self,
        num_classes: int | None,
        *,
        stop_after: int | None = None,
        guess: int | None = None,
        seed: int = 0,
    ) -> None:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: expected at least 1, or None")
        if stop_after is not None and stop_after < 1:
            raise ValueError(f"stop_after={stop_after}: expected at least 1, or None")
        if guess is not None and num_classes is None:
            raise ValueError(f"guess={guess}: expected None with num_classes=None")
        if guess is not None and num_classes is not None and not 0 <= guess < num_classes:
            raise ValueError(f"guess={guess}: expected 0 to {num_classes - 1}, or None")
        self.num_classes, self.stop_after, self.guess = num_classes, stop_after, guess
        self._random = np.random.default_rng(seed)

    def check_env(self, env: Any) -> None:
        """Raises ValueError unless the environment asks for the classes that this answers."""
        if (self.num_classes is None) != (env.classifier is not None):
            asked = "no class" if env.classifier is not None else f"{env.num_classes} classes"
            right = None if env.classifier is not None else env.num_classes
            raise ValueError(
                f"{type(self).__name__}(num_classes={self.num_classes}): the environment asks for "
                f"{asked}; expected num_classes={right}"
            )
        if self.num_classes is not None and self.num_classes > env.num_classes:
            raise ValueError(
                f"{type(self).__name__}(num_classes={self.num_classes}): {env.dataset} has "
                f"{env.num_classes} classes; expected at most as many"
            )

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
        action |= {"location": self._where(state), "stop": self._stop(taken)}
        return action, taken

    def select(self, state: np.ndarray, keep: Any) -> np.ndarray:
        return state[np.asarray(keep)]

    def _where(self, state: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _stop(self, taken: np.ndarray) -> np.ndarray:
        if self.stop_after is None:
            return np.zeros(len(taken), dtype=np.int64)
        return (taken >= self.stop_after).astype(np.int64)


class RandomPolicy(_CountingPolicy):
    """Looks at uniformly random places and stops at random.

    Args:
        num_classes: number of classes; None for policy-only environments, which ask for none.
        stop_after: stop after exactly this many glimpses instead.
        guess: the class it always answers; None for a random one each time.
        seed: of its choices; two policies with one seed choose alike.
        stop_probability: of stopping after each glimpse, if `stop_after` is None.
    """

    def __init__(
        self,
        num_classes: int | None,
        *,
        stop_after: int | None = None,
        guess: int | None = None,
        seed: int = 0,
        stop_probability: float = 0.5,
    ) -> None:
        super().__init__(num_classes, stop_after=stop_after, guess=guess, seed=seed)
        if not 0 <= stop_probability <= 1:
            raise ValueError(f"stop_probability={stop_probability}: expected 0 to 1")
        self.stop_probability = stop_probability

    def _where(self, state: np.ndarray) -> np.ndarray:
        return self._random.uniform(-1, 1, (len(state), 2)).astype(np.float32)

    def _stop(self, taken: np.ndarray) -> np.ndarray:
        if self.stop_after is not None:
            return super()._stop(taken)
        return (self._random.random(len(taken)) < self.stop_probability).astype(np.int64)


class CenterPolicy(_CountingPolicy):
    """Looks at the centre only.

    Args:
        num_classes: number of classes; None for policy-only environments, which ask for none.
        stop_after: glimpses after which it stops; None for the whole budget.
        guess: the class it always answers; None for a random one each time.
        seed: of its guesses.
    """

    def _where(self, state: np.ndarray) -> np.ndarray:
        return np.zeros((len(state), 2), dtype=np.float32)


class ScanPolicy(_CountingPolicy):
    """Reads the image like a page: the cells of a grid, row by row from the top left, and again.

    Args:
        num_classes: number of classes; None for policy-only environments, which ask for none.
        stop_after: glimpses after which it stops; None for the whole budget.
        grid: cells a side.
        guess: the class it always answers; None for a random one each time.
        seed: of its guesses.
    """

    def __init__(
        self,
        num_classes: int | None,
        *,
        stop_after: int | None = None,
        grid: int = 4,
        guess: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(num_classes, stop_after=stop_after, guess=guess, seed=seed)
        if grid < 1:
            raise ValueError(f"grid={grid}: expected at least 1")
        self._centres = grid_centres(grid)

    def _where(self, state: np.ndarray) -> np.ndarray:
        return self._centres[state % len(self._centres)]
