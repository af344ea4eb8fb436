"""One split of a dataset: its images, labels and what else is known of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .storage.store import ArrayStore, Pictures, Store


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a dataset, read-only.

    Attributes:
        name: the dataset's name as results show it, such as "MNIST".
        split: one of `SPLITS`.
        images: ``(N, H, W, C)`` uint8, 0 is black; or a `store.Pictures`, for images that differ
            in size or are not all in memory.
        labels: ``(N,)`` int64 in [0, `num_classes`).
        class_names: a name for each label.
        metadata: what `info` tells of an image beside its label: arrays ``(N, …)`` by name, as boxes.
        drawn: whether the images are drawn by this package.
        stands_in_for: title of the dataset that was asked for, if this is its drawn stand-in.
    """

    name: str
    split: str
    images: np.ndarray | Pictures
    labels: np.ndarray
    class_names: tuple[str, ...]
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawn: bool = False
    stands_in_for: str | None = None
    _stores: dict[int, ArrayStore] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        images = self.images
        if isinstance(images, np.ndarray):
            if images.ndim != 4 or images.dtype != np.uint8:
                raise ValueError(
                    "images: expected uint8 of shape (N, H, W, C), "
                    f"got {images.dtype} {images.shape}"
                )
            object.__setattr__(self, "images", _read_only(images))
        if self.labels.shape != (len(images),) or self.labels.dtype != np.int64:
            raise ValueError(
                f"labels: expected int64 of shape ({len(images)},), one for each image, "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise ValueError(
                f"labels: expected 0 to {self.num_classes - 1}, as there are {self.num_classes} "
                f"class names, got {self.labels.min()} to {self.labels.max()}"
            )
        for name, values in self.metadata.items():
            if len(values) != len(images):
                raise ValueError(
                    f"metadata[{name!r}]: expected {len(images)} rows, one for each image, "
                    f"got {len(values)}"
                )
        object.__setattr__(self, "labels", _read_only(self.labels))
        object.__setattr__(self, "metadata", {k: _read_only(v) for k, v in self.metadata.items()})

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[type[Dataset], tuple[object, ...]]:
        # A copy takes the images along, but not the stores made from them: their windows overlap,
        # and written out one by one they are a hundred times as large.
        parts = (self.name, self.split, self.images, self.labels, self.class_names)
        return Dataset, (*parts, dict(self.metadata), self.drawn, self.stands_in_for)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels of every image; None for a size that differs."""
        if isinstance(self.images, np.ndarray):
            _, height, width, channels = self.images.shape
            return height, width, channels
        return *(self.images.equal_size or (None, None)), self.images.channels

    @property
    def typical_size(self) -> tuple[int, int]:
        """Height and width of the images; medians if they differ."""
        height, width, _ = self.image_shape
        if height is None or width is None:
            assert not isinstance(self.images, np.ndarray)
            heights, widths = self.images.size(np.arange(len(self)))
            return int(np.median(heights)), int(np.median(widths))
        return height, width

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8."""
        return self.images[i] if isinstance(self.images, np.ndarray) else self.images.image(i)

    def store(self, margin: int) -> Store:
        """The images as a store that cuts windows reaching `margin` pixels over their edges.

        Arrays get as many zeros on each side, once for each margin: environments with the same
        glimpse share their images' memory. Other stores pad each window.
        """
        if not isinstance(self.images, np.ndarray):
            return self.images
        if margin not in self._stores:
            self._stores[margin] = ArrayStore(self.images, margin)
        return self._stores[margin]

    def prepare(self, thumbnail_size: int) -> None:
        """Makes thumbnails of that side ready; may take a while the first time."""
        if not isinstance(self.images, np.ndarray):
            self.images.prepare(thumbnail_size)

    def facts_of(self, i: int) -> dict[str, Any]:
        """What is told of one image, as copies."""
        return {name: values[i].copy() for name, values in self.metadata.items()}


def _read_only(values: np.ndarray) -> np.ndarray:
    view = values.view()  # the caller's own array stays as it was
    view.flags.writeable = False
    return view
