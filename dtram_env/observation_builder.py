"""What an agent sees: the state of slots turned into observations, in batches, on any backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from .backends import Backend

OBSERVATIONS = ("glimpse", "canvas")
FORMATS = ("image", "flat")
SMALL_IMAGE = 36  # the least side, in pixels, that stock convolutional extractors take


class Observer:
    """Makes observations out of the state of slots; the whole of what an agent sees.

    Args:
        image_shape: height, width, channels; only a canvas needs to know the former.
        max_glimpses: the budget, which `time` is measured against.
        glimpse_size: side of a glimpse, in pixels.
        num_scales: crops in a glimpse.
        first_glimpse: one of `episodes.FIRST_GLIMPSES`.
        thumbnail_size: side of the thumbnail, in pixels.
        observe: one of `OBSERVATIONS`.
        num_probs: classes of the belief that is observed too; 0 if none is.
        flat: whether images are flat vectors of float32 in [0, 1] rather than uint8 images.
    """

    def __init__(
        self,
        image_shape: tuple[int | None, int | None, int],
        max_glimpses: int,
        glimpse_size: int,
        num_scales: int,
        first_glimpse: str,
        thumbnail_size: int,
        observe: str,
        flat: bool,
        num_probs: int = 0,
    ) -> None:
        height, width, channels = image_shape
        self._max_glimpses, self._num_scales = max_glimpses, num_scales
        self._thumbnail_size, self._flat = thumbnail_size, flat
        self._canvas = observe == "canvas"
        self._choose = first_glimpse == "choose"
        self._thumbnail = first_glimpse == "thumbnail"
        self._own_key = self._thumbnail and (self._canvas or thumbnail_size != glimpse_size)
        shapes = {}
        if self._canvas:
            assert height is not None and width is not None, "the task checks it"
            shapes["canvas"] = (height, width, channels + 1)
        else:
            shapes["glimpse"] = (glimpse_size, glimpse_size, channels * num_scales)
        if self._own_key:
            shapes["thumbnail"] = (thumbnail_size, thumbnail_size, channels)
        boxes: dict[str, spaces.Space[Any]] = {key: self._box(s) for key, s in shapes.items()}
        boxes["location"] = spaces.Box(-1, 1, (2,), np.float32)
        boxes["time"] = spaces.Box(0, 1, (1,), np.float32)
        if num_probs:
            boxes["probs"] = spaces.Box(0, 1, (num_probs,), np.float32)
        self.space: spaces.Space[Any] = spaces.Dict(boxes)

    def observe(
        self,
        b: Backend,
        index: Any,
        location: Any,
        t: Any,
        seen: Any | None,
        probs: Any | None = None,
    ) -> Any:
        """The observation of every slot, new arrays.

        Args:
            b: the backend.
            index: ``(n,)`` int64, the images.
            location: ``(n, 2)`` float32, where the last glimpse was.
            t: ``(n,)`` int64, glimpses taken.
            seen: ``(n, H, W)`` bool, pixels seen; only for "canvas".
            probs: ``(n, K)`` float32, the belief; only if it is observed.
        """
        where = b.xp.where
        at_first = t == 1
        first = at_first[:, None, None, None] if self._thumbnail else None
        whole = None
        if self._thumbnail:
            whole = b.thumbnail(index, self._thumbnail_size, at_first)
        observation = {}
        if self._canvas:
            observation["canvas"] = self._paint(b, index, seen)
        else:
            needed = None
            if self._choose:
                needed = t > 0
            elif self._thumbnail:
                needed = ~at_first
            glimpse = b.glimpse(index, location, needed)
            if self._choose:
                glimpse = where((t == 0)[:, None, None, None], 0, glimpse)
            elif self._thumbnail:
                tiled = None if self._own_key else b.xp.concatenate([whole] * self._num_scales, -1)
                glimpse = where(first, 0 if tiled is None else tiled, glimpse)
            observation["glimpse"] = glimpse
        if self._own_key:
            observation["thumbnail"] = where(first, whole, 0)
        if self._flat:
            for key, image in observation.items():
                observation[key] = b.divide(image.reshape(len(image), -1), 255)
        observation["location"] = b.copy(location)
        observation["time"] = b.divide(t, self._max_glimpses)[:, None]
        if probs is not None:
            observation["probs"] = b.copy(probs)
        return observation

    def _paint(self, b: Backend, index: Any, seen: Any) -> Any:
        mask = b.cast(seen, b.xp.uint8)[..., None]
        return b.xp.concatenate([b.images(index) * mask, mask * 255], -1)

    def _box(self, shape: tuple[int, ...]) -> spaces.Box:
        if self._flat:
            return spaces.Box(0, 1, (int(np.prod(shape)),), np.float32)
        return spaces.Box(0, 255, shape, np.uint8)
