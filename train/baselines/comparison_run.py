"""The runs of a comparison: how one is made, in a process of its own, and how it is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.baselines.algorithms import ALGORITHMS, table_row, tries_searched
from train.baselines.summary import COLUMNS, Run, area_under
from train.common.run import read_json, write_json
from train.evaluate import Options as EvaluateOptions
from train.evaluate import evaluate

HERE = Path(__file__).resolve().parents[1]

# Env steps a second of one run on one thread of an AMD EPYC, for the estimate that is printed
# first; finished runs of the same algorithm take their place.
RATES = {
    "policy-only": {
        "ppo": 3800,
        "a2c": 4900,
        "dqn": 1100,
        "sac": 460,
        "recurrent_ppo": 670,
        "maskable_ppo": 3700,
        "dtram": 7500,
    },
    "whole-task": {
        "ppo": 3400,
        "a2c": 15000,
        "sac": 500,
        "recurrent_ppo": 950,
        "maskable_ppo": 5800,
        "dtram": 3200,
    },
}
UNSEEN = {"env_steps": 0, "return": 0.0}  # DT-RAM before its first look at validation
SECONDS_A_RUN = 15.0  # start, validation on the way and the test split


@dataclass(frozen=True)
class Cell:
    """One run to be made or read."""

    env_id: str
    track: str
    algo: str
    seed: int
    steps: int
    folder: Path
    data_dir: Path | None

    @property
    def learns(self) -> bool:
        return self.algo == "dtram" or ALGORITHMS[self.algo].learns

    @property
    def name(self) -> str:
        return f"{self.env_id.rpartition(':')[2]} {self.algo} seed {self.seed}"

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()

    def words(self) -> list[str]:
        """The command that makes it."""
        common = ["--env-id", self.env_id, "--seed", str(self.seed), "--run-dir", str(self.folder)]
        if self.data_dir is not None:
            common += ["--data-dir", str(self.data_dir)]
        if self.algo == "dtram":
            words = ["reinforce.py", *common, "--device", "cpu", "--env-steps", str(self.steps)]
            for name, value in table_row(self.track, self.algo).items():
                words += [f"--{name.replace('_', '-')}", str(value)]
            words += ["--stopper-prior", "none"]  # as its row was searched
        else:
            words = ["sb3_baselines.py", "--algo", self.algo, *common]
            if self.learns:
                words += ["--total-timesteps", str(self.steps)]
        return [sys.executable, str(HERE / words[0]), *words[1:], "--resume"]


def estimate(cells: Sequence[Cell], jobs: int) -> float:
    """Seconds that the unfinished cells will take, from finished runs or `RATES`."""
    seconds = 0.0
    for cell in cells:
        if cell.finished:
            continue
        seconds += SECONDS_A_RUN
        if cell.learns:
            others = [c for c in cells if (c.env_id, c.algo) == (cell.env_id, cell.algo)]
            rates = [rate for rate in map(_rate, others) if rate]
            rate = sum(rates) / len(rates) if rates else RATES[cell.track][cell.algo]
            seconds += cell.steps / rate
    return seconds / jobs


def _rate(cell: Cell) -> float:
    """Env steps a second of a finished run; 0 if there is none, or none that can be read."""
    try:
        found = read_json(cell.folder / "results.json")
        return float(found["env_steps"] / found["train_seconds"])
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
        return 0.0  # `read` says what is wrong with it


def read(cell: Cell, problem: str) -> Run:
    """A cell as a row of the comparison; what cannot be read is a row that says so."""
    env_id = cell.env_id.rpartition(":")[2]
    if not cell.finished:
        return Run(env_id, cell.algo, cell.seed, None, problem=problem or "not run")
    try:
        return _read_finished(cell, env_id)
    except (OSError, ValueError, KeyError) as error:
        text = f"no {error} in its results" if isinstance(error, KeyError) else str(error)
        return Run(env_id, cell.algo, cell.seed, None, problem=f"{cell.folder}: {text}"[:500])


def _read_finished(cell: Cell, env_id: str) -> Run:
    found = read_json(cell.folder / "results.json")
    if not isinstance(found, dict):
        raise ValueError("results.json: expected an object; delete it to run anew")
    made, wanted = _made_with(cell, found), _wanted(cell)
    if made != wanted:
        differ = ", ".join(
            f"{name} {made.get(name)!r} then, {wanted.get(name)!r} now"
            for name in dict.fromkeys([*made, *wanted])
            if made.get(name) != wanted.get(name)
        )
        raise ValueError(
            f"made otherwise ({differ}); delete it to run anew, or choose other --runs"
        )
    if cell.algo == "dtram":
        found, curve = _read_dtram(cell, found)
        found["area"] = area_under([UNSEEN, *curve], found["env_steps"])
    else:
        curve = found["curve"]
        found["learns_from"] = "reward" if cell.learns else "nothing"
        found["area"] = area_under(curve, found["env_steps"])
    found["tries"] = tries_searched(env_id, cell.algo, table_row(cell.track, cell.algo))
    for key in COLUMNS.keys() - found.keys():
        raise KeyError(key)
    return Run(env_id, cell.algo, cell.seed, found, tuple(curve))


def _wanted(cell: Cell) -> dict[str, Any]:
    """What a cell's run must have been made with."""
    return {
        "env steps": cell.steps if cell.learns else 0,
        "classifier": None,
        "hyper-parameters": table_row(cell.track, cell.algo),
    }


def _made_with(cell: Cell, results: dict[str, Any]) -> dict[str, Any]:
    """The same of a finished run."""
    options = results["options"]
    if cell.algo == "dtram":
        steps, row = (
            options["env_steps"],
            {name: options.get(name) for name in table_row(cell.track, cell.algo)},
        )
    else:
        steps, row = options["total_timesteps"], results["hyperparameters"]
    return {"env steps": steps, "classifier": options["classifier"], "hyper-parameters": row}


def _read_dtram(
    cell: Cell, results: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """A DT-RAM's run, scored through the environment like the others; kept beside the run."""
    kept = cell.folder / "evaluation.json"
    if not kept.exists():
        write_json(kept, evaluate(EvaluateOptions(cell.folder, data_dir=cell.data_dir)))
    found = read_json(kept)
    curve = [
        {
            "env_steps": row["time/total_timesteps"],
            "return": row["eval/mean_return"],
            "error": 1 - row["eval/accuracy"],
            "mean_glimpses": row["eval/mean_glimpses"],
            "seconds": row["time/time_elapsed"],
        }
        for row in map(json.loads, (cell.folder / "metrics.jsonl").read_text().splitlines())
    ]
    origin = ("command", "commit", "date", "python", "versions", "hardware")
    return found | {
        **{name: results[name] for name in origin},  # of the training, not of the scoring
        "algo": cell.algo,
        "hyperparameters": table_row(cell.track, cell.algo),
        "track": cell.track,
        "classifier": results["classifier"],
        "view": "native",
        "observe": "glimpse",
        "learns_from": "labels and reward",
        "seed": cell.seed,
        "env_steps": results["env_steps"],
        "train_seconds": round(results["train_seconds"] - results["validation_seconds"], 1),
        "flops_per_image": round(results["flops_per_glimpse"] * found["mean_glimpses"]),
    }, curve
