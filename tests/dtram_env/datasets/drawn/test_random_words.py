"""Random numbers: every key gives others, and draws are uniform."""

import numpy as np

from dtram_env.datasets.drawn.random_words import PURPOSES, Draws, RandomWords


def test_every_key_gives_other_words() -> None:
    streams = [
        RandomWords(seed, number).words(purpose, row, 4).tobytes()
        for seed in (0, 1)
        for number in range(4)
        for purpose in PURPOSES
        for row in (0, 1, 2**40)
    ]
    assert len(set(streams)) == 2 * 4 * len(PURPOSES) * 3


def test_draws_are_uniform() -> None:
    """Mean and variance of 20,000 numbers, to four standard errors; each column is another."""
    n = 20_000
    draws = Draws(RandomWords(0, 0).table("figures", n, 4))
    first, second = draws.unit(), draws.between(-3, 5)
    assert first.min() >= 0 and first.max() < 1
    assert second.min() >= -3 and second.max() < 5
    assert abs(first.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    assert abs(second.mean() - 1) < 4 * (64 / 12 / n) ** 0.5
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / n**0.5
    counts = np.bincount(draws.below(5), minlength=5)
    assert len(counts) == 5 and np.abs(counts - n / 5).max() < 4 * (n * 0.16) ** 0.5


def test_levels_are_bytes() -> None:
    levels = RandomWords(0, 0).levels("mottle", 3, 1001)
    assert levels.dtype == np.float32 and levels.shape == (1001,)
    assert levels.min() >= 0 and levels.max() <= 255 and np.array_equal(levels, np.rint(levels))
