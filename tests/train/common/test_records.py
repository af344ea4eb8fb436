"""Results under benchmarks/results must say how they were made; other files need not."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.common import records
from train.common.records import ORIGIN, origin, read_records, write_records, write_result

WHOLE: dict[str, Any] = {
    "error": 1.5,
    "command": "python train/reinforce.py",
    "commit": "0" * 40,
    "date": "2026-01-01",
    "versions": {"torch": "2"},
    "hardware": {"device": "cpu"},
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of benchmarks/results."""
    folder = tmp_path / "results"
    monkeypatch.setattr(records, "RESULTS", folder)
    return folder


def test_records_come_back(results: Path) -> None:
    path = results / "deep" / "a.jsonl"
    assert read_records(path) == []
    assert write_records(path, [WHOLE, WHOLE | {"error": 2}]) == path
    assert read_records(path) == [WHOLE, WHOLE | {"error": 2}]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    written = write_result(results / "b.json", WHOLE)
    assert json.loads(written.read_text(encoding="utf-8")) == WHOLE
    assert origin(WHOLE) == {name: WHOLE[name] for name in ORIGIN}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": None, "hardware": {}}, "expected command, hardware in the record; run it"),
        ({"date": ""}, "expected date in the record"),
        ({"commit": "unknown"}, "made on commit unknown; commit all changes and run it again"),
        ({"commit": "0" * 40 + "+changes"}, r"made on commit 0+\+changes; commit all changes"),
    ],
)
def test_a_result_without_its_origin_is_refused(
    results: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    result = WHOLE | changes
    with pytest.raises(ValueError, match=f"a.json: {message}"):
        write_result(results / "a.json", result)
    with pytest.raises(ValueError, match=f"a.jsonl, line 2: {message}"):
        write_records(results / "deep" / "a.jsonl", [WHOLE, result])
    assert not results.exists()
    write_result(tmp_path / "a.json", result)
    write_records(tmp_path / "a.jsonl", [result])


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: not valid JSON"):
        read_records(path)


def test_a_program_hears_before_its_work_that_the_code_has_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "commit", lambda: "0123abcd+changes")
    records.check_destination(tmp_path / "out.json")
    for path in (records.RESULTS, records.RESULTS / "tables" / "table1.json"):
        with pytest.raises(ValueError, match=r"made on commit 0123abcd\+changes; commit all"):
            records.check_destination(path)
    monkeypatch.setattr(records, "commit", lambda: "0123abcd")
    records.check_destination(records.RESULTS)
