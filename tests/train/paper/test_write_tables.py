"""Rows of the tables by hand: means over runs, what is kept of earlier ones, what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.common.run import write_json
from train.common.statistics import Answered
from train.paper import tables
from train.paper import write_tables as rows
from train.paper.read_runs import Reading
from train.paper.systems import MNIST
from train.paper.tables import Line

MADE = tables.table("table2")
(DTRAM_1,) = (line for line in MADE.lines if line.system == "dtram-1")
(RAM_4,) = (line for line in MADE.lines if line.name == "RAM, 4 glimpses")


def one(seed: int, value: float, glimpses: float = 4.0, system: str = "ram") -> dict[str, Any]:
    figures = {"value": value, "glimpses": glimpses, "flops": 100 + seed}
    recipe = MNIST.recipe(system, seed)
    return {"run": f"mnist/{system}/seed-{seed}", "recipe": recipe, **figures}


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
    again = rows.row(MADE, RAM_4, [], before)
    assert (again["ours"], again["seeds"]) == (1.5, 2)
    assert all(run["kept"] for run in again["runs"])
    # One of them anew, and one more.
    mixed = rows.row(MADE, RAM_4, [one(1, 4.0), one(2, 4.0)], before)
    assert mixed["values"] == [1.0, 4.0, 4.0]
    assert [run.get("kept", False) for run in mixed["runs"]] == [True, False, False]
    # Another recipe, system or protocol: what it made is nothing to be kept.
    other = {"runs": [{**run, "recipe": "x"} for run in before["runs"]], "seeds": 2}
    assert "ours" not in rows.row(MADE, RAM_4, [], other)
    assert rows.row(MADE, RAM_4, [one(2, 4.0)], other)["values"] == [4.0]
    for name in ("mnist/ram-cells/seed-0", "birds-small/ram/seed-0", "mnist/ram/seed-", "ram"):
        run = {**one(0, 1.0), "run": name}
        assert "ours" not in rows.row(MADE, RAM_4, [], {"runs": [run], "seeds": 1})


def test_records_without_figures_stand_together_or_not_at_all() -> None:
    """A row of three seeds is not replaced by one because nobody noted what each had."""
    means = {"ours": 2.0, "spread": 1.0, "glimpses": 3.5, "flops": 9, "seeds": 3}
    records = [{k: one(s, 1.0 + s)[k] for k in ("run", "recipe", "value")} for s in range(3)]
    before = {**means, "values": [1.0, 2.0, 3.0], "runs": records}
    for found in ([], [one(0, 5.0)], [one(0, 5.0), one(1, 5.0)]):
        again = rows.row(MADE, RAM_4, found, before)
        assert {name: again[name] for name in means} == means
        assert [run["kept"] for run in again["runs"]] == [True] * 3
    anew = rows.row(MADE, RAM_4, [one(seed, 5.0) for seed in range(3)], before)
    assert (anew["ours"], anew["seeds"], anew["glimpses"]) == (5.0, 3, 4.0)
    # With one of its recipes changed the mean is of something else.
    records[1]["recipe"] = "x"
    assert "ours" not in rows.row(MADE, RAM_4, [], before)


def test_records_of_an_older_format_are_none() -> None:
    before = {"ours": 1.0, "seeds": 1, "runs": ["runs/reproduce/mnist/ram/seed-0"]}
    assert "ours" not in rows.row(MADE, RAM_4, [], before)


def test_a_line_beside_another_keeps_seed_0() -> None:
    line = RAM_4._replace(beside="ram-cells")
    before = rows.row(MADE, RAM_4, [one(seed, 1.0 + seed) for seed in range(3)])
    assert rows.row(MADE, line, [], before)["values"] == [1.0]


def test_the_recipe_tells_what_is_asked() -> None:
    assert MNIST.recipe("dtram-0", 0) != MNIST.recipe("dtram-1", 0) != MNIST.recipe("dtram-1", 1)
    assert MNIST.recipe("dtram-0", 2) == MNIST.recipe("dtram-0", 2)
    # The same stop on another trunk is another recipe.
    assert MNIST.recipe("dtram-cells-0", 0) != MNIST.recipe("dtram-conv-0", 0)


def test_what_is_written() -> None:
    over = [one(0, 1.0, 3.5, "dtram-1"), one(1, 1.2, 3.625, "dtram-1")]
    written = [rows.row(MADE, DTRAM_1, over), rows.row(MADE, RAM_4, [])]
    text = rows.markdown("T", "MNIST", written, "python it", "A note.")
    lines = text.splitlines()
    (dtram,) = (line for line in lines if line.startswith("| DT-RAM-1 |"))
    assert "| 1.10 ± 0.14 |" in dtram and "| 3.56 † |" in dtram and "| -0.36 |" in dtram
    assert "A note." in lines
    assert any("over theirs: mnist/dtram-1/seed-1 3.625" in line for line in lines)
    assert "‡" not in text and "`python it`" in text
    assert "hardware, but for mnist/dtram-1 (seeds 0, 1)." in text
    known = rows.row(MADE, RAM_4, [one(0, 1.0) | {"command": "python x"}])
    kept = rows.row(MADE, RAM_4, [], known)
    text = rows.markdown("T", "MNIST", [kept], "python it")
    assert "| 1.00 ‡ |" in text and "‡ From an earlier writing" in text
    assert "command, commit and hardware.\n" in text
    few = {**kept, "bound": 3.6, "runs": [{"run": "a/b/seed-2", "value": 1.0}]}
    assert "is not: a/b (seed 2)." in rows.markdown("T", "MNIST", [few], "python it")


def test_units_that_halt_are_in_the_name() -> None:
    found = rows.row(
        MADE, Line(RAM_4.published, MNIST, "act"), [one(0, 1.0) | {"units": 5.25, "of_units": 16}]
    )
    assert "| RAM, 4 glimpses, 5.2 of 16 units |" in rows.markdown("T", "d", [found], "c")
