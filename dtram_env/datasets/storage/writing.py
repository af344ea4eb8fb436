"""Files that several workers fill at once, with a progress bar and a check of the free space."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import DatasetNotFoundError
from ..paths import SETTINGS, shows_progress

CORES = os.cpu_count() or 1
_AHEAD = 64  # items submitted before the oldest result is taken


def check_free_space(folder: Path, needed: int) -> None:
    """Raises `DatasetNotFoundError` if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetNotFoundError(
            f"{folder.parent}: the decoded images need {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free. Free some space, use a smaller image_size=, or choose "
            f"another folder with {SETTINGS}."
        )


def reserve(path: Path, length: int) -> None:
    """Creates a file of `length` bytes, whose parts can then be written in any order."""
    with path.open("wb") as file:
        file.truncate(length)


def write_at(path: Path, start: int, pixels: np.ndarray) -> None:
    """Writes pixels into an existing file, from byte `start` on."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(np.ascontiguousarray(pixels).data)


def run_in_order(pool: Executor, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of ``work(item)`` in order, like `pool.map`, but submits only a few items ahead.

    An error therefore stops the rest.
    """
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def finish(results: Iterator[Any], total: int, label: str, progress: bool | None) -> None:
    """Takes all results and shows a bar on standard error; by default only on a terminal."""
    for _ in tqdm(results, label, total, unit="image", disable=not shows_progress(progress)):
        pass
