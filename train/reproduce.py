"""Writes the talk's tables with our figures: trains missing runs and reads finished ones.

    python train/reproduce.py table2                   # MNIST
    python train/reproduce.py clutter                  # the RAM paper's digits at random places
    python train/reproduce.py scenes                   # drawn birds in large scenes
    python train/reproduce.py ladder                   # from the talk's algorithm to ours, on MNIST
    python train/reproduce.py stops                    # ways to stop on one trunk
    python train/reproduce.py table6 table7            # CUB if it is here, else drawn birds
    python train/reproduce.py figure7 --data drawn
    python train/reproduce.py curves                   # error against cost, all of the above
    python train/reproduce.py table2 claims --read-only --out benchmarks/results/tables

Every run has a folder under --runs and is made once; after an interruption the same command
continues. The figures of a finished run are added to OUT/runs.jsonl, one record a run with its
command, commit, versions and hardware. Tables are made from these records alone, as Markdown and
JSON. Drawn images stand under their own name and beside no published figure.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import tyro

from dtram_env.datasets import DATASETS, is_ready
from dtram_env.files import write_text
from train.common.files import read_json
from train.common.jobs import JobOptions, resumable, run_in_order
from train.common.options import AtLeast1, check
from train.common.program_run import ProgramRun
from train.common.provenance import choose_device, provenance
from train.common.records import RESULTS, check_destination, read_records, write_result
from train.common.run import has_results
from train.paper import claims, curves, ladder, stops, systems, tables
from train.paper.figures import histogram_figure
from train.paper.published import TITLES
from train.paper.read_runs import Reader, Record, record_of, update_file
from train.paper.systems import Protocol
from train.paper.tables import SEVERAL_SEEDS, Line, Table, line_of
from train.paper.write_tables import RUNS, make_row, write_table

KEYS = (*TITLES, "ladder", "stops", "figure7", "figure8", "curves", "claims")
OF_CARS = ("table4", "figure8")
OF_PHOTOGRAPHS = ("table3", "table4", "table5", "figure8")
"""Tables and figures that need photographs."""


@dataclass(frozen=True)
class Options(JobOptions):
    """Writes the talk's tables with our figures."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ("table2",)
    """table1: the datasets; table2: MNIST; table3 and table4: CUB and Cars; table5: resolution by
    depth; table6: RAM by glimpses; table7: stopping by confidence; table8: curriculum; table9:
    intermediate supervision; clutter: digits at random places; scenes: birds in large scenes;
    figure7 and figure8: images by glimpses; curves: error against FLOPs, of table2 to table4,
    table6, clutter and scenes; claims: DT-RAM against other ways to stop and one look; ladder: from
    the talk's algorithm to ours, a change a row; stops: ways to stop on one trunk; all:
    everything"""
    data: Literal["auto", "real", "drawn"] = "auto"
    """images of the photographs' tables, figures and claims: real (CUB and Cars); drawn
    (small drawn birds); auto (real if here, else drawn)"""
    seeds: AtLeast1 = tables.CLAIM_SEEDS
    """runs of RAM, DT-RAM and RAM with ACT in tables and claims, and of rows of ladder and stops;
    all others are of seed 0"""
    runs: Path = Path("runs/reproduce")
    """folder of the runs: RUNS/PROTOCOL/SYSTEM/seed-N"""
    out: Path | None = None
    """folder of tables and figures; RUNS/tables if not given"""
    read_only: bool = False
    """train nothing; use finished runs and the records in --out"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """device on which finished networks are evaluated"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.what:
            if key not in (*KEYS, "all"):
                raise ValueError(f"{key}: expected some of {', '.join(KEYS)}, or all")
        usable = self.out is None or self.out.is_dir() or not self.out.exists()
        check("out", self.out, usable, "a folder, this is a file")

    @property
    def keys(self) -> tuple[str, ...]:
        """The tables and figures to make, without `OF_PHOTOGRAPHS` where there are none."""
        asked = KEYS if "all" in self.what else tuple(dict.fromkeys(self.what))
        return tuple(k for k in asked if k not in OF_PHOTOGRAPHS or not self.drawn(k))

    def drawn(self, key: str) -> bool:
        """Whether small drawn birds stand in for photographs; ValueError if --data real lacks
        them."""
        if key in ("table1", "table2", "clutter", "scenes", "ladder", "stops", "curves"):
            return False
        name = "cars" if key in OF_CARS else "cub"
        ready = is_ready(name, self.data_dir)
        if self.data == "real" and not ready:
            raise ValueError(
                f"--data real: {DATASETS[name].env_id}'s images are not there; fetch them by "
                f"python -m dtram_env.datasets download {name}, or choose --data drawn"
            )
        return self.data == "drawn" or not ready

    @property
    def folder(self) -> Path:
        """Folder of tables and figures."""
        return self.out or self.runs / "tables"


# -- runs ------------------------------------------------------------------------------------------


def protocols_of(options: Options, key: str) -> list[Protocol]:
    """The protocols of a figure or the claims."""
    if key == "figure8":
        return [systems.CARS_LARGE]
    drawn = options.drawn(key)
    if key == "figure7":
        return [systems.BIRDS if drawn else systems.CUB_MEDIUM]
    photographs = [] if drawn else [systems.CUB_MEDIUM]
    return [systems.MNIST, *systems.ANYWHERE, systems.BIRDS, *systems.SCENES, *photographs]


def lines_of(options: Options, key: str) -> tuple[Line, ...]:
    """The lines whose runs a table or figure needs."""
    if key == "table1":
        return ()
    if key in TITLES:
        return tables.table(key, options.drawn(key)).lines
    if key == "ladder":
        return tuple(line_of(systems.LADDER, rung.name) for rung in systems.RUNGS)
    if key == "stops":
        return tuple(line_of(p, name) for p in stops.PROTOCOLS for name in stops.systems_of(p))
    if key == "curves":
        shown = [one for one in curves.TABLES if not options.drawn(one)]
        return tuple(line for one in shown for line in lines_of(options, one))
    return tuple(
        line_of(protocol, system)
        for protocol in protocols_of(options, key)
        for system in protocol.systems
        if (system in (*tables.CLAIMED, *protocol.looks) if key == "claims" else system == "dtram")
    )


def seeds_of(options: Options, key: str, line: Line) -> range:
    """The seeds of a table's line: none if it is only cited, seed 0 if it stands beside another."""
    if not line.system:
        return range(0)
    several = key in ("ladder", "stops") or line.system in SEVERAL_SEEDS
    return range(options.seeds if several and not line.beside else 1)


def plan(options: Options) -> list[ProgramRun]:
    """All runs that are needed, each after the runs that it reads; raises as `Options.drawn`."""
    runs: dict[Path, ProgramRun] = {}
    for key in options.keys:
        only_seed_0 = key.startswith("figure")
        for line in lines_of(options, key):
            for seed in range(1) if only_seed_0 else seeds_of(options, key, line):
                for name in line.protocol.needed(line.system):
                    run = line.protocol.run(options.runs, name, seed, options.data_dir)
                    runs.setdefault(run.folder, run)
    return list(runs.values())


def estimate(waiting: Sequence[ProgramRun]) -> str:
    """How long runs will take, by the records of earlier runs of the same systems."""
    seconds = {
        (record["protocol"], record["system"]): record["train_seconds"]
        for name in (RUNS, ladder.RECORDS)
        for record in read_records(RESULTS / "tables" / name)
    }
    found = [seconds.get((run.folder.parts[-3], run.folder.parts[-2])) for run in waiting]
    hours, unknown = sum(one or 0 for one in found) / 3600, found.count(None)
    beside = f", and {unknown} runs of which no time is on record" if unknown else ""
    return f"about {hours:.1f} hours of one thread{beside}"


def finished_runs(options: Options, keys: Sequence[str]) -> Iterator[tuple[Line, int, Path]]:
    """The finished runs of tables or claims: line, seed and folder."""
    for key, line in [(each, line) for each in keys for line in lines_of(options, each)]:
        for seed in seeds_of(options, key, line):
            folder = line.protocol.folder(options.runs, line.system, seed)
            if has_results(folder):
                yield line, seed, folder


# -- tables, claims and figures --------------------------------------------------------------------


def update_records(options: Options, reader: Reader, problems: list[str]) -> list[Record]:
    """Adds finished runs to the records in --out, and returns the records of known systems."""
    new = []
    keys = [key for key in options.keys if key in (*TITLES, "curves")]
    for line, seed, folder in finished_runs(options, keys):
        try:
            new.append(record_of(line, seed, reader.read(line, folder)))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{folder}: cannot be read, {error}")
    return update_file(options.folder / RUNS, new)


def new_claims(options: Options, reader: Reader) -> list[Record]:
    """Evidence of finished runs for the claims about DT-RAM."""
    new: list[Record] = []
    before = read_records(options.folder / claims.RECORDS)
    for line, seed, folder in finished_runs(options, ["claims"]):
        trunk = line.protocol.systems[line.system].trunk
        if trunk and has_results(ram := line.protocol.folder(options.runs, trunk, seed)):
            looks = {n: line.protocol.folder(options.runs, n, 0) for n in line.protocol.looks}
            new += claims.compare(reader, line, seed, folder, ram, looks, before)
    return new


def write_compared(options: Options, made: Any, new: list[Record], origin: Record) -> list[Path]:
    """Adds records to those in --out of `claims`, `ladder` or `stops`, and writes the rows of all
    as JSON and Markdown; nothing without records."""
    path = options.folder / made.RECORDS
    rows = made.rows(update_file(path, new, made.KEY))
    if not rows:
        return []
    write_result(path.with_suffix(".json"), {"rows": rows, **origin})
    return [write_text(path.with_suffix(".md"), made.markdown(rows, origin["command"]))]


def write_figures(options: Options, reader: Reader, key: str) -> list[Path]:
    """Draws figure 7 or 8 from the finished run of seed 0, if there is one."""
    (protocol,) = protocols_of(options, key)
    folder = protocol.folder(options.runs, "dtram", 0)
    if not has_results(folder):
        return []
    options.folder.mkdir(parents=True, exist_ok=True)
    return histogram_figure(reader, folder, options.folder / f"{key}-{protocol.name}")


def make(options: Options, reader: Reader, records: list[Record], key: str) -> list[Path]:
    """Writes one table, the claims or a figure; returns the files to show."""
    origin = provenance(choose_device(options.device))
    if key == "claims":
        return write_compared(options, claims, new_claims(options, reader), origin)
    if key == "ladder":
        measured = [ladder.measure(reader, *run) for run in finished_runs(options, [key])]
        return write_compared(options, ladder, measured, origin)
    if key == "stops":
        seeds = range(options.seeds)
        each = (stops.measure(reader, p, options.runs, s) for p in stops.PROTOCOLS for s in seeds)
        return write_compared(options, stops, [*chain.from_iterable(each)], origin)
    if key == "curves":
        return curves.draw(lines_of(options, key), records, options.folder)
    if key not in TITLES:
        return write_figures(options, reader, key)
    if key == "table1":
        made = Table(key, TITLES[key], "", (), comparable=True)
        rows, path = tables.statistics(options.data_dir), options.folder / "table1.json"
        before = {row["system"]: row for row in read_json(path)["rows"]} if path.exists() else {}
        # A dataset that is not on this machine keeps its counts.
        rows = [before.get(row["system"], {}) | row for row in rows]
    else:
        made = tables.table(key, options.drawn(key))
        rows = [make_row(made, line, records) for line in made.lines]
        if not any("ours" in row for row in rows):
            print(f"{key}: published figures only; no run is in {options.runs}, or on record")
    return [write_table(options.folder, made, rows, origin)]


# -- the program -----------------------------------------------------------------------------------


def reproduce(options: Options) -> list[Path]:
    """Trains what is missing and writes everything; returns the files that were written.

    Raises ValueError before anything is trained or written if a finished run was made with another
    command than its system's; and at the end if a run failed or something could not be written.
    """
    for key in OF_PHOTOGRAPHS:
        if {key, "all"} & {*options.what} and key not in options.keys:
            data = "cars" if key in OF_CARS else "cub"
            way_out = f"`python -m dtram_env.datasets download {data}`, and no --data drawn"
            print(f"{key}: not made; it needs the photographs of {data}: {way_out}")
    if not options.keys:
        others = ", ".join(key for key in KEYS if key not in OF_PHOTOGRAPHS)
        raise ValueError(f"nothing to make; without photographs there are {others}")
    check_destination(options.folder)
    runs = plan(options)
    finished = [run for run in runs if run.finished]
    print(f"{len(runs)} runs, {len(finished)} finished", flush=True)
    if not options.read_only and (waiting := [run for run in runs if not run.finished]):
        print(estimate(waiting), flush=True)
    if options.data == "auto" and any(map(options.drawn, options.keys)):
        print("photographs are not on this machine: drawn images in their place", flush=True)
    for run in finished:
        run.check_options()
    failed: dict[Path, str] = {}
    if not options.read_only:
        with resumable("train/reproduce.py"):
            failed = run_in_order(runs, options)
    problems = [f"{folder}: {problem}" for folder, problem in failed.items()]
    reader = Reader(choose_device(options.device), options.data_dir)
    records = update_records(options, reader, problems)
    made = []
    for key in options.keys:
        try:
            found = make(options, reader, records, key)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{key}: {error}")
            continue
        made += found
        if not found and list(options.folder.glob(f"{key}*")):
            print(f"{key}: no finished runs in {options.runs}; the files in --out stay unchanged")
        elif not found:
            problems.append(f"{key}: no finished runs to make it from in {options.runs}")
    for path in made:
        print(path.read_text(encoding="utf-8") if path.suffix == ".md" else path)
    if problems:
        raise ValueError("not everything could be made:\n" + "\n".join(problems))
    return made


if __name__ == "__main__":
    run_program(lambda: reproduce(tyro.cli(Options, description=__doc__)))
