"""Makes a table of records, and writes it as Markdown and JSON."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dtram_env.files import write_text
from train.common.files import markdown_table
from train.common.records import write_result
from train.paper.read_runs import Record, records_of
from train.paper.tables import Line, Table

RUNS = "runs.jsonl"  # beside the tables
COLUMNS = {
    "system": "system",
    "published_classes": "published: classes",
    "published_train": "training images",
    "published_test": "test images",
    "published_boxes": "boxes",
    "classes": "here: classes",
    "train": "training images",
    "test": "test images",
    "boxes": "boxes",
    "published": "published %",
    "published_with_box": "published, with box %",
    "published_other_version": "published, other version %",
    "published_glimpses": "at glimpses",
    "ours": "ours %",
    "difference": "difference",
    "glimpses": "mean glimpses",
    "flops": "MFLOP",
    "seeds": "seeds",
}
"""Headings of the columns of the Markdown, by name in a row."""
FOOTNOTE = (
    "Ours: one deterministic pass over the whole test split; weights and stop thresholds are "
    "chosen on validation images: within a bound on mean glimpses, the threshold with the most "
    "glimpses that does not raise the cross-entropy clearly. Older runs have the rule of their "
    "commits: on MNIST, but for the map, the fewest errors; otherwise, but for clutter and scenes "
    "of 512 pixels, the lowest cross-entropy. ± is the standard deviation over "
    "seeds; a run without a record of its commit is left out. FLOPs count a multiply-add as "
    "two. A row without our figures is cited only, or was not run. Each run's figures, command, "
    f"commit, versions and hardware: [{RUNS}]({RUNS})."
)


def make_row(made: Table, line: Line, records: Sequence[Record]) -> dict[str, Any]:
    """A row: the published figures, and our mean over the records of the line."""
    published = line.published
    row: dict[str, Any] = {"system": line.name}
    if made.comparable:
        row["published"] = published.value
        row["published_with_box"] = published.with_box
        row["published_other_version"] = published.other_version
        row["published_glimpses"] = None if published.value is None else published.glimpses
    found = records_of(line, list(records)) if line.system else []
    if not found:
        return row
    in_errors = made.measure == "error"
    values = [one["error"] if in_errors else round(100 - one["error"], 4) for one in found]
    names = ["{protocol}/{system}/seed-{seed}".format_map(one) for one in found]
    row |= {
        "ours": round(float(np.mean(values)), 4),
        "spread": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
        "glimpses": round(float(np.mean([one["mean_glimpses"] for one in found])), 4),
        "flops": round(float(np.mean([one["flops"] for one in found]))),
        "seeds": len(found),
        "values": values,
        "runs": names,
        "data": found[0]["data"],
    }
    if "units" in found[0]:
        row["units"] = f"{found[0]['units']:.1f} of {found[0]['of_units']} units"
    system, named = line.protocol.systems[line.system], list(zip(names, found, strict=True))
    bound = getattr(system.option("stop"), "max_mean_glimpses", None) or math.inf
    over = [f"{name} {t:.3f}" for name, one in named if (t := one["mean_glimpses"]) > bound]
    if over:
        row["over_bound"] = over
    # A run asked for bfloat16 computes in float32 where the device has no instructions for it.
    plain = [name for name, one in named if (one["hardware"] or {}).get("bf16") is False]
    if plain and system.option("bf16"):
        row["in_float32"] = plain
    if made.comparable and published.value is not None:
        row["difference"] = round(row["ours"] - published.value, 4)
    return row


def write_table(
    folder: Path, made: Table, rows: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]
) -> Path:
    """Writes a table with the `origin` of the program that writes; returns the Markdown's path."""
    data = ", ".join(dict.fromkeys(row["data"] for row in rows if "data" in row))
    content = {"title": made.title, "note": made.note, "data": data, "rows": rows}
    write_result(folder / f"{made.key}.json", {**content, **origin})
    measured = f"Measured on {data}.\n\n" if data else ""
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    cells = [[_cell(row, key) for key in shown] for row in rows]
    table = markdown_table([COLUMNS[key] for key in shown], cells)
    made_by = f"Made by `{origin['command']}`."
    notes = [made.note, *_remarks(rows), FOOTNOTE if data else "", made_by]
    text = f"# {made.title}\n\n{measured}{table}" + "".join(f"\n{n}\n" for n in notes if n)
    return write_text(folder / f"{made.key}.md", text)


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key == "system":
        return f"{value}, {row['units']}" if "units" in row else value
    if key == "ours" and row["spread"] is not None:
        return f"{value:.2f} ± {row['spread']:.2f}"
    if key == "glimpses":
        return f"{value:.2f}" + " †" * ("over_bound" in row)
    if key == "flops":
        return f"{value / 1e6:.2f}"
    return format(value, {"ours": ".2f", "difference": "+.2f"}.get(key, ""))


def _remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The meaning of †, and the runs in float32, where there are any."""
    remarks = {
        "over_bound": "† The bound on mean glimpses is kept on validation images. On test images "
        "these runs take more",
        "in_float32": "Trained in float32, because the processor has no bfloat16 instructions",
    }
    runs = {key: dict.fromkeys(run for row in rows for run in row.get(key, ())) for key in remarks}
    return [f"{remarks[key]}: {', '.join(found)}." for key, found in runs.items() if found]
