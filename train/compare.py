"""Compares algorithms on an environment: trains what is missing, reads what is finished.

    python train/compare.py --algos ppo dqn random scan dtram --seeds 0 1 2     # policy-only MNIST
    python train/compare.py --env-id DTRAM-MNIST-v0 --algos ppo a2c dtram --jobs 2
    python train/compare.py --algos ppo scan --read-only      # only what is finished already

Algorithms: ppo, a2c, dqn, sac, recurrent_ppo, maskable_ppo, random, center, scan and dtram.

Writes Markdown, CSV, JSON and two plots, which replace those of an earlier call in the same folder.
Interrupted, the same command goes on where it stopped; a run that failed is a row that says so, and
is tried again by the next call. The exit status is 1 if no run has a result.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from train.baselines.algorithms import ALGORITHMS, check_pair, reinforce_settings, settings
from train.baselines.comparison_run import Cell, estimate, read
from train.baselines.summary import Run, markdown, plot_curves, plot_errors, summarise, write_csv
from train.common.jobs import Runner
from train.common.provenance import provenance, python_command
from train.common.run import run_program, write_json
from train.common.training_task import describe_env
from train.sb3_baselines import POLICY_ONLY_STEPS, WHOLE_TASK_STEPS

NAMES = (*ALGORITHMS, "dtram")


@dataclass(frozen=True)
class Options:
    """Compares algorithms on one or more environments."""

    env_id: tuple[str, ...] = ("agents:DTRAM-MNIST-Policy-v0",)
    """registered environments"""
    algos: tuple[str, ...] = ("ppo", "random", "scan", "dtram")
    """names of those above"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a run for each"""
    total_timesteps: int | None = None
    """env steps of a run; 300,000 on policy-only ids and 1,000,000 on others if not given"""
    jobs: int = 1
    """runs side by side; with more than one, each has one thread"""
    runs: Path = Path("runs/compare")
    """where the runs are: ENV_ID/ALGO/seed-N"""
    out: Path | None = None
    """where tables and plots go; RUNS/ENV_ID if not given, RUNS for several environments"""
    read_only: bool = False
    """train nothing"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""

    def __post_init__(self) -> None:
        for name in self.algos:
            if name not in NAMES:
                raise ValueError(f"--algos {name}: expected some of {', '.join(NAMES)}")
        for name in ("env_id", "algos", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name.replace('_', '-')}: expected at least one, each once")
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds {min(self.seeds)}: expected 0 or more")
        if self.jobs < 1:
            raise ValueError(f"--jobs {self.jobs}: expected at least 1")
        if self.total_timesteps is not None and self.total_timesteps < 1:
            raise ValueError(f"--total-timesteps {self.total_timesteps}: expected at least 1")


def plan(options: Options) -> list[Cell]:
    """All cells, seed by seed, so that what is stopped early has something of everyone."""
    cells = []
    for env_id in options.env_id:
        keywords: dict[str, Any] = {"data": "real"}
        if options.data_dir is not None:
            keywords["data_dir"] = str(options.data_dir)
        track = describe_env(env_id, **keywords)["track"]
        default = POLICY_ONLY_STEPS if track == "policy-only" else WHOLE_TASK_STEPS
        steps = options.total_timesteps or default
        for algo in options.algos:
            if algo == "dtram":
                reinforce_settings(track)
            else:
                check_pair(algo, settings(track, algo).env.get("view", "native"), track)
        for seed in options.seeds:
            for algo in options.algos:
                folder = options.runs / env_id.rpartition(":")[2] / algo / f"seed-{seed}"
                cells.append(Cell(env_id, track, algo, seed, steps, folder, options.data_dir))
    return cells


def compare(options: Options) -> Path:
    """Makes what is missing and writes the comparison; returns the folder."""
    cells = plan(options)
    missing = [cell for cell in cells if not cell.finished]
    runner = Runner(options.jobs)
    if missing and not options.read_only:
        minutes = estimate(cells, options.jobs) / 60
        print(
            f"{len(cells)} runs, {len(cells) - len(missing)} finished; the rest takes about "
            f"{minutes:.0f} minutes with --jobs {options.jobs}",
            flush=True,
        )
        try:
            runner.run(cells)
        except KeyboardInterrupt:
            command = shlex.join([python_command(), "train/compare.py", *sys.argv[1:]])
            print(f"\ninterrupted; to go on: {command}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
    runs = [read(cell, runner.problems.get(cell.folder, "")) for cell in cells]
    names = [env_id.rpartition(":")[2] for env_id in options.env_id]
    out = options.out or (options.runs / names[0] if len(names) == 1 else options.runs)
    nothing = all(run.row is None for run in runs)
    if nothing and (out / "summary.md").exists():
        print(markdown(summarise(runs), runs, provenance(torch.device("cpu"))["command"]))
        raise ValueError(f"no run has a result; the tables in {out} are left as they were")
    write(out, runs)
    print((out / "summary.md").read_text())
    print(f"tables and plots: {out}")
    if nothing:
        raise ValueError("no run has a result; the table says why")
    without = sum(run.row is None for run in runs)
    if without:
        print(f"{without} of {len(runs)} runs have no result; the table says why", file=sys.stderr)
    return out


def write(out: Path, runs: Sequence[Run]) -> None:
    """All files of a comparison."""
    out.mkdir(parents=True, exist_ok=True)
    origin = provenance(torch.device("cpu"))
    rows = summarise(runs)
    write_json(
        out / "results.json",
        {
            **origin,
            "summary": rows,
            "runs": [
                {
                    "env_id": run.env_id,
                    "algo": run.algo,
                    "seed": run.seed,
                    "problem": run.problem,
                    "result": run.row,
                    "curve": run.curve,
                }
                for run in runs
            ],
        },
    )
    write_csv(out / "summary.csv", rows)
    flat = [
        {"env_id": run.env_id, "algo": run.algo, "seed": run.seed, "problem": run.problem}
        | {k: v for k, v in (run.row or {}).items() if isinstance(v, str | int | float)}
        for run in runs
    ]
    write_csv(out / "runs.csv", flat)
    aside = out / "summary.md.tmp"
    aside.write_text(markdown(rows, runs, origin["command"]))
    os.replace(aside, out / "summary.md")
    if any(run.row for run in runs):
        plot_curves(runs, out / "learning_curves.png")
        plot_errors(runs, out / "error_by_glimpses.png")


if __name__ == "__main__":
    run_program(lambda: compare(tyro.cli(Options, description=__doc__)))
