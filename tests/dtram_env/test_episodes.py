"""The rules on numbers, arrays and tensors; the order of images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtram_env.backends import Backend, TorchBackend
from dtram_env.episodes import RandomImages, SequentialImages, ends, grade, shard_bounds

from .conftest import TOY

# (glimpses, stop, whether it ends) with a budget of 3; at 0 there was no glimpse yet.
CASES = [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True), (2, 0, False), (3, 0, True)]


def test_ends_on_numbers_arrays_and_tensors() -> None:
    t, stop, expected = (list(column) for column in zip(*CASES, strict=True))
    assert [ends(a, b, 3) for a, b in zip(t, stop, strict=True)] == expected
    assert ends(np.array(t), np.array(stop), 3).tolist() == expected
    assert ends(torch.tensor(t), torch.tensor(stop), 3).tolist() == expected
    assert ends(torch.tensor(t), torch.tensor(stop, dtype=torch.bool), 3).tolist() == expected


def test_grade_is_discount_to_the_number_of_glimpses() -> None:
    assert grade(3, 7, 7, 0.5) == 0.125
    assert grade(3, 7, 6, 0.5) == 0.0
    assert grade(1, 0, 0, 1.0) == 1.0
    t, right = [1, 2, 3], [4, 4, 0]
    np.testing.assert_array_equal(grade(np.array(t), np.array(right), 4, 0.5), [0.5, 0.25, 0])
    graded = grade(torch.tensor(t), torch.tensor(right), torch.tensor([4, 4, 4]), 0.5)
    assert graded.tolist() == [0.5, 0.25, 0.0]
    assert graded.dtype == torch.float32


@given(num_images=st.integers(1, 300), n=st.integers(1, 40))
def test_shards_are_contiguous_blocks_of_the_sizes_that_sb3_counts(num_images: int, n: int) -> None:
    bounds = [shard_bounds(num_images, i, n) for i in range(n)]
    covered = [k for start, size in bounds for k in range(start, start + size)]
    assert covered == list(range(num_images))
    assert [size for _, size in bounds] == [(num_images + i) // n for i in range(n)]


def test_sequential_images_repeat_after_their_block() -> None:
    images = SequentialImages(Backend(TOY, 3, 1), 5, [(0, 2), (1, 2)])
    rng = np.random.default_rng(0)
    rows = [
        (images.next(rng, np.ones(2, bool), None).tolist(), images.repeat.tolist())
        for _ in range(4)
    ]
    assert rows == [
        ([0, 2], [False, False]),
        ([1, 3], [False, False]),
        ([0, 4], [True, False]),
        ([1, 2], [True, True]),
    ]


def test_a_new_generator_starts_a_new_block() -> None:
    images = RandomImages(Backend(TOY, 3, 1), 23, 6)
    first = images.next(np.random.default_rng(1), None, None)
    images.next(np.random.default_rng(2), None, None)
    np.testing.assert_array_equal(first, images.next(np.random.default_rng(1), None, None))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_random_images_are_uniform(name: str) -> None:
    b = Backend(TOY, 3, 1) if name == "numpy" else TorchBackend(TOY, 3, 1, "cpu")
    images, rng = RandomImages(b, 4, 100), np.random.default_rng(0)
    drawn = np.concatenate([np.asarray(images.next(rng, None, None)) for _ in range(100)])
    # 10,000 draws of 4 images: 2,500 each, standard deviation 43.
    assert np.abs(np.bincount(drawn, minlength=4) - 2500).max() < 5 * 43
