"""Images of any size on disk, memory-mapped: a crop reads only its own pixels.

A cache folder holds one official part of a dataset, decoded. `cache` makes it:

| file                | content                                                                  |
|---------------------|--------------------------------------------------------------------------|
| `sizes.npy`         | ``(N, 2)`` int32, height and width of every image                        |
| `pixels.bin`        | the images one after another, uint8, row by row, channels last, unpadded |
| `thumbnails-S.bin`  | ``(N, S, S, C)`` uint8                                                   |
| `metadata-NAME.npy` | ``(N, …)``, other known values of every image, such as its box           |
| `meta.json`         | what the cache was made from, size and SHA-256 of each file; written last |

A store that opens the folder compares the sizes of the files, and the content of the small ones;
`verify` compares the content of all.
"""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ...files import read_json, replacing, sha256_of, write_json
from ..errors import DatasetCorruptError
from ..paths import locked
from .store import Pictures
from .thumbnails import box_resize
from .writing import CORES, check_free_space, reserve, run_all, write_at

FORMAT = 3  # raise it when the files change: a cache of another format is made again


class MappedStore(Pictures):
    """A store that reads a finished cache; it uses memory only for the pixels that are read.

    `indices` ``(M,)`` int64 are the images of the cache that the store has; None: all. `meta` is
    the content of ``meta.json`` without its files, which the cache must still have; None: any.

    Raises:
        DatasetCorruptError: there is no finished cache, or one of other images.
    """

    def __init__(
        self,
        folder: Path,
        indices: np.ndarray | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.meta = folder, _without_files(read_meta(folder)) if meta is None else meta
        self._files = self._read_files()
        sizes = np.load(check_file(folder, self._files, "sizes.npy")).astype(np.int64)
        lengths = sizes.prod(axis=1) * self.channels
        self.indices = np.arange(len(sizes)) if indices is None else indices
        self.sizes = sizes[self.indices]
        self.starts = (np.cumsum(lengths) - lengths)[self.indices]
        self.pixels = _map(check_file(folder, self._files, "pixels.bin"), (int(lengths.sum()),))
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
        found = {}
        for name in sorted(self._files):
            if name.startswith("metadata-"):
                path = check_file(self.folder, self._files, name)
                found[path.stem.removeprefix("metadata-")] = np.load(path)[self.indices]
        return found

    def thumbnail(self, index: np.ndarray, side: int) -> np.ndarray:
        """Whole images shrunk to ``(B, side, side, C)`` uint8; read from disk once prepared."""
        if side not in self._thumbnails and not self._map_thumbnails(side):
            return super().thumbnail(index, side)
        return self._thumbnails[side][self.indices[index]]

    def prepare(self, thumbnail_size: int, label: str = "", progress: bool | None = None) -> None:
        """Writes thumbnails of every image of the cache to disk, unless they are there."""
        if thumbnail_size not in self._thumbnails and not self._map_thumbnails(thumbnail_size):
            self._write_thumbnails(thumbnail_size, label, progress)
            self._map_thumbnails(thumbnail_size)

    def _read_files(self) -> dict[str, Any]:
        """The files in ``meta.json``, which may have been made after this object.

        Raises `DatasetCorruptError` if the folder holds no cache, or one of other images.
        """
        meta = read_meta(self.folder)
        if not meta or _without_files(meta) != self.meta:
            raise DatasetCorruptError(
                f"{self.folder}: no longer the cache of these images, which were changed, or their "
                "cache deleted. Make the environment again."
            )
        return meta["files"]

    def _map_thumbnails(self, side: int) -> bool:
        """Maps the thumbnails of one size; whether the cache has them."""
        name, shape = thumbnails_name(side), (self._count, side, side, self.channels)
        if not (self.folder / name).exists() or name not in (files := self._read_files()):
            return False
        try:
            mapped = _map(check_file(self.folder, files, name), shape)
        except ValueError as error:
            way_out = "Delete this file; it is made again when needed."
            problem = f"{self.folder / name}: damaged ({error}). {way_out}"
            raise DatasetCorruptError(problem) from error
        self._read_files()  # what was mapped belongs to these images
        self._thumbnails[side] = mapped
        return True

    def _write_thumbnails(self, thumbnail_size: int, label: str, progress: bool | None) -> None:
        name = thumbnails_name(thumbnail_size)
        length, count = thumbnail_size**2 * self.channels, self._count

        def write(aside: Path, i: int) -> None:
            write_at(aside, i * length, box_resize(every.image(i)[None], thumbnail_size))

        label = f"{label or self.folder.name}, thumbnails {thumbnail_size}"
        with locked(lock_name(self.folder)), ThreadPoolExecutor(CORES) as pool:
            every = MappedStore(self.folder, None, self.meta)
            meta = read_meta(self.folder)
            if name not in meta["files"] or not (self.folder / name).exists():
                check_free_space(self.folder, count * length)
                with replacing(self.folder / name) as aside:
                    reserve(aside, count * length)
                    run_all(pool, partial(write, aside), range(count), label, progress)
                meta["files"][name] = describe(self.folder / name)
                write_json(self.folder / "meta.json", meta)


def thumbnails_name(side: int) -> str:
    """Name of the file of thumbnails of one size."""
    return f"thumbnails-{side}.bin"


def lock_name(folder: Path) -> Path:
    """The lock of a cache folder; it lies beside the folder, which may be replaced."""
    return folder.parent / f".{folder.name}.lock"


class _File(TypedDict):
    bytes: int
    sha256: str


class Meta(TypedDict):
    """The content of ``meta.json``."""

    format: int
    channels: int
    images: int
    files: dict[str, _File]
    source: dict[str, Any]  # what the cache was made from


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of a cache's ``meta.json``, see `Meta`; empty if `folder` is no finished cache.

    A damaged one is none, so the cache is made again.
    """
    try:
        meta = read_json(folder / "meta.json", Meta, "")
    except (OSError, ValueError):
        return {}
    return meta if meta["format"] == FORMAT else {}


def describe(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as ``meta.json`` has them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _without_files(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What tells caches of other images apart; the files grow by thumbnails."""
    return {key: value for key, value in meta.items() if key != "files"}


def check_file(folder: Path, files: Mapping[str, Any], name: str, content: bool = False) -> Path:
    """Path of a file of a cache; raises `ValueError` if it is not as ``meta.json`` lists it.

    The content of a large file is compared if `content` is true, else only its size.
    """
    path, expected = folder / name, files.get(name)
    if expected is None:
        raise ValueError(f"{name} is not listed in meta.json")
    found = path.stat().st_size
    if found != expected["bytes"]:
        raise ValueError(f"{name} has {found:,} bytes, expected {expected['bytes']:,}")
    if (content or path.suffix == ".npy") and sha256_of(path) != expected["sha256"]:
        raise ValueError(f"{name} was changed, expected SHA-256 {expected['sha256']}")
    return path


def verify(folder: Path) -> None:
    """Compares the content of a cache's files with their checksums.

    Raises `DatasetCorruptError`, which names the file, if one is missing or differs.
    """
    meta = read_meta(folder)
    with damaged(folder):
        if not meta:
            raise ValueError("meta.json is damaged, or of another version")
        for name in sorted(meta["files"]):
            check_file(folder, meta["files"], name, content=True)


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Errors of the block as a `DatasetCorruptError` that says what to do with the cache."""
    try:
        yield
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise DatasetCorruptError(
            f"{folder}: damaged cache ({error}). Delete this folder; it is made again when needed."
        ) from error


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if (found := path.stat().st_size) != (expected := math.prod(shape)):
        raise ValueError(f"{path.name} has {found:,} bytes, expected {expected:,}")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape).view(np.ndarray)
