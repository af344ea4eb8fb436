"""A canvas on which pieces with smooth edges are painted, one over another.

It uses only sums, products, quotients, square roots and tables. The floating-point standard defines
these to the last bit, so an image is the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from .pieces import Pieces
from .textures import AMPLITUDE, pattern, period

_FIELDS = tuple(f.name for f in fields(Pieces))


class Texture(NamedTuple):
    """The texture of one piece."""

    kind: int  # an index of `textures.NAMES`
    phase: tuple[float, float]  # of the waves along the piece and across it, turns


class Canvas:
    """An unfinished image: `planes` ``(3, size, size)`` float32, grey levels 0 to 255.

    `figure_size` sets the scale of textures and light, see `Drawing`; None: the image's own side.
    """

    def __init__(self, planes: np.ndarray, figure_size: int | None = None) -> None:
        self.planes = planes
        self.size = planes.shape[-1]
        self.figure_size = figure_size or self.size
        self._centres = np.arange(self.size, dtype=np.float32) + np.float32(0.5)

    def paint(
        self, pieces: Pieces, colours: np.ndarray, textures: Sequence[Texture | None] = ()
    ) -> None:
        """Paints pieces ``(Q,)`` in order, in `colours` ``(Q, 3)`` red, green, blue, 0 to 255."""
        columns = colours.astype(np.float32)[:, :, None, None]
        shapes = zip(*(getattr(pieces, name).tolist() for name in _FIELDS), strict=True)
        boxes = pieces.pixels(self.size).tolist()
        drawn = zip(columns, shapes, boxes, textures or [None] * len(boxes), strict=True)
        for colour, shape, (left, top, right, bottom), texture in drawn:
            if left >= right or top >= bottom:
                continue
            u, v, cover = _cover(self._centres[left:right], self._centres[top:bottom], shape)
            region = self.planes[:, top:bottom, left:right]
            region += (colour - region) * cover
            if texture is not None:
                wave = pattern(texture.kind, u, v, period(self.figure_size), texture.phase)
                region += _centred(wave, cover) * (cover * np.float32(AMPLITUDE))

    def pixels(self) -> np.ndarray:
        """The image, rounded: ``(S, S, 3)`` uint8."""
        planes = np.clip(self.planes + np.float32(0.5), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


def field(values: np.ndarray, size: int) -> np.ndarray:
    """Enlarges ``(C, k, k)`` to ``(C, size, size)`` linearly; corners keep their values, k > 1."""
    k = values.shape[-1]
    at = np.arange(size, dtype=np.float32) * np.float32((k - 1) / (size - 1))
    low = np.minimum(at.astype(np.int32), k - 2)
    share = at - low.astype(np.float32)
    below, above = values[:, low], values[:, low + 1]
    rows = below + (above - below) * share[:, None]
    step = rows[:, :, 1:] - rows[:, :, :-1]
    return rows[:, :, low] + step[:, :, low] * share


def _cover(
    columns: np.ndarray, rows: np.ndarray, piece: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along a piece's axis and across it, pixels, and coverage, each ``(h, w)``."""
    x, y, ux, uy, vx, vy, a, b, taper, bar = piece
    dx, dy = columns - x, (rows - y)[:, None]
    u, v = dx * ux + dy * uy, dx * vx + dy * vy
    if bar:
        width = u * (b * (taper - 1) / (2 * a)) + b * (taper + 1) / 2
        inside = np.minimum(a - np.abs(u), width - np.abs(v))
    else:
        p, q = u * u * (1 / (a * a)), v * v * (1 / (b * b))
        # First-order distance to the outline: value over gradient.
        gradient = np.sqrt(p * (4 / (a * a)) + q * (4 / (b * b)) + 1e-6)
        inside = (1 - p - q) / gradient
    return u, v, np.clip(inside + 0.5, 0, 1)


def _centred(wave: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Subtracts the wave's mean over the covered pixels, which keeps the part's mean colour."""
    # In whole numbers, whose sum does not depend on the order.
    weight = np.rint(cover * 64).astype(np.int64)
    level = np.rint(wave * 4096).astype(np.int64)
    mean = (weight * level).sum() / (4096 * max(int(weight.sum()), 1))
    return wave - np.float32(mean)
