"""Thumbnails: the exact box filter, in whole numbers, on numpy. `sensor_torch` has it on tensors.

An output pixel is the mean of the area of the image that it covers. The image's pixels count as
`side` units wide and an output pixel as `size` units, so every share is a whole number of units and
nothing is rounded but the result: every machine gives the same pixels.
"""

from __future__ import annotations

import math

import numpy as np

_BLOCK = 256 << 10  # bytes of an intermediate result at a time: a core's own cache holds them


def box_resize(images: np.ndarray, side: int) -> np.ndarray:
    """Resizes images to a square with an exact box filter, each output pixel the mean of its area.

    Args:
        images: ``(N, H, W, C)`` uint8.
        side: output side in pixels.

    Returns:
        ``(N, side, side, C)`` uint8, rounded to nearest (halves up).
    """
    count, height, width, channels = images.shape
    if height == side == width:
        return images.copy()
    out = np.empty((count, side, side, channels), dtype=np.uint8)
    rows, row_shares = box_taps(height, side)
    columns, column_shares = box_taps(width, side)
    # In the largest unit that all shares are whole numbers of, so that sums fit narrow integers.
    units, units_across = height // math.gcd(height, side), width // math.gcd(width, side)
    area = units * units_across
    dtype = np.int32 if fits_int32(area) else np.int64
    narrow = np.uint16 if 255 * units < 2**16 else dtype
    row_shares = (row_shares // math.gcd(height, side)).astype(narrow)
    column_shares = (column_shares // math.gcd(width, side)).astype(dtype)
    lines = max(1, _BLOCK // (width * channels * np.dtype(dtype).itemsize))
    at_once = max(1, lines // side)
    for start in range(0, count, at_once):
        part = images[start : start + at_once].reshape(-1, height, width * channels)
        for top in range(0, side, lines):
            chosen = slice(top, top + lines)
            tall = _weighted(part, rows[chosen], row_shares[chosen])
            # Columns first, so that a column of all lines is one run of memory.
            across = tall.reshape(len(part), -1, width, channels).transpose(2, 0, 1, 3)
            total = _weighted(across.reshape(width, -1), columns, column_shares)
            total *= 2
            total += area
            total //= 2 * area
            means = total.reshape(side, len(part), -1, channels)
            out[start : start + at_once, chosen] = means.transpose(1, 2, 0, 3)
    return out


def _weighted(lines: np.ndarray, pixels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Sums ``(..., side, L)`` of the lines ``(..., size, L)`` that taps ``(side, K)`` name."""
    total = lines.take(pixels[:, 0], axis=-2) * shares[:, :1]
    share = np.empty_like(total)
    for k in range(1, pixels.shape[1]):
        np.multiply(lines.take(pixels[:, k], axis=-2), shares[:, k : k + 1], out=share)
        total += share
    return total


def fits_int32(area: int) -> bool:
    """Whether the filter's whole numbers fit 32 bits for images of `area` pixels."""
    return (2 * 255 + 1) * area < 2**31  # twice a white image's sum, and the area to round by


def box_taps(size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Which input pixels make up each output pixel along one axis, and their shares.

    Args:
        size: input pixels.
        side: output pixels.

    Returns:
        Pixels ``(side, K)`` int64 and shares ``(side, K)`` int64, whole numbers that sum to `size`;
        a pixel of share 0 is any.

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
