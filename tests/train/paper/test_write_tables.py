"""Records and rows by hand: keys, means over runs, and the text of a table."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.common.files import read_json
from train.common.records import RESULTS, read_records
from train.common.statistics import Outcome
from train.paper import tables
from train.paper.read_runs import Reading, Record, record_of, records_of, update_file
from train.paper.systems import BIRDS, MNIST
from train.paper.tables import Line
from train.paper.write_tables import make_row, write_table

MADE = tables.table("table2")
(TALK_1,) = (line for line in MADE.lines if line.system == "talk-1")
(RAM_4,) = (line for line in MADE.lines if line.name == "RAM, 4 glimpses")
ORIGIN = {
    "command": "python it",
    "commit": "d0",
    "date": "2026-11-28",
    "versions": {"torch": "2"},
    "hardware": {"device": "cpu", "bf16": True},
}


def record(seed: int, error: float, line: Line = RAM_4, **changes: Any) -> Record:
    outcome = Outcome(np.ones(1, dtype=bool), np.full(1, 4))
    results = {"dataset": "MNIST", "train_seconds": 3.0, **ORIGIN}
    made = record_of(line, seed, Reading(outcome, 100.0 + seed, results))
    return made | {"error": error} | changes


def test_a_record_by_hand() -> None:
    outcome = Outcome(np.array([True, True, True, False]), np.array([1, 2, 2, 4]))
    results = {"dataset": "MNIST", "train_seconds": 3.0, **ORIGIN}
    found = record_of(TALK_1, 2, Reading(outcome, 12.4, results))
    key = {"protocol": "mnist", "system": "talk-1", "steps": None, "confidence": None, "seed": 2}
    figures = {"error": 25.0, "mean_glimpses": 2.25, "flops": 12, "train_seconds": 3.0}
    assert found == {**key, "data": "MNIST", **figures, **ORIGIN}
    halting = {**results, "units": [2.5, 3.0], "units_of_each_block": [3, 4]}
    found = record_of(TALK_1, 2, Reading(outcome, 12.4, halting))
    assert (found["units"], found["of_units"]) == (5.5, 7)


def test_a_new_record_replaces_the_old_one_of_its_key(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    gone = [record(0, 1.0, system="gone"), record(0, 1.0, protocol="gone")]
    update_file(path, [record(1, 1.0), record(0, 2.0), record(0, 3.0, TALK_1), *gone])
    found = update_file(path, [record(1, 4.0), record(2, 5.0)])
    assert read_records(path) == found
    errors = [(one["system"], one["seed"], one["error"]) for one in found]
    assert errors == [("ram", 0, 2.0), ("ram", 1, 4.0), ("ram", 2, 5.0), ("talk-1", 0, 3.0)]
    # The number of glimpses and the confidence are in the key.
    others = [record(1, 9.0, steps=5), record(1, 9.0, steps=None, confidence=0.0)]
    found = update_file(path, others)
    assert len(found) == 6
    assert [one["seed"] for one in records_of(RAM_4, found)] == [0, 1, 2]
    assert [one["seed"] for one in records_of(RAM_4._replace(beside="ram-last"), found)] == [0]


def test_records_that_are_added_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path, seeds = tmp_path / "runs.jsonl", range(8)
    with ThreadPoolExecutor(len(seeds)) as pool:
        list(pool.map(lambda seed: update_file(path, [record(seed, 1.0)]), seeds))
    assert [one["seed"] for one in read_records(path)] == [*seeds]


def test_means_over_runs_by_hand() -> None:
    found = make_row(MADE, RAM_4, [record(1, 1.5), record(0, 1.0)])
    assert (found["ours"], found["seeds"], found["values"]) == (1.25, 2, [1.5, 1.0])
    assert found["spread"] == pytest.approx(0.3536, abs=1e-4)  # 0.5 / sqrt(2)
    assert (found["published"], found["difference"]) == (1.54, -0.29)
    assert found["published_other_version"] == 1.73
    assert found["runs"] == ["mnist/ram/seed-1", "mnist/ram/seed-0"]
    assert make_row(MADE, RAM_4, [record(0, 1.0)])["spread"] is None
    cited = make_row(MADE, RAM_4, [])
    assert cited["published"] == 1.54 and "ours" not in cited
    accuracy = make_row(tables.table("table6"), RAM_4, [record(0, 1.25)])
    assert accuracy["ours"] == 98.75


def test_our_own_lines_have_no_published_figures() -> None:
    (conv,) = (
        line for line in MADE.lines if line.name.startswith("RAM, 4") and "conv" in line.name
    )
    found = make_row(MADE, conv, [])
    assert {name for name, value in found.items() if value is not None} == {"system"}
    birds = tables.table("table6", BIRDS)
    assert make_row(birds, birds.lines[0], []) == {"system": "One look at 32x32"}


def test_the_text_of_a_table(tmp_path: Path) -> None:
    """† marks runs beyond their bound of 3.6, and runs in float32 are listed."""
    plain = {**ORIGIN["hardware"], "bf16": False}  # type: ignore[dict-item]
    records = [
        record(0, 1.0, TALK_1, mean_glimpses=3.5),
        record(1, 1.2, TALK_1, mean_glimpses=3.625),
        record(0, 1.0, hardware=plain),
    ]
    act = Line(RAM_4.published, MNIST, "act-0.01", label="ACT")
    records.append(record(0, 1.0, act, units=5.25, of_units=16))
    rows = [make_row(MADE, line, records) for line in (TALK_1, RAM_4, act, MADE.lines[0])]
    path = write_table(tmp_path, MADE._replace(note="A note."), rows, ORIGIN)
    text = path.read_text(encoding="utf-8")
    (dtram,) = (line for line in text.splitlines() if line.startswith("| DT-RAM-1, the talk"))
    assert "| 1.10 ± 0.14 |" in dtram and "| 3.56 † |" in dtram and "| -0.36 |" in dtram
    assert "\nA note.\n" in text and "Measured on MNIST." in text and "`python it`" in text
    assert "these runs take more: mnist/talk-1/seed-1 3.625." in text
    assert "no bfloat16 instructions: mnist/ram/seed-0." in text
    assert "| ACT, 5.2 of 16 units |" in text
    found = read_json(tmp_path / "table2.json")
    assert found["rows"] == rows and found["commit"] == "d0"


def test_a_table_of_unknown_origin_is_not_committed() -> None:
    for commit in ("unknown", "d0+changes"):
        with pytest.raises(ValueError, match=r"table2.json: made on commit"):
            write_table(RESULTS / "tables", MADE, [], {**ORIGIN, "commit": commit})
