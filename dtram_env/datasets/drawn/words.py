"""Random numbers of the drawn images: raw words of a counter-based generator.

Raw words never change between numpy releases, and where a word is looked up depends on nothing but
the seed, the plan, the official part, the purpose and the image's row: an image is the same however
many are drawn, and in whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Another order is another dataset; new purposes go to the end.
PURPOSES = ("labels", "facts", "ground", "leaves", "branches", "decoys", "mottle", "grain")


@dataclass(frozen=True)
class Source:
    """All random numbers of an official part of a plan's images.

    Attributes:
        seed: in [0, 2**63).
        number: which plan and part, a number of its own for each.
    """

    seed: int
    number: int

    def rows(self, purpose: str, count: int, width: int) -> np.ndarray:
        """The first `count` rows of a table `width` words wide, ``(count, width)`` uint64."""
        words = np.random.Philox(key=self._key(purpose)).random_raw(count * width)
        return words.reshape(count, width)

    def own(self, purpose: str, row: int, count: int) -> np.ndarray:
        """The first `count` words of the endless ones that belong to `row`, ``(count,)`` uint64."""
        return np.random.Philox(key=self._key(purpose), counter=row << 64).random_raw(count)

    def levels(self, purpose: str, row: int, count: int) -> np.ndarray:
        """The first `count` bytes of the same, ``(count,)`` float32, 0 to 255."""
        words = self.own(purpose, row, -(-count // 8))
        return words.astype("<u8", copy=False).view(np.uint8)[:count].astype(np.float32)

    def draws(self, purpose: str, row: int, count: int, width: int) -> Draws:
        """A row's own table of `count` rows, of `width` words each."""
        return Draws(self.own(purpose, row, count * width).reshape(count, width))

    def _key(self, purpose: str) -> np.ndarray:
        stream = self.number * 64 + PURPOSES.index(purpose)
        return np.array([self.seed, stream], dtype=np.uint64)


class Draws:
    """Words ``(N, W)`` handed out column by column, each as one random number for N rows."""

    def __init__(self, words: np.ndarray) -> None:
        self._words, self._next = words, 0

    def unit(self) -> np.ndarray:
        """Uniform in [0, 1), ``(N,)`` float64."""
        return (self._column() >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, low: float, high: float) -> np.ndarray:
        """Uniform in [low, high), ``(N,)`` float64."""
        return low + (high - low) * self.unit()

    def below(self, bound: int) -> np.ndarray:
        """Uniform whole numbers 0 to bound - 1, ``(N,)`` int64."""
        high = self._column() >> np.uint64(32)
        return (high * np.uint64(bound) >> np.uint64(32)).astype(np.int64)

    def _column(self) -> np.ndarray:
        self._next += 1
        return self._words[:, self._next - 1]
