"""From the talk's algorithm to ours on MNIST, a change a row: `train/reproduce.py ladder`.

A record of `RECORDS` has, for each column, a run's error and the test images that it got wrong,
so that two rungs can be compared image by image, and records of several machines joined.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.stopping import FixedStop, LearnedStop, StoppingRule
from train.common import statistics
from train.common.files import markdown_table, read_json
from train.common.records import origin, pack_bits, unpack_bits
from train.dtram.validation import select_threshold
from train.paper.read_runs import Reader, Record
from train.paper.systems import BOUNDS, LADDER, RUNGS
from train.paper.tables import Line

RECORDS = "ladder.jsonl"  # beside the tables
KEY = ("protocol", "system", "seed")  # identifies a record
FIXED = (4, 7)
"""Numbers of glimpses after which the error is shown, beside that at each of `BOUNDS`."""
COMPARED = tuple(f"<= {bound}" for bound in BOUNDS)
"""The columns whose errors are compared with the last rung kept."""


def measure(reader: Reader, line: Line, seed: int, folder: Path) -> Record:
    """The record of a finished run: each column's error and mean glimpses, on the test split."""
    reading, scores = reader.read(line, folder), reader.scores(folder, folder)
    validated = reader.scores(folder, folder, "validation")
    rules: dict[str, StoppingRule] = {str(t): FixedStop(t) for t in FIXED}
    for bound in BOUNDS:
        chosen = select_threshold(validated, reading.results["discount"], bound)
        rules[f"<= {bound}"] = LearnedStop(chosen.threshold)
    columns = {}
    for name, rule in rules.items():
        found = statistics.outcome(scores, rule)
        columns[name] = {
            "error": round(100 * float((~found.right).mean()), 4),
            "mean_glimpses": round(float(found.glimpses.mean()), 4),
            "wrong": pack_bits(~found.right),
        }
    of_trunk, trunk = 0.0, LADDER.systems[line.system].trunk
    if trunk:
        results = read_json(LADDER.folder(folder.parents[2], trunk, seed) / "results.json")
        of_trunk = results["train_seconds"]
    return {
        **{"protocol": LADDER.name, "system": line.system, "seed": seed},
        "data": reading.results["dataset"],
        "images": len(scores.labels),
        "columns": columns,
        "collapsed": reading.results["collapsed"],
        "train_seconds": reading.results["train_seconds"],
        "trunk_seconds": of_trunk,
        **origin(reading.results),
    }


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row a rung that has records, in order; the differences are to the last one kept."""
    found: list[dict[str, Any]] = []
    before: dict[int, Record] = {}
    for rung in RUNGS:
        runs = {one["seed"]: one for one in records if one["system"] == rung.name}
        if runs:
            change = rung.change + ("" if rung.kept else " (not kept)")
            row: dict[str, Any] = {"rung": rung.name, "change": change, "seeds": len(runs)}
            seconds = [one["train_seconds"] + one["trunk_seconds"] for one in runs.values()]
            row["seconds"] = round(float(np.mean(seconds)))
            counts = Counter(how for one in runs.values() for how in one["collapsed"])
            row["collapsed"] = [f"{count} of {len(runs)}: {how}" for how, count in counts.items()]
            row["columns"] = {
                name: _column(runs, before, name) for name in next(iter(runs.values()))["columns"]
            }
            found.append(row)
        before = runs if rung.kept else before
    return found


def _column(runs: dict[int, Record], before: dict[int, Record], name: str) -> dict[str, Any]:
    """Mean error and glimpses over seeds, the errors' standard deviation and their change."""
    errors = [one["columns"][name]["error"] for one in runs.values()]
    glimpses = [one["columns"][name]["mean_glimpses"] for one in runs.values()]
    return {
        "error": round(float(np.mean(errors)), 4),
        "spread": round(float(np.std(errors, ddof=1)), 4) if len(errors) > 1 else None,
        "mean_glimpses": round(float(np.mean(glimpses)), 4),
        **(
            statistics.paired_difference(_wrong(runs, name), _wrong(before, name))
            if name in COMPARED
            else {}
        ),
    }


def _wrong(runs: dict[int, Record], name: str) -> dict[int, np.ndarray]:
    """By seed, which test images ``(N,)`` bool a run got wrong in a column."""
    wrong = {seed: one["columns"][name]["wrong"] for seed, one in runs.items()}
    return {seed: unpack_bits(text, runs[seed]["images"]) for seed, text in wrong.items()}


def table(found: Sequence[dict[str, Any]]) -> str:
    """The ladder's rows as a Markdown table; empty without rows."""
    if not found:
        return ""
    lines = []
    for row in found:
        line = {"change": row["change"]}
        for name, one in row["columns"].items():
            spread = "" if one["spread"] is None else f" ± {one['spread']:.2f}"
            line[f"at {name}"] = f"{one['error']:.2f}{spread}"
            if name in COMPARED:
                line[f"at {name}"] += f" ({one['mean_glimpses']:.2f})"
                line[f"change at {name}"] = (
                    f"{one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
                    if "difference" in one
                    else ""
                )
        line["seconds"] = f"{row['seconds']:,}"
        line["seeds"] = str(row["seeds"])
        line["collapsed"] = ", ".join(row["collapsed"])
        lines.append(line)
    return markdown_table([*lines[0]], [[*line.values()] for line in lines])


def markdown(found: Sequence[dict[str, Any]], command: str) -> str:
    """The ladder as a page."""
    epochs = LADDER.systems["talk"].option("epochs")
    return (
        "# From the talk's algorithm to ours, on MNIST\n\n"
        f"Test error in percent after {epochs} epochs. Each row has all changes kept so far, and "
        "its own; the map is a recipe of its own, mnist-map. In parentheses: "
        "mean glimpses, with the stop threshold that validation chose within the bound.\n\n"
        f"{table(found)}\n"
        "± is the standard deviation over seeds. The change against the last row kept has a 95 % "
        "interval over images and seeds. Seconds are of training. Each run's figures, "
        f"command, commit, versions and hardware: [{RECORDS}]({RECORDS}).\n\n"
        f"Made by `{command}`.\n"
    )
