"""Decodes (or draws) a part of a dataset once, into a folder that `mapped.MappedStore` reads.

A cache is made aside and appears by one rename, so a folder under its own name is whole, whatever
was interrupted. Of processes that start at once one makes it and the others wait.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..fetch.locking import locked
from .decode import large_images_allowed
from .mapped import FORMAT, MappedStore, read_meta, thumbnails_name
from .thumbnails import box_resize

_AHEAD = 64  # images given out before their turn to be counted


class Source(Protocol):
    """Images that can be cached; pickled when `processes` are asked for."""

    @property
    def channels(self) -> int: ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that tell this source from another; a cache with others is made anew."""
        ...

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of an image, without decoding it."""
        ...

    def pixels(self, i: int) -> np.ndarray:
        """An image ``(H, W, C)`` uint8."""
        ...

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays ``(N, …)`` to keep beside the pixels; asked once `size` was, of every image."""
        ...


def open_cache(folder: Path, source: Source) -> MappedStore | None:
    """The store of a finished cache of `source`; None if there is none, or one of other images.

    Raises:
        DatasetNotFoundError: a file of the source is gone.
        DatasetCorruptError: a file of the cache is short.
    """
    meta = read_meta(folder)
    if not meta or meta["source"] != source.fingerprint():
        return None
    try:
        store = MappedStore(folder)
        store.metadata()
        return store
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise DatasetCorruptError(
            f"{folder}: a damaged cache ({error}). Delete this folder; it is made again when it is "
            "needed."
        ) from error


def build_cache(
    folder: Path,
    source: Source,
    thumbnail_sizes: Iterable[int] = (),
    *,
    label: str = "",
    progress: bool | None = None,
    processes: bool = False,
) -> MappedStore:
    """Makes a cache, or opens it if it is there.

    Args:
        folder: where; the folder above is made if missing.
        source: the images.
        thumbnail_sizes: sides of thumbnails to make at once; others can be added later.
        label: what a progress bar says.
        progress: show one on standard error; None: only on a terminal.
        processes: work in processes rather than threads: for sources whose work is in Python. The
            program that calls must be one that can be imported without running.

    Raises:
        DatasetNotFoundError: an image is gone, or there is no room on the disk.
        DatasetCorruptError: an image is damaged; nothing is kept.
    """
    sides = tuple(thumbnail_sizes)
    found = open_cache(folder, source)
    if found is not None and all((folder / thumbnails_name(side)).exists() for side in sides):
        return found  # it may lie where nothing can be written
    with _locked_cache(folder):
        found = open_cache(folder, source)
        if found is None:
            _build(folder, source, sides, label, progress, processes)
            found = MappedStore(folder)
        for side in sides:
            _add_thumbnails(folder, side, label, progress)
    return found


def add_thumbnails(folder: Path, side: int, progress: bool | None = None) -> None:
    """Adds the thumbnails of one size to a finished cache, unless they are there.

    Raises:
        DatasetNotFoundError: nothing can be written there, or there is no room on the disk.
    """
    if (folder / thumbnails_name(side)).exists():
        return
    with _locked_cache(folder):
        _add_thumbnails(folder, side, "", progress)


@contextmanager
def _locked_cache(folder: Path) -> Iterator[None]:
    """Holds the lock of a cache, beside its folder; waits for whoever holds it now."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("ab")
    except OSError as error:
        raise DatasetNotFoundError(
            f"cannot write into {folder.parent}, {error}. Choose another place by data_dir= or the "
            "environment variable DTRAM_DATA."
        ) from error
    with lock, locked(lock):
        yield


def _build(
    folder: Path,
    source: Source,
    sides: tuple[int, ...],
    label: str,
    progress: bool | None,
    processes: bool,
) -> None:
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process, as we hold the lock
    aside.mkdir()
    try:
        with large_images_allowed(), _workers(processes) as pool:
            count = len(source)
            sizes = np.array(
                list(_in_order(pool, source.size, range(count), None)), dtype=np.int32
            ).reshape(count, 2)
            lengths = sizes.astype(np.int64).prod(axis=1) * source.channels
            small = {side: side * side * source.channels for side in sides}  # bytes of a thumbnail
            _check_room(aside, int(lengths.sum()) + count * sum(small.values()))
            np.save(aside / "sizes.npy", sizes)
            for name, values in source.metadata(sizes).items():
                np.save(aside / f"metadata-{name}.npy", values)
            _reserve(aside / "pixels.bin", int(lengths.sum()))
            for side, length in small.items():
                _reserve(aside / thumbnails_name(side), count * length)
            write = partial(_write_one, source, aside, sides)
            places = zip(range(count), np.cumsum(lengths) - lengths, sizes, strict=True)
            bar = _bar(count, label or folder.name, progress)
            for _ in _in_order(pool, write, places, bar):
                pass
        meta = {
            "format": FORMAT,
            "channels": source.channels,
            "images": count,
            "source": source.fingerprint(),
        }
        (aside / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # of other images
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_one(
    source: Source, folder: Path, sides: tuple[int, ...], place: tuple[int, int, np.ndarray]
) -> None:
    """Decodes one image into its place of the file, and its thumbnails while it is at hand."""
    i, start, size = place
    pixels = source.pixels(i)
    if pixels.shape != (*size.tolist(), source.channels) or pixels.dtype != np.uint8:
        raise DatasetCorruptError(
            f"image {i}: expected uint8 {(*size.tolist(), source.channels)} as its header says, "
            f"found {pixels.dtype} {pixels.shape}; it changed while it was read"
        )
    _put(folder / "pixels.bin", start, pixels)
    for side in sides:
        thumbnail = box_resize(pixels[None], side)
        _put(folder / thumbnails_name(side), i * thumbnail.nbytes, thumbnail)


def _add_thumbnails(folder: Path, side: int, label: str, progress: bool | None) -> None:
    final = folder / thumbnails_name(side)
    if final.exists():
        return
    store = MappedStore(folder)
    length = side * side * store.channels
    _check_room(folder, len(store) * length)
    aside = final.with_name(f"{final.name}.new")
    _reserve(aside, len(store) * length)

    def write(i: int) -> None:
        _put(aside, i * length, box_resize(store.image(i)[None], side))

    with _workers(processes=False) as pool:
        bar = _bar(len(store), f"{label or folder.name}, thumbnails {side}", progress)
        for _ in _in_order(pool, write, range(len(store)), bar):
            pass
    os.replace(aside, final)


def _reserve(path: Path, length: int) -> None:
    """Makes a file of so many bytes, to be filled in any order."""
    with path.open("wb") as file:
        file.truncate(length)


def _put(path: Path, start: int, pixels: np.ndarray) -> None:
    """Writes pixels into their place of a file that is there."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(np.ascontiguousarray(pixels).data)


@contextmanager
def _workers(processes: bool) -> Iterator[Executor]:
    """A pool of as many workers as cores; when one fails the others' work is dropped."""
    cores = os.cpu_count() or 1
    pool: Executor
    if processes:
        pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))
    else:
        pool = ThreadPoolExecutor(cores)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: Executor, work: Callable[..., Any], items: Iterable[Any], bar: Any) -> Any:
    """`map` of the pool that runs only a little ahead, so that an error stops the rest."""
    waiting: list[Any] = []
    with bar or _nothing():
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > _AHEAD:
                yield waiting.pop(0).result()
                if bar is not None:
                    bar.update()
        for future in waiting:
            yield future.result()
            if bar is not None:
                bar.update()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _bar(total: int, label: str, progress: bool | None) -> Any:
    from tqdm import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, desc=label, unit="image", disable=not shown, file=sys.stderr)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetNotFoundError(
            f"{folder.parent}: {needed / 1e9:.1f} GB are needed for the decoded images and "
            f"{free / 1e9:.1f} GB are free. Make room, take a smaller image_size=, or choose "
            "another place by data_dir= or the environment variable DTRAM_DATA."
        )
