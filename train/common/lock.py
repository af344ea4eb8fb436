"""Locks: one process at a time writes into a run's folder, or into a file of records."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dtram_env.files import write_json
from train.common.files import read_json

IN_USE = "in use by"  # begins what `RunLock` says of a folder that another process writes


class RunLock:
    """The right to write into a run's folder, until `release` or the end of the process.

    The system locks ``.lock``, and frees it if the process dies. ``.lock.json`` names the holder.

    Raises ValueError, which names the holder, if another process (or this one) has the lock.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._file, self._holder = FileLock(folder / ".lock"), folder / ".lock.json"
        try:
            self._file.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{folder}: {_in_use(self._holder)}") from None
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            process = {"pid": os.getpid(), "host": platform.node()}
            write_json(self._holder, {**process, "since": since, "command": command})
        except OSError:
            self._file.release()
            raise

    def release(self) -> None:
        """Lets other processes write; does nothing the second time."""
        if self._file.is_locked:
            self._holder.unlink(missing_ok=True)
            self._file.release()


def wait_until_free(folder: Path, seconds: float) -> None:
    """Waits while another process writes into a run's folder, but no longer than some seconds."""
    if (folder / ".lock").exists():
        with suppress(Timeout), FileLock(folder / ".lock").acquire(timeout=seconds):
            pass


def _in_use(holder: Path) -> str:
    """Who holds a lock, and what to do."""
    try:
        found = read_json(holder)
        who = f"process {found['pid']} on {found['host']} since {found['since']}"
        here = found["host"] == platform.node()
        stop = f"end it with `kill {found['pid']}` (it saves)" if here else "end it there"
        command = f". It runs {found['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        who, stop, command = "another process", "end it", ""
    way_out = f"wait for it, {stop}, or choose another --run-dir"
    return f"{IN_USE} {who}; {way_out}{command}"


@contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Holds the lock `file`; while another process holds it, says so and waits. The file stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=10)
    except Timeout:
        print(f"{file}: held by another process; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
