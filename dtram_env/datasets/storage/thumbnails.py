"""Thumbnails: the exact box filter in whole numbers, on numpy. `tensors` has it on tensors.

An output pixel is the mean of the area of the image that it covers. An input pixel counts as `side`
units wide and an output pixel as `size` units, so every share is a whole number of units. Only the
result is rounded, so every machine gives the same pixels.
"""

import math
from functools import lru_cache

import numpy as np

_BLOCK = 4 << 20  # pixels per step, unless one image has more
_ROWS, _COLUMNS = 4, 4  # output pixels along each axis that one small matrix computes


def box_resize(images: np.ndarray, side: int) -> np.ndarray:
    """Resizes ``(N, H, W, C)`` to ``(N, side, side, C)``, uint8.

    Each output pixel is the mean of the area that it covers, rounded to nearest (halves up).
    """
    count, height, width, channels = images.shape
    if height == side == width:
        return images.copy()
    out = np.empty((count, side, side, channels), dtype=np.uint8)
    # The largest unit in which all shares are whole numbers keeps the sums small.
    area = height // math.gcd(height, side) * (width // math.gcd(width, side))
    # Floats are exact for whole numbers below 2**24 or 2**53, and multiply faster than integers.
    dtype = np.float32 if 255 * area < 2**24 else np.float64
    whole = np.int32 if fits_int32(area) else np.int64
    rows, row_shares = _bands(height, side, _ROWS)
    columns, column_shares = _line_bands(width, side, _COLUMNS, channels)
    row_shares, column_shares = row_shares.astype(dtype), column_shares.astype(dtype)
    at_once = max(1, _BLOCK // (height * width * channels))
    for start in range(0, count, at_once):
        part = images[start : start + at_once].reshape(-1, height, width * channels)
        values = len(part) * rows.shape[1] * width * channels  # under one group of rows
        groups = max(1, _BLOCK // values)
        tall = np.concatenate(
            [
                row_shares[i : i + groups] @ _rows_of(part, rows[i : i + groups]).astype(dtype)
                for i in range(0, len(rows), groups)
            ],
            axis=1,
        ).reshape(len(part), -1, width * channels)[:, :side]
        taken = tall.take(columns.reshape(-1), axis=2)
        taken = taken.reshape(len(part), side, *columns.shape).swapaxes(1, 2)
        total = (taken @ column_shares).swapaxes(1, 2).reshape(len(part), side, -1)
        means = total[:, :, : side * channels].astype(whole)
        means = (2 * means + area) // (2 * area)
        out[start : start + at_once] = means.reshape(-1, side, side, channels)
    return out


def _rows_of(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows ``(G, K)`` of images ``(N, H, L)``, as ``(N, G, K, L)``."""
    return images.take(rows.reshape(-1), axis=1).reshape(len(images), *rows.shape, -1)


@lru_cache(maxsize=64)
def _bands(size: int, side: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides one axis into groups of neighbouring output pixels.

    Gives the input pixels under each group ``(groups, K)`` int64, and the share of each in each
    output pixel ``(groups, outputs, K)`` int64, 0 past the last output pixel.
    """
    pixels, shares = box_taps(size, side)
    groups, output = -(-side // outputs), np.arange(side)
    first = pixels[::outputs, 0]
    offset = np.where(shares > 0, pixels - first[output // outputs, None], 0)
    width = int(offset.max()) + 1
    table = np.zeros((groups, outputs, width), dtype=np.int64)
    group, within = output[:, None] // outputs, output[:, None] % outputs
    np.add.at(table, (group, within, offset), shares // math.gcd(size, side))
    return np.minimum(first[:, None] + np.arange(width), size - 1), table


@lru_cache(maxsize=64)
def _line_bands(size: int, side: int, outputs: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """`_bands` of interleaved channels, ``(G, K * C)`` and ``(G, K * C, outputs * C)`` int64."""
    pixels, shares = _bands(size, side, outputs)
    values = pixels[..., None] * channels + np.arange(channels)
    table = shares.swapaxes(1, 2)[:, :, None, :, None] * np.eye(channels, dtype=np.int64)[:, None]
    groups, width, _, outputs, _ = table.shape
    return values.reshape(groups, -1), table.reshape(groups, width * channels, outputs * channels)


def fits_int32(area: int) -> bool:
    """Whether the filter's whole numbers fit 32 bits for images of `area` pixels."""
    return (2 * 255 + 1) * area < 2**31  # twice a white image's sum, and the area to round by


def box_taps(size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The input pixels under each output pixel along one axis, and their shares.

    Both are ``(side, K)`` int64. Shares are whole numbers that sum to `size`, the number of input
    pixels. A pixel of share 0 may be any.

    >>> pixels, shares = box_taps(3, 2)
    >>> pixels.tolist(), shares.tolist()
    ([[0, 1], [1, 2]], [[2, 1], [1, 2]])
    """
    first = np.arange(side) * size // side
    last = -(-(np.arange(1, side + 1) * size) // side)  # past the last pixel touched
    pixels = first[:, None] + np.arange(int((last - first).max()))
    # In units of 1 / side of a pixel.
    begin, end = np.arange(side)[:, None] * size, np.arange(1, side + 1)[:, None] * size
    overlap = np.minimum(end, (pixels + 1) * side) - np.maximum(begin, pixels * side)
    return np.minimum(pixels, size - 1), np.clip(overlap, 0, None)
