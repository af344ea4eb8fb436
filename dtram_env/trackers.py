"""What slots remember of the glimpses of their episode: pixels, cells, the path.

Each is an `episodes.Tracker`, told by the state machine (or the scalar environment) when an episode
starts and when a crop is taken. Nothing is changed in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backends import Backend
from .views import grid_centres


class SeenPixels:
    """Which pixels the finest crops of an episode covered.

    Attributes:
        mask: ``(n, H, W)`` bool.
    """

    def __init__(self, b: Backend, num_envs: int, height: int, width: int, side: int) -> None:
        self._b, self._side = b, side
        self._height, self._width = height, width
        self._rows = b.array(np.arange(height))
        self._columns = b.array(np.arange(width))
        self.mask = b.full((num_envs, height, width), False, b.boolean)

    def start(self, mask: Any | None) -> None:
        """Forgets slots."""
        self.mask = self.mask & False if mask is None else self.mask & ~mask[:, None, None]

    def look(self, mask: Any | None, location: Any) -> None:
        """Adds the crops at `location`."""
        top = self._b.corner(location[:, 1], self._height, self._side)[:, None]
        left = self._b.corner(location[:, 0], self._width, self._side)[:, None]
        rows = (self._rows >= top) & (self._rows < top + self._side)
        columns = (self._columns >= left) & (self._columns < left + self._side)
        if mask is not None:
            rows = rows & mask[:, None]
        self.mask = self.mask | (rows[:, :, None] & columns[:, None, :])


class SeenCells:
    """At which cells' exact locations a crop of an episode was taken.

    Attributes:
        mask: ``(n, G * G)`` bool.
    """

    def __init__(self, b: Backend, num_envs: int, grid: int) -> None:
        self._centres = b.array(grid_centres(grid))
        self.mask = b.full((num_envs, grid * grid), False, b.boolean)

    def start(self, mask: Any | None) -> None:
        """Forgets slots."""
        self.mask = self.mask & False if mask is None else self.mask & ~mask[:, None]

    def look(self, mask: Any | None, location: Any) -> None:
        """Adds the crops at `location`."""
        here = (self._centres == location[:, None]).all(-1)
        self.mask = self.mask | (here if mask is None else here & mask[:, None])


class Path:
    """Where the crops of an episode were taken, for pictures.

    Attributes:
        points: ``(n, T, 2)`` float32, in order.
        count: ``(n,)`` int64, how many of them there are.
    """

    def __init__(self, b: Backend, num_envs: int, max_glimpses: int) -> None:
        self._where = b.xp.where
        self._steps = b.array(np.arange(max_glimpses))
        self._zero = b.full(num_envs, 0, b.xp.int64)
        self.points = b.full((num_envs, max_glimpses, 2), 0, b.xp.float32)
        self.count = self._zero

    def start(self, mask: Any | None) -> None:
        """Forgets slots."""
        self.count = self._zero if mask is None else self._where(mask, 0, self.count)

    def look(self, mask: Any | None, location: Any) -> None:
        """Adds the crops at `location`."""
        here = self._steps == self.count[:, None]
        if mask is not None:
            here = here & mask[:, None]
        self.points = self._where(here[..., None], location[:, None], self.points)
        self.count = self.count + (1 if mask is None else mask)
