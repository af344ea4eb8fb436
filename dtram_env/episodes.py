"""The rules of an episode: when it ends, what it pays, which image comes next.

Nothing else in the project states a rule: the scalar and the vector environment, on numpy and on
tensors, and the agents' unroll all call `ends` and `grade`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .backends import Backend

FIRST_GLIMPSES = ("center", "random", "thumbnail", "choose")
ORDERS = ("random", "sequential")
_BLOCK = 64  # rows of random numbers drawn (and sent to the device) at a time


def ends(t: Any, stop: Any, max_glimpses: int) -> Any:
    """Whether an episode ends with the action given after glimpse `t`.

    Args:
        t: glimpses taken; a number, an array or a tensor. At 0 (``first_glimpse="choose"``) there
            is nothing to stop yet.
        stop: 1 to stop, 0 to keep looking; of the shape of `t`.
        max_glimpses: the budget, at which the episode ends whatever `stop` says.

    Returns:
        Booleans of the shape of `t`.
    """
    return ((stop == 1) | (t >= max_glimpses)) & (t >= 1)


def grade(t: Any, prediction: Any, label: Any, discount: float) -> Any:
    """What an episode pays at its end: ``discount**t`` for the right class, else 0.

    Args:
        t: glimpses taken; a number, an array or a tensor.
        prediction: the class answered; of the shape of `t`.
        label: the true class; of the shape of `t`.
        discount: in (0, 1].

    Returns:
        Rewards in [0, 1] of the shape of `t` (the talk's slide "Discounted Reward").
    """
    return discount**t * (prediction == label)


def shard_bounds(num_images: int, i: int, n: int) -> tuple[int, int]:
    """The contiguous block of images that slot `i` of `n` owns in sequential order.

    Returns:
        ``(start, size)``; sizes are ``(num_images + i) // n`` and sum to `num_images`.
    """
    per_slot, extra = divmod(num_images, n)
    # The last `extra` slots own one image more.
    return i * per_slot + max(0, i - (n - extra)), (num_images + i) // n


class Tracker(Protocol):
    """Remembers something of the glimpses of each slot's episode."""

    def start(self, mask: Any | None) -> None:
        """Forgets the slots in `mask` ``(n,)`` bool, or all of them (None)."""
        ...

    def look(self, mask: Any | None, location: Any) -> None:
        """Notes the crops taken at `location` ``(n, 2)`` in the slots of `mask` (None: all)."""
        ...


class Episodes:
    """The state of `n` episodes that run side by side, each at its own pace.

    The state is what an observation is made from: image, location, count. A slot whose episode
    ended keeps it until it is started again, so its terminal observation repeats.

    No array is changed in place: what was handed out stays as it was.

    Args:
        backend: array operations, and where labels live.
        labels: ``(N,)`` int64 on the backend.
        num_envs: n.
        max_glimpses: the budget.
        discount: of the reward.
        first_glimpse: one of `FIRST_GLIMPSES`.
        trackers: told of starts and crops.

    Attributes:
        index: ``(n,)`` int64, the image.
        label: ``(n,)`` int64.
        t: ``(n,)`` int64, glimpses taken.
        location: ``(n, 2)`` float32, where the last one was.
        ended: ``(n,)`` bool.
    """

    def __init__(
        self,
        backend: Backend,
        labels: Any,
        num_envs: int,
        max_glimpses: int,
        discount: float,
        first_glimpse: str,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.backend = backend
        self.labels = labels
        self.max_glimpses = max_glimpses
        self.discount = discount
        self.first_is_crop = first_glimpse in ("center", "random")
        self.trackers = trackers
        xp = backend.xp
        self._first_t = backend.full(num_envs, int(first_glimpse != "choose"), xp.int64)
        self._centre = backend.full((num_envs, 2), 0, xp.float32)
        self._no_reward = backend.full(num_envs, 0, backend.reward_dtype)
        self._nobody = backend.full(num_envs, False, backend.boolean)
        self.index = self.label = backend.full(num_envs, 0, xp.int64)
        self.t, self.location, self.ended = self._first_t, self._centre, self._nobody

    def start(self, mask: Any | None, index: Any, location: Any | None) -> None:
        """Starts new episodes.

        Args:
            mask: ``(n,)`` bool, the slots that start; None for all.
            index: ``(n,)`` int64, their images; what stands in other slots is not read.
            location: ``(n, 2)`` float32, where they look first; None for the centre.
        """
        first = self._centre if location is None else location
        where = self.backend.xp.where
        if mask is None:
            self.index, self.t, self.location = index, self._first_t, first
            self.ended = self._nobody
        else:
            self.index = where(mask, index, self.index)
            self.t = where(mask, self._first_t, self.t)
            self.location = where(mask[:, None], first, self.location)
            self.ended = self.ended & ~mask
        self.label = self.labels[self.index]
        for tracker in self.trackers:
            tracker.start(mask)
            if self.first_is_crop:
                tracker.look(mask, self.location)

    def advance(
        self, location: Any, stop: Any, prediction: Any, active: Any | None = None
    ) -> tuple[Any, Any]:
        """Acts in every slot that is active.

        Args:
            location: ``(n, 2)`` float32 in [-1, 1].
            stop: ``(n,)``, 0 or 1.
            prediction: ``(n,)`` int64.
            active: ``(n,)`` bool, the slots whose action counts; None for all.

        Returns:
            Rewards ``(n,)`` and which episodes ended just now ``(n,)`` bool.
        """
        where = self.backend.xp.where
        over = ends(self.t, stop, self.max_glimpses)
        if active is None:
            moving = ~over
        else:
            over = over & active
            moving = active & ~over
        paid = grade(self.t, prediction, self.label, self.discount)
        reward = where(over, paid, self._no_reward)
        self.t = self.t + moving
        self.location = where(moving[:, None], location, self.location)
        self.ended = self.ended | over
        for tracker in self.trackers:
            tracker.look(moving, self.location)
        return reward, over


class RandomImages:
    """Images drawn uniformly, with replacement, and first locations where these are random.

    Numbers are drawn on the host in blocks of rows, and a row is used up whether or not a slot
    needs it: so every backend visits the same images and a device never has to be asked.

    Args:
        backend: where the rows go.
        num_images: N.
        num_envs: numbers in a row.
    """

    def __init__(self, backend: Backend, num_images: int, num_envs: int) -> None:
        self._rows = _Rows(backend, partial(_draw_images, num_images, num_envs))
        self.repeat = None

    def restart(self) -> None:
        """Nothing: draws go on."""

    def next(self, generator: np.random.Generator, mask: Any | None, fixed: Any | None) -> Any:
        """The next image of every slot, ``(n,)`` int64.

        Args:
            generator: of the environment; a new one starts a new block.
            mask: not used.
            fixed: images ``(n,)`` to take instead, or None. The row is used up all the same.
        """
        drawn = self._rows.next(generator)
        return drawn if fixed is None else fixed


class SequentialImages:
    """Images in order: slot i of n goes through block i (`shard_bounds`), again and again.

    Args:
        backend: array operations.
        num_images: N.
        shards: ``(i, n)`` of every slot.

    Attributes:
        repeat: ``(num_envs,)`` bool, whether the image that a slot has now was handed out before in
            this pass (or came from outside it); None before the first.
    """

    def __init__(
        self, backend: Backend, num_images: int, shards: Sequence[tuple[int, int]]
    ) -> None:
        bounds = np.array([shard_bounds(num_images, i, n) for i, n in shards], dtype=np.int64)
        self._where = backend.xp.where
        # A slot with an empty block has to show something: the next image, as a repeat.
        self._start = backend.array(np.minimum(bounds[:, 0], num_images - 1))
        self._size = backend.array(bounds[:, 1].copy())
        self._cycle = backend.array(np.maximum(bounds[:, 1], 1))
        self._zero = backend.array(np.zeros(len(bounds), dtype=np.int64))
        self._position = self._zero
        self.repeat: Any = None

    def restart(self) -> None:
        """Back to the first image of every block."""
        self._position = self._zero

    def next(self, generator: np.random.Generator, mask: Any | None, fixed: Any | None) -> Any:
        """The next image of every slot, ``(n,)`` int64; only slots in `mask` (None: all) move on.

        Images in `fixed` are outside the pass: the slots keep their place and are marked `repeat`.
        """
        if fixed is not None:
            index = fixed
            repeat = self._size == self._size
        else:
            index = self._start + self._position % self._cycle
            repeat = self._position >= self._size
            self._position = self._position + (1 if mask is None else mask)
        if mask is None or self.repeat is None:
            self.repeat = repeat
        else:
            self.repeat = self._where(mask, repeat, self.repeat)
        return index


class RandomLocations:
    """First locations drawn uniformly in [-1, 1); rows as in `RandomImages`."""

    def __init__(self, backend: Backend, num_envs: int) -> None:
        self._rows = _Rows(backend, partial(_draw_locations, num_envs))

    def next(self, generator: np.random.Generator) -> Any:
        """``(n, 2)`` float32."""
        return self._rows.next(generator)


# Functions of the module, since an environment with a closure could not be pickled.
def _draw_images(num_images: int, num_envs: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(num_images, size=(_BLOCK, num_envs), dtype=np.int64)


def _draw_locations(num_envs: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((_BLOCK, num_envs, 2), dtype=np.float32) * 2 - 1


class _Rows:
    """Rows of random numbers, drawn a block at a time."""

    def __init__(self, backend: Backend, draw: Callable[[np.random.Generator], np.ndarray]) -> None:
        self._backend, self._draw = backend, draw
        self._generator: np.random.Generator | None = None
        self._block: Any = None
        self._used = _BLOCK

    def next(self, generator: np.random.Generator) -> Any:
        # A generator that was replaced (a new seed) must not be followed by the old one's numbers.
        if self._used == _BLOCK or generator is not self._generator:
            self._block = self._backend.array(self._draw(generator))
            self._generator, self._used = generator, 0
        self._used += 1
        return self._block[self._used - 1]
