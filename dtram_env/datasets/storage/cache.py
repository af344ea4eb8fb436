"""Decodes (or draws) one part of a dataset once, into a folder that `mapped.MappedStore` reads.

The cache is written beside its final folder and renamed at the end: a folder under the final name
is complete, whatever was interrupted. If several processes start, one writes and the others wait.
"""

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...files import replacing, write_json
from ..errors import DatasetCorruptError
from ..paths import locked
from ..processes import process_pool
from .decode import pillow_limits
from .mapped import FORMAT, MappedStore, damaged, describe, lock_name, read_meta
from .writing import CORES, check_free_space, reserve, run_all, write_at


class ImageSource(Protocol):
    """Images that can be cached. It must be picklable if several processes are to read it."""

    @property
    def channels(self) -> int: ...
    def __len__(self) -> int: ...
    def pixels(self, i: int) -> np.ndarray: ...  # ``(H, W, C)`` uint8
    def size(self, i: int) -> tuple[int, int]: ...  # height and width, without decoding

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that identify the images; a cache with other values is made again."""

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays ``(N, …)`` to store with the pixels; called after `size` of every image."""


def open_cache(folder: Path, source: ImageSource) -> MappedStore | None:
    """Opens the finished cache of `source`; None if there is none, or one of other images."""
    meta = read_meta(folder)
    if not meta or meta["source"] != source.fingerprint():
        return None
    with damaged(folder):
        store = MappedStore(folder)
        store.metadata()
        return store


def build_cache(
    folder: Path,
    source: ImageSource,
    thumbnail_sizes: Iterable[int] = (),
    *,
    label: str = "",
    progress: bool | None = None,
    processes: bool = False,
) -> MappedStore:
    """Opens the cache of `source` in `folder`, and makes it first if it is not there.

    `thumbnail_sizes` are sides of thumbnails to write too, and `label` is the progress bar's.
    `processes` are faster than threads for sources that work in Python.

    Raises:
        DatasetNotFoundError: an image is missing, or the folder cannot be written or is full.
        DatasetCorruptError: an image or the cache is damaged; a new cache is not left behind.
        ImageRefusedError: an image is too large, too narrow, or of an unclear range of values.
    """
    store = open_cache(folder, source)  # without the lock: the folder may be read-only
    if store is None:
        with locked(lock_name(folder)):
            store = open_cache(folder, source)
            if store is None:
                _build(folder, source, label or folder.name, progress, processes)
                store = MappedStore(folder)
    for side in thumbnail_sizes:
        store.prepare(side, label, progress)
    return store


def _build(
    folder: Path, source: ImageSource, label: str, progress: bool | None, processes: bool
) -> None:
    """Writes the cache beside `folder` and renames it; the caller holds the lock."""
    count = len(source)
    # Few images are drawn sooner than a process imports what the program does.
    most = min(CORES, 1 + count // 100)
    workers: Executor = process_pool(most) if processes else ThreadPoolExecutor(CORES)
    with replacing(folder) as aside:
        aside.mkdir()
        with pillow_limits(), workers as pool:
            found = run_all(pool, source.size, range(count), label, progress=False)
            sizes = np.array(found, dtype=np.int32).reshape(count, 2)
            lengths = sizes.astype(np.int64).prod(axis=1) * source.channels
            check_free_space(aside, int(lengths.sum()))
            np.save(aside / "sizes.npy", sizes)
            for name, values in source.metadata(sizes).items():
                np.save(aside / f"metadata-{name}.npy", values)
            reserve(aside / "pixels.bin", int(lengths.sum()))
            write = partial(_write_one, source, aside / "pixels.bin")
            places = zip(range(count), np.cumsum(lengths) - lengths, sizes, strict=True)
            run_all(pool, write, list(places), label, progress)
        files = {path.name: describe(path) for path in sorted(aside.iterdir())}
        known = {"format": FORMAT, "channels": source.channels, "images": count, "files": files}
        write_json(aside / "meta.json", {**known, "source": source.fingerprint()})


def _write_one(source: ImageSource, path: Path, place: tuple[int, int, np.ndarray]) -> None:
    """Decodes one image into its part of the file."""
    i, start, size = place
    pixels = source.pixels(i)
    expected = (*size.tolist(), source.channels)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise DatasetCorruptError(
            f"image {i}: expected uint8 {expected} as its header says, "
            f"found {pixels.dtype} {pixels.shape}; it changed while it was read"
        )
    write_at(path, start, pixels)
