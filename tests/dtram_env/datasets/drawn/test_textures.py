"""Textures: alike in mean, variance and period; the thumbnail keeps what the formula says."""

import math

import numpy as np
import pytest

from dtram_env.datasets.drawn.textures import (
    NAMES,
    TEXTURES,
    cosine,
    part_scale,
    pattern,
    period,
    sine,
    thumbnail_pixel,
)
from dtram_env.datasets.storage.thumbnails import box_resize

SIZES = (96, 128, 200, 256, 399, 400, 512, 1024, 2048)


def axes(height: int, width: int, turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across an axis that is turned by `turn` turns, pixels."""
    y, x = np.indices((height, width)).astype(np.float32)
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return (x * c + y * s).astype(np.float32), (y * c - x * s).astype(np.float32)


def test_both_profiles() -> None:
    assert thumbnail_pixel(512) == 512 / 224 and period(512) == 3.0 and part_scale(512) == 0.5
    assert thumbnail_pixel(128) == 4.0 and period(128) == 3.4 and part_scale(128) == 1.0


@pytest.mark.parametrize("size", SIZES)
def test_the_period_is_above_the_thumbnails_limit(size: int) -> None:
    assert 3 <= period(size) <= 1.7 * thumbnail_pixel(size)


@pytest.mark.parametrize("kind", range(TEXTURES))
@pytest.mark.parametrize("wave", [3.0, 3.4])
def test_mean_and_variance(kind: int, wave: float) -> None:
    """Over whole periods in both directions: 102 = 34 * 3 = 30 * 3.4."""
    u, v = axes(102, 102)
    values = pattern(kind, u, v, wave, (0.3, 0.8)).astype(float)
    assert abs(values.mean()) < 1e-3
    assert abs(values.var() - 0.5) < 1e-3


@pytest.mark.parametrize("kind", range(TEXTURES))
@pytest.mark.parametrize("turn", [0.0, 0.04, 0.125])
def test_directions_and_period(kind: int, turn: float) -> None:
    """The spectrum has its peaks where the name says, at the period."""
    n, wave = 120, 3.4
    u, v = axes(n, n, turn)
    window = np.hanning(n)[:, None] * np.hanning(n)
    power = np.abs(np.fft.fft2(pattern(kind, u, v, wave, (0.1, 0.7)) * window, (480, 480))) ** 2
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)

    def at(fx: float, fy: float) -> float:
        return power[round(fy / wave * 480) % 480, round(fx / wave * 480) % 480] / power.max()

    along, across = at(c, s), at(-s, c)
    expected = {"barred": (1, 0), "striped": (0, 1), "dotted": (1, 1)}[NAMES[kind]]
    assert (along, across) == pytest.approx(expected, abs=0.12)


def test_the_mirror_image_and_the_opposite_phase_have_the_same_texture() -> None:
    u, v = axes(20, 20)
    for kind in range(TEXTURES):
        assert np.allclose(
            pattern(kind, u, v, 3.4, (0.25, 0.25)), -pattern(kind, u, v, 3.4, (0.75, 0.75))
        )


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("turn", [0.0, 0.05, 0.125])
def test_what_a_thumbnail_keeps_of_a_wave(size: int, turn: float) -> None:
    """The product of the two sides' contrasts: means of `w` samples, in closed form."""
    w, wave = thumbnail_pixel(size), period(size)
    u, v = axes(size, size, turn)
    image = np.rint(128 + 100 * pattern(0, u, v, wave, (0.2, 0.0))).astype(np.uint8)
    kept = box_resize(np.repeat(image[None, ..., None], 3, axis=3), round(size / w))
    angles = math.cos(2 * math.pi * turn) / wave, math.sin(2 * math.pi * turn) / wave
    if w == int(w):
        factors = [
            1.0 if f == 0 else abs(math.sin(math.pi * w * f) / (w * math.sin(math.pi * f)))
            for f in angles
        ]
        expected = math.prod(factors)
        assert kept.astype(float).std() / image.std() == pytest.approx(expected, abs=0.01)
    assert kept.astype(float).std() / image.std() < (0.2 if size == 128 else 0.4)


def test_cosines() -> None:
    turns = np.arange(-9, 9) / 8
    assert np.allclose(cosine(turns), np.cos(2 * np.pi * turns), atol=1e-4)
    assert np.allclose(sine(turns), np.sin(2 * np.pi * turns), atol=1e-4)
    assert cosine(np.array([0.0, 0.5])).tolist() == [1.0, -1.0]
