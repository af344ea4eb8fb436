"""ArrayStore: a crop is the window of the zero-padded image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtram_env.datasets.storage.store import ArrayStore


def images_of(n: int, height: int, width: int, channels: int) -> np.ndarray:
    shape = (n, height, width, channels)
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


def test_crop_by_hand() -> None:
    store = ArrayStore(np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1), margin=2)
    zero = np.array([0])
    assert store.crop(zero, zero, zero + 1, 2)[0, ..., 0].tolist() == [[2, 3], [5, 6]]
    assert store.crop(zero, zero - 1, zero - 2, 3)[0, ..., 0].tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 0, 4],
    ]


@given(data=st.data(), channels=st.sampled_from([1, 3]), side=st.integers(1, 6))
def test_crop_is_the_slice_of_the_padded_image(
    data: st.DataObject, channels: int, side: int
) -> None:
    images, margin = images_of(3, 5, 7, channels), 3
    store = ArrayStore(images, margin)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    draws = data.draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(-3, 8 - side), st.integers(-3, 10 - side)),
            min_size=1,
            max_size=5,
        )
    )
    index, top, left = np.array(draws).T
    crops = store.crop(index, top, left, side)
    expected = [
        padded[i, t + 3 : t + 3 + side, c + 3 : c + 3 + side]
        for i, t, c in zip(index, top, left, strict=True)
    ]
    assert crops.dtype == np.uint8 and np.array_equal(crops, expected)


def test_size_length_channels() -> None:
    store = ArrayStore(images_of(4, 5, 7, 3), margin=1)
    assert (len(store), store.channels, store.size(np.array([0]))) == (4, 3, (5, 7))


def test_thumbnail_by_hand() -> None:
    image = np.array([[0, 2, 10, 11], [2, 4, 10, 10], [255, 255, 1, 0], [255, 255, 0, 0]], np.uint8)
    store = ArrayStore(image[None, :, :, None], margin=0)
    # Means 2, 10.25, 255, 0.25, rounded.
    assert store.thumbnail(np.array([0, 0]), 2)[1, ..., 0].tolist() == [[2, 10], [255, 0]]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"images: expected uint8 of shape \(N, H, W, C\), got"):
        ArrayStore(np.zeros((2, 3, 3)), margin=1)
    store = ArrayStore(images_of(1, 3, 3, 1), margin=1)
    for batch in (1, 2):
        zeros = np.zeros(batch, dtype=np.int64)
        with pytest.raises(ValueError, match="side=6: larger than the padded image, 5x5"):
            store.crop(zeros, zeros, zeros, 6)
