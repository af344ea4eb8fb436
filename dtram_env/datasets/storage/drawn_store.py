"""Images that are drawn on demand, so that an environment starts without waiting."""

from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..drawn import Drawing
from .store import Pictures

PIXELS_VERSION = 1  # raise it when the drawing changes: older caches are then made again
_MEMORY = 256 << 20  # bytes of drawn images to keep


class DrawnStore(Pictures):
    """A store that draws an image when it is first needed, and keeps the most recent ones.

    It is also a `cache.ImageSource`, which fills the cache with all images at once. `indices`
    ``(M,)`` int64 are the images of the part, "train" or "test", that it has; None: all.
    """

    channels = 3

    def __init__(self, drawing: Drawing, part: str, indices: np.ndarray | None = None) -> None:
        self.drawing, self.part = drawing, part
        self.indices = np.arange(drawing.count(part)) if indices is None else indices
        self.kept = max(1, _MEMORY // (3 * drawing.image_size**2))  # number of images
        self._drawn = lru_cache(self.kept)(partial(_draw_read_only, drawing, part))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.drawing, self.part, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def equal_size(self) -> tuple[int, int]:
        return self.drawing.image_size, self.drawing.image_size

    def size(self, index: np.ndarray | int) -> tuple[int, int]:
        return self.equal_size

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(S, S, 3)`` uint8, read-only."""
        return self._drawn(int(self.indices[i]))

    def select(self, indices: np.ndarray) -> "DrawnStore":
        return DrawnStore(self.drawing, self.part, self.indices[indices])

    def fingerprint(self) -> dict[str, Any]:
        settings = asdict(self.drawing)
        del settings["num_train"], settings["num_test"]  # the other part's changes no pixels
        count = self.drawing.count(self.part)
        return {**settings, "part": self.part, "count": count, "version": PIXELS_VERSION}

    def pixels(self, i: int) -> np.ndarray:
        return self.drawing.draw(self.part, int(self.indices[i]))

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        return {}  # computing the layout is faster than reading it


def _draw_read_only(drawing: Drawing, part: str, index: int) -> np.ndarray:
    image = drawing.draw(part, index)
    image.flags.writeable = False  # callers share it
    return image
