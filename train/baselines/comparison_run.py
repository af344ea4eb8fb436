"""A run of a comparison: the command that makes it, and the record that is made of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from dtram_env.files import write_json
from train.baselines.algorithms import (
    ALGORITHMS,
    number_of_trials,
    reinforce_options,
    settings,
    table_row,
)
from train.baselines.facts import REQUIRED, problem
from train.common.evaluate_agent import evaluate_agent
from train.common.files import Count, Seconds, read_json, read_json_lines
from train.common.lock import in_turn
from train.common.options import EnvOptions
from train.common.program_run import ProgramRun
from train.common.records import origin

START_OF_DTRAM = {"env_steps": 0, "return": 0.0}
"""DT-RAM first validates after an epoch; until then its return counts as 0."""


@dataclass(frozen=True)
class ComparisonRun:
    """One algorithm with one seed on one environment."""

    track: str  # of the environment
    algo: str  # a key of `ALGORITHMS`, or "dtram"
    seed: int
    steps: int  # env steps, if the algorithm learns
    folder: Path  # of the run
    environment: EnvOptions  # how all programs make the environment

    @property
    def env_id(self) -> str:
        """The environment."""
        return self.environment.env_id

    @property
    def env_name(self) -> str:
        """The id without its package."""
        return self.env_id.rpartition(":")[2]

    def program_run(self, changes: Mapping[str, Any] | None = None, **more: Any) -> ProgramRun:
        """The program and its options; `changes` are hyper-parameters that differ from the table's.

        `more` are further options of ``sb3_baselines.py``; DT-RAM's program does not get them.
        """
        name = f"{self.env_name} {self.algo} seed {self.seed}"
        options: dict[str, Any] = {"env_id": self.env_id, "seed": self.seed, "device": "cpu"}
        options |= {name: getattr(self.environment, name) for name in ("root", "data_dir")}
        if self.environment.env:
            options["env"] = self.environment.env
        if self.algo == "dtram":
            row = {**table_row(self.track, self.algo), **(changes or {})}
            options |= {"env_steps": self.steps, **reinforce_options(row)}
            return ProgramRun(name, "reinforce.py", self.folder, options)
        options["algo"] = self.algo
        if ALGORITHMS[self.algo].learns:
            options["total_timesteps"] = self.steps
        if changes:
            options["set"] = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
        return ProgramRun(name, "sb3_baselines.py", self.folder, options | more)

    def record(self, problem: str = "") -> dict[str, Any]:
        """All that tables and plots need, and the run's origin.

        Without a result it has ``problem`` instead: the given text if the run is not finished.
        """
        identity = {"env_id": self.env_name, "algo": self.algo, "seed": self.seed}
        if not self.program_run().finished:
            return identity | {"problem": problem or "not run"}
        try:
            return self._finished() | identity
        except (OSError, ValueError) as error:
            return identity | {"problem": f"{self.folder}: {error}"[:500]}

    def _finished(self) -> dict[str, Any]:
        results = read_json(self.folder / "results.json")
        self.program_run().check_options()
        row = table_row(self.track, self.algo)
        if self.algo == "dtram":
            found, start = self._dtram(results), [START_OF_DTRAM]
        elif results["hyperparameters"] != (row := self._baseline_row()):
            way_out = "delete it to run anew, or choose other --runs"
            raise ValueError(f"made with other hyper-parameters than the table's; {way_out}")
        else:
            found, start = baseline_record(results), []
        found |= {"env_id": self.env_name, "algo": self.algo, "seed": self.seed}
        if wrong := problem(found, NEEDED):
            raise ValueError(f"results.json: {wrong}; delete it to run anew")
        return found | {
            "hyperparameters": row,
            "area": area_under([*start, *found["curve"]], found["env_steps"]),
            "tries": number_of_trials(self.env_name, self.algo, table_row(self.track, self.algo)),
        }

    def _baseline_row(self) -> dict[str, Any]:
        """The table's row of a baseline, with the environment's keywords."""
        changes = {f"env.{key}": value for key, value in self.environment.env_words().items()}
        return settings(self.track, self.algo, changes).row

    def _dtram(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """A run of DT-RAM, evaluated through the environment like the others."""
        kept = self.folder / "evaluation.json"
        if not kept.exists():
            with in_turn(self.folder / ".evaluation.lock"):
                if not kept.exists():  # another comparison may just have written it
                    found = evaluate_agent(self.folder, data_dir=self.environment.data_dir)
                    write_json(kept, found)
        return dtram_record(self.folder, results, read_json(kept))


def baseline_record(results: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run of ``sb3_baselines.py``, from its results."""
    found = {key: value for key, value in results.items() if key != "options"}
    algo = ALGORITHMS.get(str(results["algo"]))  # whoever reads the record says if there is none
    rewarded = "labels and reward" if algo and algo.labels else "reward"
    return found | {"learns_from": rewarded if algo and algo.learns else "nothing"}


def dtram_record(
    folder: Path, results: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a run of ``reinforce.py``, from its results and `evaluate_agent`'s.

    Env steps and training time are those of a trunk from another run, too.
    """
    parts = [results, *([trunk] if (trunk := results.get("trunk")) else [])]

    def total(key: str) -> Any:
        """None if a part did not count."""
        found = [results[key], *(part.get(key) for part in parts[1:])]
        return None if None in found else sum(found)

    logged = (folder / "metrics.jsonl").exists()  # not of a shipped model
    spent, validating = total("train_seconds"), total("validation_seconds")
    return {
        **evaluation,
        **origin(results),  # of the training, not of the evaluation
        "python": results["python"],
        "track": "policy-only" if results["classifier"] else "whole-task",
        "classifier": results["classifier"],
        "learns_from": "labels and reward",
        "view": "native",
        "observe": "glimpse",
        "env_steps": total("env_steps"),
        "train_seconds": None if validating is None else round(spent - validating, 1),
        "flops_per_image": round(results["flops_per_glimpse"] * evaluation["mean_glimpses"]),
        "curve": dtram_curve(folder) if logged and not trunk else None,
    }


NEEDED = REQUIRED | {
    *("view", "observe", "env_steps", "train_seconds", "flops_per_image", "curve"),
    *("versions", "hardware", "commit"),
}
"""What tables and plots of a comparison need of a finished run's record."""


Validated = TypedDict(
    "Validated",
    {
        "time/total_timesteps": Count,
        "eval/mean_return": float,
        "eval/accuracy": float,
        "eval/mean_glimpses": float,
        "time/time_elapsed": Seconds,
    },
)
"""What the curve needs of a line of ``metrics.jsonl``."""


def dtram_curve(folder: Path) -> list[dict[str, float]]:
    """The learning curve of a run of DT-RAM: for each epoch a point as of `curve_point`.

    In the stopper's stage all have the env steps of the whole run: it takes its glimpses first.
    """
    return [
        {
            "env_steps": row["time/total_timesteps"],
            "return": row["eval/mean_return"],
            "error": 1 - row["eval/accuracy"],
            "mean_glimpses": row["eval/mean_glimpses"],
            "seconds": row["time/time_elapsed"],
        }
        for row in read_json_lines(folder / "metrics.jsonl", Validated)
    ]


def area_under(curve: Sequence[Mapping[str, float]], steps: int) -> float:
    """The area under the learning curve: mean validation return over env steps 0 ... `steps`.

    The curve is linear between its points and constant before the first and after the last. Where
    several points have the same env steps, the line from the left ends in the first of them. With
    0 steps, nothing is learned and the last point counts.
    """
    if not curve:
        raise ValueError("curve: expected at least one point")
    x, y = (np.array([point[key] for point in curve]) for key in ("env_steps", "return"))
    if steps == 0:
        return float(y[-1])
    inside = x <= steps
    xs = [0, *x[inside], steps]
    ys = [y[0], *y[inside], np.interp(steps, x, y)]
    return float(np.trapezoid(ys, xs) / steps)
