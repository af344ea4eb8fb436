"""Background and clutter of an image: smooth colours, leaves, branches, decoys, uneven light."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .canvas import Canvas, Texture, field
from .genera import ACCENTS
from .pieces import Pieces
from .random_words import Draws, RandomWords
from .textures import TEXTURES, cosine, part_scale, sine, thumbnail_pixel

MOTTLE = 20.0  # largest change by uneven light, grey levels
_PATCHES = 4  # of colour along a side of `figure_size` pixels
_WIDTH = 12  # random words per piece


def scene(random: RandomWords, index: int, size: int, figure_size: int, clutter: float) -> Canvas:
    """Image `index` without its figures: patches of colour, then `clutter`, in [0, 1].

    Patches and clutter are as large and as dense as in an image of `figure_size` pixels.
    """
    k = int(_PATCHES * size / figure_size + 0.5) + 1
    levels = random.levels("ground", index, 4 * k * k).reshape(4, k, k)
    cells = (levels - np.float32(127.5)) * np.float32(0.15 + 0.35 * clutter)
    planes = field(cells[:3] * np.float32(0.6) + cells[3] * np.float32(0.8) + 124, size)
    canvas = Canvas(planes, figure_size)
    for purpose, (most, draw) in CLUTTER.items():
        count = int(most * (size / figure_size) ** 2 * clutter + 0.5)
        canvas.paint(*draw(random.draws(purpose, index, count, _WIDTH), size, figure_size))
    return canvas


def mottle(canvas: Canvas, random: RandomWords, index: int) -> None:
    """Adds uneven light that hides the textures in a thumbnail: its cells are coarser than they."""
    cells = int(canvas.size / (1.5 * thumbnail_pixel(canvas.figure_size)) + 0.5) + 1
    levels = random.levels("mottle", index, cells * cells).reshape(1, cells, cells)
    light = (levels - np.float32(127.5)) * np.float32(MOTTLE / 127.5)
    canvas.planes += field(light, canvas.size)


def grain(canvas: Canvas, random: RandomWords, index: int, strength: float) -> None:
    """Adds independent grey noise to each pixel, uniform within ±`strength` levels."""
    size = canvas.size
    levels = random.levels("grain", index, size * size).reshape(size, size)
    canvas.planes += (levels - np.float32(127.5)) * np.float32(strength / 127.5)


def _leaves(draws: Draws, size: int, figure_size: int) -> tuple[Pieces, np.ndarray]:
    a = draws.between(0.04, 0.12) * figure_size
    return _scattered(draws, size, a, a * draws.between(0.3, 0.8), bar=False), _tones(draws)


def _branches(draws: Draws, size: int, figure_size: int) -> tuple[Pieces, np.ndarray]:
    a, b = draws.between(0.2, 0.6) * figure_size, draws.between(0.008, 0.025) * figure_size
    return _scattered(draws, size, a, b, bar=True), _tones(draws)


def _decoys(
    draws: Draws, size: int, figure_size: int
) -> tuple[Pieces, np.ndarray, list[Texture | None]]:
    """Ellipses with the textures, colours and about the size of parts."""
    a = draws.between(0.05, 0.09) * figure_size * part_scale(figure_size)
    pieces = _scattered(draws, size, a, a * draws.between(0.6, 1.0), bar=False)
    colours = np.array(ACCENTS, np.float32)[draws.below(len(ACCENTS))]
    kinds = draws.below(TEXTURES).tolist()
    phases = zip(draws.unit().tolist(), draws.unit().tolist(), strict=True)
    return pieces, colours, list(map(Texture, kinds, phases))


def _scattered(draws: Draws, size: int, a: np.ndarray, b: np.ndarray, *, bar: bool) -> Pieces:
    """Pieces at random places and angles; bars taper to 0.6."""
    x, y, angle = draws.unit() * size, draws.unit() * size, draws.unit()
    ux, uy = cosine(angle), sine(angle)
    taper = np.full(len(a), 0.6 if bar else 1.0)
    return Pieces(x, y, ux, uy, -uy, ux, a, b, taper, np.full(len(a), bar))


def _tones(draws: Draws) -> np.ndarray:
    return np.stack([draws.between(40, 200) for _ in range(3)], axis=1)


# Numbers of pieces at clutter 1 in an image of `figure_size` pixels, and what draws them. At
# clutter 0 there are none.
CLUTTER: dict[str, tuple[int, Callable[..., Any]]] = {
    "leaves": (10, _leaves),
    "branches": (4, _branches),
    "decoys": (5, _decoys),
}
