"""Results with their origin: what a file under benchmarks/results must say, and who writes it."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dtram_env.files import Record, write_json, write_text
from train.common.files import Results, read_json_lines
from train.common.provenance import commit

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
HERE = "this repository"
"""The source of a record that a command of this repository made."""
ORIGIN = ("command", "commit", "date", "versions", "hardware")
"""What every record says of how it was made; `provenance.provenance` gives it."""


def origin(results: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `ORIGIN` in a run's results."""
    return {name: results.get(name) for name in ORIGIN}


def check_destination(path: Path) -> None:
    """Raises ValueError if `path` is under benchmarks/results and the code here has changes.

    A program calls it before its work, which may take hours.
    """
    if RESULTS in (path.resolve(), *path.resolve().parents):
        _check_commit(str(path), commit())


def check_origin(record: Mapping[str, Any], name: str) -> None:
    """Raises ValueError unless a record says how it was made, on a commit without changes.

    A record from elsewhere need not: its source, a link, answers for it.
    """
    if record.get("source", HERE) != HERE:
        return
    missing = [key for key in ORIGIN if not record.get(key)]
    if missing:
        raise ValueError(f"{name}: expected {', '.join(missing)} in the record; run it again")
    _check_commit(name, str(record["commit"]))


def _check_commit(name: str, made_on: str) -> None:
    if made_on == "unknown" or "+" in made_on:
        way_out = "commit all changes and run it again, or write it outside benchmarks/results"
        raise ValueError(f"{name}: made on commit {made_on}; {way_out}")


def write_result(path: Path, result: Mapping[str, Any]) -> Path:
    """Writes one result as JSON; under benchmarks/results only with its origin."""
    if RESULTS in path.resolve().parents:
        check_origin(result, str(path))
    return write_json(path, dict(result))


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Writes records as JSON Lines; under benchmarks/results only with the origin of each."""
    if RESULTS in path.resolve().parents:
        for number, record in enumerate(records, start=1):
            check_origin(record, f"{path}, line {number}")
    return write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def read_records(path: Path) -> list[Record]:
    """Reads JSON Lines; an empty list if there is no file. An error names a damaged line."""
    if not path.exists():
        return []
    return read_json_lines(path, Results)


def pack_bits(values: np.ndarray) -> str:
    """Booleans ``(N,)`` as text for JSON, eight a byte."""
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """The booleans ``(count,)`` that `pack_bits` packed."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def pack_floats(values: np.ndarray) -> str:
    """Floats ``(N,)`` as text for JSON, in single precision, compressed."""
    return base64.b64encode(zlib.compress(values.astype("<f4").tobytes(), 9)).decode()


def unpack_floats(text: str) -> np.ndarray:
    """The floats ``(N,)`` that `pack_floats` packed."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").astype(np.float64)
