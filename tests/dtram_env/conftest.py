"""Small data sets whose pixels and answers the tests know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtram_env.datasets import Dataset


def make_dataset(
    count: int = 23,
    shape: tuple[int, int, int] = (14, 10, 1),
    split: str = "train",
    classes: int = 5,
) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, *shape), dtype=np.uint8)  # 0 only outside the image
    labels = rng.integers(0, classes, count)
    return Dataset("Toy", split, images, labels, tuple(f"class {k}" for k in range(classes)))


@pytest.fixture
def toy() -> Dataset:
    """23 random images, 14 pixels high, 10 wide, grey, of 5 classes; no pixel is 0."""
    return make_dataset()


@pytest.fixture
def toy_factory() -> Callable[..., Dataset]:
    """`make_dataset`, for other sizes."""
    return make_dataset


@pytest.fixture
def planted() -> Dataset:
    """A test split of 50 images whose top left pixel is the label plus 1; all else is 0."""
    images = np.zeros((50, 12, 12, 1), dtype=np.uint8)
    labels = np.arange(50) % 4
    images[:, 0, 0, 0] = labels + 1
    return Dataset("Planted", "test", images, labels, ("a", "b", "c", "d"))
