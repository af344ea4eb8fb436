"""The glimpse sensor on numpy: location -> glimpse. `sensor_torch` is the same on tensors."""

import math
from typing import Any

import numpy as np

from .datasets.storage.store import Store


def margin(glimpse_size: int, num_scales: int) -> int:
    """Zero padding, in pixels, that an image needs so that a crop at any location fits."""
    return (glimpse_size * 2 ** (num_scales - 1) + 1) // 2


def edge(coordinate: Any, size: Any, side: int) -> Any:
    """`corner` before rounding; float64 arrays and Python floats give the same doubles."""
    return (coordinate + 1.0) * size / 2 - side / 2 + 0.5


def corner(coordinate: np.ndarray, size: int | np.ndarray, side: int) -> np.ndarray:
    """First column (or row) of windows of `side` pixels in images `size` pixels wide (or high).

    `coordinate` is x (or y) of the centre in [-1, 1], any shape; -1 is the left (or top) edge. The
    result is int64 of that shape, ``floor((x + 1) * size / 2 - side / 2 + 0.5)`` in float64.
    """
    return np.floor(edge(np.asarray(coordinate, dtype=np.float64), size, side)).astype(np.int64)


def glimpse(
    store: Store, index: np.ndarray, location: np.ndarray, glimpse_size: int, num_scales: int = 1
) -> np.ndarray:
    """Takes glimpses ``(B, g, g, C * num_scales)`` uint8 of the images `index` ``(B,)``.

    A glimpse has one crop per scale around its centre ``(x, y)``, `location` ``(B, 2)``, which is
    clipped to [-1, 1]. Crop k has side ``g * 2**k`` and is shrunk to g; the finest is first.
    """
    height, width = store.size(index)
    alone = len(location) == 1 and isinstance(height, int) and isinstance(width, int)
    if alone:  # the scalar environment: Python floats are faster than arrays of one
        x, y = location[0].tolist()
        x, y = min(max(x, -1.0), 1.0), min(max(y, -1.0), 1.0)
    else:
        location = np.clip(location, -1.0, 1.0)
    scales = []
    for scale in range(num_scales):
        side = glimpse_size * 2**scale
        if alone:
            top = np.array([math.floor(edge(y, height, side))])
            left = np.array([math.floor(edge(x, width, side))])
        else:
            top = corner(location[:, 1], height, side)
            left = corner(location[:, 0], width, side)
        scales.append(area_average(store.crop(index, top, left, side), 2**scale))
    return scales[0] if num_scales == 1 else np.concatenate(scales, axis=-1)


def area_average(windows: np.ndarray, factor: int) -> np.ndarray:
    """Shrinks ``(B, s, s, C)`` uint8 by an integer factor: ``(sum + n // 2) // n`` of n pixels."""
    if factor == 1:
        return windows
    batch, side, _, channels = windows.shape
    small = side // factor
    blocks = windows.reshape(batch, small, factor, small, factor, channels)
    n = factor * factor
    return ((blocks.sum(axis=(2, 4), dtype=np.int64) + n // 2) // n).astype(np.uint8)
