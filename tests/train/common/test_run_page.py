"""What the page of a run shows: confusion, and numbers as they are."""

import numpy as np
import pytest

from train.common.run_page import confusion, flat, learning_curves, log_scale, new_plot


def test_a_confusion_matrix_counts_answers_by_class() -> None:
    labels, answers = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 1, 1, 2])
    found = confusion(labels, answers, 3)
    counts = [[count for count, _ in row] for row in found["matrix"]]
    assert counts == [[1, 2, 1], [0, 2, 0], [0, 0, 1]]
    shares = [[share for _, share in row] for row in found["matrix"]]
    assert shares[0] == pytest.approx([0.7 / 4, 0.7, 0.35]) and shares[1][1] == pytest.approx(0.7)
    assert found["pairs"] == [(0, 1, 2, 4), (0, 2, 1, 4)] and found["wrong"] == 3


def test_many_classes_are_a_list_of_the_most_frequent_confusions() -> None:
    labels = np.repeat(np.arange(200), 3)
    answers = labels.copy()
    answers[6:9], answers[30] = 7, 11
    found = confusion(labels, answers, 200)
    assert found == {"matrix": None, "wrong": 4, "pairs": [(2, 7, 3, 3), (10, 11, 1, 3)]}
    every = confusion(labels, (labels + 1) % 200, 200)
    assert len(every["pairs"]) == 30 and every["wrong"] == 600


def test_no_wrong_answer_has_no_pair() -> None:
    found = confusion(np.arange(3), np.arange(3), 3)
    assert found["pairs"] == [] and found["wrong"] == 0


def test_options_in_groups_have_their_names() -> None:
    options = {"stop": {"name": "after", "threshold": None}, "seed": 0, "env": ["a", "b"]}
    expected = {"stop.name": "after", "stop.threshold": "null", "seed": "0", "env": '["a", "b"]'}
    assert dict(flat(options)) == expected


def test_curves_without_values_are_left_out() -> None:
    """A one-look network always takes one glimpse; a run may have no epoch that is logged."""
    row = {"step": 1, "rollout/success_rate": 1.0, "eval/accuracy": 1.0, "rollout/ep_len_mean": 1.0}
    names = [str(svg).split('aria-label="')[1].split('"')[0] for svg in learning_curves([row])]
    assert names == ["error % by number of training images"]
    assert list(learning_curves([])) == []


@pytest.mark.parametrize(
    ("errors", "ticks"),
    [([0.0, 0.5, 4.0], [0, 0.5, 1, 2, 5]), ([0.5, 4.0], [0.5, 1, 2, 5]), ([0.0, 0.0], None)],
)
def test_every_error_has_its_place_in_a_plot(
    errors: list[float], ticks: list[float] | None
) -> None:
    """None has none on a logarithmic axis if it is 0."""
    _, axes = new_plot("glimpses", "error %")
    axes.plot(range(len(errors)), errors)
    log_scale(axes, errors)
    low, high = axes.get_ylim()
    assert all(low < error < high for error in errors)
    heights = axes.transData.transform([(0, error) for error in errors])[:, 1]
    assert np.isfinite(heights).all() and axes.bbox.y0 < heights.min()
    assert ticks is None or axes.get_yticks().tolist() == ticks
