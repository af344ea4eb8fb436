"""The sensor: crops by hand, then numpy = torch bit for bit, then bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtram_env import sensor, sensor_torch
from dtram_env.datasets.storage import tensors
from dtram_env.datasets.storage.store import ArrayStore


def ramp(height: int = 6, width: int = 8, channels: int = 1) -> np.ndarray:
    """One image whose pixel (row, column) is 10 * (row + 1) + column + 1."""
    image = 10 * (np.arange(height)[:, None] + 1) + np.arange(width) + 1
    return np.repeat(image[None, :, :, None], channels, axis=3).astype(np.uint8)


def glimpse_of(
    image: np.ndarray, location: tuple[float, float], side: int, scales: int = 1
) -> np.ndarray:
    store = ArrayStore(image, sensor.margin(side, scales))
    return sensor.glimpse(store, np.array([0]), np.array([location]), side, scales)[0]


def test_centre_crop_of_an_even_side() -> None:
    # 6x8 image: centre at (4, 3); a side of 2 covers columns 3-4 and rows 2-3.
    np.testing.assert_array_equal(glimpse_of(ramp(), (0, 0), 2)[..., 0], [[34, 35], [44, 45]])


def test_centre_crop_of_an_odd_side() -> None:
    # left = floor(4 - 1.5 + 0.5) = 3, top = floor(3 - 1.5 + 0.5) = 2.
    crop = glimpse_of(ramp(), (0, 0), 3)[..., 0]
    np.testing.assert_array_equal(crop, [[34, 35, 36], [44, 45, 46], [54, 55, 56]])


def test_the_first_corner_is_centred_on_the_image_edge() -> None:
    crop = glimpse_of(ramp(), (-1, -1), 4)[..., 0]
    np.testing.assert_array_equal(crop, [[0] * 4, [0] * 4, [0, 0, 11, 12], [0, 0, 21, 22]])


def test_the_last_corner_and_clipping() -> None:
    crop = glimpse_of(ramp(), (1, 1), 4)[..., 0]
    np.testing.assert_array_equal(crop, [[57, 58, 0, 0], [67, 68, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(glimpse_of(ramp(), (7.5, 1.01), 4)[..., 0], crop)


@pytest.mark.parametrize("shape", [(6, 6, 1), (6, 8, 3)])
def test_nan_on_tensors_counts_as_zero(shape: tuple[int, int, int]) -> None:
    store = tensors.TensorStore(torch.from_numpy(ramp(*shape)), sensor.margin(2, 2))
    index = torch.zeros(2, dtype=torch.int64)
    nan = torch.tensor([[torch.nan, 0.5], [torch.nan, torch.nan]])
    zero = torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    seen = sensor_torch.glimpse(store, index, nan, 2, 2)
    assert torch.equal(seen, sensor_torch.glimpse(store, index, zero, 2, 2))


def test_corners_of_float32_coordinates_are_computed_in_float64() -> None:
    """Just left of the centre of 3 pixels a side of 2 begins at floor(1 - 1.5 * 2**-25) = 0.

    In float32 1 - 2**-25 is 1, and the result would be 1.
    """
    just_left = np.array([-(2.0**-25), 0.0], dtype=np.float32)
    assert sensor.corner(just_left, 3, 2).tolist() == [0, 1]
    assert sensor_torch.corner(torch.from_numpy(just_left), 3, 2).tolist() == [0, 1]
    store = ArrayStore(ramp(3, 3), sensor.margin(2, 1))
    location = np.stack([just_left, just_left], axis=1)
    crops = sensor.glimpse(store, np.zeros(2, np.int64), location, 2)[..., 0]
    np.testing.assert_array_equal(crops, [[[11, 12], [21, 22]], [[22, 23], [32, 33]]])


def test_x_is_the_column_and_y_the_row() -> None:
    # x = 0.5 of width 8 is column 6, y = -0.5 of height 6 is row 1.5: left 5, top floor(1) = 1.
    assert glimpse_of(ramp(), (0.5, -0.5), 2)[0, 0, 0] == 26


def test_scales_are_crops_about_one_centre_averaged_by_area() -> None:
    seen = glimpse_of(ramp(), (0, 0), 2, scales=2)
    assert seen.shape == (2, 2, 2)
    np.testing.assert_array_equal(seen[..., 0], [[34, 35], [44, 45]])
    # The 4x4 crop starts at column 2, row 1; its first block is 23, 24, 33, 34: mean 28.5 -> 29.
    np.testing.assert_array_equal(seen[..., 1], [[29, 31], [49, 51]])


def test_channels_of_scales_come_finest_first() -> None:
    image = ramp(channels=3)
    image[..., 1] += 100
    seen = glimpse_of(image, (0, 0), 2, scales=2)
    assert seen[0, 0].tolist() == [34, 134, 34, 29, 129, 29]


@given(
    shape=st.tuples(st.integers(3, 12), st.integers(3, 12), st.sampled_from([1, 3])),
    side=st.integers(1, 5),
    scales=st.integers(1, 3),
    batch=st.sampled_from([1, 2, 9]),
    seed=st.integers(0, 2**16),
)
def test_numpy_torch_and_plain_slicing_agree_bit_for_bit(
    shape: tuple[int, int, int], side: int, scales: int, batch: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, *shape), dtype=np.uint8)
    index = rng.integers(0, 4, batch)
    location = rng.choice([-1, -0.5, 0, 1 / 3, 1, 2], (batch, 2)) + rng.choice(
        [0, 1e-7], (batch, 1)
    )
    location = location.astype(np.float32)
    padding = sensor.margin(side, scales)
    numpy = sensor.glimpse(ArrayStore(images, padding), index, location, side, scales)
    store = tensors.TensorStore(torch.from_numpy(images), padding)
    tensor = sensor_torch.glimpse(
        store, torch.from_numpy(index), torch.from_numpy(location), side, scales
    )
    np.testing.assert_array_equal(numpy, tensor.numpy())
    # The finest scale again, by the formula of the design and a slice.
    height, width, channels = shape
    for k in range(batch):
        x, y = np.clip(location[k].astype(np.float64), -1, 1)
        left = int(np.floor((x + 1) * width / 2 - side / 2 + 0.5))
        top = int(np.floor((y + 1) * height / 2 - side / 2 + 0.5))
        padded = np.pad(images[index[k]], ((side, side), (side, side), (0, 0)))
        expected = padded[top + side : top + 2 * side, left + side : left + 2 * side]
        np.testing.assert_array_equal(numpy[k, :, :, :channels], expected)
