"""The box filter: fractions by hand, the exact rational means, numpy = torch bit for bit."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dtram_env.datasets.storage import tensors, thumbnails
from dtram_env.datasets.storage.thumbnails import box_resize, box_taps, fits_int32
from tests.dtram_env.datasets.images import ragged_images


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def shares(size: int, side: int) -> list[list[Fraction]]:
    """How much of each input pixel an output pixel covers, ``side`` rows, in input pixels."""
    step = Fraction(size, side)
    return [
        [max(Fraction(0), min((k + 1) * step, p + 1) - max(k * step, p)) for p in range(size)]
        for k in range(side)
    ]


def exact(image: np.ndarray, side: int) -> np.ndarray:
    """The mean of each area as a fraction, rounded to nearest, halves up."""
    height, width, channels = image.shape
    rows, columns = shares(height, side), shares(width, side)
    area = Fraction(height * width, side * side)
    out = np.empty((side, side, channels), np.uint8)
    for k, m, c in np.ndindex(side, side, channels):
        total = sum(
            row * column * int(image[y, x, c])
            for y, row in enumerate(rows[k])
            if row
            for x, column in enumerate(columns[m])
            if column
        )
        out[k, m, c] = floor(total / area + Fraction(1, 2))
    return out


# --- By hand


def test_fractional_pixels() -> None:
    row = np.array([30, 60, 90], dtype=np.uint8)[None, None, :, None].repeat(3, axis=1)
    # Two output pixels of 1.5 input pixels: (30 + 60 / 2) / 1.5 = 40 and (60 / 2 + 90) / 1.5 = 80.
    assert box_resize(row, 2)[0, 0, :, 0].tolist() == [40, 80]


def test_both_directions_and_channels() -> None:
    # 2x3 pixels onto 2x2: rows stay, columns 1.5 wide.
    image = np.array([[[0, 9], [3, 0], [6, 9]], [[255, 0], [255, 3], [0, 0]]], np.uint8)[None]
    resized = box_resize(image, 2)[0]
    assert resized[..., 0].tolist() == [[1, 5], [255, 85]]  # (0 + 1.5) / 1.5, (1.5 + 6) / 1.5, …
    assert resized[..., 1].tolist() == [[6, 6], [1, 1]]  # 9 / 1.5, 9 / 1.5, 1.5 / 1.5 twice


def test_halves_are_rounded_up() -> None:
    image = np.array([[0, 1], [1, 0]], np.uint8)[None, :, :, None]
    assert box_resize(image, 1).item() == 1  # 0.5
    assert box_resize(image[:, :, :1].repeat(2, axis=2), 1).item() == 1  # the mean of 0, 0, 1, 1
    assert box_resize(np.array([0, 1, 0], np.uint8)[None, None, :, None], 1).item() == 0  # a third


def test_an_enlarged_image() -> None:
    image = np.array([[10, 40]], np.uint8)[None, :, :, None]
    # Three columns of two thirds of a pixel: the middle one has a third of each.
    assert box_resize(image, 3)[0, ..., 0].tolist() == [[10, 25, 40]] * 3


@given(size=st.integers(1, 60), side=st.integers(1, 60))
def test_taps_cover_the_line_once(size: int, side: int) -> None:
    pixels, units = box_taps(size, side)
    assert pixels.shape == units.shape and 0 <= pixels.min() <= pixels.max() < size
    assert (units >= 0).all() and (units.sum(axis=1) == size).all()
    # A pixel is `side` units wide.
    assert (np.bincount(pixels.ravel(), units.ravel(), minlength=size) == side).all()


# --- The whole filter


@settings(max_examples=40)
@given(
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    side=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_equals_the_exact_means(height: int, width: int, side: int, seed: int) -> None:
    images = random_images(2, height, width, 1, seed=seed)
    resized = box_resize(images, side)
    assert resized.dtype == np.uint8 and resized.shape == (2, side, side, 1)
    for image, small in zip(images, resized, strict=True):
        np.testing.assert_array_equal(small, exact(image, side))


def test_equals_a_float_reference() -> None:
    images = random_images(3, 149, 200, 3)
    rows, columns = (np.array(shares(n, 64), dtype=np.float64) for n in (149, 200))
    mean = np.einsum("ky,mx,nyxc->nkmc", rows, columns, images, optimize=True) / (149 * 200 / 64**2)
    resized = box_resize(images, 64)
    assert np.abs(resized - mean).max() <= 0.5 + 1e-9
    assert np.mean(resized == np.floor(mean + 0.5)) > 0.9999  # but for halves that float misses


def test_at_the_same_size_it_is_a_copy() -> None:
    images = random_images(2, 6, 6, 3)
    same = box_resize(images, 6)
    assert np.array_equal(same, images) and not np.shares_memory(same, images)


def test_batches_are_worked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(7, 9, 11, 3)
    whole = box_resize(images, 4)
    monkeypatch.setattr(thumbnails, "_BLOCK", 2 * 4 * 11 * 3)  # two images at a time
    np.testing.assert_array_equal(box_resize(images, 4), whole)
    np.testing.assert_array_equal(box_resize(images[:0], 4), whole[:0])


# --- On tensors


@settings(max_examples=60)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    side=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_torch_is_the_same(height: int, width: int, side: int, channels: int, seed: int) -> None:
    images = random_images(3, height, width, channels, seed=seed)
    shrunk = tensors.box_resize(torch.from_numpy(images), side)
    assert shrunk.dtype == torch.uint8
    np.testing.assert_array_equal(shrunk.numpy(), box_resize(images, side))


@settings(max_examples=60)
@given(side=st.integers(1, 12), most=st.integers(1, 30), seed=st.integers(0, 99))
def test_torch_is_the_same_for_images_of_different_sizes(side: int, most: int, seed: int) -> None:
    images = ragged_images(5, 1, most, seed=seed)
    sizes = np.array([image.shape[:2] for image in images])
    # What lies beyond an image must not count, whatever it is.
    padded = np.full((5, *sizes.max(axis=0), 3), 255, np.uint8)
    for i, (height, width) in enumerate(sizes):
        padded[i, :height, :width] = images[i]
    shrunk = tensors.box_resize(torch.from_numpy(padded), side, torch.from_numpy(sizes))
    for image, small in zip(images, shrunk.numpy(), strict=True):
        np.testing.assert_array_equal(small, box_resize(image[None], side)[0])


def test_sums_fit_where_32_bits_are_taken_for_enough() -> None:
    assert fits_int32(512 * 512) and fits_int32(4_202_512) and not fits_int32(4_202_513)
    assert 511 * 4_202_512 < 2**31 <= 511 * 4_202_513
    for height, width in (
        (2050, 2050),
        (2051, 2051),
    ):  # the last that fits, the first that does not
        white = np.full((1, height, width, 1), 255, np.uint8)
        assert (box_resize(white, 2) == 255).all()
        assert (tensors.box_resize(torch.from_numpy(white), 3) == 255).all()
        assert (tensors.box_resize(torch.from_numpy(white), 1) == 255).all()
