"""The rules of an episode: when it ends, what it pays, which image comes next.

This is the only place of the rules: the scalar environment, the vector environment on either
backend and the agents' unroll all call `ends` and `grade`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .backends import Backend
    from .settings import EnvSettings
    from .trackers import Tracker

FIRST_GLIMPSES = ("center", "random", "thumbnail", "choose")
FIRST_CROPS = ("center", "random")  # those whose first glimpse is a crop
ORDERS = ("random", "sequential")
_BLOCK = 64  # steps' worth of random numbers drawn (and sent to the device) at a time


def ends(t: Any, stop: Any, max_glimpses: int) -> Any:
    """Whether an episode ends with the action given after glimpse `t`; numbers or arrays.

    It ends if `stop` is 1, or at the budget whatever `stop` is. It cannot end at 0, before its
    first glimpse (``first_glimpse="choose"``).
    """
    return ((stop == 1) | (t >= max_glimpses)) & (t >= 1)


def grade(t: Any, prediction: Any, label: Any, discount: float) -> Any:
    """The reward after `t` glimpses: ``discount**t`` for the right class, else 0.

    Works on numbers and arrays. The talk defines it on the slide "Discounted Reward".
    """
    return discount**t * (prediction == label)


def shard_bounds(num_images: int, i: int, n: int) -> tuple[int, int]:
    """Start and size of the block of images that slot `i` of `n` shows in sequential order."""
    per_slot, extra = divmod(num_images, n)
    # The last `extra` slots own one image more.
    return i * per_slot + max(0, i - (n - extra)), (num_images + i) // n


class Episodes:
    """The state of n episodes that run side by side, each at its own pace.

    A slot whose episode has ended keeps its state until it is started again, so its last
    observation repeats. Arrays are replaced, never changed in place, so results that were returned
    stay as they were. The trackers are notified of every start and every crop.

    The state: `index` of the image, its `label` and the number `t` of glimpses taken, ``(n,)``
    int64; `location` of the last glimpse, ``(n, 2)`` float32; `ended` ``(n,)`` bool.
    """

    def __init__(
        self, b: Backend, num_envs: int, settings: EnvSettings, trackers: Sequence[Tracker]
    ) -> None:
        self._b, self._settings, self._trackers = b, settings, trackers
        self._first_t = b.full(num_envs, int(settings.first_glimpse != "choose"), b.xp.int64)
        self._centre = b.full((num_envs, 2), 0, b.xp.float32)
        # The reward of a right answer after 0, 1, 2, … glimpses. Powers of arrays would differ from
        # those of numbers, the scalar environment's, in the last bit.
        paid = [grade(t, 0, 0, settings.discount) for t in range(settings.max_glimpses + 1)]
        self._paid = b.cast(b.array(np.array(paid)), b.reward_dtype)
        self.index = self.label = b.full(num_envs, 0, b.xp.int64)
        self.t, self.location = self._first_t, self._centre
        self.ended = b.full(num_envs, False, b.boolean)

    def start(self, mask: Any, index: Any, location: Any | None) -> None:
        """Starts episodes of the images `index` ``(n,)`` in the slots of `mask` ``(n,)`` bool.

        Their first crops are taken at `location` ``(n, 2)``, or at the centre if it is None.
        """
        select, first = self._b.select, self._centre if location is None else location
        self.index = select(mask, index, self.index)
        self.t = select(mask, self._first_t, self.t)
        self.location = select(mask, first, self.location)
        self.ended = self.ended & ~mask
        self.label = self._b.labels[self.index]
        for tracker in self._trackers:
            tracker.start(mask)
            if self._settings.first_glimpse in FIRST_CROPS:
                tracker.update(mask, self.location)

    def advance(self, location: Any, stop: Any, prediction: Any, active: Any) -> tuple[Any, Any]:
        """Ends the episode or takes the next glimpse in the slots of `active` ``(n,)`` bool.

        Returns rewards ``(n,)``, and the episodes that ended in this step ``(n,)`` bool.
        """
        ended = ends(self.t, stop, self._settings.max_glimpses) & active
        moving = active & ~ended
        right = ended & (prediction == self.label)
        reward = self._b.select(right, self._paid[self.t], 0)
        self.t = self.t + moving
        self.location = self._b.select(moving, location, self.location)
        self.ended = self.ended | ended
        for tracker in self._trackers:
            tracker.update(moving, self.location)
        return reward, ended


class _RandomRows:
    """Random numbers for all slots, one row a call, drawn on the host in blocks of rows.

    A call uses up a whole row, even if some slots do not need theirs. So every backend sees the
    same numbers, and a device never has to report which slots need one.
    """

    def __init__(self, b: Backend, num_envs: int) -> None:
        self._b, self._num_envs = b, num_envs
        self._generator: np.random.Generator | None = None
        self._block: Any = None
        self._used = _BLOCK

    def _draw(self, generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def next_row(self, generator: np.random.Generator) -> Any:
        """The next number of every slot, ``(n, ...)``."""
        # A new generator (a new seed) must not be preceded by numbers of the old one.
        if self._used == _BLOCK or generator is not self._generator:
            self._block = self._b.array(self._draw(generator))
            self._generator, self._used = generator, 0
        self._used += 1
        return self._block[self._used - 1]


class RandomLocations(_RandomRows):
    """First locations ``(n, 2)`` float32, drawn uniformly in [-1, 1)."""

    def _draw(self, generator: np.random.Generator) -> np.ndarray:
        return generator.random((_BLOCK, self._num_envs, 2), dtype=np.float32) * 2 - 1


class RandomImages(_RandomRows):
    """Images drawn uniformly from `num_images`, with replacement."""

    repeat = None  # no image counts as a repeat

    def __init__(self, b: Backend, num_images: int, num_envs: int) -> None:
        super().__init__(b, num_envs)
        self._num_images = num_images

    def _draw(self, generator: np.random.Generator) -> np.ndarray:
        return generator.integers(self._num_images, size=(_BLOCK, self._num_envs), dtype=np.int64)

    def restart(self) -> None:
        """Does nothing: there is no pass to start over."""

    def next(self, generator: np.random.Generator, mask: Any, fixed: Any | None) -> Any:
        """The next image of every slot, or `fixed`, ``(n,)`` int64; either uses up a row."""
        drawn = self.next_row(generator)
        return drawn if fixed is None else fixed


class SequentialImages:
    """Images in order: slot i of n shows its block (`shard_bounds`), again and again."""

    def __init__(self, b: Backend, num_images: int, shards: Sequence[tuple[int, int]]) -> None:
        bounds = np.array([shard_bounds(num_images, i, n) for i, n in shards], dtype=np.int64)
        self._b = b
        # A slot with an empty block still has to show an image: the next one, as a repeat.
        self._start = b.array(np.minimum(bounds[:, 0], num_images - 1))
        self._size = b.array(bounds[:, 1].copy())
        self._cycle = b.array(np.maximum(bounds[:, 1], 1))
        self._position = self._zero = b.full(len(bounds), 0, b.xp.int64)
        # ``(n,)`` bool, whether a slot's current image must not be counted: it was shown before in
        # this pass, or was fixed by the user.
        self.repeat: Any = b.full(len(bounds), False, b.boolean)

    def restart(self) -> None:
        """Goes back to the first image of every block."""
        self._position = self._zero

    def next(self, generator: np.random.Generator, mask: Any, fixed: Any | None) -> Any:
        """The next image ``(n,)`` int64 of every slot; those in `mask` ``(n,)`` bool move on.

        Images in `fixed` are shown instead, as repeats, and the slots keep their place.
        """
        if fixed is not None:
            index, repeat = fixed, self._size == self._size
        else:
            index = self._start + self._position % self._cycle
            repeat = self._position >= self._size
            self._position = self._position + mask
        self.repeat = self._b.xp.where(mask, repeat, self.repeat)
        return index
