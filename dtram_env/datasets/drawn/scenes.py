"""What is around and behind a figure: colours that change smoothly, leaves, branches, decoys."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Texture, field
from .genera import ACCENTS
from .pieces import Pieces
from .textures import AMPLITUDE, TEXTURES, cosine, part_scale, period, sine, thumbnail_pixel
from .words import Draws, Source

# How many there are at clutter 1; at clutter 0 there are none.
LEAVES, BRANCHES, DECOYS = 10, 4, 5

MOTTLE = 20.0
"""Grey levels, each way, of the uneven light on everything."""

_CELLS = 5  # patches of colour along a side
_WIDTH = 12  # words for a piece


def scene(source: Source, row: int, size: int, clutter: float) -> Canvas:
    """An image before its figure: patches of colour, then clutter.

    Args:
        source: of the official part's random numbers.
        row: the image.
        size: side, pixels.
        clutter: level in [0, 1].
    """
    levels = source.levels("ground", row, 4 * _CELLS**2).reshape(4, _CELLS, _CELLS)
    cells = (levels - np.float32(127.5)) * np.float32(0.15 + 0.35 * clutter)
    canvas = Canvas(field(cells[:3] * np.float32(0.6) + cells[3] * np.float32(0.8) + 124, size))
    for purpose, most, draw in (
        ("leaves", LEAVES, _leaves),
        ("branches", BRANCHES, _branches),
        ("decoys", DECOYS, _decoys),
    ):
        count = int(most * clutter + 0.5)
        canvas.paint(*draw(source.draws(purpose, row, count, _WIDTH), size))
    return canvas


def mottle(canvas: Canvas, source: Source, row: int) -> None:
    """Adds uneven light, half again as coarse as a thumbnail's pixels, over everything.

    What a thumbnail keeps of the textures drowns in it; in the image itself it is much coarser than
    they are, and disturbs nobody.
    """
    cells = int(canvas.size / (1.5 * thumbnail_pixel(canvas.size)) + 0.5) + 1
    levels = source.levels("mottle", row, cells * cells).reshape(1, cells, cells)
    light = (levels - np.float32(127.5)) * np.float32(MOTTLE / 127.5)
    canvas.planes += field(light, canvas.size)


def grain(canvas: Canvas, source: Source, row: int, strength: float) -> None:
    """Adds grey noise, each pixel on its own, uniform within `strength` levels each way."""
    size = canvas.size
    levels = source.levels("grain", row, size * size).reshape(size, size)
    canvas.planes += (levels - np.float32(127.5)) * np.float32(strength / 127.5)


def _leaves(draws: Draws, size: int) -> tuple[Pieces, np.ndarray]:
    a = draws.between(0.04, 0.12) * size
    return _scattered(draws, size, a, a * draws.between(0.3, 0.8), bar=False), _tones(draws)


def _branches(draws: Draws, size: int) -> tuple[Pieces, np.ndarray]:
    a, b = draws.between(0.2, 0.6) * size, draws.between(0.008, 0.025) * size
    return _scattered(draws, size, a, b, bar=True), _tones(draws)


def _decoys(draws: Draws, size: int) -> tuple[Pieces, np.ndarray, list[Texture | None]]:
    """Patches with the textures, the colours and about the size of parts."""
    a = draws.between(0.05, 0.09) * size * part_scale(size)
    pieces = _scattered(draws, size, a, a * draws.between(0.6, 1.0), bar=False)
    colours = np.array(ACCENTS, np.float32)[draws.below(len(ACCENTS))]
    kinds = draws.below(TEXTURES).tolist()
    phases = zip(draws.unit().tolist(), draws.unit().tolist(), strict=True)
    wave = period(size)
    textures: list[Texture | None] = [
        Texture(kind, wave, phase, AMPLITUDE) for kind, phase in zip(kinds, phases, strict=True)
    ]
    return pieces, colours, textures


def _scattered(draws: Draws, size: int, a: np.ndarray, b: np.ndarray, *, bar: bool) -> Pieces:
    """Pieces anywhere on the image, turned any way; bars taper to 0.6."""
    x, y, angle = draws.unit() * size, draws.unit() * size, draws.unit()
    ux, uy = cosine(angle), sine(angle)
    taper = np.full(len(a), 0.6 if bar else 1.0)
    return Pieces(x, y, ux, uy, -uy, ux, a, b, taper, np.full(len(a), bar))


def _tones(draws: Draws) -> np.ndarray:
    return np.stack([draws.between(40, 200) for _ in range(3)], axis=1)
