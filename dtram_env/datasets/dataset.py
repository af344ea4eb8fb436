"""One split of a dataset: images, labels, and other known values of each image."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .paths import text
from .storage.store import ArrayStore, Pictures, Store, check_images


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a dataset, read-only.

    Attributes:
        name: the dataset's name in results, such as "MNIST".
        split: one of `SPLITS`.
        images: ``(N, H, W, C)`` uint8, 0 is black; or a `storage.store.Pictures`, for images that
            differ in size or do not fit into memory.
        labels: ``(N,)`` int64 in [0, `num_classes`).
        class_names: a name for each label.
        metadata: arrays ``(N, …)`` by name, such as boxes, that `info` holds beside the label.
        drawn: whether this package draws the images.
        stands_in_for: title of the requested dataset, if this is its drawn stand-in.
        paths: file of each image, relative to the dataset's folder; empty if there are no files.

    Raises:
        ValueError: an array has the wrong type or shape, or a label is out of range.
    """

    name: str
    split: str
    images: np.ndarray | Pictures
    labels: np.ndarray
    class_names: tuple[str, ...]
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawn: bool = False
    stands_in_for: str | None = None
    paths: tuple[str, ...] = ()
    _stores: dict[int, ArrayStore] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray):
            check_images(self.images)
            object.__setattr__(self, "images", _read_only(self.images))
        count, labels, names = len(self.images), self.labels, self.class_names
        if labels.shape != (count,) or labels.dtype != np.int64:
            raise ValueError(
                f"labels: expected int64 of shape ({count},), one for each image, "
                f"got {labels.dtype} {labels.shape}"
            )
        if count and not 0 <= labels.min() <= labels.max() < len(names):
            raise ValueError(
                f"labels: expected 0 to {len(names) - 1}, as there are {len(names)} class names, "
                f"got {labels.min()} to {labels.max()}"
            )
        for name, values in self.metadata.items():
            if len(values) != count:
                raise ValueError(
                    f"metadata[{name!r}]: expected {count} values, one for each image, "
                    f"got {len(values)}"
                )
        if self.paths and len(self.paths) != count:
            raise ValueError(
                f"paths: expected {count}, one for each image, or none, got {len(self.paths)}"
            )
        object.__setattr__(self, "labels", _read_only(labels))
        object.__setattr__(self, "metadata", {k: _read_only(v) for k, v in self.metadata.items()})

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[type["Dataset"], tuple[object, ...]]:
        # Leaves out the stores: their windows overlap, and a pickle would write each of them.
        parts = (self.name, self.split, self.images, self.labels, self.class_names)
        return Dataset, (*parts, dict(self.metadata), self.drawn, self.stands_in_for, self.paths)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels of every image; height and width are None if they differ."""
        if isinstance(self.images, np.ndarray):
            _, height, width, channels = self.images.shape
            return height, width, channels
        return *(self.images.equal_size or (None, None)), self.images.channels

    @property
    def typical_size(self) -> tuple[int, int]:
        """Height and width of the images; their medians if they differ."""
        if isinstance(self.images, np.ndarray):
            return self.images.shape[1:3]
        height, width = self.images.size(np.arange(len(self)))
        return int(np.median(height)), int(np.median(width))

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8."""
        return self.images[i] if isinstance(self.images, np.ndarray) else self.images.image(i)

    def caption(self, i: int) -> str:
        """How pictures of an image name it: its number in the split, and its file if it has one."""
        return f"{i}, {text(self.paths[i])}" if self.paths else str(i)

    def store(self, margin: int) -> Store:
        """A store whose windows may reach `margin` pixels over the images' edges.

        Images in an array are zero-padded once per margin, so environments with the same glimpse
        share the memory. Other stores pad each window.
        """
        if not isinstance(self.images, np.ndarray):
            return self.images
        if margin not in self._stores:
            self._stores[margin] = ArrayStore(self.images, margin)
        return self._stores[margin]

    def prepare(self, thumbnail_size: int) -> None:
        """Prepares thumbnails of one size; may take a while the first time."""
        if not isinstance(self.images, np.ndarray):
            self.images.prepare(thumbnail_size)


def _read_only(values: np.ndarray) -> np.ndarray:
    view = values.view()  # the caller's own array stays writable
    view.flags.writeable = False
    return view
