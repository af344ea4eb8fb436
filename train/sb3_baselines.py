"""Trains a baseline of Stable-Baselines3 (or sb3-contrib) on any id and view, and scores it.

    python train/sb3_baselines.py --algo ppo                          # policy-only MNIST
    python train/sb3_baselines.py --algo a2c --env-id DTRAM-MNIST-v0  # the whole task
    python train/sb3_baselines.py --algo dqn --run-dir runs/dqn --resume   # goes on where it was
    python train/sb3_baselines.py --algo scan                         # needs no training

Hyper-parameters are those of train/hyperparameters.toml. Validation is looked at twenty times
on the way and chooses the weights; the test split is looked at once, at the end, by
`dtram_env.evaluate`.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)
from stable_baselines3.common.vec_env import VecMonitor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env
from agents import sb3
from dtram_env.sb3 import Sb3VecEnv
from train.baselines.algorithms import (
    ALGORITHMS,
    Settings,
    check_pair,
    make_model,
    make_rule,
    settings,
)
from train.baselines.callback import Judge, curve_point
from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, run_program
from train.common.training_task import describe_env

POLICY_ONLY_STEPS, WHOLE_TASK_STEPS = 300_000, 1_000_000


@dataclass(frozen=True)
class Options:
    """Trains and scores a baseline."""

    algo: Literal[
        "ppo",
        "a2c",
        "dqn",
        "sac",
        "recurrent_ppo",
        "maskable_ppo",
        "random",
        "center",
        "scan",
    ] = "ppo"
    """the algorithm; random, center and scan need no training"""
    env_id: str = "agents:DTRAM-MNIST-Policy-v0"
    """registered environment"""
    view: Literal["continuous", "discrete", "single", "native"] | None = None
    """view of the environment; the table's if not given"""
    observe: Literal["glimpse", "canvas"] | None = None
    """what is observed; the table's if not given"""
    classifier: Path | None = None
    """folder of the classifier in the loop (policy-only); the id's own if not given"""
    total_timesteps: int | None = None
    """env steps; 300,000 on policy-only ids and 1,000,000 on others if not given"""
    num_envs: int | None = None
    """environments stepped side by side; the table's if not given"""
    set: tuple[str, ...] = ()
    """other hyper-parameters, as learning_rate=1e-4 env.grid=3 network.width=64"""
    eval_points: int = 20
    """how often validation is looked at"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    seed: int = 0
    """of everything random"""
    device: str = "cpu"
    """where the networks are: auto, cpu, cuda, …; small ones are quickest on the CPU"""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/ALGO_DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one; a finished run prints its result"""
    verbose: bool = False
    """print SB3's tables too"""

    def __post_init__(self) -> None:
        for name in ("total_timesteps", "num_envs", "eval_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least 1")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed {self.seed}: expected 0 or more, below 2**31")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def changes(self) -> dict[str, Any]:
        """What differs from the table, by the names of `sb3_algorithms.settings`."""
        found: dict[str, Any] = {}
        for word in self.set:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"--set {word}: expected NAME=VALUE")
            try:
                found[name] = json.loads(value)
            except json.JSONDecodeError:
                found[name] = value
        for name in ("view", "observe"):
            if getattr(self, name) is not None:
                found[f"env.{name}"] = getattr(self, name)
        if self.num_envs is not None:
            found["num_envs"] = self.num_envs
        return found

    def to_json(self) -> dict[str, Any]:
        """The options that define the run."""
        values = asdict(self)
        for name in ("run_dir", "resume", "data_dir", "device", "verbose"):
            del values[name]
        return values | {"set": list(self.set), "classifier": _text(self.classifier)}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@dataclass(frozen=True)
class Setup:
    """What a run needs to know of its environment and algorithm.

    Attributes:
        options: as given.
        chosen: the hyper-parameters.
        env: keywords of the environment, the split apart.
        about: `describe_env` of it.
        steps: env steps to train for; 0 if nothing is learned.
    """

    options: Options
    chosen: Settings
    env: dict[str, Any]
    about: dict[str, Any]
    steps: int

    def rule(self) -> Any:
        """The policy, if it is one that needs no learning."""
        classes = None if self.about["track"] == "policy-only" else self.about["num_classes"]
        return make_rule(self.options.algo, self.chosen, classes, self.options.seed)

    def evaluate(self, policy: Any, split: str) -> dtram_env.Evaluation:
        """One exact pass over a split."""
        return dtram_env.evaluate(policy, self.options.env_id, split, **self.env)


def prepare(options: Options) -> Setup:
    """Reads the table and checks that algorithm, view and environment go together."""
    base: dict[str, Any] = {"data": "real"}
    if options.data_dir is not None:
        base["data_dir"] = str(options.data_dir)
    if options.classifier is not None:
        base["classifier"] = str(options.classifier)
    track = describe_env(options.env_id, **base)["track"]
    if options.view is not None:
        check_pair(options.algo, options.view, track)
    chosen = settings(track, options.algo, options.changes())
    check_pair(options.algo, chosen.env.get("view", "native"), track)
    own = {"split", "order", "autoreset_mode", "backend", "device", *base} & chosen.env.keys()
    if own:
        raise ValueError(f"--set env.{min(own)}=…: the program sets it itself; leave it out")
    try:
        about = describe_env(options.env_id, **base, **chosen.env)
    except TypeError as error:
        raise ValueError(f"--set env.…: {error}") from None
    default = POLICY_ONLY_STEPS if track == "policy-only" else WHOLE_TASK_STEPS
    steps = (options.total_timesteps or default) if ALGORITHMS[options.algo].learns else 0
    return Setup(options, chosen, base | chosen.env, about, steps)


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    setup = prepare(options)
    run_dir = options.run_dir or Path(
        "runs",
        options.env_id.rpartition(":")[2],
        f"{options.algo}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}",
    )
    device = choose_device(options.device)
    origin = provenance(device)
    # What the algorithm refuses must not leave a folder in the way of the mended command.
    model = untrained(setup, device) if setup.steps else None
    rule = None if setup.steps else setup.rule()
    kept = options.to_json() | {
        "total_timesteps": setup.steps,
        "hyperparameters": setup.chosen.to_json(),
    }
    run = RunFolder(run_dir, kept, options.resume, device)
    if run.finished:
        print(f"{run_dir}: finished already")
        print((run_dir / "results.txt").read_text(), end="")
        return run_dir
    policy: Any = rule
    if model is not None:
        result, policy, flops = learn(setup, run, model)
    else:
        found = setup.evaluate(policy, "validation")
        result = {"env_steps": 0, "train_seconds": 0.0, "curve": [curve_point(0, found, 0.0)]}
        flops = 0
    found = setup.evaluate(policy, "test")
    flops += setup.about["classifier_flops"]
    results = {
        **found.to_dict(),
        **{name: setup.about[name] for name in ("track", "classifier")},
        "algo": options.algo,
        "view": setup.chosen.env.get("view", "native"),
        "observe": setup.chosen.env.get("observe", "glimpse"),
        "seed": options.seed,
        "flops_per_image": round(flops * found.mean_glimpses),
        **result,
        "hyperparameters": setup.chosen.to_json(),
        "options": kept,
        **origin,
    }
    line = (
        f"{options.env_id}, {options.algo}, seed {options.seed}: test error "
        f"{100 * found.error:.2f} % at {found.mean_glimpses:.2f} mean glimpses, return "
        f"{found.mean_return:.4f}; {result['env_steps']:,} env steps in "
        f"{result['train_seconds']:.0f} s\n"
    )
    (run_dir / "results.txt").write_text(line)
    run.finish(results)
    print(line, end="")
    return run_dir


def untrained(setup: Setup, device: torch.device) -> Any:
    """The model on its environment, both new.

    Raises:
        ValueError: see `make_model`.
    """
    options = setup.options
    env = VecMonitor(Sb3VecEnv(options.env_id, setup.chosen.num_envs, split="train", **setup.env))
    return make_model(options.algo, env, setup.chosen, options.seed, device)


def learn(setup: Setup, run: RunFolder, model: Any) -> tuple[dict[str, Any], sb3.Sb3Policy, int]:
    """Trains, or goes on; the results, the best policy on validation, its FLOPs a glimpse."""
    options = setup.options
    judge = Judge(run, setup.steps, options.eval_points, lambda p: setup.evaluate(p, "validation"))
    judge.restore(model)
    formats: list[KVWriter] = [
        TensorBoardOutputFormat(str(run.path)),
        CSVOutputFormat(str(run.path / f"progress-{model.num_timesteps}.csv")),
    ]
    if options.verbose:
        formats.append(HumanOutputFormat(sys.stdout))
    logger = Logger(str(run.path), formats)
    model.set_logger(logger)
    with Interrupt() as interrupt, closing(logger), closing(model.env):
        judge.interrupt = interrupt
        if model.num_timesteps < setup.steps:
            model.learn(
                setup.steps - model.num_timesteps,
                callback=judge,
                reset_num_timesteps=False,
                progress_bar=sys.stderr.isatty(),
            )
        judge.finish()
    best = type(model).load(judge.best_path, device=model.device)
    one = best.observation_space.sample()
    result = {
        "env_steps": model.num_timesteps,
        "train_seconds": round(judge.seconds, 1),
        "curve": judge.curve,
        "validation": judge.best,
    }
    return result, sb3.Sb3Policy(best), sb3.flops_per_glimpse(best, one)


if __name__ == "__main__":
    run_program(lambda: train(tyro.cli(Options, description=__doc__)))
