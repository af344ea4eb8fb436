"""How validation judges weights, and which stop threshold it chooses; by hand."""

import pytest
import torch

from agents.unroll import Scores
from train.dtram.validation import (
    OVER,
    behaviour,
    collapses,
    select_by_error,
    select_threshold,
)


def scores_of(p: list[list[float]], right: list[list[int]]) -> Scores:
    """Three images with given stop probabilities ``(T, 3)``; `right` says which answers are."""
    correct = torch.tensor(right)
    logits = torch.stack([1.0 - correct, correct], dim=-1).double()  # class 1 is right
    labels = torch.ones(correct.shape[1], dtype=torch.int64)
    return Scores(labels, logits, torch.logit(torch.tensor(p)), torch.zeros(*correct.shape, 2))


P = [[0.9, 0.6, 0.2], [0.9, 0.8, 0.7], [0.5, 0.5, 0.5]]
RIGHT = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
EVEN, LATE = [[0.5] * 3] * 3, [[1, 1, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("p", "right", "bound", "discount", "glimpses", "accuracy", "threshold"),
    [
        # Stopping at 1, 2 and 3 is free of error: 0.6 <= threshold < 0.8 for image 2, >= 0.7 for 3.
        (P, RIGHT, 2.0, 0.9, 2.0, 1.0, (0.7, 0.8)),
        # So is stopping later, and the bound allows it.
        (P, RIGHT, 3.0, 0.9, 3.0, 1.0, (0.9, 1.0)),
        # 0.6 <= threshold < 0.7 stops at 1, 2, 2 and gets one wrong: a tight bound costs accuracy.
        (P, RIGHT, 1.7, 0.9, 5 / 3, 2 / 3, (0.6, 0.7)),
        # By the return: (1, 2, 3) pays 0.9, 0.81 and 0.729; at (1, 2, 2) the last one is wrong.
        (P, RIGHT, None, 0.9, 2.0, 1.0, (0.7, 0.8)),
        # A return may prefer an error: all stop at 1, two right, or all at 3, all right.
        (EVEN, LATE, None, 0.5, 1.0, 2 / 3, (0.0, 0.5)),
        (EVEN, LATE, 3.0, 0.5, 3.0, 1.0, (0.5, 1.0)),
    ],
)
def test_the_threshold_by_hand(p, right, bound, discount, glimpses, accuracy, threshold) -> None:
    scores = scores_of(p, right)
    found = select_threshold(scores, discount, bound)
    assert found.metrics["eval/mean_glimpses"] == pytest.approx(glimpses)
    assert found.metrics["eval/accuracy"] == pytest.approx(accuracy)
    assert threshold[0] - 1e-5 <= found.threshold <= threshold[1]
    assert found.metrics["eval/bound_kept"] == 1.0
    # An answer's logits are 1 for the class it is sure of and 0 for the other.
    loss = -torch.log_softmax(torch.tensor([1.0, 0.0]), 0)
    by_hand = accuracy * loss[0].item() + (1 - accuracy) * loss[1].item()
    # Without a bound these stop at 1, 2 and 3 with no error, or at 1 with two right.
    earned = (0.9 + 0.81 + 0.729) / 3 if discount == 0.9 else 1 / 3
    if bound is None:
        assert found.metrics["eval/mean_return"] == pytest.approx(earned)
    first = by_hand if bound is not None else -earned
    assert found.criterion == (pytest.approx(first), pytest.approx(glimpses))


def test_a_given_threshold_is_kept() -> None:
    """Beyond 0.75 the three images stop after 1, 2 and 3 glimpses, whatever the bound."""
    for bound in (None, 3.0, 1.5):
        found = select_threshold(scores_of(P, RIGHT), 0.9, bound, fixed=0.75)
        assert found.threshold == 0.75
        assert found.metrics["eval/mean_glimpses"] == pytest.approx(2.0)
        assert found.metrics["eval/bound_kept"] == float(bound != 1.5)


@pytest.mark.parametrize("p", [1e-6, 0.999])
def test_probabilities_that_are_all_tiny_or_all_near_1(p: float) -> None:
    every = [[p, 1.1 * p if p < 0.5 else p - 1e-4, p]] * 2 + [[0.5] * 3]
    found = select_threshold(scores_of(every, [[0, 0, 0], [1, 1, 1], [1, 1, 1]]), 0.9, 2.0)
    assert found.metrics["eval/bound_kept"] == 1.0
    assert found.metrics["eval/mean_glimpses"] <= 2.0
    late = select_threshold(scores_of(every, [[0, 0, 0], [0, 0, 0], [1, 1, 1]]), 0.9, 3.0)
    assert late.metrics["eval/mean_glimpses"] == 3.0 and late.metrics["eval/accuracy"] == 1.0


def test_a_bound_that_cannot_be_kept_is_said() -> None:
    found = select_threshold(scores_of([[0.0] * 3, [0.0] * 3, [0.5] * 3], RIGHT), 0.9, 1.5)
    assert found.metrics["eval/bound_kept"] == 0.0
    assert found.criterion[0] >= OVER  # worse than any within the bound


def test_a_trunk_is_judged_by_every_glimpse_but_the_first() -> None:
    """Errors after 1, 2 and 3 glimpses are 2/3, 1/3 and 0; the threshold is never."""
    found = select_by_error(scores_of(P, RIGHT), 0.9)
    assert found.criterion == (pytest.approx(1 / 6), 0.0) and found.threshold == 1.0
    errors = [found.metrics[f"eval/error_at_{t}"] for t in (1, 2, 3)]
    assert errors == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert found.metrics["eval/mean_glimpses"] == 3.0
    assert found.metrics["eval/mean_return"] == pytest.approx(0.9**3)
    taught_once = select_by_error(scores_of(P, RIGHT[::-1]), 0.9, last_only=True)
    assert taught_once.criterion == (pytest.approx(2 / 3),) * 2


# -- what the policies do ----------


def seen(p: list[list[float]], locations: list[list[list[float]]]) -> Scores:
    """Two images with stop probabilities ``(T, 2)`` and locations ``(T, 2, 2)``."""
    logit = torch.logit(torch.tensor(p).double())
    logits = torch.zeros(*logit.shape, 3)
    return Scores(torch.zeros(2, dtype=torch.int64), logits, logit, torch.tensor(locations))


CENTRE, APART = [[0.0, 0.0], [0.0, 0.0]], [[0.2, 0.5], [0.6, 0.5]]


def test_behaviour_by_hand() -> None:
    scores = seen([[0.1, 0.3], [0.2, 0.6], [0.9, 0.9]], [CENTRE, APART, CENTRE])
    found = behaviour(scores, stops=True, farthest=0.6)
    assert found["eval/stop_probability"] == pytest.approx(0.3)  # not of the last glimpse
    # Of four deviations, one is not 0: 0.2 and 0.6 are 0.2 from their mean.
    assert found["eval/location_std"] == pytest.approx(0.2 / 4)
    assert found["eval/locations_in_corner"] == 0.0
    assert set(behaviour(scores, stops=True, farthest=None)) == {"eval/stop_probability"}
    assert behaviour(scores.limit(1), stops=True, farthest=1.0) == {}
    # Of the later locations one of four has |x| and |y| beyond 0.9 times the farthest, 0.55.
    assert behaviour(scores, stops=False, farthest=0.55)["eval/locations_in_corner"] == 0.25


CORNER = [[-0.95, 0.99], [-1.0, 0.91]]
EDGE = [[-0.95, 0.3], [0.1, 0.99]]
SAME = "it looks at the same places in every image"


@pytest.mark.parametrize(
    ("p", "later", "farthest", "expected"),
    [
        (1e-6, APART, 1.0, ["it never stops"]),
        (1 - 1e-6, APART, 1.0, ["it stops at once"]),
        (1e-6, CORNER, 1.0, ["it never stops", "it looks into a corner"]),
        (0.999, CENTRE, 1.0, ["it stops at once", SAME]),
        (0.5, EDGE, 1.0, []),
        (0.5, [[6 / 7, -6 / 7]] * 2, 6 / 7, ["it looks into a corner"]),  # of 7x7 cells
        (0.5, [[4 / 7, -6 / 7], [0, 0]], 6 / 7, []),
        (0.5, CENTRE, None, []),
    ],
)
def test_collapses(
    p: float, later: list[list[float]], farthest: float | None, expected: list[str]
) -> None:
    scores = seen([[p, p]] * 3, [CENTRE, later, later])
    assert collapses(scores, stops=True, farthest=farthest) == expected
    assert collapses(scores, stops=False, farthest=None) == []
    assert collapses(scores.limit(1), stops=True, farthest=1.0) == []


def test_a_threshold_within_a_bound_does_not_hide_that_it_never_stops() -> None:
    torch.manual_seed(0)
    p = (1e-6 * (1 + torch.rand(7, 2))).tolist()
    scores = seen(p, [CENTRE, *[APART] * 6])
    found = select_threshold(scores, 0.98, 3.5)
    assert found.metrics["eval/bound_kept"] == 1 and found.metrics["eval/mean_glimpses"] <= 3.5
    assert collapses(scores, stops=True, farthest=1.0) == ["it never stops"]


@pytest.mark.parametrize(("wrong", "glimpses"), [(0, 2.0), (1, 2.0), (60, 1.0)])
def test_more_glimpses_are_taken_unless_they_are_clearly_worse(wrong: int, glimpses: float) -> None:
    """Of 200 images all are right after glimpse 1, and `wrong` no longer after glimpse 2: their
    cross-entropy rises by 1, which is 0.005 in the mean with a standard error of 0.005, or 0.3."""
    p, right = [[0.4] * 200, [0.5] * 200], [[1] * 200, [0] * wrong + [1] * (200 - wrong)]
    found = select_threshold(scores_of(p, right), 0.9, 2.0)
    assert found.metrics["eval/mean_glimpses"] == glimpses
    lowest = -torch.log_softmax(torch.tensor([1.0, 0.0]), 0)[0].item()
    assert found.criterion == (pytest.approx(lowest), glimpses)
