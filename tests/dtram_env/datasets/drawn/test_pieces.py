"""Pieces and their canvas: bounds, coverage, and areas in closed form."""

import math

import numpy as np
import pytest

from dtram_env.datasets.drawn.canvas import Canvas, Texture, field
from dtram_env.datasets.drawn.pieces import Figure, Pieces
from dtram_env.datasets.drawn.textures import AMPLITUDE

SIZE = 64


def one(
    *, bar: bool, a: float, b: float, turn: float = 0.0, taper: float = 1.0, facing: float = 1.0
) -> Pieces:
    """One piece in the middle of an image of `SIZE` pixels."""
    figure = Figure()
    if bar:
        figure.bar("body", (0, 0), (a, b), taper=taper)
    else:
        figure.ellipse("body", (0, 0), (a, b))
    turns, half = np.array([turn]), np.array([0.5])
    return figure.place(turns, np.array([facing]), np.ones(1), (half, half), SIZE, 0).of(0)


def painted(pieces: Pieces) -> np.ndarray:
    """Share of every pixel that is covered, ``(S, S)``."""
    canvas = Canvas(np.zeros((3, SIZE, SIZE), np.float32))
    canvas.paint(pieces, np.ones((1, 3)))
    assert np.array_equal(canvas.planes[0], canvas.planes[2])
    return canvas.planes[0].astype(float)


@pytest.mark.parametrize("turn", [0.0, 0.07, 0.25, 0.4])
@pytest.mark.parametrize("facing", [1.0, -1.0])
def test_areas(turn: float, facing: float) -> None:
    ellipse = painted(one(bar=False, a=14, b=8, turn=turn, facing=facing)).sum()
    assert ellipse == pytest.approx(math.pi * 14 * 8, rel=0.01)
    bar = painted(one(bar=True, a=12, b=8, taper=0.5, turn=turn, facing=facing)).sum()
    assert bar == pytest.approx(24 * 16 * 0.75, rel=0.02)


@pytest.mark.parametrize("bar", [False, True])
@pytest.mark.parametrize("turn", [0.0, 0.07, 0.2, 0.5, 0.9])
def test_bounds_are_tight(bar: bool, turn: float) -> None:
    piece = one(bar=bar, a=15, b=7, turn=turn, taper=0.6 if bar else 1.0)
    rows, columns = np.nonzero(painted(piece) > 0.5)
    left, top, right, bottom = (float(edge[0]) for edge in piece.bounds())
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # A corner is cut by less than a pixel and a half.
    assert found == pytest.approx((left, top, right, bottom), abs=1.6)
    box = piece.pixels(SIZE)[0]
    assert box[0] <= left and box[1] <= top and box[2] >= right and box[3] >= bottom


def test_corners_of_a_tapering_bar() -> None:
    """Back corners (-10, ±6), front corners (10, ±3), by hand."""
    left, top, right, bottom = one(bar=True, a=10, b=6, taper=0.5).bounds()
    assert right[0] - left[0] == 20 and bottom[0] - top[0] == 12
    left, top, right, bottom = one(bar=True, a=10, b=6, taper=0.5, turn=0.25).bounds()
    assert right[0] - left[0] == 12 and bottom[0] - top[0] == 20
    c = s = math.sqrt(0.5)
    left, top, right, bottom = one(bar=True, a=10, b=6, taper=0.5, turn=0.125).bounds()
    corners = [(x * c - y * s, x * s + y * c) for x, y in ((-10, 6), (-10, -6), (10, 3), (10, -3))]
    xs, ys = zip(*corners, strict=True)
    assert right[0] - left[0] == pytest.approx(max(xs) - min(xs), abs=1e-3)
    assert bottom[0] - top[0] == pytest.approx(max(ys) - min(ys), abs=1e-3)


def test_a_mirrored_figure_is_the_mirror_image() -> None:
    right = painted(one(bar=True, a=15, b=7, turn=0.06, taper=0.5))
    left = painted(one(bar=True, a=15, b=7, turn=0.06, taper=0.5, facing=-1))
    assert np.allclose(left, right[:, ::-1], atol=1e-4)
    assert not np.allclose(left, right, atol=0.5)


def test_figures_stay_inside_and_use_the_room() -> None:
    figure = Figure()
    figure.ellipse("body", (0, 0), (20, 10))
    figure.bar("head", (25, -5), (10, 4), angle=-0.1)
    n, size = 500, 128
    rng = np.random.default_rng(0)
    tilt, facing = rng.uniform(-0.07, 0.07, n), rng.choice([-1.0, 1.0], n)
    spot = rng.random(n), np.linspace(0, 1, n)
    placed = figure.place(tilt, facing, rng.uniform(0.9, 1.2, n), spot, size, 2)
    left, top, right, bottom = placed.bounds()
    assert min(left.min(), top.min()) >= 2 - 1e-9
    assert max(right.max(), bottom.max()) <= size - 2 + 1e-9
    assert top[0].min() == pytest.approx(2) and bottom[-1].max() == pytest.approx(size - 2)


def test_a_texture_keeps_the_mean_and_stays_inside_its_piece() -> None:
    piece = one(bar=False, a=11.3, b=6.7, turn=0.05)
    plain = painted(piece)
    for kind in range(3):
        canvas = Canvas(np.full((3, SIZE, SIZE), 100, np.float32))
        texture = Texture(kind, (0.37, 0.81))
        canvas.paint(piece, np.full((1, 3), 100), [texture])
        change = canvas.planes[0].astype(float) - 100
        assert abs(change.sum() / plain.sum()) < 0.3
        assert np.all(change[plain == 0] == 0)
        assert change[plain == 1].std() == pytest.approx(AMPLITUDE * 0.5**0.5, rel=0.15)


def test_pieces_beyond_the_edge_are_clipped() -> None:
    piece = one(bar=False, a=10, b=10)
    moved = Pieces(**{**vars(piece), "x": piece.x - 32, "y": piece.y + 32})
    assert painted(moved).sum() == pytest.approx(math.pi * 100 / 4, rel=0.03)
    gone = Pieces(**{**vars(piece), "x": piece.x - 50})
    assert painted(gone).sum() == 0


def test_field_is_linear_between_its_values() -> None:
    values = np.array([[[0.0, 2.0], [4.0, 6.0]]], np.float32)
    y, x = np.indices((9, 9)) / 8
    assert np.allclose(field(values, 9), 2 * x + 4 * y, atol=1e-6)
    values = np.random.default_rng(0).random((3, 5, 5)).astype(np.float32)
    assert np.allclose(field(values, 17)[:, ::4, ::4], values, atol=1e-6)


def test_pixels_are_rounded_and_clipped() -> None:
    planes = np.zeros((3, 2, 2), np.float32)
    planes[:, 0, 0], planes[:, 0, 1], planes[:, 1, 0] = -7, 300, 99.5
    planes[:, 1, 1] = [1, 2, 3]
    pixels = Canvas(planes).pixels()
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 2, 3)
    assert pixels[..., 0].tolist() == [[0, 255], [100, 1]] and pixels[1, 1].tolist() == [1, 2, 3]
