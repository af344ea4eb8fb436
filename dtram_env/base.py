"""What the scalar and the vector environment share: attributes, parts, masks and pictures."""

import os
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from .backends import Backend
from .belief import Belief
from .episodes import RandomImages, RandomLocations, SequentialImages
from .observation_builder import ObservationBuilder
from .settings import EnvSettings
from .trackers import SeenCells, SeenPixels, Tracker
from .views import GridActions


class EnvBase:
    """Public attributes and internal parts of both environment classes."""

    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made the environment, in values that JSON has, so that `to_json` works."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec.kwargs = {name: _json_value(name, value) for name, value in spec.kwargs.items()}
        self._spec = spec

    def _set_up(
        self, settings: EnvSettings, b: Backend, num_envs: int, shards: Sequence[tuple[int, int]]
    ) -> None:
        """Sets the attributes and makes the parts; `shards` are for sequential order."""
        self.settings = settings  # checked and completed
        self.data = settings.source  # the images, a `datasets.Dataset`
        self.dataset = settings.source.name  # as results report it
        self.split = settings.source.split
        self.num_images = len(settings.source)  # of the split
        self.image_shape = settings.image_shape
        self.image_size = settings.image_size
        self.num_classes: int = settings.source.num_classes
        self.class_names = settings.source.class_names
        self.classifier = settings.classifier
        self.max_glimpses = settings.max_glimpses
        self.glimpse_size = settings.glimpse_size
        self.num_scales = settings.num_scales
        self.thumbnail_size = settings.thumbnail_size
        self.discount = settings.discount
        self.first_glimpse = settings.first_glimpse
        self.order = settings.order
        self.view = settings.view
        self.grid = settings.grid

        self._b = b
        self._images: RandomImages | SequentialImages
        if self.order == "sequential":
            self._images = SequentialImages(b, self.num_images, shards)
        else:
            self._images = RandomImages(b, self.num_images, num_envs)
        random_first = self.first_glimpse == "random"
        self._first_locations = RandomLocations(b, num_envs) if random_first else None
        self._seen: SeenPixels | None = None  # for the canvas
        self._cells: SeenCells | None = None  # for the action masks
        self._belief: Belief | None = None
        if settings.observe == "canvas":
            self._seen = SeenPixels(b, num_envs, *self.data.typical_size, self.glimpse_size)
        if settings.mask_seen:
            assert self.grid is not None
            self._cells = SeenCells(b, num_envs, self.grid)
        if self.classifier is not None:
            native = ObservationBuilder(settings, native=True)
            self._belief = Belief(b, self.classifier, native, num_envs, self.num_classes)
        trackers = (self._seen, self._cells)
        self._trackers: list[Tracker] = [tracker for tracker in trackers if tracker is not None]

    def _masks(self, t: Any) -> Any:
        """Action masks of slots that have taken `t` glimpses; None before the first reset."""
        codec = self.settings.codec
        if not isinstance(codec, GridActions):
            raise ValueError(
                f"action_masks() belongs to view='discrete' or 'single', not {self.view!r}"
            )
        if t is None:
            raise ResetNeeded("action_masks() before reset()")
        cells = None if self._cells is None else self._cells.mask
        return codec.masks(self._b, cells, t, self.settings.min_glimpses)

    def _frame(
        self, index: int, locations: np.ndarray, t: int, prediction: int | None, ended: bool
    ) -> np.ndarray:
        """The picture ``(h, w, 3)`` uint8 of an episode with crops at `locations` ``(k, 2)``."""
        from .rendering import crop_boxes, draw_episode, episode_caption  # imports Pillow

        image, names = self.data.image(index), self.class_names
        one_size = None not in self.image_shape
        whole_first = self.first_glimpse == "thumbnail"
        boxes = crop_boxes(locations, image.shape, self.glimpse_size, whole_first)
        caption = episode_caption(t, prediction, int(self.data.labels[index]), names, ended)
        if self.data.stands_in_for is not None:
            caption = f"drawn, not {self.data.stands_in_for}! {caption}"
        return draw_episode(image, boxes, caption, square=not one_size)


def _json_value(name: str, value: Any) -> Any:
    """A keyword of `gym.make` as a value that JSON has, if there is one; both mean the same."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if name == "device" else value
