"""Image stores: where pixels come from; a store cuts batches of square windows out of images.

`ArrayStore` holds equal images in memory; `mapped.MappedStore` reads images of any size from a
cache on disk, `drawn_store.DrawnStore` draws them as they are asked for.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .thumbnails import box_resize


class Store(Protocol):
    """What the sensor asks of a set of images; every method takes and returns batches.

    Shapes: ``index``, ``top``, ``left`` are integer arrays ``(B,)``; coordinates are pixels of the
    unpadded image and may be negative. Pixels outside the image are 0.
    """

    def __len__(self) -> int:
        """Number of images."""
        ...

    @property
    def channels(self) -> int:
        """Number of colour channels C."""
        ...

    def size(self, index: np.ndarray) -> tuple[np.ndarray | int, np.ndarray | int]:
        """Height and width of the images, in pixels; two numbers if all images have them."""
        ...

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)``, uint8."""
        ...

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        """Whole images shrunk to ``(B, side, side, C)``, uint8."""
        ...


class Pictures(Store, Protocol):
    """A store that stands for a whole dataset: images that are not all in memory."""

    @property
    def equal_size(self) -> tuple[int, int] | None:
        """Height and width of every image; None if they differ."""
        ...

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8."""
        ...

    def select(self, rows: np.ndarray) -> Pictures:
        """The store of some of the images, by their rows ``(M,)``."""
        ...

    def prepare(self, thumbnail_size: int) -> None:
        """Makes ready what `thumbnail` will be asked for; may take a while the first time."""
        ...


class ArrayStore:
    """Equal, small images in memory, padded with zeros once so that a crop is one gather.

    Args:
        images: ``(N, H, W, C)`` uint8.
        margin: zeros added on each side, in pixels; at least ``(side + 1) // 2`` for the largest
            crop side whose centre may lie anywhere in the image.
    """

    def __init__(self, images: np.ndarray, margin: int) -> None:
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(
                f"images: expected uint8 of shape (N, H, W, C), got {images.dtype} {images.shape}"
            )
        n, height, width, channels = images.shape
        self.height, self.width, self.margin = height, width, margin
        self.padded = np.zeros(
            (n, height + 2 * margin, width + 2 * margin, channels), dtype=np.uint8
        )
        self.images = self.padded[:, margin : margin + height, margin : margin + width]
        self.images[...] = images
        self._views: dict[int, np.ndarray] = {}
        self._thumbnails: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.padded)

    @property
    def channels(self) -> int:
        return self.padded.shape[3]

    def size(self, index: np.ndarray) -> tuple[int, int]:
        return self.height, self.width

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)`` uint8; they must lie inside the padded image."""
        _, height, width, channels = self.padded.shape
        windows = self._windows(side)  # made in any case: it checks the side
        if len(index) == 1:  # a slice is cheaper than a gather of one
            line, pixel = int(top[0]) + self.margin, int(left[0]) + self.margin
            return self.padded[index, line : line + side, pixel : pixel + side]
        first = (index * height + (top + self.margin)) * width + (left + self.margin)
        return windows[first].view(np.uint8).reshape(len(index), side, side, channels)

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        if side not in self._thumbnails:
            self._thumbnails[side] = box_resize(self.images, side)
        return self._thumbnails[side][index]

    def _windows(self, side: int) -> np.ndarray:
        """View ``(P, side)``: for every first pixel, the lines of the window that starts there.

        An item is `side` neighbouring pixels of a line. So a batch of windows is one gather with
        one index a window, which moves whole lines: about three times as fast as one a line.
        """
        if side not in self._views:
            n, height, width, channels = self.padded.shape
            if side > min(height, width):
                raise ValueError(
                    f"side={side}: larger than the padded image, {height}x{width}; "
                    "make the store with a larger margin"
                )
            item = np.dtype((np.void, side * channels))
            flat = np.ndarray((1,), dtype=item, buffer=self.padded)
            _, line, pixel, _ = self.padded.strides
            span = (side - 1) * width + side  # pixels from a window's first to past its last
            self._views[side] = as_strided(
                flat,
                shape=(n * height * width - span + 1, side),
                strides=(pixel, line),
                writeable=False,
            )
        return self._views[side]
