"""The validation part: exact shares, a fixed draw, a partition."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dtram_env.datasets import stratified_split


def test_shares_by_largest_remainder() -> None:
    # 10 of 50 + 33 + 17: exact shares 5.0, 3.3, 1.7, so the one row left goes to the third class.
    labels = np.repeat([4, 0, 9], [33, 50, 17])
    train, validation = stratified_split(labels, 10)
    assert {c: int((labels[validation] == c).sum()) for c in (0, 4, 9)} == {0: 5, 4: 3, 9: 2}
    assert len(train) == 90


def test_equal_remainders_go_to_the_lower_class() -> None:
    _, validation = stratified_split(np.array([2, 2, 1, 1, 0, 0]), 2)
    assert np.array([2, 2, 1, 1, 0, 0])[validation].tolist() == [1, 0]


def test_all_and_nothing() -> None:
    labels = np.array([1, 0, 1])
    train, validation = stratified_split(labels, 0)
    assert (train.tolist(), validation.tolist()) == ([0, 1, 2], [])
    train, validation = stratified_split(labels, 3)
    assert (train.tolist(), validation.tolist()) == ([], [0, 1, 2])
    assert [len(part) for part in stratified_split(labels[:0], 0)] == [0, 0]


def test_the_draw_never_changes() -> None:
    """A changed digest means another validation set, which breaks every published number."""
    labels = np.arange(10_000) * 7919 % 10
    _, validation = stratified_split(labels, 1000)
    digest = hashlib.sha256(validation.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "c7732c336bbd42bc"


def test_the_draw_is_spread_over_the_rows() -> None:
    _, validation = stratified_split(np.zeros(100_000, dtype=np.int64), 10_000)
    counts = np.histogram(validation, bins=10, range=(0, 100_000))[0]
    assert np.abs(counts - 1000).max() < 130  # over four standard deviations (28.5 each)


@given(
    labels=st.lists(st.integers(-3, 4), max_size=60).map(lambda v: np.array(v, dtype=np.int64)),
    share=st.floats(0, 1),
)
def test_partition_with_proportional_classes(labels: np.ndarray, share: float) -> None:
    count = int(share * len(labels))
    train, validation = stratified_split(labels, count)
    assert len(validation) == count
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
    for c in np.unique(labels):
        exact = count * (labels == c).sum() / len(labels)
        assert abs((labels[validation] == c).sum() - exact) < 1
