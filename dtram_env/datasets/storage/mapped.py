"""Images of any size on disk, memory-mapped: a crop is read from the cache when it is asked for.

A cache folder holds one official part of a dataset, decoded (`cache` makes it):

| file                | content                                                                  |
|---------------------|--------------------------------------------------------------------------|
| `sizes.npy`         | ``(N, 2)`` int32, height and width of every image                        |
| `pixels.bin`        | the images one after another, uint8, row by row, channels last, unpadded |
| `thumbnails-S.bin`  | ``(N, S, S, C)`` uint8                                                   |
| `metadata-NAME.npy`    | ``(N, …)``, what else is known of every image, as its box                |
| `meta.json`         | what it was made from; written last                                      |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetCorruptError
from .thumbnails import box_resize

FORMAT = 1


class MappedStore:
    """A `store.Pictures` over a cache folder; memory is used for what is looked at only.

    Args:
        folder: a finished cache.
        rows: ``(M,)`` int64, the images that this store consists of; None for all.
    """

    def __init__(self, folder: Path, rows: np.ndarray | None = None) -> None:
        self.folder = folder
        self._channels = int(read_meta(folder)["channels"])
        sizes = np.load(folder / "sizes.npy").astype(np.int64)
        ends = np.cumsum(sizes.prod(axis=1) * self._channels)
        starts = ends - sizes.prod(axis=1) * self._channels
        self.rows = np.arange(len(sizes)) if rows is None else rows
        self.sizes, self.starts = sizes[self.rows], starts[self.rows]
        self.pixels = _map(folder / "pixels.bin", (int(ends[-1]),))
        self._count = len(sizes)
        self._thumbnails: dict[int, np.ndarray] = {}
        self.equal_size: tuple[int, int] | None = None
        if len(self.sizes) and (self.sizes == self.sizes[0]).all():
            self.equal_size = int(self.sizes[0, 0]), int(self.sizes[0, 1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def channels(self) -> int:
        return self._channels

    def size(self, index: np.ndarray) -> tuple[np.ndarray | int, np.ndarray | int]:
        if self.equal_size is not None:
            return self.equal_size
        height, width = self.sizes[index].T
        return height, width

    def crop(self, index: np.ndarray, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Windows ``(B, side, side, C)`` uint8, each the copy of the rows that lie in the image."""
        out = np.zeros((len(index), side, side, self._channels), dtype=np.uint8)
        heights, widths = self.sizes[index].T
        # What of each window lies inside its image.
        y0, y1 = np.maximum(top, 0), np.minimum(top + side, heights)
        x0, x1 = np.maximum(left, 0), np.minimum(left + side, widths)
        rows = np.stack([y0, np.maximum(y1, y0), x0, np.maximum(x1, x0), top, left], axis=1)
        for window, i, (a, b, c, d, t, u) in zip(out, index, rows.tolist(), strict=True):
            window[a - t : b - t, c - u : d - u] = self.image(i)[a:b, c:d]
        return out

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8, read-only, not copied."""
        (height, width), start = self.sizes[i].tolist(), int(self.starts[i])
        flat = self.pixels[start : start + height * width * self._channels]
        return flat.reshape(height, width, self._channels)

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        """Whole images shrunk to ``(B, side, side, C)`` uint8; read if they were made before.

        Raises:
            DatasetCorruptError: the file of those made before is short.
        """
        if side not in self._thumbnails:
            path = self.folder / thumbnails_name(side)
            if path.exists():
                shape = (self._count, side, side, self._channels)
                try:
                    self._thumbnails[side] = _map(path, shape)
                except ValueError as error:  # short
                    raise DatasetCorruptError(
                        f"{path}: damaged ({error}). Delete this file; it is made again when it "
                        "is needed."
                    ) from error
        if side in self._thumbnails:
            return self._thumbnails[side][self.rows[index]]
        made = [box_resize(self.image(i)[None], side) for i in index]
        return np.concatenate(made) if made else np.zeros((0, side, side, self._channels), np.uint8)

    def metadata(self) -> dict[str, np.ndarray]:
        """What the cache tells of each image of the store, arrays ``(M, …)`` by name."""
        return {
            path.stem.removeprefix("metadata-"): np.load(path)[self.rows]
            for path in sorted(self.folder.glob("metadata-*.npy"))
        }

    def select(self, rows: np.ndarray) -> MappedStore:
        return MappedStore(self.folder, self.rows[rows])

    def prepare(self, thumbnail_size: int) -> None:
        """Makes the thumbnails of a size once and for all, if they are not there."""
        from .cache import add_thumbnails  # it needs this module

        add_thumbnails(self.folder, thumbnail_size)


def thumbnails_name(side: int) -> str:
    """The file of the thumbnails of a size, in a cache's folder."""
    return f"thumbnails-{side}.bin"


def read_meta(folder: Path) -> dict[str, Any]:
    """What a cache's ``meta.json`` says; empty if the folder is no finished cache."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else {}


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape).view(np.ndarray)
