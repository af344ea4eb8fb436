"""Searches the hyper-parameters of an algorithm: at most 10 trials, compared on validation alone.

    python train/search.py --algo ppo                            # policy-only MNIST
    python train/search.py --algo ppo --env-id DTRAM-MNIST-v0    # the whole task

The first trial is the row of train/baselines/hyperparameters.toml. The others change it: Optuna's
TPE sampler draws the changes from the algorithm's space, which is a function below. Every trial is
a run of train/sb3_baselines.py or train/reinforce.py. The outcome is one record with every trial;
the best row is printed for the table. Interrupted, the same command continues.

Algorithms: ppo, a2c, recurrent_ppo, maskable_ppo, dqn, sac, scan, dtram. The searches behind the
table are in benchmarks/results/search/ENV_ID.jsonl.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from train.baselines.algorithms import reinforce_options, table_row
from train.baselines.comparison_run import dtram_curve
from train.common.files import read_json
from train.common.jobs import ProgramRun, Runner
from train.common.options import check
from train.common.provenance import choose_device, provenance, python_command
from train.common.records import read_records, write_records
from train.common.run import run_program
from train.common.training_task import describe_env

MAX_TRIALS = 10
RANDOM_TRIALS = 3  # before the sampler has a model; Optuna's default, 10, would be all of them
SEED_OF_TRIALS = 100  # not one of the seeds that results are made with


@dataclass(frozen=True)
class Options:
    """Searches the hyper-parameters of an algorithm."""

    algo: str = "ppo"
    """the algorithm, one of those above"""
    env_id: str = "agents:DTRAM-MNIST-Policy-v0"
    """registered environment"""
    trials: int = MAX_TRIALS
    """number of trials, at most 10"""
    steps: int = 100_000
    """env steps of a trial"""
    records: Path | None = None
    """JSON Lines file where the outcome replaces the algorithm's earlier one;
    runs/search/ENV_ID.jsonl if not given"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""
    seed: int = 0
    """seed of the sampler"""

    def __post_init__(self) -> None:
        check("algo", self.algo, self.algo in SPACES, f"one of {', '.join(SPACES)}")
        check("trials", self.trials, 1 <= self.trials <= MAX_TRIALS, f"1 to {MAX_TRIALS}")
        check("steps", self.steps, self.steps >= 1, "at least 1")

    @property
    def env_name(self) -> str:
        """The id without its package."""
        return self.env_id.rpartition(":")[2]


# -- spaces: each function draws changes of the table's row ----------------------------------------


def on_policy(trial: Any, lengths: Sequence[int]) -> dict[str, Any]:
    """What PPO and A2C share, with some lengths of a rollout."""
    return {
        "learning_rate": linear_rate(trial),
        "n_steps": trial.suggest_categorical("n_steps", lengths),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 3e-2, log=True),
        "gae_lambda": trial.suggest_categorical("gae_lambda", [0.9, 0.95, 1.0]),
    }


def ppo(trial: Any) -> dict[str, Any]:
    """PPO and RecurrentPPO."""
    return {
        **on_policy(trial, [8, 16, 32]),
        "n_epochs": trial.suggest_categorical("n_epochs", [4, 8]),
        "env.view": trial.suggest_categorical("env.view", ["continuous", "discrete"]),
    }


def a2c(trial: Any) -> dict[str, Any]:
    """A2C."""
    return {
        **on_policy(trial, [1, 2, 4, 8]),
        "env.view": trial.suggest_categorical("env.view", ["continuous", "discrete"]),
    }


def maskable_ppo(trial: Any) -> dict[str, Any]:
    """MaskablePPO."""
    return {
        **on_policy(trial, [8, 16, 32]),
        "n_epochs": trial.suggest_categorical("n_epochs", [4, 8]),
        "env.grid": trial.suggest_categorical("env.grid", [3, 4, 6]),
    }


def dqn(trial: Any) -> dict[str, Any]:
    """DQN."""
    return {
        "learning_rate": linear_rate(trial),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [4, 8, 16]),
        "target_update_interval": trial.suggest_categorical("target_update_interval", [500, 2000]),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.1, 0.6),
        "env.grid": trial.suggest_categorical("env.grid", [3, 4, 6]),
    }


def sac(trial: Any) -> dict[str, Any]:
    """SAC."""
    return {
        "learning_rate": linear_rate(trial),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [4, 8]),
        "tau": trial.suggest_categorical("tau", [0.005, 0.02]),
        "ent_coef": trial.suggest_categorical("ent_coef", ["auto_0.01", "auto_0.1", 0.003, 0.01]),
    }


def scan(trial: Any) -> dict[str, Any]:
    """The scan, which needs no training."""
    return {
        "grid": trial.suggest_categorical("grid", [2, 3]),
        "stop_after": trial.suggest_categorical("stop_after", [3, 4, 5, 6, 7]),
    }


def dtram(trial: Any) -> dict[str, Any]:
    """DT-RAM, with locations from a Gaussian or from a grid of cells."""
    locators = ["gaussian", "cells grid=4 hidden=128", "cells grid=6 hidden=128"]
    return {
        **dtram_gaussian(trial),
        "locator": trial.suggest_categorical("locator", locators),
    }


def dtram_gaussian(trial: Any) -> dict[str, Any]:
    """DT-RAM with the table's locator.

    On the whole task, cells are ahead of the Gaussian after 100,000 env steps and behind it after
    a million, so a search would choose the wrong one.
    """
    entropy = trial.suggest_categorical("stop entropy", ["0.0005", "0.005"])
    return {
        "learning_rate": float(f"{trial.suggest_float('learning_rate', 5e-4, 6e-3, log=True):.1e}"),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "m": trial.suggest_categorical("m", [2, 4]),
        "stop": f"after max_mean_glimpses=none entropy={entropy} epochs=40 batch_size=200",
    }


def linear_rate(trial: Any) -> str:
    """A learning rate that falls linearly to 0."""
    return f"lin_{trial.suggest_float('learning_rate', 1e-4, 3e-3, log=True):.1e}"


SPACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ppo": ppo,
    "a2c": a2c,
    "recurrent_ppo": ppo,
    "maskable_ppo": maskable_ppo,
    "dqn": dqn,
    "sac": sac,
    "scan": scan,
    "dtram": dtram,
}
WHOLE_TASK_SPACES = {**SPACES, "dtram": dtram_gaussian}


# -- the search ------------------------------------------------------------------------------------


def trial_run(options: Options, row: dict[str, Any], changes: dict[str, Any]) -> ProgramRun:
    """The run of a trial; its folder is named by a hash of all that defines the trial."""
    given: dict[str, Any] = {"env_id": options.env_id, "seed": SEED_OF_TRIALS, "device": "cpu"}
    given["data_dir"] = options.data_dir
    if options.algo == "dtram":
        program = "reinforce.py"
        given |= {"env_steps": options.steps, **reinforce_options({**row, **changes})}
    else:
        program = "sb3_baselines.py"
        given |= {"algo": options.algo, "total_timesteps": options.steps, "eval_points": 5}
        if changes:
            given["set"] = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    defining = json.dumps([row, changes, options.steps], sort_keys=True)
    name = f"trial-{hashlib.sha256(defining.encode()).hexdigest()[:8]}"
    folder = Path("runs/search", options.env_name, options.algo, name)
    return ProgramRun(name, program, folder, given)


def read_trial(
    options: Options, folder: Path, row: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any]:
    """A finished trial: its row, and its best result on validation."""
    if options.algo == "dtram":
        curve = dtram_curve(folder)
        stopper = [p for p in curve if p["env_steps"] == curve[-1]["env_steps"]]
        best = max(stopper, key=lambda point: point["return"])
        return {"changes": changes, "row": {**row, **changes}, "validation": best}
    found = read_json(folder / "results.json")
    return {"changes": changes, "row": found["hyperparameters"], "validation": found["validation"]}


def search(options: Options) -> dict[str, Any]:
    """Runs the trials that are missing; returns and writes the outcome.

    Raises:
        ValueError: optuna is missing, or a trial failed.
    """
    optuna = import_optuna()
    origin = provenance(choose_device("cpu"))
    keywords: dict[str, Any] = {"data": "real"}
    if options.data_dir is not None:
        keywords["data_dir"] = str(options.data_dir)
    track = describe_env(options.env_id, **keywords)["track"]
    row = table_row(track, options.algo)
    space = (WHOLE_TASK_SPACES if track == "whole-task" else SPACES)[options.algo]
    sampler = optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    runner, trials = Runner(jobs=1), []
    for number in range(options.trials):
        trial = study.ask()
        changes = space(trial) if number else {}
        run = trial_run(options, row, changes)
        found = "finished already" if run.finished else f"see {run.folder}.log"
        print(f"{number + 1} of {options.trials}: {changes or 'the row of the table'}; {found}")
        try:
            runner.run([run])
        except KeyboardInterrupt:
            command = shlex.join([python_command(), "train/search.py", *sys.argv[1:]])
            print(f"\ninterrupted; to go on: {command}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        if not run.finished:
            raise ValueError(f"{run.folder}: {runner.problems[run.folder]}")
        trials.append(read_trial(options, run.folder, row, changes))
        study.tell(trial, trials[number]["validation"]["return"])
    best = max(trials, key=lambda trial: trial["validation"]["return"])
    outcome = {
        "env_id": options.env_name,
        "algo": options.algo,
        "steps": options.steps,
        "seed": options.seed,
        "best": best,
        "trials": trials,
        **origin,
    }
    path = options.records or Path("runs/search", f"{options.env_name}.jsonl")
    others = [other for other in read_records(path) if other["algo"] != options.algo]
    write_records(path, [*others, outcome])
    print(f"\nbest of {len(trials)}: validation return {best['validation']['return']:.4f}; {path}")
    print(as_toml(track, options.algo, best["row"]))
    return outcome


def as_toml(track: str, algo: str, row: dict[str, Any]) -> str:
    """A row as the table has it."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{k} = {text(v)}" for k, v in value.items()) + " }"
        return json.dumps(value)

    lines = [f"{name} = {text(value)}" for name, value in row.items()]
    return "\n".join([f"[{track}.{algo}]", *lines])


def import_optuna() -> Any:
    """Imports optuna. Raises ValueError, with the install line, if it is missing."""
    try:
        import optuna
    except ImportError:
        raise ValueError("the search needs optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


if __name__ == "__main__":
    run_program(lambda: search(tyro.cli(Options, description=__doc__)))
