"""A run of a comparison: the command that makes it, and the record that is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.baselines.algorithms import ALGORITHMS, number_of_trials, reinforce_options, table_row
from train.common.evaluation import evaluate_agent
from train.common.files import read_json, write_json
from train.common.jobs import ProgramRun
from train.common.records import origin

START_OF_DTRAM = {"env_steps": 0, "return": 0.0}
"""DT-RAM first validates after an epoch; until then its return counts as 0."""


@dataclass(frozen=True)
class ComparisonRun:
    """One algorithm with one seed on one environment.

    Attributes:
        env_id: a registered id, as `gym.make` takes it.
        track: the environment's track.
        algo: a key of `ALGORITHMS`, or "dtram".
        seed: seed of the run.
        steps: env steps of the run, if the algorithm learns.
        folder: the run's folder.
        data_dir: folder of all datasets.
    """

    env_id: str
    track: str
    algo: str
    seed: int
    steps: int
    folder: Path
    data_dir: Path | None

    @property
    def env_name(self) -> str:
        """The id without its package."""
        return self.env_id.rpartition(":")[2]

    def program_run(self) -> ProgramRun:
        """The program and its options."""
        options: dict[str, Any] = {"env_id": self.env_id, "seed": self.seed}
        options["data_dir"] = self.data_dir
        if self.algo == "dtram":
            program = "reinforce.py"
            row = reinforce_options(table_row(self.track, self.algo))
            options |= {"device": "cpu", "env_steps": self.steps, **row}
        else:
            program, options["algo"] = "sb3_baselines.py", self.algo
            if ALGORITHMS[self.algo].learns:
                options["total_timesteps"] = self.steps
        name = f"{self.env_name} {self.algo} seed {self.seed}"
        return ProgramRun(name, program, self.folder, options)

    def record(self, problem: str = "") -> dict[str, Any]:
        """The run as a record of a comparison.

        A finished run's record has all that tables and plots need, and the run's origin. Any other
        run's record has ``problem`` instead: why the run has no result.

        Args:
            problem: why the run is not finished, if that is known.
        """
        identity = {"env_id": self.env_name, "algo": self.algo, "seed": self.seed}
        if not self.program_run().finished:
            return identity | {"problem": problem or "not run"}
        try:
            return identity | self._finished()
        except (OSError, ValueError, KeyError) as error:
            text = f"no {error} in its results" if isinstance(error, KeyError) else str(error)
            return identity | {"problem": f"{self.folder}: {text}"[:500]}

    def _finished(self) -> dict[str, Any]:
        results = read_json(self.folder / "results.json")
        if not isinstance(results, dict):
            raise ValueError("results.json: expected an object; delete it to run anew")
        row = table_row(self.track, self.algo)
        self.program_run().check_options()
        if self.algo == "dtram":
            found = self._dtram(results) | {"learns_from": "labels and reward"}
            area = area_under([START_OF_DTRAM, *found["curve"]], found["env_steps"])
        else:
            if results["hyperparameters"] != row:
                raise ValueError(
                    "made with other hyper-parameters than the table's; delete it to run anew, or "
                    "choose other --runs"
                )
            found = {name: value for name, value in results.items() if name != "options"}
            found["learns_from"] = "reward" if ALGORITHMS[self.algo].learns else "nothing"
            area = area_under(found["curve"], found["env_steps"])
        del found["env_id"]
        tries = number_of_trials(self.env_name, self.algo, row)
        return found | {"hyperparameters": row, "area": area, "tries": tries}

    def _dtram(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """A run of DT-RAM, evaluated through the environment like the others."""
        kept = self.folder / "evaluation.json"
        if not kept.exists():
            write_json(kept, evaluate_agent(self.folder, data_dir=self.data_dir))
        found = read_json(kept)
        train_seconds = results["train_seconds"] - results["validation_seconds"]
        return found | {
            **origin(results),  # of the training, not of the evaluation
            "python": results["python"],
            "track": self.track,
            "classifier": results["classifier"],
            "view": "native",
            "observe": "glimpse",
            "env_steps": results["env_steps"],
            "train_seconds": round(train_seconds, 1),
            "flops_per_image": round(results["flops_per_glimpse"] * found["mean_glimpses"]),
            "curve": dtram_curve(self.folder),
        }


def dtram_curve(folder: Path) -> list[dict[str, float]]:
    """The learning curve of a run of DT-RAM, with one point for each epoch.

    The points have the keys of `callback.curve_point`. The epochs of the stopper's stage all have
    the env steps of the whole run, since that stage takes its glimpses at its start.
    """
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {
            "env_steps": row["time/total_timesteps"],
            "return": row["eval/mean_return"],
            "error": 1 - row["eval/accuracy"],
            "mean_glimpses": row["eval/mean_glimpses"],
            "seconds": row["time/time_elapsed"],
        }
        for row in map(json.loads, lines)
    ]


def area_under(curve: Sequence[Mapping[str, float]], steps: int) -> float:
    """The area under the learning curve: mean validation return over env steps 0 ... `steps`.

    The curve is linear between its points and constant before the first and after the last. Where
    several points have the same env steps, the line from the left ends in the first of them.

    Args:
        curve: points with ``env_steps``, in ascending order, and ``return``.
        steps: env steps of the run; with 0, nothing is learned and the last point counts.
    """
    x = np.array([point["env_steps"] for point in curve], dtype=np.float64)
    y = np.array([point["return"] for point in curve], dtype=np.float64)
    if steps == 0:
        return float(y[-1])
    inside = x <= steps
    xs = np.concatenate([[0.0], x[inside], [float(steps)]])
    ys = np.concatenate([y[:1], y[inside], [np.interp(steps, x, y)]])
    return float(np.trapezoid(ys, xs) / steps)
