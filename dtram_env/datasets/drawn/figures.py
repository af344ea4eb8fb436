"""Positions and shapes of the figures of an official part, computed without drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .genera import Genera
from .pieces import Figure, Pieces
from .plan import Plan
from .random_words import Draws, RandomWords
from .textures import TEXTURES, part_scale

_WIDTH = 32  # random words per image
_TILT = 25 / 360  # largest tilt, turns
_MARGIN = 1.5  # pixels between a figure and the image's edge


@dataclass(frozen=True)
class Figures:
    """The figures of N images.

    Attributes:
        figure: inks and parts of the pieces, the same for all images.
        pieces: the pieces, of shape ``(N, Q)``.
        clutter: ``(N,)`` float64 in [0, 1).
        kinds: ``(N, P)`` int64, textures of the parts whose texture the species does not define.
        phases: ``(N, P, 2)`` float64, phases of the textures' waves, turns.
    """

    figure: Figure
    pieces: Pieces
    clutter: np.ndarray
    kinds: np.ndarray
    phases: np.ndarray

    def part_boxes(self, num_parts: int, size: int) -> np.ndarray:
        """Left, top, width and height of every part in pixels, ``(N, P, 4)`` int32."""
        edges, owner = self.pieces.pixels(size), np.array(self.figure.parts)
        boxes = []
        for part in range(num_parts):
            own = edges[:, owner == part]
            low, high = own[..., :2].min(axis=1), own[..., 2:].max(axis=1)
            boxes.append(np.concatenate([low, high - low], axis=1))
        return np.stack(boxes, axis=1)


def figures(
    plan: Plan, table: Genera, labels: np.ndarray, size: int, random: RandomWords
) -> Figures:
    """The figures of all images of an official part.

    Args:
        plan: the body plan.
        table: its classes.
        labels: ``(N,)`` int64, classes of the images.
        size: side of the images, pixels.
        random: random numbers of the official part.
    """
    n, parts = len(labels), len(plan.parts)
    draws = Draws(random.table("figures", n, _WIDTH))
    clutter = draws.unit()
    tilt = draws.between(-_TILT, _TILT)
    facing = 2.0 * draws.below(2) - 1.0
    unit = draws.between(*plan.units) * (size / 128)
    spot = draws.unit(), draws.unit()
    kinds = np.stack([draws.below(TEXTURES) for _ in range(parts)], axis=1)
    phases = np.stack([draws.unit() for _ in range(2 * parts)], axis=1).reshape(n, parts, 2)
    figure = plan.figure(draws, table.shape[table.genus[labels]], part_scale(size))
    pieces = figure.place(tilt, facing, unit, spot, size, _MARGIN)
    return Figures(figure, pieces, clutter, kinds, phases)
