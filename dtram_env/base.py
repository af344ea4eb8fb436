"""What the scalar and the vector environment share: attributes, parts, masks and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from .backends import Backend
from .episodes import RandomImages, RandomLocations, SequentialImages
from .settings import EnvSettings
from .views import GRID_VIEWS, action_masks

RENDER_FPS = 4


class EnvBase:
    """Public attributes and internal parts of both environment classes.

    Attributes:
        settings: the checked settings that the environment was made with.
        data: the images, a `datasets.Dataset`.
        dataset: name of the data, as results report it.
        num_images: number of images N of the split.
    """

    def _set_up(
        self,
        settings: EnvSettings,
        b: Backend,
        num_envs: int,
        shards: Sequence[tuple[int, int]],
    ) -> None:
        """Sets the attributes and makes the parts; `shards` are for sequential order."""
        self.settings = settings
        self.data = settings.source
        self.dataset = settings.source.name
        self.split = settings.source.split
        self.num_images = len(settings.source)
        self.image_shape = settings.image_shape
        self.image_size = settings.image_size
        self.num_classes: int = settings.source.num_classes
        self.class_names = settings.source.class_names
        self.classifier = settings.classifier
        self.max_glimpses = settings.max_glimpses
        self.glimpse_size = settings.glimpse_size
        self.num_scales = settings.num_scales
        assert settings.thumbnail_size is not None
        self.thumbnail_size: int = settings.thumbnail_size
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
        self._seen, self._cells = settings.make_trackers(b, num_envs)
        self._belief = settings.make_belief(b, num_envs)

    def _masks(self, t: Any) -> Any:
        """Action masks of slots that have taken `t` glimpses; None before the first reset."""
        if self.view not in GRID_VIEWS:
            raise ValueError(
                f"action_masks() belongs to view='discrete' and 'single'; this environment has "
                f"view={self.view!r}"
            )
        if t is None:
            raise ResetNeeded("action_masks() before reset()")
        settings = self.settings
        return action_masks(
            self._b,
            None if self._cells is None else self._cells.mask,
            t,
            settings.grid_cells,
            settings.min_glimpses,
            settings.answer_classes or 0,
            self.view == "single",
        )

    def _frame(
        self, index: int, locations: np.ndarray, t: int, prediction: int | None, ended: bool
    ) -> np.ndarray:
        """The picture of one episode, ``(h, w, 3)`` uint8.

        Args:
            index: the image.
            locations: ``(k, 2)``, where its crops were taken.
            t: glimpses taken.
            prediction: the last prediction; None if there is none.
            ended: whether the episode has ended.
        """
        from .rendering import crop_boxes, draw_episode, episode_caption  # imports Pillow

        source, image = self.data, self.data.image(index)
        whole_first = self.first_glimpse == "thumbnail"
        boxes = crop_boxes(locations, image.shape, self.glimpse_size, whole_first)
        label = int(source.labels[index])
        caption = episode_caption(t, prediction, label, source.class_names, ended)
        if source.stands_in_for is not None:
            caption = f"drawn, not {source.stands_in_for}! {caption}"
        return draw_episode(image, boxes, caption)


def check_options(options: dict[str, Any], known: Sequence[str]) -> None:
    """Raises `ValueError` for an unknown reset option."""
    for key in options:
        if key not in known:
            raise ValueError(f"options[{key!r}]: unknown; expected {' or '.join(map(repr, known))}")


def check_image_index(values: Any, num_images: int) -> None:
    """Raises `ValueError` unless every value is an index of a split of `num_images` images."""
    low, high = values.min(), values.max()
    if (low < 0) | (high >= num_images):  # one condition, so that a device is waited for once
        wrong = int(low) if low < 0 else int(high)
        raise ValueError(
            f"options['image_index']: {wrong} is out of range; the split has images 0 to "
            f"{num_images - 1}"
        )
