"""Stopping rules by hand."""

import pytest
import torch

from agents.halting.act import ACTStop
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop, glimpses_taken

TIME = torch.tensor([[1], [2], [3]])


def test_learned_stop_reads_the_stopper() -> None:
    logit = torch.logit(torch.tensor([[0.2, 0.6], [0.51, 0.49], [0.9, 0.1]]))
    stops = LearnedStop(0.5).stops(TIME, torch.zeros(3, 2, 4), logit)
    assert stops.tolist() == [[False, True], [True, False], [True, False]]
    assert glimpses_taken(stops).tolist() == [2, 1]


def test_a_threshold_near_1_separates_logits_whose_probabilities_round_to_1() -> None:
    logit = torch.tensor([[20.0, 22.0]])
    assert torch.equal(torch.sigmoid(logit), torch.ones(1, 2))
    between = torch.sigmoid(torch.tensor(21.0, dtype=torch.float64)).item()
    stops = LearnedStop(between).stops(TIME[:1], torch.zeros(1, 2, 4), logit)
    assert stops.tolist() == [[False, True]]


def test_threshold_1_never_stops_and_0_always_does() -> None:
    logit = torch.tensor([[-200.0, 200.0]])
    for threshold, expected in ((1.0, False), (0.0, True)):
        stops = LearnedStop(threshold).stops(TIME[:1], torch.zeros(1, 2, 4), logit)
        assert stops.tolist() == [[expected, expected]]


def test_fixed_stop_counts() -> None:
    stops = FixedStop(2).stops(TIME, torch.zeros(3, 2, 4), torch.zeros(3, 2))
    assert stops.tolist() == [[False, False], [True, True], [True, True]]
    assert glimpses_taken(stops).tolist() == [2, 2]


def test_confidence_stop_reads_the_largest_probability() -> None:
    # Two classes: softmax of (x, 0) is σ(x).
    x = torch.logit(torch.tensor([[0.7, 0.05], [0.92, 0.5], [0.5, 0.5]]))
    logits = torch.stack([x, torch.zeros_like(x)], dim=-1)
    stops = ConfidenceStop(0.9).stops(TIME, logits, torch.zeros(3, 2))
    assert stops.tolist() == [[False, True], [True, False], [False, False]]


def test_a_tie_with_the_threshold_goes_on() -> None:
    """Both rules stop when the threshold is exceeded: two equal classes have 1/2 each."""
    logits, logit = torch.zeros(1, 1, 2), torch.zeros(1, 1)
    below = 0.5 - 2.0**-20
    for rule in (ConfidenceStop, LearnedStop):
        assert not rule(0.5).stops(TIME[:1], logits, logit).item()
        assert rule(below).stops(TIME[:1], logits, logit).item()


def test_without_a_stop_the_budget_is_used() -> None:
    assert glimpses_taken(torch.zeros(4, 3, dtype=torch.bool)).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedStop(1.2), "LearnedStop.threshold=1.2"),
        (lambda: ACTStop(1.5), "threshold=1.5"),
        (lambda: ConfidenceStop(-0.1), "ConfidenceStop.threshold=-0.1"),
        (lambda: FixedStop(0), "FixedStop.glimpses=0"),
    ],
)
def test_impossible_rules_are_errors(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
