"""Observations: built from the state of the slots, in batches, on any backend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from .backends import Backend

if TYPE_CHECKING:
    from .settings import EnvSettings

OBSERVATIONS = ("glimpse", "canvas")
FORMATS = ("image", "flat")
SMALL_IMAGE = 36  # smallest side, in pixels, that SB3's stock convolutional extractor accepts


class ObservationBuilder:
    """Builds observations, of the space `space`. A policy sees these arrays and nothing else.

    With `native` it builds the native observation, which the classifier in the loop reads.
    """

    def __init__(self, settings: EnvSettings, *, native: bool = False) -> None:
        channels = settings.image_shape[-1]
        glimpse_size, num_scales = settings.glimpse_size, settings.num_scales
        side = self._thumbnail_size = settings.thumbnail_size
        self._max_glimpses, self._num_scales = settings.max_glimpses, num_scales
        self._canvas = settings.observe == "canvas" and not native
        self._flat = settings.glimpse_format == "flat" and not native
        self._choose = settings.first_glimpse == "choose"
        self._thumbnail = settings.first_glimpse == "thumbnail"
        # Whether the thumbnail has its own key, or stands in the first glimpse's place.
        self._own_key = self._thumbnail and (self._canvas or side != glimpse_size)
        boxes: dict[str, spaces.Space[Any]] = {}
        if self._canvas:
            boxes["canvas"] = self._image_box(*settings.source.typical_size, channels + 1)
        else:
            boxes["glimpse"] = self._image_box(glimpse_size, glimpse_size, channels * num_scales)
        if self._own_key:
            boxes["thumbnail"] = self._image_box(side, side, channels)
        boxes["location"] = spaces.Box(-1, 1, (2,), np.float32)
        boxes["time"] = spaces.Box(0, 1, (1,), np.float32)
        if settings.classifier is not None and not native:
            boxes["probs"] = spaces.Box(0, 1, (settings.source.num_classes,), np.float32)
        self.space: spaces.Space[Any] = spaces.Dict(boxes)

    def build(
        self, b: Backend, index: Any, location: Any, t: Any, seen: Any = None, probs: Any = None
    ) -> dict[str, Any]:
        """The observations of n slots, as new arrays.

        `index`, `location` and `t` are those of `Episodes`. The canvas needs the pixels `seen`
        ``(n, H, W)`` bool; `probs` ``(n, K)`` are the classifier's, where they are observed.
        """
        at_first = t == 1
        whole = b.thumbnail(index, self._thumbnail_size, at_first) if self._thumbnail else None
        observation = {}
        if self._canvas:
            mask = b.cast(seen, b.xp.uint8)[..., None]
            observation["canvas"] = b.xp.concatenate([b.images(index) * mask, mask * 255], -1)
        elif not (self._choose or self._thumbnail):
            observation["glimpse"] = b.glimpse(index, location)
        else:
            cropped = t > 0 if self._choose else ~at_first  # slots whose last glimpse is a crop
            other: Any = 0
            if self._thumbnail and not self._own_key:
                other = b.xp.concatenate([whole] * self._num_scales, -1)
            glimpse = b.glimpse(index, location, cropped)
            observation["glimpse"] = b.select(cropped, glimpse, other)
        if self._own_key:
            observation["thumbnail"] = b.select(at_first, whole, 0)
        if self._flat:
            for key, image in observation.items():
                observation[key] = b.divide(image.reshape(len(image), -1), 255)
        observation["location"] = b.copy(location)
        observation["time"] = b.divide(t, self._max_glimpses)[:, None]
        if probs is not None:
            observation["probs"] = b.copy(probs)
        return observation

    def _image_box(self, *shape: int) -> spaces.Box:
        if self._flat:
            return spaces.Box(0, 1, (math.prod(shape),), np.float32)
        return spaces.Box(0, 255, shape, np.uint8)
