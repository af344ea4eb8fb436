"""Random numbers of the drawn images: raw words of a counter-based generator.

Raw words never change between numpy releases. The position of a word depends only on the seed, the
plan, the official part, the purpose and the image's index, so an image does not depend on how many
images are drawn, or in which order.
"""

from dataclasses import dataclass

import numpy as np

# The position in this tuple is the stream: add new purposes at the end.
PURPOSES = (
    "labels", "figures", "ground", "leaves", "branches", "decoys", "mottle", "grain", "distractors",
)  # fmt: skip


@dataclass(frozen=True)
class RandomWords:
    """Random numbers of one official part of one plan; each plan and part has its own `number`."""

    seed: int
    number: int

    def table(self, purpose: str, count: int, width: int) -> np.ndarray:
        """The first `count` rows of a table of words, ``(count, width)`` uint64."""
        words = np.random.Philox(key=self._key(purpose)).random_raw(count * width)
        return words.reshape(count, width)

    def words(self, purpose: str, index: int, count: int) -> np.ndarray:
        """The first `count` words of the image `index`, ``(count,)`` uint64."""
        return np.random.Philox(key=self._key(purpose), counter=index << 64).random_raw(count)

    def levels(self, purpose: str, index: int, count: int) -> np.ndarray:
        """The first `count` bytes of the same words, ``(count,)`` float32, 0 to 255."""
        words = self.words(purpose, index, -(-count // 8))
        return words.astype("<u8", copy=False).view(np.uint8)[:count].astype(np.float32)

    def draws(self, purpose: str, index: int, count: int, width: int) -> "Draws":
        """The same words as a table of `count` rows, `width` words wide."""
        return Draws(self.words(purpose, index, count * width).reshape(count, width))

    def _key(self, purpose: str) -> np.ndarray:
        stream = self.number * 64 + PURPOSES.index(purpose)
        return np.array([self.seed, stream], dtype=np.uint64)


class Draws:
    """Random numbers from words ``(N, W)``; every call uses the next column, for N numbers."""

    def __init__(self, words: np.ndarray) -> None:
        self._words, self._next = words, 0

    def unit(self) -> np.ndarray:
        """Uniform in [0, 1), ``(N,)`` float64."""
        return (self._column() >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, low: float, high: float) -> np.ndarray:
        """Uniform in [low, high), ``(N,)`` float64."""
        return low + (high - low) * self.unit()

    def below(self, bound: int) -> np.ndarray:
        """Uniform integers in [0, bound), ``(N,)`` int64."""
        high = self._column() >> np.uint64(32)
        return (high * np.uint64(bound) >> np.uint64(32)).astype(np.int64)

    def _column(self) -> np.ndarray:
        self._next += 1
        return self._words[:, self._next - 1]
