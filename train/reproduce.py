"""Writes the talk's tables with our figures: trains what is missing, reads what is there.

    python train/reproduce.py table2                   # MNIST
    python train/reproduce.py all --estimate           # how long it would take
    python train/reproduce.py table6 table7            # on CUB where it is, else on drawn birds
    python train/reproduce.py figure7 curves --data drawn

Every run has a folder under --runs and is made once; interrupted, the same command goes on with it.
A table is written as Markdown, CSV and JSON: the published figure, ours, their difference, the data
and the command. What is drawn by this package stands under its own name and beside no published
figure.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from dtram_env.datasets import DATASETS, is_ready
from train import claims, systems, tables
from train.comparison import write_csv
from train.figures import cost_plot, discount_plot, histogram_figure
from train.provenance import choose_device, provenance, python_command
from train.run import read_json, run_program, write_json, write_text
from train.runner import ProgramRun, Runner, has_results, run_in_order
from train.systems import Protocol
from train.tables import CLAIM_SEEDS, CLAIMED, Line, Reader, Table

KEYS = (*(f"table{n}" for n in range(1, 10)), "figure7", "figure8", "curves", "claims")
DATA_OF = {"table4": "cars", "figure8": "cars"}  # the others' photographs are CUB's


@dataclass(frozen=True)
class Options:
    """Writes the talk's tables with our figures."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ("table2",)
    """table1 to table9, figure7, figure8, curves, claims, or all"""
    data: Literal["auto", "real", "drawn", "drawn-large"] = "auto"
    """for tables 3 to 9: real: CUB and Cars; drawn: small drawn birds; drawn-large: those of 512
    pixels, for a GPU; auto: real where it is, else drawn"""
    seeds: int = CLAIM_SEEDS
    """runs of the systems that are claimed about; others have one"""
    runs: Path = Path("runs/reproduce")
    """where the runs are: PROTOCOL/SYSTEM/seed-N"""
    out: Path | None = None
    """where tables and figures go; RUNS/tables if not given"""
    jobs: int = 1
    """runs side by side; with more than one, each has one thread"""
    estimate: bool = False
    """say how long it would take, and no more"""
    read_only: bool = False
    """train nothing; lines without finished runs stay empty"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """where finished networks are read"""

    def __post_init__(self) -> None:
        for name in self.what:
            if name not in (*KEYS, "all"):
                raise ValueError(f"{name}: expected some of {', '.join(KEYS)}, or all")
        for name, least in (("seeds", 1), ("jobs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")

    @property
    def keys(self) -> tuple[str, ...]:
        """What is to be made, in order."""
        return KEYS if "all" in self.what else tuple(dict.fromkeys(self.what))

    def drawn(self, key: str) -> Protocol | None:
        """The setting on drawn images of a table or figure; None if it is of photographs."""
        name = DATA_OF.get(key, "cub")
        ready = is_ready(name, self.data_dir)
        if self.data == "real" and not ready:
            env_id = DATASETS[name].env_id
            raise ValueError(
                f"--data real: {env_id}'s images are not there; fetch them by "
                f"python -m dtram_env.datasets download {name}, or choose --data drawn"
            )
        if self.data == "drawn-large":
            return systems.BIRDS_LARGE
        return None if ready and self.data != "drawn" else systems.BIRDS_4

    def folder(self) -> Path:
        """Where tables and figures go."""
        return self.out or self.runs / "tables"


# -- what is run ----------------------------------------------------------------------------------


def lines_of(options: Options, key: str) -> tuple[Line, ...]:
    """The lines whose runs a table or a figure needs."""
    if key == "table1":
        return ()
    if key.startswith("table"):
        return tables.table(key, options.drawn(key)).lines
    found = [
        tables.named(protocol, name)
        for protocol in protocols_of(options, key)
        for name in protocol.systems
        if name == "dtram"
        or (key == "curves" and name in tables.CURVES)
        or (key == "claims" and name in CLAIMED)
    ]
    return tuple(found)


def protocols_of(options: Options, key: str) -> list[Protocol]:
    """The settings that a figure is of."""
    if key == "figure8":
        return [options.drawn(key) or systems.CARS_LARGE]
    birds = options.drawn(key) or systems.CUB_MEDIUM
    return [birds] if key == "figure7" else [systems.MNIST, birds]


def seeds_of(options: Options, system: str) -> range:
    """Seeds of a system's runs."""
    return range(options.seeds if system in CLAIMED else 1)


def plan(options: Options) -> list[ProgramRun]:
    """All runs that are needed, in an order in which they can be made."""
    lines = [line for key in options.keys for line in lines_of(options, key)]
    runs: dict[Path, ProgramRun] = {}
    for line in lines:
        for seed in seeds_of(options, line.system) if line.system else ():
            for name in line.protocol.needed(line.system):
                run = line.protocol.run(options.runs, name, seed, options.data_dir)
                runs.setdefault(run.folder, run)
    return list(runs.values())


def minutes(options: Options, runs: Sequence[ProgramRun]) -> tuple[float, list[str]]:
    """How long unfinished runs will take at least, and the names of those nobody can tell of.

    A finished run of the same system tells; else what is noted of the system.
    """
    total, unknown = 0.0, []
    for run in runs:
        if run.finished:
            continue
        system = run.folder.parent
        done = sorted(system.glob("seed-*/results.json"))
        noted = systems.PROTOCOLS[system.parent.name].systems[system.name].minutes
        each = read_json(done[0])["train_seconds"] / 60 if done else noted
        total += each
        if not each:
            unknown.append(run.name)
    return total / options.jobs, unknown


# -- what is written ------------------------------------------------------------------------------


def write_table(options: Options, reader: Reader, made: Table) -> Path:
    """Writes a table from the runs that are finished."""
    rows, names, problems = [], [], []
    for line in made.lines:
        readings = []
        for seed in seeds_of(options, line.system) if line.system else ():
            folder = line.protocol.folder(options.runs, line.system, seed)
            if not has_results(folder):
                continue
            try:
                readings.append(reader.read(line, folder))
                names.append(reader.task(folder).dataset)
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{folder}: cannot be read, {error}")
        rows.append(tables.row(made, line, readings))
    data = ", ".join(dict.fromkeys(names)) or "nothing yet"
    return write(options, made.key, made.title, data, rows, problems)


def write(
    options: Options,
    key: str,
    title: str,
    data: str,
    rows: list[dict[str, Any]],
    problems: Sequence[str] = (),
) -> Path:
    """Writes rows as Markdown, CSV and JSON; returns the Markdown's path.

    Args:
        options: of the program.
        key: the table's name, and its files'.
        title: what it says.
        data: what it was measured on.
        rows: of the table, by the names of `tables.COLUMNS`.
        problems: runs that could not be read.
    """
    folder = options.folder()
    folder.mkdir(parents=True, exist_ok=True)
    origin = provenance(choose_device(options.device))
    said = {"title": title, "data": data, "rows": rows, "problems": list(problems)}
    write_json(folder / f"{key}.json", {**said, **origin})
    flat = [{name: _flat(value) for name, value in row.items()} for row in rows]
    write_csv(folder / f"{key}.csv", flat)
    text = tables.markdown(title, data, rows, origin["command"])
    text += "".join(f"\n{problem}\n" for problem in problems)
    return write_text(folder / f"{key}.md", text)


def _flat(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def write_statistics(options: Options) -> Path:
    """Table 1: what the datasets are, as they are read here; those that are not there say so."""
    rows = tables.statistics(options.data_dir)
    return write(options, "table1", tables.talk.TITLES["table1"], "the datasets themselves", rows)


def write_claims(options: Options, reader: Reader) -> list[Path]:
    """Writes what is claimed of the learned stop, from the runs that are finished."""
    rows = []
    for protocol in protocols_of(options, "claims"):
        for name, system in protocol.systems.items():
            if name not in CLAIMED or system.trunk is None:
                continue
            both = name, system.trunk
            pairs = [
                claims.Pair(*(protocol.folder(options.runs, one, k) for one in both))
                for k in seeds_of(options, name)
            ]
            pairs = [pair for pair in pairs if all(map(has_results, pair))]
            if not pairs:
                continue
            line = tables.named(protocol, name)
            data = reader.task(pairs[0].dtram).dataset
            for compare in (claims.against_threshold, claims.against_fixed):
                rows.append({"data": data, "system": name, **compare(reader, line, pairs)})
    if not rows:
        return []
    origin = provenance(choose_device(options.device))
    folder = options.folder()
    write_json(folder / "claims.json", {"rows": rows, **origin})
    return [write_text(folder / "claims.md", claims.markdown(rows, origin["command"]))]


def write_figure(options: Options, reader: Reader, key: str) -> list[Path]:
    """Writes a figure from the runs that are finished."""
    written = []
    for protocol in protocols_of(options, key):
        found = {
            name: [
                folder
                for seed in seeds_of(options, name)
                if has_results(folder := protocol.folder(options.runs, name, seed))
            ]
            for name in protocol.systems
        }
        found = {name: folders for name, folders in found.items() if folders}
        options.folder().mkdir(parents=True, exist_ok=True)
        stem = options.folder() / f"{key}-{protocol.name}"
        if key == "curves":
            discount_plot(reader, protocol, found, stem.with_name(stem.name + "-discount"))
            cost_plot(reader, protocol, found, stem.with_name(stem.name + "-cost"))
            written += sorted(stem.parent.glob(f"{stem.name}-*.png"))
        elif "dtram" in found:
            path = stem.with_name(stem.name + ".png")
            histogram_figure(reader, found["dtram"][0], path)
            written.append(path)
    return written


def reproduce(options: Options) -> list[Path]:
    """Makes what is missing and writes everything; returns what was written."""
    runs = plan(options)
    missing = [run for run in runs if not run.finished]
    time, unknown = minutes(options, runs)
    least = "at least" if unknown else "about"
    print(
        f"{len(runs)} runs, {len(runs) - len(missing)} finished; the rest takes {least} {time:.0f} "
        f"minutes on 2 CPU cores with --jobs {options.jobs}",
        flush=True,
    )
    if unknown:
        print(f"never run, so nobody knows how long: {', '.join(unknown)}", flush=True)
    if options.estimate:
        return []
    runner = Runner(options.jobs)
    if not options.read_only:
        try:
            run_in_order(runs, runner)
        except KeyboardInterrupt:
            command = shlex.join([python_command(), "train/reproduce.py", *sys.argv[1:]])
            print(f"\ninterrupted; to go on: {command}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
    reader = Reader(choose_device(options.device), options.data_dir)
    written: list[Path] = []
    for key in options.keys:
        if key == "table1":
            written.append(write_statistics(options))
        elif key == "claims":
            written += write_claims(options, reader)
        elif key.startswith("table"):
            written.append(write_table(options, reader, tables.table(key, options.drawn(key))))
        else:
            written += write_figure(options, reader, key)
    for path in written:
        print(path.read_text() if path.suffix == ".md" else path)
    if runner.problems:
        lines = "\n".join(f"{folder}: {said}" for folder, said in runner.problems.items())
        raise ValueError(f"{len(runner.problems)} runs failed:\n{lines}")
    return written


if __name__ == "__main__":
    run_program(lambda: reproduce(tyro.cli(Options, description=__doc__)))
