"""Rows of the tables: what each seed's run says, their mean, and how a table is written.

A row keeps a record of each run behind it, so a table that is written again keeps what runs said
that are not on the machine any more, as long as their recipe is still the same.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.baselines.summary import write_csv
from train.common.provenance import choose_device, provenance
from train.common.run import read_json, write_json, write_text
from train.paper.read_runs import Reading
from train.paper.systems import Protocol
from train.paper.tables import Line, Table

Record = dict[str, Any]
ORIGIN = ("train_seconds", "command", "commit", "date", "versions", "hardware")
"""What a record has of its run's results, beside its figures."""
FIGURES = {"value", "glimpses", "flops"}
OF_RUNS = ("ours", "spread", "glimpses", "flops", "seeds", "values")
"""What a row has of its records."""


def record(made: Table, line: Line, reading: Reading, recipe: str) -> Record:
    """What one run says for a line.

    Args:
        made: the table, whose measure is taken.
        line: of it.
        reading: of the run.
        recipe: the run's, see `Protocol.recipe`.
    """
    right = 100 * float(reading.answered.right.mean())
    results = read_json(reading.folder / "results.json")
    units = {} if "units" not in results else {"units": round(sum(results["units"]), 2)}
    if units:  # residual units that a network which halts took, of those it has
        units["of_units"] = sum(results["units_of_each_block"])
    return {
        "run": run_name(reading.folder),
        "recipe": recipe,
        "value": round(100 - right if made.measure == "error" else right, 4),
        "glimpses": round(float(reading.answered.glimpses.mean()), 4),
        "flops": round(reading.flops),
        **units,
        **origin_of(reading.folder),
    }


def origin_of(folder: Path) -> dict[str, Any]:
    """How a finished run was made, by the names of `ORIGIN`."""
    results = read_json(folder / "results.json")
    return {name: results.get(name) for name in ORIGIN}


def run_name(folder: Path) -> str:
    """A run's folder without where runs are: PROTOCOL/SYSTEM/seed-N."""
    return "/".join(folder.parts[-3:])


def stands(run: object, recipe: object, protocol: Protocol, system: str) -> bool:
    """Whether a run that was recorded is a system's, made by the recipe that it has now."""
    name, _, seed = str(run).rpartition("/seed-")
    if name != f"{protocol.name}/{system}" or not seed.isdigit():
        return False
    return recipe == protocol.recipe(system, int(seed))


def kept_records(line: Line, before: Mapping[str, Any]) -> list[Record]:
    """Records of an earlier writing that still stand; of a line beside another, of seed 0 alone.

    Args:
        line: of the table.
        before: its row as it was.
    """
    return [
        {**one, "kept": True}
        for one in before.get("runs", ())
        if isinstance(one, dict)
        and stands(one.get("run"), one.get("recipe"), line.protocol, line.system)
        and (not line.beside or one["run"].endswith("seed-0"))
    ]


def row(
    made: Table,
    line: Line,
    found: Sequence[Record],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A line of the written table, as values; of a system that is cited only, its citation.

    Args:
        made: the table.
        line: of it.
        found: records of the line's runs that are here.
        before: the row as it was written earlier. What it says of other runs is kept; records that
            lack figures cannot be averaged with new ones: the row that has more seeds stands.
    """
    out: dict[str, Any] = {"system": line.name}
    published = line.published
    if made.comparable:
        out["published"] = published.value
        for name in ("with_box", "other_version"):
            if getattr(published, name) is not None:
                out[f"published_{name}"] = getattr(published, name)
        out["published_glimpses"] = None if published.value is None else published.glimpses
    before = before or {}
    kept = [] if not line.system else kept_records(line, before)
    whole = all(one.keys() >= FIGURES for one in kept)
    if kept and not whole and len(kept) == before["seeds"] > len(found):
        out |= {name: before[name] for name in OF_RUNS} | {"runs": kept}
    else:
        read = {one["run"] for one in found}
        rest = (one for one in kept if whole and one["run"] not in read)
        records = sorted([*found, *rest], key=lambda one: one["run"])
        if not records:
            return out
        out |= {**summary(records), "runs": records}
    bound = line.protocol.systems[line.system].options.get("max_mean_glimpses")
    if bound is not None:
        out["bound"] = bound
    if made.comparable and published.value is not None:
        out["difference"] = round(out["ours"] - published.value, 4)
    return out


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Means over runs, by the names of `OF_RUNS`."""
    values = [one["value"] for one in records]
    return {
        "ours": round(float(np.mean(values)), 4),
        "spread": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
        "glimpses": round(float(np.mean([one["glimpses"] for one in records])), 4),
        "flops": round(float(np.mean([one["flops"] for one in records]))),
        "seeds": len(values),
        "values": values,
    }


# -- how a table is written ------------------------------------------------------------------------

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


def written(path: Path, title: str) -> dict[str, Any]:
    """Data, and rows by system, of a table that was written earlier.

    Raises:
        ValueError: it is of other images, so that to write this one there would lose it.
    """
    if not path.exists():
        return {"data": "nothing yet", "rows": {}}
    found = read_json(path)
    if found["title"] != title:
        raise ValueError(
            f"{path}: has {found['title']!r}, expected {title!r}; choose another --out"
        )
    return {"data": found["data"], "rows": {one["system"]: one for one in found["rows"]}}


def write(
    folder: Path,
    made: Table,
    data: str,
    found: Sequence[Mapping[str, Any]],
    device: str,
    problems: Sequence[str] = (),
) -> Path:
    """Writes rows as Markdown, CSV and JSON; returns the Markdown's path.

    Args:
        folder: where; it is made if it is not there.
        made: the table.
        data: what it was measured on.
        found: its rows, by the names of `COLUMNS`.
        device: where finished networks were read, as `choose_device` takes it.
        problems: runs that could not be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    origin = provenance(choose_device(device))
    said = {"title": made.title, "note": made.note, "data": data, "rows": found}
    write_json(folder / f"{made.key}.json", {**said, "problems": list(problems), **origin})
    flat = [{name: _flat(value) for name, value in row.items()} for row in found]
    write_csv(folder / f"{made.key}.csv", flat)
    text = markdown(made.title, data, found, origin["command"], made.note)
    text += "".join(f"\n{problem}\n" for problem in problems)
    return write_text(folder / f"{made.key}.md", text)


def _flat(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return " ".join(one["run"] if isinstance(one, dict) else str(one) for one in value)


def markdown(
    title: str, data: str, rows: Sequence[Mapping[str, Any]], command: str, note: str = ""
) -> str:
    """A table as Markdown.

    Args:
        title: what it says.
        data: what it was measured on.
        rows: see `row`.
        command: that writes it.
        note: what a reader has to know of its lines.
    """
    shown = [key for key in COLUMNS if any(one.get(key) is not None for one in rows)]
    out = io.StringIO()
    print(f"# {title}\n\nMeasured on {data}.\n", file=out)
    print("| " + " | ".join(COLUMNS[key] for key in shown) + " |", file=out)
    print("|---|" + "---:|" * (len(shown) - 1), file=out)
    for one in rows:
        print("| " + " | ".join(_cell(one, key) for key in shown) + " |", file=out)
    for said in (note, *_remarks(rows), NOTES if "ours" in shown else ""):
        if said:
            print(f"\n{said}", file=out)
    print(f"\nMade by `{command}`.", file=out)
    return out.getvalue()


NOTES = (
    "Ours: one deterministic pass over the whole test split; weights and stop thresholds are "
    "chosen on validation images. ± is the standard deviation over seeds, where there are several. "
    "FLOPs count a multiply-add as two. Rows without figures of ours are cited, or not run yet."
)


def _remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What marks in the cells mean, where there are any."""
    said = []
    over = [f"{run['run']} {run['glimpses']:.3f}" for one in rows for run in _over(one)]
    if over:
        said.append(
            "† Bounds on mean glimpses are kept on validation images; on the test split these runs "
            f"are over theirs: {', '.join(over)}."
        )
    unknown = [
        run["run"]
        for one in rows
        for run in one.get("runs", ())
        if one.get("bound") is not None and "glimpses" not in run
    ]
    if unknown:
        said.append(
            "Of some runs the test split's glimpses are on record in their mean only, so whether "
            f"each is within its bound is not: {_seeds(unknown)}."
        )
    runs = [run for one in rows for run in one.get("runs", ())]
    if runs:
        silent = [run["run"] for run in runs if not run.get("command")]
        said.append(
            "The JSON beside this has each run's command, commit and hardware"
            + (f", but for {_seeds(silent)}." if silent else ".")
        )
    plain = [run["run"] for run in runs if _in_float32_instead(run)]
    if plain:
        said.append(f"In float32, for want of instructions for bfloat16: {_seeds(plain)}.")
    if any(map(_kept, rows)):
        said.append(KEPT)
    return said


KEPT = (
    "‡ From an earlier writing, with the same options in `train/systems.py`; not all of its runs "
    "were on the machine that wrote this last."
)


def _in_float32_instead(run: Record) -> bool:
    """Whether a run was to compute in bfloat16 where that cannot be done."""
    asked = "--bf16" in str(run.get("command") or "").split()
    return asked and (run.get("hardware") or {}).get("bf16") is False


def _seeds(names: Sequence[str]) -> str:
    """Names of runs, those of one system together.

    >>> _seeds(["mnist/fc/seed-0", "mnist/ram/seed-0", "mnist/ram/seed-1", "mnist/fc/seed-0"])
    'mnist/fc (seed 0), mnist/ram (seeds 0, 1)'
    """
    seeds: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        system, _, seed = name.rpartition("/seed-")
        seeds.setdefault(system, []).append(seed)
    return ", ".join(
        f"{system} (seed{'s' * (len(each) > 1)} {', '.join(each)})"
        for system, each in seeds.items()
    )


def _over(one: Mapping[str, Any]) -> list[Record]:
    """Runs that take more glimpses on the test split than their bound, which is validation's."""
    bound = one.get("bound")
    runs = one.get("runs", ()) if bound is not None else ()
    return [run for run in runs if "glimpses" in run and run["glimpses"] > bound]


def _kept(one: Mapping[str, Any]) -> bool:
    return any(run.get("kept") for run in one.get("runs", ()))


def _cell(one: Mapping[str, Any], key: str) -> str:
    value = one.get(key)
    if value is None:
        return ""
    if key == "system" and "units" in (run := one.get("runs", [{}])[0]):
        return f"{value}, {run['units']:.1f} of {run['of_units']} units"
    if key == "ours":
        spread = one.get("spread")
        mark = " ‡" if _kept(one) else ""
        return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}") + mark
    if key == "difference":
        return f"{value:+.2f}"
    if key == "glimpses":
        return f"{value:.2f}" + (" †" if _over(one) else "")
    if key == "flops":
        return f"{value / 1e6:.2f}"
    return str(value)
