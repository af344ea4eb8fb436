"""Random numbers: a row's do not depend on how many rows there are; draws are uniform."""

import numpy as np

from dtram_env.datasets.drawn.random_words import PURPOSES, Draws, RandomWords


def test_rows_do_not_depend_on_their_number() -> None:
    source = RandomWords(seed=3, number=1)
    many = source.table("figures", 50, 12)
    assert many.shape == (50, 12) and many.dtype == np.uint64
    assert np.array_equal(many[:7], source.table("figures", 7, 12))


def test_own_words_do_not_depend_on_their_number() -> None:
    source = RandomWords(seed=3, number=1)
    assert np.array_equal(source.words("grain", 5, 100)[:9], source.words("grain", 5, 9))
    assert np.array_equal(source.levels("grain", 5, 100)[:9], source.levels("grain", 5, 9))


def test_every_key_gives_other_words() -> None:
    streams = [
        RandomWords(seed, number).words(purpose, row, 4).tobytes()
        for seed in (0, 1)
        for number in range(4)
        for purpose in PURPOSES
        for row in (0, 1, 2**40)
    ]
    assert len(set(streams)) == 2 * 4 * len(PURPOSES) * 3


def test_the_words_never_change() -> None:
    assert RandomWords(7, 2).words("figures", 1, 2).tolist() == [
        8524658001440059031,
        7779940424079774369,
    ]


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
