"""The body plan: a kind of figure, such as a bird."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .pieces import Figure
from .random_words import Draws


@dataclass(frozen=True)
class Plan:
    """A kind of figure.

    Attributes:
        parts: names of the P parts with textures.
        singles: indices of parts, in the order in which genera use one as discriminative part.
        pairs: pairs of parts that no glimpse covers together, for genera that use two.
        stems: names of the genera.
        figure: ``figure(draws, shape, size)`` builds N figures. `shape` ``(N, SHAPES)`` are the
            genera's proportions and `size` scales the parts, see `textures.part_scale`.
        units: range of the figures' sizes: pixels per unit, on an image of 128 pixels.
    """

    parts: tuple[str, ...]
    singles: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    stems: tuple[str, ...]
    figure: Callable[[Draws, np.ndarray, float], Figure]
    units: tuple[float, float]
