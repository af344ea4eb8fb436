"""Thumbnails: the exact box filter in whole numbers, on numpy. `tensors` has it on tensors.

An output pixel is the mean of the area of the image that it covers. An input pixel counts as `side`
units wide and an output pixel as `size` units, so every share is a whole number of units. Only the
result is rounded, so every machine gives the same pixels.
"""

import numpy as np

_BLOCK = 1 << 17  # values at once, unless one image has more


def box_resize(images: np.ndarray, side: int) -> np.ndarray:
    """Resizes ``(N, H, W, C)`` to ``(N, side, side, C)``, uint8.

    Each output pixel is the mean of the area that it covers, rounded to nearest (halves up).
    """
    count, height, width, channels = images.shape
    if height == side == width:
        return images.copy()
    area = height * width
    whole = np.int32 if fits_int32(area) else np.int64
    rows, row_shares = box_taps(height, side)
    columns, column_shares = box_taps(width, side)
    row_shares, column_shares = row_shares.astype(whole), column_shares.astype(whole)
    out = np.empty((count, side, side, channels), dtype=np.uint8)
    at_once = max(1, _BLOCK // (side * width * channels))
    for start in range(0, count, at_once):
        part = images[start : start + at_once]
        tall = np.zeros((len(part), side, width, channels), dtype=whole)
        for row, share in zip(rows.T, row_shares.T, strict=True):
            tall += part[:, row] * share[:, None, None]
        total = np.zeros((len(part), side, side, channels), dtype=whole)
        for column, share in zip(columns.T, column_shares.T, strict=True):
            total += tall[:, :, column] * share[:, None]
        out[start : start + at_once] = (2 * total + area) // (2 * area)
    return out


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
