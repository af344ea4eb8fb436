"""Files on disk: written whole or not at all, and recognised by their SHA-256."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checks import misfit

LARGEST = 2**63  # numbers in our JSON are smaller


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it replaces `path` when the block ends.

    The content is on the disk before the rename, so that after a crash `path` is the old or the new
    one. If the block fails, nothing is left of what it wrote, and an `OSError` names `path`.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)  # of a killed process
        yield aside
        for written in (aside, *aside.rglob("*")):
            _flush(written)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
        _flush(path.parent)
    except OSError as error:
        if error.errno and str(error.filename or aside).startswith(str(aside)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        _remove(aside)


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 file, see `replacing`; returns the path."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON, one value on each line; see `write_text`."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


class Record(dict[str, Any]):
    """An object of a JSON file; a missing key is a `ValueError` that names the file and the key."""

    path: Path
    name = ""  # of the object in the file, as ``"options."``
    way_out = ""

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.path}: {self.name}{key}: missing; {self.way_out}")


def read_json(path: Path, kind: Any, way_out: str) -> Record:
    """Reads a JSON file with an object, which is of a kind, see `misfit`.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged. The error names the file, the key, and `way_out`, what to do.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        record: Record = _as_records(value, path, "", way_out)
        problem = misfit(value, dict[str, Any]) or misfit(value, kind)
    except (ValueError, RecursionError) as error:
        problem = f"not valid JSON ({error})"
    if problem:
        raise ValueError(f"{path}: {problem}; {way_out}") from None
    return record


def _as_records(value: Any, path: Path, name: str, way_out: str) -> Any:
    """JSON with its objects as records; ValueError if a number is not finite or too large."""
    if isinstance(value, float | int) and not abs(value) < LARGEST:
        expected = "expected a finite number that fits 64 bits"
        raise ValueError(f"{name or 'the whole'}={str(value)[:60]}: {expected}")
    inside = f"{name}." if name else ""
    if isinstance(value, list):
        return [_as_records(v, path, f"{name}[{i}]", way_out) for i, v in enumerate(value)]
    if isinstance(value, dict):
        record = Record({k: _as_records(v, path, inside + k, way_out) for k, v in value.items()})
        record.path, record.name, record.way_out = path, inside, way_out
        return record
    return value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file, or the list of a folder's names, is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # only POSIX opens folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
