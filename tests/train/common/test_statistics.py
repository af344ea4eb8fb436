"""Outcomes and intervals in closed form."""

import numpy as np
import pytest
import torch

from agents.stopping import FixedStop
from agents.unroll import Scores
from train.common.statistics import (
    mixture_at,
    outcome,
    paired_bootstrap,
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


def test_bootstrap_of_seeds_that_differ() -> None:
    """Two seeds without noise, at 0 and 1: means of two draws are 0, 1/2 or 1."""
    _, low, high = paired_bootstrap(np.array([[0.0] * 20, [1.0] * 20]))
    assert (low, high) == (0.0, 1.0)
