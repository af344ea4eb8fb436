"""Searches the hyper-parameters of an algorithm: at most 20 trials, compared on validation alone.

    python train/search.py --algo ppo                            # policy-only MNIST
    python train/search.py --algo ppo --env-id DTRAM-MNIST-v0    # the whole task

The first trial is the row of train/baselines/hyperparameters.toml. The others change it: Optuna's
TPE sampler draws the changes from the algorithm's space, which is a table below. Every trial is a
run of train/sb3_baselines.py, or for DT-RAM of train/reinforce.py. After five of them, a baseline's
trial ends early once its best return so far is below the median of the earlier ones. The outcome is
one record with every trial; the best row is printed for the table. Interrupted, the same command
continues.

Algorithms: ppo, a2c, recurrent_ppo, maskable_ppo, dqn, qr_dqn, sac, tqc, ars, scan, dtram. The
searches that rows of the table come from are in benchmarks/results/search/ENV_ID.jsonl; the table's
comments say where the other rows come from.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import tyro

from dtram_env.optional import require
from train.baselines.algorithms import ENV_STEPS, table_row
from train.baselines.comparison_run import ComparisonRun, dtram_curve
from train.common.files import read_json
from train.common.jobs import JobOptions, resumable, run_in_order
from train.common.lock import in_turn
from train.common.options import AtLeast1, EnvOptions, check
from train.common.program_run import ProgramRun
from train.common.provenance import choose_device, provenance
from train.common.records import check_destination, read_records, write_records
from train.common.training_task import describe_env

MAX_TRIALS = 20
RANDOM_TRIALS = 5  # before the sampler has a model; Optuna's default, 10, would be half of them
EVAL_POINTS = 5  # validations of a baseline's trial, at each of which it may end early
SEED_OF_TRIALS = 100  # not one of the seeds that results are made with


@dataclass(frozen=True)
class Options(EnvOptions, JobOptions):
    """Searches the hyper-parameters of an algorithm."""

    algo: str = "ppo"
    """the algorithm, one of those above"""
    env_id: str = "agents:DTRAM-MNIST-Policy-v0"
    """registered environment"""
    trials: int = MAX_TRIALS
    """number of trials, at most 20"""
    jobs: AtLeast1 = 1
    """trials that are drawn before the first of them ends, and run side by side, also with --ray;
    with more than one, each has one thread"""
    steps: AtLeast1 = ENV_STEPS
    """env steps of a trial; as many as a compared run has, which takes minutes to an hour"""
    records: Path | None = None
    """JSON Lines file where the outcome replaces the algorithm's earlier one;
    runs/search/ENV_ID.jsonl if not given"""
    seed: int = 0
    """seed of the sampler"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("algo", self.algo, self.algo in SPACES, f"one of {', '.join(SPACES)}")
        check("trials", self.trials, 1 <= self.trials <= MAX_TRIALS, f"1 to {MAX_TRIALS}")


# -- spaces: each draws changes of the table's row -------------------------------------------------


class Interval(NamedTuple):
    """Numbers from `low` to `high`, drawn uniformly, or with their logarithms uniform."""

    low: float
    high: float
    log: bool = True
    convert: Callable[[float], Any] = float  # makes the hyper-parameter of the number


Space = Mapping[str, Interval | Sequence[Any]]
"""For each hyper-parameter, an interval or a list of values; drawn in this order."""


def draw(trial: Any, space: Space) -> dict[str, Any]:
    """Draws one value of each hyper-parameter of a space; `trial` is Optuna's."""
    changes = {}
    for name, values in space.items():
        if isinstance(values, Interval):
            number = trial.suggest_float(name, values.low, values.high, log=values.log)
            changes[name] = values.convert(number)
        else:
            changes[name] = trial.suggest_categorical(name, values)
    return changes


LINEAR_RATE = Interval(1e-4, 3e-3, convert="lin_{:.1e}".format)
ON_POLICY: Space = {
    "learning_rate": LINEAR_RATE,
    "n_steps": [8, 16, 32],
    "ent_coef": Interval(1e-4, 3e-2),
    "gae_lambda": [0.9, 0.95, 1.0],
}
VIEWS = ["continuous", "discrete"]
PPO: Space = {**ON_POLICY, "n_epochs": [4, 8], "env.view": VIEWS}
DQN: Space = {
    "learning_rate": LINEAR_RATE,
    "gradient_steps": [4, 8, 16],
    "target_update_interval": [500, 2000],
    "exploration_fraction": Interval(0.1, 0.6, log=False),
    "env.grid": [3, 4, 6],
}
SAC: Space = {
    "learning_rate": LINEAR_RATE,
    "gradient_steps": [4, 8],
    "tau": [0.005, 0.02],
    "ent_coef": ["auto_0.01", "auto_0.1", 0.003, 0.01],
}
DTRAM: Space = {
    "location_reward": ["mean_prob", "drop"],
    "stop": [
        f"after max_mean_glimpses=none entropy={entropy} epochs=40 batch_size=200"
        for entropy in ("0.0005", "0.005")
    ],
    "learning_rate": Interval(5e-4, 6e-3, convert=lambda rate: float(f"{rate:.1e}")),
    "batch_size": [16, 32, 64],
    "m": [2, 4],
    "augment": ["affine=0", "affine=0.5"],
}
SPACES: dict[str, Space] = {
    "ppo": PPO,
    "a2c": {**ON_POLICY, "n_steps": [1, 2, 4, 8], "env.view": VIEWS},
    "recurrent_ppo": PPO,
    "maskable_ppo": {**ON_POLICY, "n_epochs": [4, 8], "env.grid": [3, 4, 6]},
    "dqn": DQN,
    "qr_dqn": DQN,
    "sac": SAC,
    "tqc": SAC,
    "ars": {
        "learning_rate": Interval(1e-2, 1e-1, convert="lin_{:.1e}".format),
        "delta_std": Interval(1e-2, 1e-1),
        "n_delta": [4, 8, 16],
        "n_eval_episodes": [32, 64, 128],
        "network.width": [16, 32, 64],
    },
    "scan": {"grid": [2, 3], "stop_after": [3, 4, 5, 6, 7]},
    "dtram": DTRAM,
}


# -- the search ------------------------------------------------------------------------------------


def search(options: Options) -> dict[str, Any]:
    """Runs the trials that are missing; returns and writes the outcome."""
    optuna = require("optuna", "search")
    env_name = options.env_id.rpartition(":")[2]
    path = options.records or Path("runs/search", f"{env_name}.jsonl")
    check_destination(path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    origin = provenance(choose_device("cpu"))
    keywords = options.env_keywords()
    track = describe_env(options.env_id, data="real", **keywords)["track"]
    row = table_row(track, options.algo)
    space = SPACES[options.algo]
    sampler = optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    trials: list[dict[str, Any]] = []
    while len(trials) < options.trials:
        asked = [study.ask() for _ in range(min(options.jobs, options.trials - len(trials)))]
        drawn = [draw(trial, space) if trial.number else {} for trial in asked]
        least = medians(trials)
        runs = [trial_run(options, track, row, changes, least) for changes in drawn]
        for trial, changes, run in zip(asked, drawn, runs, strict=True):
            where = "finished already" if run.finished else f"see {run.log}"
            what = changes or "the row of the table"
            print(f"{trial.number + 1} of {options.trials}: {what}; {where}", flush=True)
        with resumable("train/search.py"):
            problems = run_in_order(runs, options)
        if problems:
            raise ValueError("; ".join(f"{folder}: {why}" for folder, why in problems.items()))
        for trial, changes, run in zip(asked, drawn, runs, strict=True):
            trials.append(read_trial(options, row, changes, run.folder))
            early = ", ended early" if trials[-1]["ended_early"] else ""
            print(f"validation return {trials[-1]['validation']['return']:.4f}{early}", flush=True)
            for point, value in enumerate(trials[-1]["returns"]):
                trial.report(value, point)
            if trials[-1]["ended_early"]:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, trials[-1]["validation"]["return"])
    best = max(trials, key=lambda trial: trial["validation"]["return"])
    about = {"algo": options.algo, "steps": options.steps, "seed": options.seed}
    outcome = {"env_id": env_name, **about, "best": best, "trials": trials, **origin}
    with in_turn(path.with_name(".lock")):
        others = [other for other in read_records(path) if other["algo"] != options.algo]
        write_records(path, [*others, outcome])
    print(f"\nbest of {len(trials)}: validation return {best['validation']['return']:.4f}; {path}")
    print(as_toml(track, options.algo, best["row"]))
    return outcome


def medians(trials: Sequence[Mapping[str, Any]]) -> list[float]:
    """The least return that a trial's best one has to reach after each of its validations.

    As Optuna's `MedianPruner`: the median of the earlier trials that did not end early; none before
    there are `RANDOM_TRIALS` of those.

    >>> whole = [{"returns": [n / 10, n / 5], "ended_early": False} for n in range(5)]
    >>> medians([*whole, {"returns": [0.9], "ended_early": True}])
    [0.2, 0.4]
    >>> medians(whole[:4])
    []
    """
    curves = [trial["returns"] for trial in trials if not trial["ended_early"]]
    if len(curves) < RANDOM_TRIALS:
        return []
    return [median(values) for values in zip(*curves, strict=False)]


def trial_run(
    options: Options,
    track: str,
    row: dict[str, Any],
    changes: dict[str, Any],
    least: list[float],
) -> ProgramRun:
    """The run of a trial, which ends early below the `least` returns."""
    # A hash of all that defines the trial names its folder, so an interrupted search finds it.
    task = options.env_keywords()
    task.pop("data_dir", None)
    defining = json.dumps(
        [row, changes, options.steps, *filter(None, [task, least])], sort_keys=True
    )
    name = f"trial-{hashlib.sha256(defining.encode()).hexdigest()[:8]}"
    folder = Path("runs/search", options.env_id.rpartition(":")[2], options.algo, name)
    environment = EnvOptions(options.env_id, options.env, options.root, options.data_dir)
    what = track, options.algo, SEED_OF_TRIALS, options.steps
    trial = ComparisonRun(*what, folder, environment)
    return trial.program_run(changes, eval_points=EVAL_POINTS, give_up_below=least or None)


def read_trial(
    options: Options, row: dict[str, Any], changes: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The row and the validations of a trial whose run is finished."""
    # None of DT-RAM: its first stage takes all glimpses, which is no reason to end it early.
    returns: list[float] = []
    ended_early = False
    if options.algo != "dtram":
        found = read_json(folder / "results.json")
        row, best = found["hyperparameters"], found["validation"]
        ended_early = 0 < found["env_steps"] < options.steps
        learned = [point for point in found["curve"] if point["env_steps"]]
        for n in range(1, EVAL_POINTS + 1):  # after a fifth of the env steps, two fifths …
            share = n * options.steps / EVAL_POINTS
            returns += [point["return"] for point in learned if point["env_steps"] >= share][:1]
    else:
        row, curve = {**row, **changes}, dtram_curve(folder)
        last_stage = [p for p in curve if p["env_steps"] == curve[-1]["env_steps"]]
        best = max(last_stage, key=lambda point: point["return"])
    about = {"returns": returns, "ended_early": ended_early}
    return {"changes": changes, "row": row, "validation": best, **about}


def as_toml(track: str, algo: str, row: dict[str, Any]) -> str:
    """A row as the table has it."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{k} = {text(v)}" for k, v in value.items()) + " }"
        return json.dumps(value)

    return "\n".join([f"[{track}.{algo}]", *(f"{k} = {text(v)}" for k, v in row.items())])


if __name__ == "__main__":
    run_program(lambda: search(tyro.cli(Options, description=__doc__)))
