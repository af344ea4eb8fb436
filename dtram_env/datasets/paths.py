"""Where datasets lie on disk, and the lock under which their folders are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DatasetNotFoundError

SETTINGS = "data_dir= or the environment variable DTRAM_DATA"  # for messages


def data_root(data_dir: str | Path | None = None) -> Path:
    """The folder that holds all datasets: `data_dir`, else ``$DTRAM_DATA``, else ~/.cache/dtram.

    Returns:
        An absolute path. Nothing is created.
    """
    chosen = data_dir if data_dir is not None else os.environ.get("DTRAM_DATA")
    return Path(chosen or Path("~", ".cache", "dtram")).expanduser().resolve()


@contextmanager
def locked(lock_file: Path, dataset: str = "") -> Iterator[None]:
    """Lets one process at a time run the body; the others wait.

    The lock of a process that dies is free.

    Args:
        lock_file: a file for the lock alone. Its folder is created if it is missing.
        dataset: the dataset's name, for the error.

    Raises:
        DatasetNotFoundError: the file cannot be written.
    """
    from filelock import FileLock  # only writers need it, and it takes a while to import

    lock = FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DatasetNotFoundError(
            f"{dataset}{': ' * bool(dataset)}cannot write into {lock_file.parent}, {error}. "
            f"Choose another folder with {SETTINGS}."
        ) from error
    try:
        yield
    finally:
        lock.release()
