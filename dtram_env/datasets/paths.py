"""Where datasets lie on disk, and the lock under which their folders are written."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DatasetNotFoundError

SETTINGS = "data_dir= or the environment variable DTRAM_DATA"  # for messages


def data_root(data_dir: str | Path | None = None) -> Path:
    """Absolute path of all datasets: `data_dir`, else ``$DTRAM_DATA``, else ~/.cache/dtram."""
    chosen = data_dir if data_dir is not None else os.environ.get("DTRAM_DATA")
    return Path(chosen or Path("~", ".cache", "dtram")).expanduser().resolve()


def text(name: str) -> str:
    """The name of a file as text, the same in every locale; bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def locked(lock_file: Path, dataset: str = "") -> Iterator[None]:
    """Lets one process at a time run the body; a process that dies frees the lock.

    Makes the folder of `lock_file`; a `DatasetNotFoundError` names `dataset` if that fails.
    """
    from filelock import FileLock  # only writers need it, and it takes a while to import

    lock = FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except OSError as error:
        raise DatasetNotFoundError(
            f"{dataset}{': ' * bool(dataset)}cannot write into {lock_file.parent}, {error}. "
            f"Choose another folder with {SETTINGS}."
        ) from error
    with held:
        yield


def shows_progress(progress: bool | None) -> bool:
    """Whether to show progress bars; None: only if standard error is a terminal."""
    if sys.stderr is None:  # closed, as by ``2>&-``
        return False
    return sys.stderr.isatty() if progress is None else progress
