"""Compares algorithms on an environment: trains what is missing, reads what is finished.

    python train/compare.py --algos ppo dqn random scan dtram --seeds 0 1 2     # policy-only MNIST
    python train/compare.py --env-id DTRAM-MNIST-v0 --algos ppo a2c dtram --jobs 2
    python train/compare.py --suite --algos ppo scan --seeds 0              # scores from 0 to 1
    python train/compare.py --algos ppo scan --read-only      # only runs that are finished
    python train/compare.py --records benchmarks/results/comparison/DTRAM-MNIST-v0.jsonl

Algorithms: ppo, a2c, dqn, qr_dqn, sac, tqc, recurrent_ppo, maskable_ppo, ars, random, center, scan
and dtram; and ppo_labels, a2c_labels, maskable_ppo_labels and recurrent_ppo_labels, which learn
from labels, too.

It writes one JSON record for each run, and from the records Markdown, plots and a page;
--records makes those again. Interrupted, the same command continues. A failed run is a row that
says why, and the next call tries it again. The exit status is 1 if no run has a result.

Calls at the same time may share --runs and --out. One of them trains a run that both have; the
other's table says that it is in use. The call that ends last writes the tables, with its own
--algos. Afterwards --read-only with all --algos makes one table of all.
"""

import itertools
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import torch
import tyro

from dtram_env import suite
from train.baselines.algorithms import ALGORITHMS, ENV_STEPS, table_row
from train.baselines.comparison_run import NEEDED, ComparisonRun
from train.baselines.facts import read_results
from train.baselines.summary import has_result, markdown, write_comparison
from train.common.jobs import JobOptions, resumable, run_in_order
from train.common.options import AtLeast1, EnvOptions, check
from train.common.provenance import provenance
from train.common.records import check_destination
from train.common.training_task import describe_env

NAMES = (*ALGORITHMS, "dtram")


@dataclass(frozen=True)
class Options(JobOptions):
    """Compares algorithms on one or more environments."""

    env_id: tuple[str, ...] = ("agents:DTRAM-MNIST-Policy-v0",)
    """registered environments"""
    suite: bool = False
    """all environments of `dtram_env.SUITE`, in place of --env-id"""
    env: tuple[str, ...] = ()
    """keywords of the environments, as in max_glimpses=4; each setting needs its own --runs"""
    root: Path | None = None
    """folder of your own images (DTRAM-ImageFolder-v0)"""
    algos: tuple[str, ...] = ("ppo", "random", "scan", "dtram")
    """names of algorithms, listed above"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each algorithm is run once with each"""
    total_timesteps: AtLeast1 | None = None
    """env steps of a run; 1,000,000 if not given, 300,000 with --suite"""
    runs: Path = Path("runs/compare")
    """folder of the runs: RUNS/ENV_ID/ALGO/seed-N"""
    out: Path | None = None
    """folder of records, tables and plots; RUNS, or that of --records, if not given"""
    read_only: bool = False
    """train nothing"""
    records: tuple[Path, ...] = ()
    """JSON Lines files of earlier comparisons: make their tables again, run and read nothing else;
    of the other options only --out applies"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suite:
            defaults = {f.name: f.default for f in fields(Options)}
            for name in ("env_id", "env", "root", "total_timesteps"):
                same = getattr(self, name) == defaults[name]
                check(name, getattr(self, name), same, "no value with --suite, which sets it")
            object.__setattr__(self, "env_id", tuple(found.env_id for found in suite.SUITE))
        for name in self.algos:
            check("algos", name, name in NAMES, f"some of {', '.join(NAMES)}")
        for name in ("env_id", "algos", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                given = " ".join(map(str, values)) or "none"
                expected = "expected at least one, each once"
                raise ValueError(f"--{name.replace('_', '-')} {given}: {expected}")
        check("seeds", min(self.seeds), min(self.seeds) >= 0, "0 or more")


def plan(options: Options) -> list[ComparisonRun]:
    """All runs, seed by seed, so that an interrupted comparison has some of every algorithm."""
    runs = []
    for env_id in options.env_id:
        environment = EnvOptions(env_id, options.env, options.root, options.data_dir)
        keywords = environment.env_keywords()
        track = describe_env(env_id, data="real", **keywords)["track"]
        default = suite.ENV_STEPS if options.suite else ENV_STEPS
        steps = options.total_timesteps or default
        for algo in options.algos:
            table_row(track, algo)  # refuses an algorithm before any run starts
        for seed, algo in itertools.product(options.seeds, options.algos):
            folder = options.runs / env_id.rpartition(":")[2] / algo / f"seed-{seed}"
            runs.append(ComparisonRun(track, algo, seed, steps, folder, environment))
    return runs


def make_records(options: Options) -> list[dict[str, Any]]:
    """Makes the runs that are missing, unless ``--read-only``, and reads all of them."""
    planned = plan(options)
    jobs = [run.program_run() for run in planned]
    problems: dict[Path, str] = {}
    if not options.read_only:
        print(f"{len(jobs)} runs, {sum(job.finished for job in jobs)} finished", flush=True)
        with resumable("train/compare.py"):
            problems = run_in_order(jobs, options)
    return [run.record(problems.get(run.folder, "")) for run in planned]


def compare(options: Options) -> Path:
    """Writes a comparison and returns the path of its Markdown; an error if no run has a result."""
    if options.records:
        found = (read_results(path, NEEDED) for path in options.records)
        records: list[dict[str, Any]] = [record for part in found for record in part]
        out = options.out or options.records[0].parent
        check_destination(out)
    else:
        out = options.out or options.runs
        check_destination(out)
        records = make_records(options)
    command = provenance(torch.device("cpu"))["command"]
    failed = sum(not has_result(record) for record in records)
    if failed == len(records):
        if records:
            print(markdown(records, command))
        raise ValueError("no run has a result; no tables are written")
    written = write_comparison(out, records, command)
    print(markdown(records, command))
    print(f"records, tables and plots: {out}")
    if failed:
        print(f"{failed} of {len(records)} runs have no result; see the table", file=sys.stderr)
    return written


if __name__ == "__main__":
    run_program(lambda: compare(tyro.cli(Options, description=__doc__)))
