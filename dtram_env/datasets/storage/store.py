"""Image stores: where pixels come from. A store cuts batches of square windows out of images.

`ArrayStore` holds images of one size in memory. `mapped.MappedStore` reads images of any size from
a cache on disk, and `drawn_store.DrawnStore` draws them on demand.
"""

from typing import Any, Protocol, Self

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .thumbnails import box_resize


class Store(Protocol):
    """The images that the sensor reads; every method works on a batch.

    ``index``, ``top`` and ``left`` are integer arrays ``(B,)``. Coordinates are pixels of the
    unpadded image and may be negative. Pixels outside the image are 0.
    """

    def __len__(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def size(self, index: np.ndarray) -> tuple[np.ndarray | int, np.ndarray | int]:
        """Height and width of the images, pixels; two numbers if all images have the same size."""

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)`` uint8."""

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        """Whole images shrunk to ``(B, side, side, C)`` uint8."""


class Pictures(Store, Protocol):
    """A store for a whole dataset whose images differ in size or do not fit into memory.

    Crops and thumbnails are made from `image`, unless a subclass has a faster way.
    """

    @property
    def equal_size(self) -> tuple[int, int] | None:
        """Height and width of every image; None if they differ."""

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8."""

    def select(self, indices: np.ndarray) -> Self:
        """A store of the images ``indices`` ``(M,)``, in that order."""

    def prepare(self, thumbnail_size: int) -> None:
        """Prepares thumbnails of one size; may take a while the first time."""
        return None

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)`` uint8; copies the part of each that lies in its image."""
        out = np.zeros((len(index), side, side, self.channels), dtype=np.uint8)
        for window, i, y, x in zip(out, index, top.tolist(), left.tolist(), strict=True):
            image = self.image(i)
            y0, y1 = max(y, 0), max(min(y + side, image.shape[0]), y, 0)
            x0, x1 = max(x, 0), max(min(x + side, image.shape[1]), x, 0)
            window[y0 - y : y1 - y, x0 - x : x1 - x] = image[y0:y1, x0:x1]
        return out

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        out = np.empty((len(index), side, side, self.channels), dtype=np.uint8)
        for thumbnail, i in zip(out, index, strict=True):
            thumbnail[...] = box_resize(self.image(i)[None], side)[0]
        return out


def check_images(images: Any) -> None:
    """Raises `ValueError` unless an array or a tensor is uint8 of shape ``(N, H, W, C)``."""
    if images.ndim != 4 or str(images.dtype) not in ("uint8", "torch.uint8"):
        raise ValueError(
            f"images: expected uint8 of shape (N, H, W, C), "
            f"got {images.dtype} {tuple(images.shape)}"
        )


def check_side(side: int, height: int, width: int) -> None:
    """Raises `ValueError` if a crop is larger than the padded images."""
    if side > min(height, width):
        raise ValueError(
            f"side={side}: larger than the padded image, {height}x{width}; "
            "use a larger margin for the store"
        )


class ArrayStore:
    """Images ``(N, H, W, C)`` uint8 in memory, with `margin` zeros on each side (`sensor.margin`).

    A crop is therefore one gather.
    """

    def __init__(self, images: np.ndarray, margin: int) -> None:
        check_images(images)
        _, self.height, self.width, self.channels = images.shape
        self.margin = margin
        around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        self.padded = np.pad(np.ascontiguousarray(images), around)
        self.images = self.padded[:, margin : margin + self.height, margin : margin + self.width]
        self._views: dict[int, np.ndarray] = {}
        self._thumbnails: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.padded)

    def size(self, index: np.ndarray) -> tuple[int, int]:
        return self.height, self.width

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)`` uint8; they must lie inside the padded image."""
        _, height, width, channels = self.padded.shape
        windows = self._windows(side)  # before the shortcut, because it checks `side`
        if len(index) == 1:  # a slice is cheaper than a gather of one
            y, x = int(top[0]) + self.margin, int(left[0]) + self.margin
            return self.padded[index, y : y + side, x : x + side]
        first = (index * height + (top + self.margin)) * width + (left + self.margin)
        return windows[first].view(np.uint8).reshape(len(index), side, side, channels)

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        if side not in self._thumbnails:
            self._thumbnails[side] = box_resize(self.images, side)
        return self._thumbnails[side][index]

    def _windows(self, side: int) -> np.ndarray:
        """View ``(P, side)``: for every first pixel, the lines of the window that starts there.

        An item is a line, so a batch of windows takes one index per window: three times as fast as
        one per line.
        """
        if side not in self._views:
            n, height, width, channels = self.padded.shape
            check_side(side, height, width)
            item = np.dtype((np.void, side * channels))
            flat = np.ndarray((1,), dtype=item, buffer=self.padded)
            _, line, pixel, _ = self.padded.strides
            span = (side - 1) * width + side  # pixels from a window's first to past its last
            shape = (n * height * width - span + 1, side)
            self._views[side] = as_strided(flat, shape, strides=(pixel, line), writeable=False)
        return self._views[side]
