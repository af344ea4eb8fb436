"""Validation, checkpoints and signals while an algorithm of Stable-Baselines3 learns."""

import pickle
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

import dtram_env
from agents.sb3 import Sb3Policy
from dtram_env.files import replacing
from train.common.files import WAY_OUT, Count, CurvePoint, Seconds
from train.common.run import Interrupt, RunFolder

BUFFER = "replay_buffer.npz"
DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What readers of SB3's and NumPy's files raise if those are damaged."""


class State(TypedDict):
    """What a checkpoint holds beside the weights."""

    env_steps: Count
    updates: Count
    curve: list[CurvePoint]
    best: CurvePoint | None
    seconds: Seconds


def curve_point(env_steps: int, found: dtram_env.Evaluation, seconds: float) -> dict[str, float]:
    """A point of the learning curve."""
    return {
        "env_steps": env_steps,
        "return": found.mean_return,
        "error": found.error,
        "mean_glimpses": found.mean_glimpses,
        "seconds": round(seconds, 1),
    }


class GaveUp(Exception):
    """Ends a run whose best validation return is below the one that it has to reach."""


class ValidationCallback(BaseCallback):
    """Validates at equal distances, keeps the best weights, and saves checkpoints.

    It acts between two rollouts, when the algorithm has just learned and holds no partial rollout.
    The episodes of a resumed run start anew.
    """

    def __init__(
        self,
        run: RunFolder,
        steps: int,  # env steps of the whole run
        points: int,  # validations, without the one before training
        evaluate: Callable[[Sb3Policy], dtram_env.Evaluation],  # on the validation split
        least: Sequence[float] = (),  # best return to reach after each of `points` equal parts
    ) -> None:
        super().__init__()
        self._run, self._steps, self._points, self._evaluate = run, steps, points, evaluate
        self._least = least
        self.best_path = run.path / "best_model.zip"
        self.curve: list[dict[str, float]] = []  # one point for each validation
        self.best: dict[str, float] | None = None  # the first point with the highest return
        self.seconds = 0.0  # of training, without validation
        self.interrupt: Interrupt | None = None  # its signal ends the run
        self._clock = time.perf_counter()

    def restore(self, model: Any) -> None:
        """Loads the latest checkpoint, if there is one, into an untrained model and this object."""
        self.model = model
        folder, saved = self._run.checkpoint, self._run.load_state(State)
        self._run.rewind(-1 if saved is None else saved["env_steps"])
        if folder is None or saved is None:
            return
        load_weights(model, folder / "model.zip")
        # best_model.zip may be of a later validation, which the checkpoint does not have.
        with replacing(self.best_path) as aside:
            shutil.copyfile(folder / "best_model.zip", aside)
        # With the first seed, the run would draw its first images and noise once more.
        model.set_random_seed((model.seed or 0) + saved["env_steps"])
        model.num_timesteps = saved["env_steps"]
        model._n_updates = saved["updates"]
        if buffer := getattr(model, "replay_buffer", None):
            load_buffer(buffer, folder / BUFFER)
        self.curve, self.best, self.seconds = saved["curve"], saved["best"], saved["seconds"]
        print(f"{self._run.path}: continuing after {model.num_timesteps:,} env steps")

    def save(self, validate: bool = True) -> None:
        """Saves a checkpoint; first validates, unless that was done at this env step."""
        self.seconds += time.perf_counter() - self._clock
        done = bool(self.curve) and self.curve[-1]["env_steps"] == self.model.num_timesteps
        if validate and not done:
            self._validate()
        state = {
            "env_steps": self.model.num_timesteps,
            "updates": self.model._n_updates,
            "curve": self.curve,
            "best": self.best,
            "seconds": self.seconds,
        }
        self._run.save_checkpoint(self._write, state)
        self._clock = time.perf_counter()

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= len(self.curve) * self._steps / self._points:
            self.save()
        signalled = None if self.interrupt is None else self.interrupt.signal
        if signalled is not None or self._run.save_is_due:
            self.save(validate=False)
        if signalled is not None:
            self._run.leave(signalled)
        self._check_least()

    def _on_step(self) -> bool:
        return True

    def _check_least(self) -> None:
        """Raises GaveUp if the best return so far, without that before training, is too low."""
        learned = self.curve[1:]
        env_steps = learned[-1]["env_steps"] if learned else 0
        parts = int(env_steps * self._points // self._steps)  # of the run, done so far
        number = min(parts, len(self._least))
        if number == 0:
            return
        best, least = max(point["return"] for point in learned), self._least[number - 1]
        if best < least:
            raise GaveUp(f"ended early: best validation return {best:.4f}, below {least:.4f}")

    def _validate(self) -> None:
        """Adds a point to the curve; if it is the best, saves the weights."""
        self.model.policy.set_training_mode(False)
        found = self._evaluate(Sb3Policy(self.model))
        point = curve_point(self.model.num_timesteps, found, self.seconds)
        self.curve.append(point)
        scalars = {
            "eval/mean_reward": found.mean_return,
            "eval/success_rate": found.accuracy,
            "eval/mean_ep_length": found.mean_glimpses,
        }
        self._run.log(self.model.num_timesteps, scalars)
        if self.best is None or point["return"] > self.best["return"]:
            self.best = point
            with replacing(self.best_path) as aside:
                self.model.save(aside)
        print(
            f"{point['env_steps']:>9,} env steps: validation return {point['return']:.4f}, error "
            f"{100 * point['error']:.2f} % at {point['mean_glimpses']:.2f}; {self.seconds:.0f} s",
            flush=True,
        )

    def _write(self, folder: Path) -> None:
        self.model.save(folder / "model.zip")
        shutil.copyfile(self.best_path, folder / "best_model.zip")
        if buffer := getattr(self.model, "replay_buffer", None):
            save_buffer(buffer, folder / BUFFER)


def load_weights(model: Any, path: Path) -> None:
    """Loads the weights of a model that SB3 saved into a model of that kind; unpickles nothing.

    SB3's own ``load`` unpickles the file's other content. Raises ValueError if the weights are
    damaged or another model's.
    """
    try:
        _, weights, others = load_from_zip_file(path, load_data=False, device=model.device)
        names, other_names = model._get_torch_save_params()
        model.set_parameters({name: (weights or {})[name] for name in names}, device=model.device)
        for name in other_names:  # SAC's entropy coefficient, which `set_parameters` leaves out
            recursive_setattr(model, f"{name}.data", (others or {})[name].data)
    except DAMAGE as error:
        raise ValueError(f"{path}: missing or damaged ({error}); {WAY_OUT}") from None


def save_buffer(buffer: ReplayBuffer, path: Path) -> None:
    """Writes the arrays of a replay buffer, as far as they are filled, as a NumPy archive."""
    filled: dict[str, Any] = {n: values[: buffer.size()] for n, values in _arrays(buffer).items()}
    with path.open("wb") as file:
        np.savez(file, **filled, pos=np.array(buffer.pos), full=np.array(buffer.full))


def load_buffer(buffer: ReplayBuffer, path: Path) -> None:
    """Reads what `save_buffer` wrote into a new buffer of that kind; unpickles nothing."""
    try:
        with np.load(path) as saved:
            for name, values in _arrays(buffer).items():
                values[: len(saved[name])] = saved[name]
            buffer.pos, buffer.full = int(saved["pos"]), bool(saved["full"])
    except DAMAGE as error:
        raise ValueError(f"{path}: missing or damaged ({error}); {WAY_OUT}") from None


def _arrays(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """Arrays with a row for each step; those of observations have the names of the parts, too."""
    found: dict[str, Any] = {}
    for name, value in vars(buffer).items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            found[name] = value
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
