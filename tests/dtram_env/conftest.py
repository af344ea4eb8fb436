"""Small data sets whose pixels and answers the tests know; what the environment tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

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


class Tally:
    """A classifier with known answers: every glimpse votes for one class.

    The vote is for the sum of the glimpse's pixels, plus 1 if it was taken right of the centre,
    modulo the number of classes; the belief is each class's share of the votes. Works on arrays and
    tensors, in exact arithmetic, so that every batch gives the same numbers.

    Args:
        classes: K.
    """

    name = "tally"

    def __init__(self, classes: int = 5) -> None:
        self.classes = classes

    def __repr__(self) -> str:
        return self.name

    def initial(self, batch: int) -> tuple[Any, ...]:
        return (np.zeros((batch, self.classes), np.int64),)

    def step(
        self, observation: dict[str, Any], state: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        glimpse, right = observation["glimpse"], observation["location"][:, 0] > 0
        (votes,) = state
        tensors = isinstance(glimpse, torch.Tensor)
        xp: Any = torch if tensors else np
        assert glimpse.dtype == xp.uint8 and glimpse.ndim == 4, "the native glimpse"
        assert isinstance(votes, torch.Tensor) == tensors
        vote = (glimpse.reshape(len(glimpse), -1).sum(-1, dtype=xp.int64) + right) % self.classes
        one = {"device": glimpse.device} if tensors else {}
        votes = votes + (vote[:, None] == xp.arange(self.classes, **one))
        shares = [votes, votes.sum(-1)[:, None]]
        top, bottom = (x.float() if tensors else x.astype(np.float32) for x in shares)
        return top / bottom, (votes,)


TALLY = Tally()
VIEWS = [
    {"view": "native"},
    {"view": "native", "first_glimpse": "thumbnail", "thumbnail_size": 6},
    {"view": "native", "first_glimpse": "thumbnail", "num_scales": 2},
    {"view": "native", "first_glimpse": "choose", "glimpse_format": "flat"},
    {"view": "continuous"},
    {"view": "continuous", "observe": "canvas", "first_glimpse": "thumbnail"},
    {"view": "continuous", "glimpse_format": "image"},
    {"view": "discrete", "mask_seen": True, "min_glimpses": 2, "grid": 3},
    {"view": "discrete", "observe": "canvas", "glimpse_format": "image", "mask_seen": True},
    {"view": "discrete", "observe": "canvas", "first_glimpse": "choose", "mask_seen": True},
    {"view": "native", "classifier": TALLY},
    {"view": "continuous", "classifier": TALLY, "first_glimpse": "thumbnail"},
    {"view": "discrete", "classifier": TALLY, "observe": "canvas", "min_glimpses": 2},
    {"view": "single", "classifier": TALLY, "first_glimpse": "choose", "mask_seen": True},
]
MODES = ["NextStep", "SameStep", "Disabled"]


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal structure, types, shapes and values; tensors count as arrays."""
    if isinstance(ours, torch.Tensor):
        ours = ours.numpy()
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and set(ours) == set(theirs), (where, ours, theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert ours.dtype == object and ours.shape == theirs.shape, where
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other, where)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (where, ours, theirs)
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, (where, ours, theirs)


def actions_of(env: Any, steps: int, seed: int = 0) -> list[Any]:
    """Random actions of the batched space; locations now and then out of it or at corners."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]
