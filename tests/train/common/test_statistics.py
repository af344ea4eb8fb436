"""Outcomes and intervals in closed form."""

import numpy as np
import pytest
import torch

from agents.stopping import FixedStop
from agents.unroll import Scores
from train.common.statistics import (
    interquartile_mean,
    mean_interval,
    mixture_at,
    outcome,
    paired_bootstrap,
    stratified_bootstrap,
)


def random_scores(images: int = 500) -> Scores:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, images, 4, generator=generator)
    nothing = torch.zeros(3, images)
    labels = torch.zeros(images, dtype=torch.int64)
    return Scores(labels, logits, nothing, torch.zeros(3, images, 2))


def test_error_between_two_rules_is_their_mixture() -> None:
    """A quarter of the way from 1 glimpse to 2, and beyond the ends."""
    scores = random_scores()
    rules = [FixedStop(3), FixedStop(1), FixedStop(2)]  # in any order
    one, two, three = (1.0 - outcome(scores, FixedStop(t)).right for t in (1, 2, 3))
    found = mixture_at(scores, rules, 1.25)
    assert np.allclose(found.error, 0.75 * one + 0.25 * two)
    assert found.mean_glimpses == 1.25
    assert np.array_equal(mixture_at(scores, rules, 2.0).error, two)
    assert np.array_equal(mixture_at(scores, rules, 0.5).error, one)
    beyond = mixture_at(scores, rules, 3.5)
    assert np.array_equal(beyond.error, three)
    assert beyond.mean_glimpses == 3.0  # what it is, not what was asked for


def test_bootstrap_of_a_constant_and_of_a_coin() -> None:
    assert paired_bootstrap(np.full((3, 50), 0.25)) == (0.25, 0.25, 0.25)
    coin = np.tile(np.arange(10_000) % 2, (3, 1)).astype(float)
    mean, low, high = paired_bootstrap(coin)
    # The same images for every seed: seeds that agree add nothing to what one of them says.
    assert mean == 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / 100, rel=0.1)
    # Two seeds without noise, at 0 and 1: means of two draws are 0, 1/2 or 1.
    _, low, high = paired_bootstrap(np.array([[0.0] * 20, [1.0] * 20]))
    assert (low, high) == (0.0, 1.0)


def test_students_interval() -> None:
    t_975_2 = 4.302652729911275  # Student's t, 97.5 %, 2 degrees of freedom
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(t_975_2 * 1.0 / 3**0.5, rel=1e-9)
    assert mean_interval([1.0, 2.0, 3.0], level=0.9)[1] == pytest.approx(
        2.919985580353726 / 3**0.5, rel=1e-9
    )
    assert mean_interval([4.0, 4.0]) == (4.0, 0.0)
    assert mean_interval([7.0]) == (7.0, None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4.5),  # of 3, 4, 5, 6
        ([1, 2, 3, 1000], 2.5),
        ([1, 2, 6], 3.0),  # a quarter of three is less than one: none is left out
        ([[0, 0, 10, 20], [30, 40, 90, 90]], 25.0),  # all values are one sample
        ([5], 5.0),
    ],
)
def test_interquartile_mean(values: list, expected: float) -> None:
    assert interquartile_mean(np.array(values, dtype=float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("strata", "level", "expected"),
    [
        # Draws of (0, 1) have the means 0, 1/2, 1 with 1/4, 1/2, 1/4.
        ([[0.0, 1.0]], 0.95, (0.0, 1.0)),
        ([[0.0, 1.0]], 0.4, (0.5, 0.5)),
        # Seeds are drawn within their task: two tasks that never vary leave nothing to chance.
        ([[1.0] * 3, [5.0] * 3], 0.95, (3.0, 3.0)),
        # 0 or 1 twice beside 10 and 10: the middle two of four are (0, 10) or (1, 10).
        ([[0.0, 1.0], [10.0, 10.0]], 0.95, (5.0, 5.5)),
        # One seed gives the point.
        ([[0.7]], 0.95, (0.7, 0.7)),
        ([[0.2], [0.8]], 0.95, (0.5, 0.5)),
    ],
)
def test_the_stratified_bootstrap_by_enumeration(strata, level, expected) -> None:
    found = stratified_bootstrap([np.array(values) for values in strata], level)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_contains_the_interquartile_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = [rng.normal(size=n) for n in (3, 5, 8)]
    low, high = stratified_bootstrap(strata)
    assert low < interquartile_mean(np.concatenate(strata)) < high
    assert stratified_bootstrap(strata) == (low, high)
    narrow = stratified_bootstrap(strata, level=0.5)
    assert low < narrow[0] < narrow[1] < high
