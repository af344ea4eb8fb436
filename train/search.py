"""Searches the hyper-parameters of a baseline: at most 10 trials, judged on validation alone.

    python train/search.py --algo ppo                            # policy-only MNIST
    python train/search.py --algo ppo --env-id DTRAM-MNIST-v0    # the whole task

Tries differ from train/hyperparameters.toml in what SPACES says, drawn at random: ten are too few
to model; the first try is the table's own row. The outcome is a JSON file with every try, and the
best row, printed for the table. Interrupted, the same command goes on after the last finished try.

Algorithms: ppo, a2c, recurrent_ppo, maskable_ppo, dqn, sac, scan, dtram. The outcomes behind the
table are benchmarks/results/search/ENV_ID/ALGO.json; --json writes one there.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from train import reinforce
from train.baselines.algorithms import table_row
from train.common.provenance import choose_device, provenance, python_command
from train.common.run import Interrupt, RunFolder, read_json, run_program, write_json
from train.common.training_task import Task, describe_env
from train.sb3_baselines import Options, learn, prepare, untrained

MAX_TRIALS = 10
SEED_OF_TRIALS = 100  # not one of the seeds that results are made with


@dataclass(frozen=True)
class SearchOptions:
    """Searches the hyper-parameters of a baseline."""

    algo: str = "ppo"
    """the algorithm: one of those above"""
    env_id: str = "agents:DTRAM-MNIST-Policy-v0"
    """registered environment"""
    trials: int = MAX_TRIALS
    """how many tries, at most 10"""
    steps: int = 100_000
    """env steps of a try"""
    json: Path | None = None
    """where the outcome goes; runs/search/ENV_ID/ALGO/outcome.json if not given"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    seed: int = 0
    """of the search"""

    def __post_init__(self) -> None:
        if self.algo not in SPACES:
            raise ValueError(f"--algo {self.algo}: expected one of {', '.join(SPACES)}")
        if not 1 <= self.trials <= MAX_TRIALS:
            raise ValueError(f"--trials {self.trials}: expected 1 to {MAX_TRIALS}")
        if self.steps < 1:
            raise ValueError(f"--steps {self.steps}: expected at least 1")


def on_policy(trial: Any, lengths: Sequence[int]) -> dict[str, Any]:
    return {
        "learning_rate": rate(trial),
        "n_steps": trial.suggest_categorical("n_steps", lengths),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 3e-2, log=True),
        "gae_lambda": trial.suggest_categorical("gae_lambda", [0.9, 0.95, 1.0]),
    }


def ppo(trial: Any) -> dict[str, Any]:
    return {
        **on_policy(trial, [8, 16, 32]),
        "n_epochs": trial.suggest_categorical("n_epochs", [4, 8]),
        "env.view": trial.suggest_categorical("env.view", ["continuous", "discrete"]),
    }


def a2c(trial: Any) -> dict[str, Any]:
    return {
        **on_policy(trial, [1, 2, 4, 8]),
        "env.view": trial.suggest_categorical("env.view", ["continuous", "discrete"]),
    }


def maskable_ppo(trial: Any) -> dict[str, Any]:
    return {
        **on_policy(trial, [8, 16, 32]),
        "n_epochs": trial.suggest_categorical("n_epochs", [4, 8]),
        "env.grid": trial.suggest_categorical("env.grid", [3, 4, 6]),
    }


def dqn(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": rate(trial),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [4, 8, 16]),
        "target_update_interval": trial.suggest_categorical("target_update_interval", [500, 2000]),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.1, 0.6),
        "env.grid": trial.suggest_categorical("env.grid", [3, 4, 6]),
    }


def sac(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": rate(trial),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [4, 8]),
        "tau": trial.suggest_categorical("tau", [0.005, 0.02]),
        "ent_coef": trial.suggest_categorical("ent_coef", ["auto_0.01", "auto_0.1", 0.003, 0.01]),
    }


def scan(trial: Any) -> dict[str, Any]:
    return {
        "grid": trial.suggest_categorical("grid", [2, 3]),
        "stop_after": trial.suggest_categorical("stop_after", [3, 4, 5, 6, 7]),
    }


def rate(trial: Any) -> str:
    """A learning rate that falls linearly to 0."""
    return f"lin_{trial.suggest_float('learning_rate', 1e-4, 3e-3, log=True):.1e}"


def dtram(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": float(f"{trial.suggest_float('learning_rate', 5e-4, 6e-3, log=True):.1e}"),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "m": trial.suggest_categorical("m", [2, 4]),
        "locator_grid": trial.suggest_categorical("locator_grid", [0, 4, 6]),
        "stop_entropy": trial.suggest_categorical("stop_entropy", [5e-4, 5e-3]),
    }


def dtram_whole_task(trial: Any) -> dict[str, Any]:
    # On a grid it is ahead after 100k env steps and behind after 1M (benchmarks/results/search).
    return {**dtram(trial), "locator_grid": 0}


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
WHOLE_TASK_SPACES = {"dtram": dtram_whole_task}


def judged_baseline(
    options: SearchOptions, track: str, changes: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """The row of a try, and its best on validation; the test split is not looked at."""
    setup = prepare(
        Options(
            algo=options.algo,  # type: ignore[arg-type]
            env_id=options.env_id,
            total_timesteps=options.steps,
            eval_points=5,
            data_dir=options.data_dir,
            seed=SEED_OF_TRIALS,
            set=tuple(f"{key}={json.dumps(value)}" for key, value in changes.items()),
        )
    )
    row = setup.chosen.to_json()
    if not setup.steps:
        found = setup.evaluate(setup.rule(), "validation")
        return row, {
            "return": found.mean_return,
            "error": found.error,
            "mean_glimpses": found.mean_glimpses,
        }
    shutil.rmtree(folder, ignore_errors=True)
    device = choose_device("cpu")
    run = RunFolder(folder, row, resume=False, device=device)
    run.command = command()
    result, _, _ = learn(setup, run, untrained(setup, device))
    run.finish({})
    return row, result["validation"]


def judged_dtram(
    options: SearchOptions, track: str, changes: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """As `judged_baseline`, for DT-RAM's own training program."""
    row = {**table_row(track, options.algo), **changes}
    chosen = reinforce.Options(
        env_id=options.env_id,
        env_steps=options.steps,
        seed=SEED_OF_TRIALS,
        device="cpu",
        data_dir=options.data_dir,
        stopper_prior="none",  # as in a comparison
        **row,
    )
    shutil.rmtree(folder, ignore_errors=True)
    device = choose_device("cpu")
    task = Task(options.env_id, device, **chosen.env_options())
    agent, _ = reinforce.new_agent(chosen, task)
    run = RunFolder(folder, chosen.to_json(), resume=False, device=device)
    run.command = command()
    with Interrupt() as interrupt:
        stages = reinforce.make_stages(chosen, task, agent)
        reinforce.fit(chosen, stages, task, agent, run, interrupt)
    run.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [found for found in map(json.loads, lines) if "eval/stop_threshold" in found]
    best = max(rows, key=lambda found: found["eval/mean_return"])
    return row, {
        "return": best["eval/mean_return"],
        "error": 1 - best["eval/accuracy"],
        "mean_glimpses": best["eval/mean_glimpses"],
    }


def search(options: SearchOptions) -> dict[str, Any]:
    """Runs the tries that are missing; returns and writes the outcome."""
    optuna = import_optuna()
    name = options.env_id.rpartition(":")[2]
    work = Path("runs/search", name, options.algo)
    path = options.json or work / "outcome.json"
    track = track_of(options)
    space = SPACES[options.algo]
    if track == "whole-task":
        space = WHOLE_TASK_SPACES.get(options.algo, space)
    kept = {"env_id": options.env_id, "algo": options.algo, "steps": options.steps}
    kept["seed"] = options.seed
    of = {**kept, "table": table_row(track, options.algo)}
    log = work / "trials.json"
    before: dict[str, Any] = read_json(log) if log.exists() else {"of": of, "trials": []}
    done = before["trials"] if before["of"] == of else []
    trials: list[dict[str, Any]] = []
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=options.seed)
    )
    for number in range(options.trials):
        # Asked again for those that are done, so that the sampler goes on as it would have.
        trial = study.ask()
        changes = space(trial) if number else {}
        done = done if number < len(done) and done[number]["changes"] == changes else []
        if done:
            trials.append(done[number])
        else:
            if number == 0 and before["trials"]:
                print(f"{log}: tries of another row, length or seed; the search begins anew")
            print(f"try {number + 1} of {options.trials}: {changes or 'the row of the table'}")
            judge = judged_dtram if options.algo == "dtram" else judged_baseline
            row, validation = judge(options, track, changes, work / f"trial-{number}")
            trials.append({"changes": changes, "row": row, "validation": validation})
            write_json(log, {"of": of, "trials": trials})
        study.tell(trial, trials[number]["validation"]["return"])
    best = max(trials, key=lambda trial: trial["validation"]["return"])
    outcome = {**kept, "best": best, "trials": trials, **provenance(choose_device("cpu"))}
    write_json(path, outcome)
    if done:
        print(f"nothing to run: all {len(trials)} tries are in {log}; delete it to search anew")
    print(f"\nbest of {len(trials)}: validation return {best['validation']['return']:.4f}; {path}")
    print(as_toml(track, options.algo, best["row"]))
    return outcome


def command() -> str:
    """What to type to go on: the search, not the try that was interrupted."""
    return shlex.join([python_command(), "train/search.py", *sys.argv[1:]])


def track_of(options: SearchOptions) -> str:
    """The track of the environment searched on."""
    keywords: dict[str, Any] = {"data": "real"}
    if options.data_dir is not None:
        keywords["data_dir"] = str(options.data_dir)
    return describe_env(options.env_id, **keywords)["track"]


def as_toml(track: str, algo: str, row: dict[str, Any]) -> str:
    """A row as the table has it."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{k} = {text(v)}" for k, v in value.items()) + " }"
        return json.dumps(value)

    return "\n".join(
        [f"[{track}.{algo}]", *(f"{name} = {text(value)}" for name, value in row.items())]
    )


def import_optuna() -> Any:
    """The package, or one line that says how to get it."""
    try:
        import optuna
    except ImportError:
        raise ValueError("the search needs optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


if __name__ == "__main__":
    run_program(lambda: search(tyro.cli(SearchOptions, description=__doc__)))
