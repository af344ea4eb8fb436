"""Rows of the tables by hand: means over runs, what is kept of earlier ones, what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import rows, tables
from train.finished import Reading
from train.readings import Answered
from train.run import write_json
from train.systems import MNIST
from train.tables import Line

MADE = tables.table("table2")
(DTRAM_1,) = (line for line in MADE.lines if line.system == "dtram-1")
(RAM_4,) = (line for line in MADE.lines if line.name == "RAM, 4 glimpses")


def one(seed: int, value: float, glimpses: float = 4.0, recipe: str = "r") -> dict[str, Any]:
    figures = {"value": value, "glimpses": glimpses, "flops": 100 + seed}
    return {"run": f"mnist/ram/seed-{seed}", "recipe": f"{recipe}{seed}", **figures}


WANTED = {f"mnist/ram/seed-{seed}": f"r{seed}" for seed in range(3)}


def test_a_record_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "mnist/dtram-1/seed-0"
    folder.mkdir(parents=True)
    write_json(folder / "results.json", {"command": "c", "commit": "d", "train_seconds": 3.0})
    right = np.array([True, True, True, False])
    reading = Reading(Answered(right, np.array([1, 2, 2, 4])), 12.4, folder)
    found = rows.record(MADE, DTRAM_1, reading, "abc")
    assert (found["value"], found["glimpses"], found["flops"]) == (25.0, 2.25, 12)
    assert (found["run"], found["recipe"]) == ("mnist/dtram-1/seed-0", "abc")
    assert (found["command"], found["commit"], found["date"]) == ("c", "d", None)
    accuracy = rows.record(tables.table("table6"), DTRAM_1, reading, "abc")
    assert accuracy["value"] == 75.0
    assert "units" not in found
    write_json(folder / "results.json", {"units": [2.5, 3.0], "units_of_each_block": [3, 4]})
    halting = rows.record(MADE, DTRAM_1, reading, "abc")
    assert (halting["units"], halting["of_units"]) == (5.5, 7)


def test_means_over_runs_by_hand() -> None:
    found = rows.row(MADE, RAM_4, [one(1, 1.5), one(0, 1.0)])
    assert (found["ours"], found["seeds"], found["values"]) == (1.25, 2, [1.0, 1.5])
    assert found["spread"] == pytest.approx(0.3536, abs=1e-4)  # 0.5 / sqrt(2)
    assert (found["published"], found["difference"]) == (1.54, -0.29)
    assert found["published_other_version"] == 1.73
    assert rows.row(MADE, RAM_4, [one(0, 1.0)])["spread"] is None
    cited = rows.row(MADE, RAM_4, [])
    assert cited["published"] == 1.54 and "ours" not in cited


def test_a_row_of_ours_has_no_published_glimpses() -> None:
    (cells,) = (
        line for line in MADE.lines if line.name.startswith("RAM, 4") and "conv" in line.name
    )
    found = rows.row(MADE, cells, [])
    assert found["published"] is None and found["published_glimpses"] is None
    assert "published_other_version" not in found


def test_runs_that_are_gone_are_kept_while_the_recipe_is_the_same() -> None:
    before = rows.row(MADE, RAM_4, [one(0, 1.0), one(1, 2.0)])
    again = rows.row(MADE, RAM_4, [], WANTED, before)
    assert (again["ours"], again["seeds"]) == (1.5, 2)
    assert all(run["kept"] for run in again["runs"])
    # One of them anew, and one more.
    mixed = rows.row(MADE, RAM_4, [one(1, 4.0), one(2, 4.0)], WANTED, before)
    assert mixed["values"] == [1.0, 4.0, 4.0]
    assert [run.get("kept", False) for run in mixed["runs"]] == [True, False, False]
    # Another recipe: what it made is nothing to be kept.
    other = {run: recipe + "x" for run, recipe in WANTED.items()}
    assert "ours" not in rows.row(MADE, RAM_4, [], other, before)
    assert rows.row(MADE, RAM_4, [one(2, 4.0)], other, before)["values"] == [4.0]
    # A seed that is not asked for any more.
    fewer = {"mnist/ram/seed-0": "r0"}
    assert rows.row(MADE, RAM_4, [], fewer, before)["values"] == [1.0]


def test_the_recipe_tells_what_is_asked() -> None:
    assert MNIST.recipe("dtram-0", 0) != MNIST.recipe("dtram-1", 0) != MNIST.recipe("dtram-1", 1)
    assert MNIST.recipe("dtram-0", 2) == MNIST.recipe("dtram-0", 2)
    # The same stop on another trunk is another recipe.
    assert MNIST.recipe("dtram-cells-0", 0) != MNIST.recipe("dtram-conv-0", 0)


def test_what_is_written() -> None:
    over = [{**one(0, 1.0, 3.5), "run": "mnist/dtram-1/seed-0"}]
    over.append({**one(1, 1.2, 3.625), "run": "mnist/dtram-1/seed-1"})
    written = [rows.row(MADE, DTRAM_1, over), rows.row(MADE, RAM_4, [])]
    text = rows.markdown("T", "MNIST", written, "python it", "A note.")
    lines = text.splitlines()
    (dtram,) = (line for line in lines if line.startswith("| DT-RAM-1 |"))
    assert "| 1.10 ± 0.14 |" in dtram and "| 3.56 † |" in dtram and "| -0.36 |" in dtram
    assert "A note." in lines
    assert any("over theirs: mnist/dtram-1/seed-1 3.625" in line for line in lines)
    assert "‡" not in text and "`python it`" in text
    kept = rows.row(MADE, RAM_4, [], WANTED, rows.row(MADE, RAM_4, [one(0, 1.0)]))
    text = rows.markdown("T", "MNIST", [kept], "python it")
    assert "| 1.00 ‡ |" in text and "‡ From an earlier writing" in text


def test_units_that_halt_are_in_the_name() -> None:
    found = rows.row(
        MADE, Line(RAM_4.published, MNIST, "act"), [one(0, 1.0) | {"units": 5.25, "of_units": 16}]
    )
    assert "| RAM, 4 glimpses, 5.2 of 16 units |" in rows.markdown("T", "d", [found], "c")
