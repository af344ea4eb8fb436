"""Images that are drawn when they are looked at, for a start without waiting."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict
from typing import Any

import numpy as np

from ..drawn import Drawing
from .thumbnails import box_resize

PIXELS_VERSION = 1  # raised when what is drawn changes: caches of before are then made anew
_MEMORY = 256 << 20  # bytes of drawn images that are kept


class DrawnStore:
    """A `store.Pictures` that draws an image the first time it is needed, and keeps the latest.

    Args:
        drawing: what is drawn.
        part: "train" or "test".
        rows: ``(M,)`` int64, the images of the part that this store consists of; None for all.
    """

    channels = 3

    def __init__(self, drawing: Drawing, part: str, rows: np.ndarray | None = None) -> None:
        self.drawing, self.part = drawing, part
        count = drawing.num_test if part == "test" else drawing.num_train
        self.rows = np.arange(count) if rows is None else rows
        self.equal_size: tuple[int, int] | None = (drawing.image_size, drawing.image_size)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._most = max(1, _MEMORY // (3 * drawing.image_size**2))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.drawing, self.part, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, index: np.ndarray) -> tuple[int, int]:
        return self.drawing.image_size, self.drawing.image_size

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(S, S, 3)`` uint8, read-only."""
        row = int(self.rows[i])
        if row in self._kept:
            self._kept.move_to_end(row)
        else:
            self._kept[row] = self.drawing.draw(self.part, row)
            self._kept[row].flags.writeable = False  # it is handed out again
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return self._kept[row]

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        out = np.zeros((len(index), side, side, 3), dtype=np.uint8)
        size = self.drawing.image_size
        for window, i, t, u in zip(out, index, top.tolist(), left.tolist(), strict=True):
            a, b = max(t, 0), max(min(t + side, size), max(t, 0))
            c, d = max(u, 0), max(min(u + side, size), max(u, 0))
            window[a - t : b - t, c - u : d - u] = self.image(i)[a:b, c:d]
        return out

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        made = [box_resize(self.image(i)[None], side) for i in index]
        return np.concatenate(made) if made else np.zeros((0, side, side, 3), np.uint8)

    def select(self, rows: np.ndarray) -> DrawnStore:
        return DrawnStore(self.drawing, self.part, self.rows[rows])

    def prepare(self, thumbnail_size: int) -> None:
        """Nothing: thumbnails are made from the drawn images."""


class DrawnImages:
    """A drawing's images as the cache takes them (`cache.Source`)."""

    channels = 3

    def __init__(self, drawing: Drawing, part: str) -> None:
        self.drawing, self.part = drawing, part

    def __len__(self) -> int:
        return self.drawing.num_test if self.part == "test" else self.drawing.num_train

    def fingerprint(self) -> dict[str, Any]:
        return {**asdict(self.drawing), "part": self.part, "version": PIXELS_VERSION}

    def size(self, i: int) -> tuple[int, int]:
        return self.drawing.image_size, self.drawing.image_size

    def pixels(self, i: int) -> np.ndarray:
        return self.drawing.draw(self.part, i)

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        return {}  # the layout is made from the drawing, faster than it is read
