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
    file; of a folder that is replaced, both may be gone. If the block fails, nothing is left of
    what it wrote, and an `OSError` names `path`.
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
        if error.filename and str(error.filename).startswith(str(aside)):
            error.filename = str(path)
        raise _named(error, path) from error
    finally:
        _remove(aside)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An `OSError` of the block that names no file, such as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> OSError:
    if type(error) is OSError and not error.errno:  # of NumPy
        return OSError(f"{path}: {error}")
    if error.errno and error.filename is None:
        return OSError(error.errno, error.strerror, str(path))
    return error


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 file, see `replacing`; returns the path. Other bytes become escapes."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON, one value on each line; see `write_text`."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


class Record(dict[str, Any]):
    """An object of a JSON file; a missing key is a `ValueError` that names the file and the key."""

    place = ""  # the file, and the object in it, as ``"results.json: options."``
    way_out = ""

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.place}{key}: missing; {self.way_out}")


def read_json(path: Path, kind: Any, way_out: str) -> Record:
    """Reads a JSON file, see `parse_json`; raises `OSError` if there is none."""
    return parse_json(path.read_bytes(), str(path), kind, way_out)


def parse_json(text: bytes, source: str, kind: Any, way_out: str) -> Record:
    """Reads a JSON object, which is of a kind, see `misfit`.

    Raises ValueError if it is damaged; it names `source`, the key, and `way_out`, what to do.
    """
    try:
        value = json.loads(text.decode())
        record: Record = _as_records(value, source, "", way_out)
        problem = misfit(value, dict[str, Any]) or misfit(value, kind)
    except (ValueError, RecursionError) as error:
        problem = f"not valid JSON ({error})"
    if problem:
        raise ValueError(f"{source}: {problem}; {way_out}") from None
    return record


def _as_records(value: Any, source: str, name: str, way_out: str) -> Any:
    """JSON with its objects as records; ValueError if a number is not finite or too large."""
    if isinstance(value, float | int) and not abs(value) < LARGEST:
        expected = "expected a finite number that fits 64 bits"
        raise ValueError(f"{name or 'the whole'}={str(value)[:60]}: {expected}")
    inside = f"{name}." if name else ""
    if isinstance(value, list):
        return [_as_records(v, source, f"{name}[{i}]", way_out) for i, v in enumerate(value)]
    if isinstance(value, dict):
        record = Record({k: _as_records(v, source, inside + k, way_out) for k, v in value.items()})
        record.place, record.way_out = f"{source}: {inside}", way_out
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
