"""Translated and cluttered MNIST: coded digits reveal every draw."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets import DatasetNotFoundError
from dtram_env.datasets.sources import cluttered, mnist


def compose(digits: np.ndarray, patches: int, part: str = "test") -> np.ndarray:
    """`cluttered.compose` for digits and images without the channel axis."""
    return cluttered.compose(digits[..., None], part, patches)[..., 0]


# Digits whose pixels are their own row or column, counted from 1 because 0 is black.
ROW, COLUMN = np.indices((28, 28)) + 1


def noise(n: int, low: int = 0) -> np.ndarray:
    return np.random.default_rng(0).integers(low, 256, (n, 28, 28), dtype=np.uint8)


def alike(n: int, digit: np.ndarray | int) -> np.ndarray:
    """The same digit `n` times; a number is a digit of that colour."""
    return np.broadcast_to(np.asarray(digit, dtype=np.uint8), (n, 28, 28))


def numbered(n: int) -> np.ndarray:
    """Digits of one colour each: 1, 2, …"""
    return alike(n, 0) + np.arange(1, n + 1, dtype=np.uint8)[:, None, None]


def corners(boxes: np.ndarray, side: int) -> np.ndarray:
    """Corner ``(N, 2)`` of the only square of `side` in each of ``(N, 60, 60)`` that is not 0."""
    rows, columns = boxes.any(axis=2), boxes.any(axis=1)
    top, left = rows.argmax(axis=1), columns.argmax(axis=1)
    assert ((boxes > 0).sum(axis=(1, 2)) == side * side).all()
    assert (rows.sum(axis=1) == side).all() and (columns.sum(axis=1) == side).all()
    assert all(
        box[y : y + side, x : x + side].all() for box, y, x in zip(boxes, top, left, strict=True)
    )
    return np.stack([top, left], axis=1)


def patch_corners(n: int, k: int) -> np.ndarray:
    """Corners of the k-th patch of `n` images: with equal digits, it is the only difference."""
    ones = alike(n, 1)
    return corners(compose(ones, k) - compose(ones, k - 1), 8)


def at_corners(images: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The pixel of each image at its corner."""
    return images[np.arange(len(images)), corner[:, 0], corner[:, 1]].astype(np.int64)


def assert_uniform(values: np.ndarray, count: int) -> None:
    """Chi-square over 0 to count - 1, four standard deviations above its mean at most."""
    found = np.bincount(values, minlength=count)
    assert len(found) == count
    expected = len(values) / count
    assert expected > 10
    chi2 = ((found - expected) ** 2 / expected).sum()
    assert chi2 < count - 1 + 4 * np.sqrt(2 * (count - 1))


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_digit_is_whole_at_one_place_and_all_else_is_black(part: str) -> None:
    digits = noise(200, low=1)
    images = compose(digits, 0, part)
    assert images.shape == (200, 60, 60) and images.dtype == np.uint8
    for image, digit, (top, left) in zip(images, digits, corners(images, 28), strict=True):
        assert np.array_equal(image[top : top + 28, left : left + 28], digit)


def test_the_digits_place_is_uniform_over_33x33() -> None:
    digit = np.zeros((28, 28))
    digit[0, 0] = 255
    images = compose(alike(12_000, digit), 0)
    index, top, left = images.nonzero()
    assert np.array_equal(index, np.arange(12_000))
    assert_uniform(top * 33 + left, 33 * 33)
    assert top.max() == left.max() == 32


def test_a_patchs_place_and_cut_are_uniform_and_independent() -> None:
    n = 10_000
    place = patch_corners(n, 1)
    cut = [
        at_corners(compose(code, 1) - compose(code, 0), place) - 1
        for code in (alike(n, ROW), alike(n, COLUMN))
    ]
    assert_uniform(cut[0] * 21 + cut[1], 21 * 21)
    assert_uniform(place[:, 0], 53)
    assert_uniform(place[:, 1], 53)
    digit = corners(compose(alike(n, 1), 0), 28)
    drawn = np.stack([*digit.T, *place.T, *cut, *patch_corners(n, 2).T])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 4 / np.sqrt(n)


@pytest.mark.parametrize("patches", [1, 4])
def test_equal_to_a_plain_loop_over_what_was_drawn(patches: int, mnist_folder: Path) -> None:
    """Coded digits reveal the draws; then MNIST's digits are placed by hand."""
    n = 50  # so that five numbers on top of each other stay below 256
    digits = mnist.read(mnist_folder, "test")[0][:n, ..., 0]
    images = compose(digits, patches)
    places = [corners(compose(alike(n, 1), 0), 28)]
    expected = np.zeros((n, 60, 60), dtype=np.int64)
    for i, (top, left) in enumerate(places[0]):
        expected[i, top : top + 28, left : left + 28] += digits[i]
    codes = numbered(n), alike(n, ROW), alike(n, COLUMN)
    for k in range(1, patches + 1):
        place = patch_corners(n, k)
        source, y, x = (
            at_corners(compose(code, k) - compose(code, k - 1), place) - 1 for code in codes
        )
        assert (source != np.arange(n)).all()
        for i, (top, left) in enumerate(place):
            patch = digits[source[i], y[i] : y[i] + 8, x[i] : x[i] + 8]
            assert patch.shape == (8, 8)
            expected[i, top : top + 8, left : left + 8] += patch
        places.append(place)
    assert np.array_equal(images, np.minimum(expected, 255))
    assert all(not np.array_equal(places[1], place) for place in places[2:])


def test_an_image_does_not_depend_on_how_many_follow() -> None:
    digits = noise(100)
    assert np.array_equal(compose(digits, 0)[:30], compose(digits[:30], 0))
    same = alike(100, digits[0])
    assert np.array_equal(compose(same, 4)[:30], compose(same[:30], 4))


def test_the_drawing_never_changes() -> None:
    """A changed digest means another dataset: raise the version of its environment."""
    words = np.random.Philox(key=np.array([1, 2], dtype=np.uint64)).random_raw(20 * 98)
    digits = words.astype("<u8").view(np.uint8).reshape(20, 28, 28)
    images = [compose(digits, k, part) for k in (0, 4) for part in cluttered.PARTS]
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert digest[:16] == "a47f8d5f4d8cee59"


def test_a_whole_training_part_needs_little_memory_beside_itself() -> None:
    digits = np.zeros((60_000, 28, 28), dtype=np.uint8)
    tracemalloc.start()
    images = compose(digits, 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - images.nbytes < 100e6


@pytest.mark.parametrize(("patches", "side"), [(0, 60), (4, 60), (8, 100)])
def test_read(patches: int, side: int, mnist_folder: Path) -> None:
    digits, labels = mnist.read(mnist_folder, "test")
    images, given = cluttered.read(mnist_folder, "test", patches, side)
    assert images.shape == (10_000, side, side, 1) and images.dtype == np.uint8
    assert np.array_equal(given, labels) and given.dtype == np.int64
    assert np.array_equal(images, cluttered.compose(digits, "test", patches, side))


def test_read_without_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"t10k-images.*datasets download mnist"):
        cluttered.read(tmp_path, "test", 4, 60)


def test_few_digits() -> None:
    assert compose(noise(0), 0).shape == (0, 60, 60)
    assert compose(noise(1), 0).shape == (1, 60, 60)
    assert compose(noise(2), 4).shape == (2, 60, 60)
