"""Trains a baseline of Stable-Baselines3 (or sb3-contrib) on any id and view, and evaluates it.

    python train/sb3_baselines.py --algo ppo                          # policy-only MNIST
    python train/sb3_baselines.py --algo a2c --env-id DTRAM-MNIST-v0  # the whole task
    python train/sb3_baselines.py --env-id DTRAM-ImageFolder-v0 --root photos --env max_glimpses=3
    python train/sb3_baselines.py --algo dqn --run-dir runs/dqn --resume   # continue a run
    python train/sb3_baselines.py --algo scan                         # needs no training

Hyper-parameters are those of train/baselines/hyperparameters.toml. Validation chooses the weights,
out of twenty-one points of the run. The test split is evaluated once, at the end, by
`dtram_env.evaluate`.

A run is continued from arrays and weights, and nothing in its folder is unpickled. Its result
best_model.zip is a file of SB3: SB3's own PPO.load(...) unpickles it, so load only files you trust.
"""

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import Interrupt, RunFolder, new_folder, run_program  # isort: skip

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.vec_env import VecMonitor

import dtram_env
from agents import sb3
from dtram_env.files import naming, write_text
from dtram_env.sb3 import Sb3VecEnv
from dtram_env.settings import json_or_text
from train.baselines import algorithms
from train.baselines.algorithms import ALGORITHMS, ENV_STEPS, Settings
from train.baselines.callback import GaveUp, ValidationCallback, curve_point, load_weights
from train.common.film import Episode, Look
from train.common.looks import episode_groups, location_maps
from train.common.options import AtLeast1, EnvOptions, Positive, check, to_json
from train.common.page import inline
from train.common.provenance import choose_device, provenance
from train.common.run_page import histogram, write_run_page
from train.common.training_task import check_splits, describe_env


@dataclass(frozen=True)
class Options(EnvOptions):
    """Trains and evaluates a baseline."""

    algo: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(ALGORITHMS)}}}")] = "ppo"
    """the algorithm; random, center and scan need no training"""
    env_id: str = "agents:DTRAM-MNIST-Policy-v0"
    """registered environment"""
    view: Literal["continuous", "discrete", "single", "native"] | None = None
    """view of the environment; the table's if not given"""
    observe: Literal["glimpse", "canvas"] | None = None
    """observation of the environment; the table's if not given"""
    classifier: Path | None = None
    """folder of the classifier in the loop (policy-only); the id's own if not given"""
    total_timesteps: AtLeast1 = ENV_STEPS
    """env steps"""
    num_envs: AtLeast1 | None = None
    """environments stepped side by side; the table's if not given"""
    set: tuple[str, ...] = ()
    """other hyper-parameters, as in learning_rate=1e-4 env.grid=3 network.width=64"""
    eval_points: AtLeast1 = 20
    """number of validations after the one before training"""
    give_up_below: tuple[float, ...] | None = None
    """end early, with a result, if the best validation return so far is lower: one number for each
    of the first --eval-points parts of the run"""
    seed: int = 0
    """seed of everything random"""
    device: str = "cpu"
    """auto, cpu, cuda, cuda:1 ...; small networks are fastest on the CPU"""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/ALGO_DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one; a finished run prints its result"""
    save_minutes: Positive = 10.0
    """longest time between two checkpoints, if a rollout is shorter; there is one at every
    validation, too"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("algo", self.algo, self.algo in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}")
        least = self.give_up_below or ()
        fits = len(least) <= self.eval_points and all(0 <= value <= 1 for value in least)
        check("give_up_below", least, fits, "at most --eval-points numbers from 0 to 1")
        check("seed", self.seed, 0 <= self.seed < 2**31, "0 or more, below 2**31")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def changes(self) -> dict[str, Any]:
        """The hyper-parameters that differ from the table, as `settings` takes them."""
        found: dict[str, Any] = {}
        for word in self.set:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"--set {word}: expected NAME=VALUE")
            if name in ("env.root", "env.data_dir"):
                option = name.removeprefix("env.").replace("_", "-")
                raise ValueError(f"--set {word}: use --{option} {value}")
            found[name] = json_or_text(value)
        for key, value in self.env_words().items():
            if f"env.{key}" in found:
                raise ValueError(f"--env {key}={value}: expected it there or in --set, not in both")
            found[f"env.{key}"] = value
        own = {"env.view": self.view, "env.observe": self.observe, "num_envs": self.num_envs}
        return found | {name: value for name, value in own.items() if value is not None}


class Experiment(NamedTuple):
    """An algorithm with its hyper-parameters on an environment."""

    options: Options
    chosen: Settings
    env: dict[str, Any]  # keywords of the environment, except the split
    about: dict[str, Any]  # `describe_env` of the environment
    steps: int  # env steps to train for; 0 if nothing is learned

    def untrained(self, device: torch.device) -> Any:
        """A new model on a new environment; or the policy of an algorithm that learns nothing."""
        env_id, algo, seed = self.options.env_id, self.options.algo, self.options.seed
        if not self.steps:
            classes = None if self.about["track"] == "policy-only" else self.about["num_classes"]
            return algorithms.make_untrained_policy(algo, self.chosen, classes, seed)
        labels = ALGORITHMS[algo].labels
        slots = self.chosen.num_envs
        env = Sb3VecEnv(env_id, slots, show_label=labels, split="train", **self.env)
        return algorithms.make_model(algo, VecMonitor(env), self.chosen, seed, device)

    def evaluate(self, policy: Any, split: str) -> dtram_env.Evaluation:
        """Evaluates a policy on every image of a split."""
        return dtram_env.evaluate(policy, self.options.env_id, split, **self.env)


def prepare(options: Options) -> Experiment:
    """Reads hyper-parameters and environment. Raises ValueError if they do not go together."""
    changes = options.changes()
    base: dict[str, Any] = {"data": "real", **options.env_folders()}
    if options.classifier is not None:
        base["classifier"] = str(options.classifier)
    track = describe_env(options.env_id, **base)["track"]
    chosen = algorithms.settings(track, options.algo, changes)
    own = {"split", "order", "autoreset_mode", "backend", "device", "data"}
    if own := own & chosen.env.keys():
        raise ValueError(f"--set env.{min(own)}=…: the program sets it itself; leave it out")
    try:
        about = describe_env(options.env_id, **base, **chosen.env)
        check_splits(options.env_id, **base, **chosen.env)
    except TypeError as error:
        raise ValueError(f"--env, or --set env.…: {error}") from None
    steps = options.total_timesteps * ALGORITHMS[options.algo].learns
    # The default grid covers a typical image, and splits of photographs differ in that.
    grid = {} if about["grid"] is None else {"grid": about["grid"]}
    return Experiment(options, chosen, base | chosen.env | grid, about, steps)


def defining_options(experiment: Experiment) -> dict[str, Any]:
    """The options that define a run, as JSON values; `baselines.trained` reads them."""
    found = to_json(experiment.options)
    found |= {"total_timesteps": experiment.steps, "hyperparameters": experiment.chosen.row}
    return found


def learn(experiment: Experiment, run: RunFolder, model: Any) -> tuple[dict[str, Any], Any]:
    """Trains a model, or continues its training; returns results and the best model."""
    options, steps = experiment.options, experiment.steps
    evaluate = partial(experiment.evaluate, split="validation")
    least = options.give_up_below or ()
    callback = ValidationCallback(run, steps, options.eval_points, evaluate, least)
    with Interrupt() as callback.interrupt, closing(model.env):
        callback.restore(model)
        # With a suffix, else a resumed run overwrites them.
        where = str(run.path), f"-{model.num_timesteps}"
        outputs = [make_output_format(name, *where) for name in ("tensorboard", "csv")]
        with closing(Logger(str(run.path), outputs)) as logger:
            model.set_logger(logger)
            if left := max(0, steps - model.num_timesteps):
                shown = sys.stderr.isatty()
                try:
                    with naming(run.path):  # SB3's logs
                        model.learn(left, callback, reset_num_timesteps=False, progress_bar=shown)
                except GaveUp as reason:
                    print(f"{model.num_timesteps:>9,} env steps: {reason}")
        callback.save()  # an interruption of the test below then costs no training
    seconds = round(callback.seconds, 1)
    result = {"env_steps": model.num_timesteps, "train_seconds": seconds}
    result |= {"curve": callback.curve, "validation": callback.best}
    load_weights(model, callback.best_path)
    return result, model


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    experiment = prepare(options)
    device = choose_device(options.device)
    origin = provenance(device)
    # Made before the folder: an error of the algorithm must not leave a folder behind.
    untrained = experiment.untrained(device)
    name = f"{options.algo}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}"
    parent = Path("runs", options.env_id.rpartition(":")[2])
    run_dir = options.run_dir or new_folder(parent, name)
    how = options.resume, device, "train/sb3_baselines.py", options.save_minutes
    run = RunFolder(run_dir, defining_options(experiment), *how)
    if run.finished:
        print(f"{run_dir}: finished already")
        print((run_dir / "results.txt").read_text(encoding="utf-8"), end="")
        return run_dir
    with closing(run):
        make_results(experiment, run, untrained, origin)
    return run_dir


def make_results(
    experiment: Experiment, run: RunFolder, untrained: Any, origin: dict[str, Any]
) -> None:
    """Trains and evaluates an untrained model, and writes the results of the run."""
    options, chosen, about = experiment.options, experiment.chosen, experiment.about
    flops = about["classifier_flops"]
    if experiment.steps:
        result, model = learn(experiment, run, untrained)
        policy = sb3.Sb3Policy(model)
        flops += sb3.flops_per_glimpse(model, model.observation_space.sample())
    else:
        policy = untrained
        point = curve_point(0, experiment.evaluate(policy, "validation"), 0.0)
        result = {"env_steps": 0, "train_seconds": 0.0, "curve": [point], "validation": point}
    found = experiment.evaluate(policy, "test")
    results = {
        **found.to_dict(),
        "track": about["track"],
        "classifier": about["classifier"],
        "algo": options.algo,
        "view": chosen.env.get("view", "native"),
        "observe": chosen.env.get("observe", "glimpse"),
        "seed": options.seed,
        "flops_per_image": round(flops * found.mean_glimpses),
        **result,
        "hyperparameters": chosen.row,
        "options": run.options,
        **origin,
    }
    line = (
        f"{options.env_id}, {options.algo}, seed {options.seed}: test error "
        f"{100 * found.error:.2f} % at {found.mean_glimpses:.2f} mean glimpses, return "
        f"{found.mean_return:.4f}; {result['env_steps']:,} env steps in "
        f"{result['train_seconds']:.0f} s\n"
    )
    write_text(run.path / "results.txt", line)
    write_report(experiment, run.path, found, line, results)
    run.finish(results)
    print(line, end="")


def write_report(
    experiment: Experiment,
    folder: Path,
    found: dtram_env.Evaluation,
    summary: str,
    results: dict[str, Any],
) -> None:
    """Writes ``report.html`` on a pass over the test images."""
    with closing(gym.make_vec(found.env_id, split="test", **experiment.env)) as made:
        env: Any = made.unwrapped
    whole_first = env.first_glimpse == "thumbnail"

    def episode(n: int) -> Episode:
        looks = [Look([], at) for at in found.locations[n, : found.num_glimpses[n]]]
        title, image = f"Test image {env.data.caption(n)}", env.data.image(n)
        about = env.class_names, env.glimpse_size, whole_first, int(found.label[n])
        return Episode(title, image, *about, looks, int(found.prediction[n]))

    lengths = np.unique(found.num_glimpses)
    write_run_page(
        folder,
        results,
        found.label,
        found.prediction,
        env.class_names,
        summary=summary,
        warnings=[f"every test image took {lengths[0]} of {env.max_glimpses} glimpses"]
        if experiment.steps and len(lengths) == 1
        else (),
        costs=[
            inline(
                histogram(results["histogram"]), "share of the test images by number of glimpses"
            )
        ],
        maps=location_maps(found.locations, found.num_glimpses, whole_first),
        groups=episode_groups(episode, found.prediction == found.label, found.num_glimpses),
    )


if __name__ == "__main__":
    run_program(lambda: train(tyro.cli(Options, description=__doc__)))
