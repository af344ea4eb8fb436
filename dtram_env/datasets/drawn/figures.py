"""Body plans, and positions and shapes of the figures of a part, computed without drawing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .genera import Genera
from .pieces import Figure, Pieces
from .random_words import Draws
from .textures import TEXTURES, part_scale

WORDS = 32  # random words per figure, at most
_TILT = 25 / 360  # largest tilt, turns
_MARGIN = 1.5  # pixels between a figure and the image's edge


@dataclass(frozen=True)
class Plan:
    """A kind of figure, such as a bird.

    ``figure(draws, shape, size)`` builds N figures. `shape` ``(N, SHAPES)`` are the genera's
    proportions, and `size` scales the parts, see `textures.part_scale`.
    """

    parts: tuple[str, ...]  # names of the P parts with textures
    singles: tuple[int, ...]  # parts, in the order in which genera use one as discriminative part
    pairs: tuple[tuple[int, int], ...]  # parts that no glimpse covers together, for genera with two
    stems: tuple[str, ...]  # names of the genera
    figure: Callable[[Draws, np.ndarray, float], Figure]
    units: tuple[float, float]  # range of pixels per unit, on an image of 128 pixels


@dataclass(frozen=True)
class Figures:
    """The figures of N images."""

    figure: Figure  # inks and parts of the pieces, the same for all images
    pieces: Pieces  # (N, Q)
    clutter: np.ndarray  # (N,) float64 in [0, 1)
    kinds: np.ndarray  # (N, P) int64, textures of the parts whose texture the species leaves open
    phases: np.ndarray  # (N, P, 2) float64, phases of the textures' waves, turns

    def part_boxes(self, num_parts: int, size: int) -> np.ndarray:
        """Left, top, width and height of every part in pixels, ``(N, P, 4)`` int32."""
        edges, owner = self.pieces.pixels(size), np.array(self.figure.parts)
        own = [edges[:, owner == part] for part in range(num_parts)]
        low = np.stack([box[..., :2].min(axis=1) for box in own], axis=1)
        high = np.stack([box[..., 2:].max(axis=1) for box in own], axis=1)
        return np.concatenate([low, high - low], axis=-1)


def figures(
    plan: Plan, table: Genera, labels: np.ndarray, draws: Draws, size: int, figure_size: int
) -> Figures:
    """N figures, each somewhere in an image of side `size`.

    Their classes `labels` ``(N,)`` index `table`. They are as large as in an image of side
    `figure_size`.
    """
    n, parts = len(labels), len(plan.parts)
    clutter = draws.unit()
    tilt = draws.between(-_TILT, _TILT)
    facing = 2.0 * draws.below(2) - 1.0
    unit = draws.between(*plan.units) * (figure_size / 128)
    spot = draws.unit(), draws.unit()
    kinds = np.stack([draws.below(TEXTURES) for _ in range(parts)], axis=1)
    phases = np.stack([draws.unit() for _ in range(2 * parts)], axis=1).reshape(n, parts, 2)
    figure = plan.figure(draws, table.shape[table.genus[labels]], part_scale(figure_size))
    pieces = figure.place(tilt, facing, unit, spot, size, _MARGIN)
    return Figures(figure, pieces, clutter, kinds, phases)
