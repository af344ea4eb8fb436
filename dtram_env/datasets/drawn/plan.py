"""What a body plan is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .pieces import Figure
from .words import Draws


@dataclass(frozen=True)
class Plan:
    """A kind of figure.

    Attributes:
        parts: names of the parts that carry textures, P of them.
        singles: indices of parts, in the order in which genera take one of them to tell species.
        pairs: pairs of parts that no glimpse covers together, for the genera that take two.
        stems: names that genera take.
        figure: ``figure(draws, shape, size)`` puts N figures together. `shape` ``(N, SHAPES)`` are
            the genera's proportions, `size` is that of the parts, see `textures.part_scale`.
        units: range of figures' sizes: pixels a unit, on an image of 128 pixels.
    """

    parts: tuple[str, ...]
    singles: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    stems: tuple[str, ...]
    figure: Callable[[Draws, np.ndarray, float], Figure]
    units: tuple[float, float]
