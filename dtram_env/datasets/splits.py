"""Splits: the named parts of a dataset, and the fixed validation part of its training images."""

import numpy as np

SPLITS = ("train", "validation", "test", "train+validation")
PARTS = ("train", "test")  # the official parts, which the splits divide

# The draw is the same for every seed and algorithm. Another number gives another validation set.
_SPLIT_SEED = 20171112


def stratified_split(labels: np.ndarray, validation_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides images into training and validation with equal class shares, always the same way.

    Each class gives ``validation_count * count / N`` images, rounded by largest remainder; of equal
    remainders the lower class wins. The draw depends only on `labels` and `validation_count`.

    Returns indices of the training images and of the validation images, int64, each ascending.

    >>> train, validation = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 3)
    >>> len(train), [0, 0, 0, 0, 1, 1][validation[-1]]
    (3, 1)
    """
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Largest remainder: the classes with the largest rest give one image more.
    quota, rest = np.divmod(counts * validation_count, max(len(labels), 1))
    quota[np.argsort(-rest, kind="stable")[: validation_count - quota.sum()]] += 1
    # Raw bits of a bit generator never change between numpy releases; `permutation` may.
    keys = np.random.PCG64(_SPLIT_SEED).random_raw(len(labels))
    order = np.lexsort((keys, class_of))  # class by class, in drawn order within each
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = place < np.repeat(quota, counts)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
