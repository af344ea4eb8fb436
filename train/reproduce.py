"""Writes the talk's tables with our figures: trains what is missing, reads what is there.

    python train/reproduce.py table2                   # MNIST
    python train/reproduce.py all --estimate           # how long it would take
    python train/reproduce.py table6 table7            # on CUB where it is, else on drawn birds
    python train/reproduce.py figure7 curves --data drawn

Every run has a folder under --runs and is made once; interrupted, the same command goes on with it.
A table is written as Markdown, CSV and JSON: the published figure, ours, their difference, the data
and the command; the JSON has that of each run. What is drawn by this package stands under its own
name and beside no published figure. What a table in --out says of runs that are not here is kept,
if their recipe is the same; so it can be written in parts, on several machines.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.precision import has_bf16
from dtram_env.datasets import DATASETS, is_ready
from train.common.jobs import ProgramRun, Runner, has_results, run_in_order
from train.common.provenance import choose_device, provenance, python_command
from train.common.run import read_json, run_program, write_json, write_text
from train.paper import claims, systems, tables
from train.paper import write_tables as rows
from train.paper.figures import cost_plot, discount_plot, histogram_figure
from train.paper.read_runs import Reader
from train.paper.systems import Protocol
from train.paper.tables import CLAIM_SEEDS, CLAIMED, SEVERAL_SEEDS, Line, Table

Key = Literal[
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "table7",
    "table8",
    "table9",
    "figure7",
    "figure8",
    "curves",
    "claims",
    "all",
]
KEYS = get_args(Key)[:-1]
DATA_OF = {"table4": "cars", "figure8": "cars"}  # the others' photographs are CUB's
OF_NO_PHOTOGRAPHS = ("table1", "table2")
CORES = 2  # that times are noted of


@dataclass(frozen=True)
class Options:
    """Writes the talk's tables with our figures."""

    what: Annotated[tuple[Key, ...], tyro.conf.Positional] = ("table2",)
    """table1: the datasets; table2: MNIST; table3 and table4: CUB and Cars; table5: resolution by
    depth; table6: RAM by glimpses; table7: stopping by confidence; table8: curriculum; table9:
    intermediate supervision; figure7 and figure8: images by glimpses; curves: error against
    glimpses as the discount varies, and against FLOPs and time; claims: the learned stop against
    others, with intervals"""
    data: Literal["auto", "real", "drawn", "drawn-large"] = "auto"
    """what all but tables 1 and 2 and the parts of MNIST are of: real: CUB and Cars; drawn: small
    drawn birds; drawn-large: drawn birds and autos of 512 pixels, for a GPU; auto: real where it
    is, else drawn"""
    seeds: int = CLAIM_SEEDS
    """runs of RAM, DT-RAM and RAM with ACT in tables and claims; all else is of seed 0"""
    runs: Path = Path("runs/reproduce")
    """where the runs are: PROTOCOL/SYSTEM/seed-N"""
    out: Path | None = None
    """where tables and figures go; RUNS/tables if not given"""
    jobs: int = 1
    """runs side by side; with more than one, each has one thread"""
    estimate: bool = False
    """say how long it would take, and no more"""
    read_only: bool = False
    """train nothing; lines without finished runs stay as they are"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """where finished networks are read"""

    def __post_init__(self) -> None:
        for key in self.what:
            if key not in (*KEYS, "all"):
                raise ValueError(f"{key}: expected some of {', '.join(KEYS)}, or all")
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out}: expected a folder, this is a file")
        for name, least in (("seeds", 1), ("jobs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")

    @property
    def keys(self) -> tuple[str, ...]:
        """What is to be made, in order."""
        found = KEYS if "all" in self.what else tuple(dict.fromkeys(self.what))
        return tuple(key for key in found if not self.is_another(key))

    def is_another(self, key: str) -> bool:
        """Whether another one shows the same: in place of Cars as of CUB stand small birds."""
        return key in DATA_OF and self.drawn(key) is systems.BIRDS

    def drawn(self, key: str) -> Protocol | None:
        """The setting on drawn images of a table or figure; None if there is none.

        Raises:
            ValueError: photographs are asked for that are not there.
        """
        if key in OF_NO_PHOTOGRAPHS:
            return None
        name = DATA_OF.get(key, "cub")
        ready = is_ready(name, self.data_dir)
        if self.data == "real" and not ready:
            env_id = DATASETS[name].env_id
            raise ValueError(
                f"--data real: {env_id}'s images are not there; fetch them by "
                f"python -m dtram_env.datasets download {name}, or choose --data drawn"
            )
        if self.data == "drawn-large":
            return systems.AUTOS_LARGE if name == "cars" else systems.BIRDS_LARGE
        return None if ready and self.data != "drawn" else systems.BIRDS

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
    if key == "figure7":
        return [birds]
    more = [systems.BIRDS_4] if key == "claims" and birds is systems.BIRDS else []
    return [systems.MNIST, birds, *more]


def seeds_of(options: Options, line: Line) -> range:
    """Seeds of a line's runs; none if it is cited only, seed 0 if it stands beside another."""
    if not line.system:
        return range(0)
    return range(options.seeds if line.system in SEVERAL_SEEDS and not line.beside else 1)


def plan(options: Options) -> list[ProgramRun]:
    """All runs that are needed, in an order in which they can be made; raises as `drawn`."""
    runs: dict[Path, ProgramRun] = {}
    for key in options.keys:
        shown = key.startswith("figure") or key == "curves"  # of seed 0
        for line in lines_of(options, key):
            for seed in range(1) if shown else seeds_of(options, line):
                for name in line.protocol.needed(line.system):
                    run = line.protocol.run(options.runs, name, seed, options.data_dir)
                    runs.setdefault(run.folder, run)
    return list(runs.values())


def minutes(options: Options, runs: Sequence[ProgramRun]) -> tuple[float, list[str]]:
    """How long unfinished runs will take at least, and the names of those nobody can tell of.

    A finished run of the same system tells; else what is noted of the system. With --jobs no more
    than `CORES` runs go on at a time, and a run waits for those that it reads.
    """
    total, unknown = 0.0, []
    ends: dict[Path, float] = {}  # were there cores for all
    for run in runs:
        if run.finished:
            continue
        system = run.folder.parent
        done = sorted(system.glob("seed-*/results.json"))
        noted = systems.PROTOCOLS[system.parent.name].systems[system.name].minutes
        each = read_json(done[0])["train_seconds"] / 60 if done else noted
        total += each
        ends[run.folder] = each + max((ends.get(folder, 0.0) for folder in run.after), default=0.0)
        if not each:
            unknown.append(run.name)
    return max(total / min(options.jobs, CORES), *ends.values(), 0.0), unknown


# -- what is written ------------------------------------------------------------------------------


def write_table(options: Options, reader: Reader, made: Table) -> Path:
    """Writes a table from the runs that are finished, and what it has of others."""
    found, names, problems = [], [], []
    before = rows.written(options.folder() / f"{made.key}.json", made.title)
    for line in made.lines:
        records = []
        for seed in seeds_of(options, line):
            folder = line.protocol.folder(options.runs, line.system, seed)
            recipe = line.protocol.recipe(line.system, seed) if line.system else ""
            if not has_results(folder):
                continue
            try:
                records.append(rows.record(made, line, reader.read(line, folder), recipe))
                names.append(reader.task(folder).dataset)
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{folder}: cannot be read, {error}")
        found.append(rows.row(made, line, records, before["rows"].get(line.name)))
    data = ", ".join(dict.fromkeys(names)) or before["data"]
    return rows.write(options.folder(), made, data, found, options.device, problems)


def write_statistics(options: Options) -> Path:
    """Table 1: what the datasets are, as they are read here; those that are not there say so."""
    made = Table("table1", tables.talk.TITLES["table1"], "", (), comparable=True)
    before = rows.written(options.folder() / "table1.json", made.title)["rows"]
    found = [
        {**before.get(one["system"], {}), **one} for one in tables.statistics(options.data_dir)
    ]
    return rows.write(options.folder(), made, "the datasets themselves", found, options.device)


def write_claims(options: Options, reader: Reader) -> list[Path]:
    """Writes what is claimed of the learned stop, from the runs that are finished.

    Of others it keeps the evidence, and rows of which no evidence is at hand.
    """
    path = options.folder() / "claims.json"
    earlier = read_json(path)["rows"] if path.exists() else []
    earlier = [one for one in earlier if claims.stands(one)]
    evidence, origins = claims.load_evidence(path.with_suffix(".safetensors"))
    here = set()
    for protocol in protocols_of(options, "claims"):
        for line in claimed_lines(protocol):
            trunk = protocol.systems[line.system].trunk or ""
            for seed in seeds_of(options, line):
                pair = [protocol.folder(options.runs, one, seed) for one in (line.system, trunk)]
                if all(map(has_results, pair)):
                    run = rows.run_name(pair[0])
                    evidence[run] = claims.compare(reader, line, *pair)
                    origins[run] = {
                        "run": run,
                        "recipe": protocol.recipe(line.system, seed),
                        "data": reader.task(pair[0]).dataset,
                        **rows.origin_of(pair[0]),
                    }
                    here.add(run)
    found = []
    for protocol in systems.PROTOCOLS.values():
        for line in claimed_lines(protocol):
            runs = sorted(r for r in evidence if r.startswith(f"{protocol.name}/{line.system}/"))
            of = protocol.name, line.system
            kept = [one for one in earlier if (one["protocol"], one["system"]) == of]
            if len(runs) < max((one["seeds"] for one in kept), default=1):
                found += [{**one, "kept": True} for one in kept]
                continue
            about = {
                "data": origins[runs[0]]["data"],
                "protocol": protocol.name,
                "system": line.system,
                "label": tables.named_as(protocol, line.system),
                "kept": not here.issuperset(runs),
                "runs": [origins[run] for run in runs],
            }
            for against in evidence[runs[0]]:
                compared = claims.row(against, [evidence[run][against] for run in runs])
                found.append({**about, **compared})
    if not found:
        return []
    options.folder().mkdir(parents=True, exist_ok=True)
    origin = provenance(choose_device(options.device))
    if evidence:
        claims.save_evidence(path.with_suffix(".safetensors"), evidence, origins)
    write_json(path, {"rows": found, **origin})
    return [write_text(path.with_suffix(".md"), claims.markdown(found, origin["command"]))]


def claimed_lines(protocol: Protocol) -> list[Line]:
    """The DT-RAMs of a setting about which something is claimed, each by itself."""
    names = (n for n, one in protocol.systems.items() if n in CLAIMED and one.trunk is not None)
    return [tables.named(protocol, name) for name in names]


def write_figure(options: Options, reader: Reader, key: str) -> list[Path]:
    """Writes a figure from the runs of seed 0 that are finished."""
    made = []
    for protocol in protocols_of(options, key):
        found = {name: protocol.folder(options.runs, name, 0) for name in protocol.systems}
        found = {name: folder for name, folder in found.items() if has_results(folder)}
        options.folder().mkdir(parents=True, exist_ok=True)
        stem = options.folder() / f"{key}-{protocol.name}"
        if key == "curves":
            for draw, ending in ((discount_plot, "-discount"), (cost_plot, "-cost")):
                path = stem.with_name(stem.name + ending)
                if draw(reader, protocol, found, path):
                    made += sorted(stem.parent.glob(f"{path.name}*.png"))
        elif "dtram" in found:
            path = stem.with_name(stem.name + ".png")
            histogram_figure(reader, found["dtram"], path)
            made.append(path)
    return made


def make(options: Options, reader: Reader, key: str) -> list[Path]:
    """Writes one table or figure; returns what was written."""
    if key == "table1":
        return [write_statistics(options)]
    if key == "claims":
        return write_claims(options, reader)
    if key.startswith("table"):
        return [write_table(options, reader, tables.table(key, options.drawn(key)))]
    return write_figure(options, reader, key)


def reproduce(options: Options) -> list[Path]:
    """Makes what is missing and writes everything; returns what was written.

    Raises:
        ValueError: a finished run was made otherwise than the recipe says (before anything is
            written), or, after all else is, a run failed or something could not be written.
    """
    for key in KEYS:
        if (key in options.what or "all" in options.what) and options.is_another(key):
            print(
                f"{key}: not made; it is of Cars, which are not here, and the drawn birds in their "
                f"place are shown by {'figure7' if key == 'figure8' else 'table3'}"
            )
    runs = plan(options)
    for run in runs if options.estimate or options.read_only else ():  # else before any is made
        if run.finished:
            run.check_options()
    missing = [run for run in runs if not run.finished]
    time, unknown = minutes(options, runs)
    least = "at least" if unknown else "about"
    print(
        f"{len(runs)} runs, {len(runs) - len(missing)} finished; the rest takes {least} {time:.0f} "
        f"minutes with --jobs {options.jobs} on as many CPU cores, of {CORES} at most",
        flush=True,
    )
    device = choose_device(options.device).type
    if any(run.options.get("bf16") for run in missing) and not has_bf16(device):
        print(
            f"noted minutes are with bfloat16, which this {device} lacks: about twice as long "
            "where a recipe asks for it",
            flush=True,
        )
    if unknown:
        print(f"never run, so nobody knows how long: {', '.join(unknown)}", flush=True)
    if options.data == "auto" and any(map(options.drawn, options.keys)):
        print("photographs are not on this machine: in their place, drawn images", flush=True)
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
    made, problems = [], [f"{folder}: {said}" for folder, said in runner.problems.items()]
    for key in options.keys:
        try:
            found = make(options, reader, key)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{key}: {error}")
            continue
        if key.startswith("table"):
            problems += read_json(found[0].with_suffix(".json"))["problems"]
        elif not found and list(options.folder().glob(f"{key}*")):
            print(f"{key}: no finished runs in {options.runs}; what is there stays as it is")
        elif not found:
            problems.append(f"{key}: no finished runs to make it from in {options.runs}")
        made += found
    for path in made:
        print(path.read_text() if path.suffix == ".md" else path)
    if problems:
        raise ValueError("not all could be made:\n" + "\n".join(problems))
    return made


if __name__ == "__main__":
    run_program(lambda: reproduce(tyro.cli(Options, description=__doc__)))
