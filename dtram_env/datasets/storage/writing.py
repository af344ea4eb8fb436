"""Files that several workers fill at once, with a progress bar and a check of the free space."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import DatasetNotFoundError
from ..paths import SETTINGS, shows_progress

CORES = os.cpu_count() or 1
_AT_ONCE = 1024  # items submitted at a time, because each takes memory while it waits


def check_free_space(folder: Path, needed: int) -> None:
    """Raises `DatasetNotFoundError` if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetNotFoundError(
            f"{folder.parent}: the decoded images need {needed / 1e6:,.0f} MB and "
            f"{free / 1e6:,.0f} MB are free. Free some space, use a smaller image_size=, or choose "
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


def run_all(
    pool: Executor,
    work: Callable[[Any], Any],
    items: Sequence[Any],
    label: str,
    progress: bool | None,
) -> list[Any]:
    """Results of ``work(item)`` in order, with a bar on standard error; an error stops the rest."""
    parts = (items[i : i + _AT_ONCE] for i in range(0, len(items), _AT_ONCE))
    results = chain.from_iterable(pool.map(work, part) for part in parts)
    hidden = not shows_progress(progress)
    try:
        return list(tqdm(results, label, len(items), unit="image", disable=hidden))
    except BaseException:
        pool.shutdown(cancel_futures=True)  # else all that was submitted would be done first
        raise
