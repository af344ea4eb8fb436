"""Trackers: what an environment records about the glimpses of each slot's current episode.

They record which pixels were covered (for the canvas), which grid cells were visited (for action
masks) and where the crops were taken (for pictures).
"""

from typing import Any, Protocol

import numpy as np

from .backends import Backend
from .views import grid_centres


class Tracker(Protocol):
    """`Episodes` (or the scalar environment) reports every start and every crop to it.

    Arrays are replaced, never changed in place, so results that were returned stay as they were.
    """

    def start(self, mask: Any) -> None:
        """Clears the slots in `mask` ``(n,)`` bool, whose episode starts."""

    def update(self, mask: Any, location: Any) -> None:
        """Records crops at `location` ``(n, 2)`` float32 in the slots of `mask`."""


class SeenPixels(Tracker):
    """`mask` ``(n, H, W)`` bool: the pixels that the finest crops of an episode have covered."""

    def __init__(self, b: Backend, num_envs: int, height: int, width: int, side: int) -> None:
        self._corner, self._height, self._width, self._side = b.sensor.corner, height, width, side
        self._rows = b.array(np.arange(height))
        self._columns = b.array(np.arange(width))
        self.mask = b.full((num_envs, height, width), False, b.boolean)

    def start(self, mask: Any) -> None:
        self.mask = self.mask & ~mask[:, None, None]

    def update(self, mask: Any, location: Any) -> None:
        top = self._corner(location[:, 1], self._height, self._side)[:, None]
        left = self._corner(location[:, 0], self._width, self._side)[:, None]
        rows = (self._rows >= top) & (self._rows < top + self._side) & mask[:, None]
        columns = (self._columns >= left) & (self._columns < left + self._side)
        self.mask = self.mask | (rows[:, :, None] & columns[:, None, :])


class SeenCells(Tracker):
    """`mask` ``(n, G * G)`` bool: the grid cells at whose exact centre a crop was taken."""

    def __init__(self, b: Backend, num_envs: int, grid: int) -> None:
        self._centres = b.array(grid_centres(grid))
        self.mask = b.full((num_envs, grid * grid), False, b.boolean)

    def start(self, mask: Any) -> None:
        self.mask = self.mask & ~mask[:, None]

    def update(self, mask: Any, location: Any) -> None:
        self.mask = self.mask | ((self._centres == location[:, None]).all(-1) & mask[:, None])


class CropLocations(Tracker):
    """`locations` ``(n, T_max, 2)`` float32 of an episode's first `count` ``(n,)`` int64 crops."""

    def __init__(self, b: Backend, num_envs: int, max_glimpses: int) -> None:
        self._b = b
        self._steps = b.array(np.arange(max_glimpses))
        self.locations = b.full((num_envs, max_glimpses, 2), 0, b.xp.float32)
        self.count = b.full(num_envs, 0, b.xp.int64)

    def start(self, mask: Any) -> None:
        self.count = self.count * ~mask

    def update(self, mask: Any, location: Any) -> None:
        here = (self._steps == self.count[:, None]) & mask[:, None]
        self.locations = self._b.xp.where(here[..., None], location[:, None], self.locations)
        self.count = self.count + mask
