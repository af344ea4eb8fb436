"""Textures of the parts: stripes and dots that are visible in a crop but not in a thumbnail.

A texture is a sum of cosine waves. Its mean is 0, and all textures have the same variance and the
same period: they differ only in the directions of the waves.

A pixel of the thumbnail is the mean of `w` x `w` image pixels. A wave of period `p` along a side of
that square keeps the contrast ``sin(pi w / p) / (pi w / p)``, which is 0 at ``p = w``. If ``p`` is
below the thumbnail's Nyquist limit ``2 w``, the rest appears as a coarser wave (aliasing).
"""

import math

import numpy as np

NAMES = ("barred", "striped", "dotted")
TEXTURES = len(NAMES)

AMPLITUDE = 52.0  # of a texture's waves, grey levels
TURN = 4096  # entries of the table of cosines: all angles are multiples of 1 / TURN of a full turn

# Rounded, because the last bit of math.cos may differ between machines.
_COSINE = np.array([round(math.cos(2 * math.pi * k / TURN) * 2**14) / 2**14 for k in range(TURN)])
_WAVE = _COSINE.astype(np.float32)
_HALF = np.float32(math.sqrt(0.5))


def thumbnail_side(image_size: int) -> int:
    """Side of the thumbnail in which the textures are invisible, pixels."""
    return 224 if image_size >= 400 else 32


def thumbnail_pixel(image_size: int) -> float:
    """Side of a thumbnail's pixel, image pixels."""
    return image_size / thumbnail_side(image_size)


def part_scale(image_size: int) -> float:
    """Size of the parts with textures: as large as in a cartoon to be seen in 32 pixels."""
    return 0.5 if thumbnail_side(image_size) == 224 else 1.0


def period(image_size: int) -> float:
    """Period of all textures, image pixels: 0.85 thumbnail pixels, but at least 3 image pixels.

    0.85 keeps 14 % of the contrast in the thumbnail and 19 % in the image shrunk to 45/128 of its
    side. Another period lowers one of the two and raises the other.

    >>> period(128), period(512)
    (3.4, 3.0)
    """
    return max(3.0, 0.85 * thumbnail_pixel(image_size))


def cosine(turns: np.ndarray) -> np.ndarray:
    """Cosine of angles in turns, rounded to the table's grid; float64."""
    return _COSINE[np.floor(turns * TURN + 0.5).astype(np.int64) & (TURN - 1)]


def sine(turns: np.ndarray) -> np.ndarray:
    """Sine of angles in turns, rounded to the table's grid; float64."""
    return cosine(turns - 0.25)


def pattern(
    kind: int, u: np.ndarray, v: np.ndarray, period: float, phase: tuple[float, float]
) -> np.ndarray:
    """Values ``(h, w)`` float32 of a texture, with mean 0 and variance 1/2 over whole periods.

    `kind` is an index of `NAMES`. "barred": stripes across the part's axis; "striped": along it;
    "dotted": a grid of dots. `u` and `v` ``(h, w)`` float32 are coordinates along the part's axis
    and across it, pixels, and `phase` holds the phases of the waves along them, turns.
    """
    if kind == 0:
        return _wave(u, period, phase[0])
    if kind == 1:
        return _wave(v, period, phase[1])
    return (_wave(u, period, phase[0]) + _wave(v, period, phase[1])) * _HALF


def _wave(x: np.ndarray, period: float, phase: float) -> np.ndarray:
    steps = np.floor(x * (TURN / period) + phase * TURN).astype(np.int32)
    return _WAVE[steps & (TURN - 1)]
