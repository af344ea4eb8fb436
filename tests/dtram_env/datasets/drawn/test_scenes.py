"""Scenes: clutter grows with its level, mottle and grain have mean 0 and the strength asked for."""

import numpy as np
import pytest

from dtram_env.datasets.drawn.canvas import Canvas
from dtram_env.datasets.drawn.pieces import Pieces
from dtram_env.datasets.drawn.random_words import RandomWords
from dtram_env.datasets.drawn.scenes import MOTTLE, grain, mottle, scene
from dtram_env.datasets.drawn.textures import thumbnail_pixel

SOURCE = RandomWords(0, 0)


def edges(canvas: Canvas) -> float:
    """Mean change from pixel to pixel, grey levels."""
    return float(np.abs(np.diff(canvas.planes, axis=2)).mean())


def test_clutter() -> None:
    """Nothing but smooth colours without it; more edges with more of it."""
    found = [
        np.mean([edges(scene(SOURCE, row, 128, 128, level)) for row in range(12)])
        for level in (0.0, 0.3, 0.6, 1.0)
    ]
    assert found[0] < 1.0 and np.all(np.diff(found) > 0.5)


def test_a_scene_with_more_clutter_has_the_same_leaves_and_more() -> None:
    """So that the level is what it says, and not another scene."""
    calm, busy = (scene(SOURCE, 3, 128, 128, level).planes for level in (0.9, 0.95))
    assert np.mean(np.abs(calm - busy).max(axis=0) < 12) > 0.8


@pytest.mark.parametrize("size", [128, 256, 512])
def test_clutter_has_one_size_and_density(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: at clutter 1 an image of 128 pixels has 10 leaves, 4 branches and 5 decoys."""
    painted: list[Pieces] = []
    monkeypatch.setattr(Canvas, "paint", lambda self, pieces, *_: painted.append(pieces))
    for row in range(20):
        scene(SOURCE, row, size, 128, 1.0)
    assert [len(pieces.a) for pieces in painted[:3]] == [n * size**2 // 128**2 for n in (10, 4, 5)]
    for kind, (low, high) in enumerate([(0.04, 0.12), (0.2, 0.6), (0.05, 0.09)]):
        lengths = np.concatenate([pieces.a for pieces in painted[kind::3]]) / 128
        assert low <= lengths.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < lengths.max() < high
        places = np.concatenate([pieces.x for pieces in painted[kind::3]]) / size
        assert 0 <= places.min() < 0.1 and 0.9 < places.max() < 1


def test_patches_of_colour_have_one_size() -> None:
    """Without clutter the colours of a scene are linear between corners 32 pixels apart."""
    planes = scene(SOURCE, 0, 513, 128, 0.0).planes.astype(float)
    bends = np.abs(np.diff(planes[0], 2, axis=1)).max(axis=0)
    assert (np.flatnonzero(bends > 1e-3) + 1).tolist() == list(range(32, 512, 32))


@pytest.mark.parametrize("size", [128, 512])
def test_mottle_and_grain(size: int) -> None:
    canvas = Canvas(np.full((3, size, size), 100, np.float32), 128)
    mottle(canvas, SOURCE, 0)
    light = canvas.planes - 100
    assert np.array_equal(light[0], light[2])  # grey
    assert np.abs(light).max() <= MOTTLE and abs(light.mean()) < 2 and light.std() > MOTTLE / 4
    # Coarser than the textures: less than 5 % of its power at periods below a thumbnail's pixel.
    power = np.abs(np.fft.fft2(light[0] - light[0].mean())) ** 2
    frequency = np.abs(np.fft.fftfreq(size))
    fine = np.maximum(frequency[:, None], frequency) > 1 / thumbnail_pixel(128)
    assert power[fine].sum() < 0.05 * power.sum()

    canvas = Canvas(np.full((3, size, size), 100, np.float32))
    grain(canvas, SOURCE, 0, 10.0)
    noise = canvas.planes[0] - 100
    assert np.abs(noise).max() <= 10 and abs(noise.mean()) < 4 * 10 / 3**0.5 / size
    assert abs(noise.std() - 10 / 3**0.5) < 0.1
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 4 / size
