"""Images of any size on disk, memory-mapped: a crop reads only its own pixels.

A cache folder holds one official part of a dataset, decoded. `cache` makes it:

| file                | content                                                                  |
|---------------------|--------------------------------------------------------------------------|
| `sizes.npy`         | ``(N, 2)`` int32, height and width of every image                        |
| `pixels.bin`        | the images one after another, uint8, row by row, channels last, unpadded |
| `thumbnails-S.bin`  | ``(N, S, S, C)`` uint8                                                   |
| `metadata-NAME.npy` | ``(N, …)``, other known values of every image, such as its box           |
| `meta.json`         | what the cache was made from; written last                               |
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetCorruptError
from ..paths import locked
from .store import Pictures
from .thumbnails import box_resize
from .writing import CORES, check_free_space, reserve, run_all, write_at

FORMAT = 2  # raise it when the files change: a cache of another format is made again


class MappedStore(Pictures):
    """A store that reads a finished cache; it uses memory only for the pixels that are read.

    `indices` ``(M,)`` int64 are the images of the cache that the store has; None: all. `meta` is
    the content of ``meta.json`` that the cache must still have; None: any.

    Raises:
        DatasetCorruptError: there is no finished cache, or one of other images.
    """

    def __init__(
        self,
        folder: Path,
        indices: np.ndarray | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.meta = folder, read_meta(folder) if meta is None else meta
        self._check_unchanged()
        sizes = np.load(folder / "sizes.npy").astype(np.int64)
        lengths = sizes.prod(axis=1) * self.channels
        self.indices = np.arange(len(sizes)) if indices is None else indices
        self.sizes = sizes[self.indices]
        self.starts = (np.cumsum(lengths) - lengths)[self.indices]
        self.pixels = _map(folder / "pixels.bin", (int(lengths.sum()),))
        self._count = len(sizes)
        self._thumbnails: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.indices, self.meta)

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def channels(self) -> int:
        return int(self.meta["channels"])

    @cached_property
    def equal_size(self) -> tuple[int, int] | None:
        height, width = (np.unique(side) for side in self.sizes.T)
        return (int(height[0]), int(width[0])) if len(height) == len(width) == 1 else None

    def size(self, index: np.ndarray) -> tuple[np.ndarray | int, np.ndarray | int]:
        height, width = self.equal_size or self.sizes[index].T
        return height, width

    def image(self, i: int) -> np.ndarray:
        """One whole image ``(H, W, C)`` uint8, a read-only view."""
        (height, width), start = self.sizes[i].tolist(), int(self.starts[i])
        flat = self.pixels[start : start + height * width * self.channels]
        return flat.reshape(height, width, self.channels)

    def select(self, indices: np.ndarray) -> "MappedStore":
        return MappedStore(self.folder, self.indices[indices], self.meta)

    def metadata(self) -> dict[str, np.ndarray]:
        """Known values of the store's images: arrays ``(M, …)`` by name."""
        return {
            path.stem.removeprefix("metadata-"): np.load(path)[self.indices]
            for path in sorted(self.folder.glob("metadata-*.npy"))
        }

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        """Whole images shrunk to ``(B, side, side, C)`` uint8; read from disk once prepared."""
        if side not in self._thumbnails:
            if not (self.folder / thumbnails_name(side)).exists():
                return super().thumbnail(index, side)
            self._map_thumbnails(side)
        return self._thumbnails[side][self.indices[index]]

    def prepare(self, thumbnail_size: int, label: str = "", progress: bool | None = None) -> None:
        """Writes thumbnails of every image of the cache to disk, unless they are there."""
        if thumbnail_size not in self._thumbnails:
            if not (self.folder / thumbnails_name(thumbnail_size)).exists():
                self._write_thumbnails(thumbnail_size, label, progress)
            self._map_thumbnails(thumbnail_size)

    def _check_unchanged(self) -> None:
        """Raises `DatasetCorruptError` if the folder holds no cache, or one of other images."""
        if not self.meta or read_meta(self.folder) != self.meta:
            raise DatasetCorruptError(
                f"{self.folder}: no longer the cache of these images, which were changed, or their "
                "cache deleted. Make the environment again."
            )

    def _map_thumbnails(self, side: int) -> None:
        path = self.folder / thumbnails_name(side)
        try:
            mapped = _map(path, (self._count, side, side, self.channels))
        except ValueError as error:
            raise DatasetCorruptError(
                f"{path}: damaged ({error}). Delete this file; it is made again when needed."
            ) from error
        self._check_unchanged()
        self._thumbnails[side] = mapped

    def _write_thumbnails(self, thumbnail_size: int, label: str, progress: bool | None) -> None:
        final = self.folder / thumbnails_name(thumbnail_size)
        aside = final.with_name(f"{final.name}.new")
        length, count = thumbnail_size**2 * self.channels, self._count
        every = MappedStore(self.folder, None, self.meta)

        def write(i: int) -> None:
            write_at(aside, i * length, box_resize(every.image(i)[None], thumbnail_size))

        label = f"{label or self.folder.name}, thumbnails {thumbnail_size}"
        with locked(lock_name(self.folder)), ThreadPoolExecutor(CORES) as pool:
            if not final.exists():  # no other process wrote them
                check_free_space(self.folder, count * length)
                reserve(aside, count * length)
                run_all(pool, write, range(count), label, progress)
                os.replace(aside, final)


def thumbnails_name(side: int) -> str:
    """Name of the file of thumbnails of one size."""
    return f"thumbnails-{side}.bin"


def lock_name(folder: Path) -> Path:
    """The lock of a cache folder; it lies beside the folder, which may be replaced."""
    return folder.parent / f".{folder.name}.lock"


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of a cache's ``meta.json``; empty if `folder` is no finished cache."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else {}


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape).view(np.ndarray)
