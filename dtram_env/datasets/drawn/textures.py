"""Textures of the parts, stripes and dots that a crop shows and a thumbnail does not; profiles.

A texture is a sum of cosine waves on a part. Its mean is 0, and all textures have the same variance
and the same period: nothing but the directions of its waves tells one from another.

A thumbnail's pixel is the mean of a square of `w` x `w` image pixels. That leaves a wave of period
`p` along a side of the square the contrast ``sin(pi w / p) / (pi w / p)``, which is 0 at ``p = w``;
what is left of a period below the thumbnail's Nyquist limit ``2 w`` shows as another, coarser wave.
"""

from __future__ import annotations

import math

import numpy as np

NAMES = ("barred", "striped", "dotted")
TEXTURES = len(NAMES)

AMPLITUDE = 52.0
"""Grey levels of a texture's waves, each way."""

TURN = 4096
"""Entries of the table of cosines, and so the grid of all angles, in a full turn."""

# Rounded far above the last bit, in which the libraries of two machines may differ.
_COSINE = np.array([round(math.cos(2 * math.pi * k / TURN) * 2**14) / 2**14 for k in range(TURN)])
_WAVE = _COSINE.astype(np.float32)
_HALF = np.float32(math.sqrt(0.5))


def thumbnail_side(image_size: int) -> int:
    """Pixels along a side of the thumbnail that textures hide from.

    224 for images of 400 pixels and more (the full profile: 512), 32 below (the small one: 128).
    """
    return 224 if image_size >= 400 else 32


def thumbnail_pixel(image_size: int) -> float:
    """Image pixels along a side of a thumbnail's pixel.

    >>> thumbnail_pixel(128)
    4.0
    """
    return image_size / thumbnail_side(image_size)


def part_scale(image_size: int) -> float:
    """Size of the parts that carry textures, in units of the small profile's.

    A figure seen through a thumbnail of 32 pixels needs large ones, as in a cartoon.
    """
    return 0.5 if thumbnail_side(image_size) == 224 else 1.0


def period(image_size: int) -> float:
    """Period of every texture, image pixels: at least 3, at most 1.7 thumbnail pixels.

    It is 0.85 thumbnail pixels where that is allowed. Of the contrast this leaves 14 % to the
    thumbnail and 19 % to the image shrunk to 45/128 of its side: other periods leave less to the
    one and more to the other.

    >>> period(128), period(512)
    (3.4, 3.0)
    """
    return max(3.0, 0.85 * thumbnail_pixel(image_size))


def cosine(turns: np.ndarray) -> np.ndarray:
    """Cosine of angles in turns, each rounded to the table's grid; float64."""
    return _COSINE[np.floor(turns * TURN + 0.5).astype(np.int64) & (TURN - 1)]


def sine(turns: np.ndarray) -> np.ndarray:
    """Sine of angles in turns, each rounded to the table's grid; float64."""
    return cosine(turns - 0.25)


def pattern(
    kind: int, u: np.ndarray, v: np.ndarray, period: float, phase: tuple[float, float]
) -> np.ndarray:
    """A texture's values, of mean 0 and variance 1/2 over whole periods.

    Args:
        kind: an index of `NAMES`. "barred": stripes across the part's axis; "striped": along it;
            "dotted": dots in rows along and across it.
        u, v: ``(h, w)`` float32, pixels along the part's axis and across it.
        period: of the waves, pixels.
        phase: of the waves along u and along v, turns.

    Returns:
        ``(h, w)`` float32.
    """
    if kind == 0:
        return _wave(u, period, phase[0])
    if kind == 1:
        return _wave(v, period, phase[1])
    return (_wave(u, period, phase[0]) + _wave(v, period, phase[1])) * _HALF


def _wave(x: np.ndarray, period: float, phase: float) -> np.ndarray:
    steps = np.floor(x * (TURN / period) + phase * TURN).astype(np.int32)
    return _WAVE[steps & (TURN - 1)]
