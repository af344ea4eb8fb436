"""Validation, checkpoints and signals while an algorithm of Stable-Baselines3 learns."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

import dtram_env
from agents.sb3 import Sb3Policy
from train.common.run import Interrupt, RunFolder


def curve_point(env_steps: int, found: dtram_env.Evaluation, seconds: float) -> dict[str, float]:
    """A point of the learning curve."""
    return {
        "env_steps": env_steps,
        "return": found.mean_return,
        "error": found.error,
        "mean_glimpses": found.mean_glimpses,
        "seconds": round(seconds, 1),
    }


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
    ) -> None:
        super().__init__()
        self._run, self._steps, self._points, self._evaluate = run, steps, points, evaluate
        self.best_path = run.path / "best_model.zip"
        self.curve: list[dict[str, float]] = []  # one point for each validation
        self.best: dict[str, float] | None = None  # the first point with the highest return
        self.seconds = 0.0  # of training, without validation
        self.interrupt: Interrupt | None = None  # its signal ends the run
        self._clock = time.perf_counter()

    def restore(self, model: Any) -> None:
        """Loads the latest checkpoint, if there is one, into an untrained model and this object."""
        self.model = model
        folder, saved = self._run.checkpoint, self._run.load_state()
        self._run.rewind(-1 if saved is None else saved["env_steps"])
        if folder is None or saved is None:
            return
        model.set_parameters(folder / "model.zip", device=model.device)
        # `set_parameters` leaves out some tensors: SAC's entropy coefficient.
        _, _, others = load_from_zip_file(folder / "model.zip", device=model.device)
        for name, value in (others or {}).items():
            if value is not None:
                recursive_setattr(model, f"{name}.data", value.data)
        # best_model.zip may be of a later validation, which the checkpoint does not have.
        shutil.copyfile(folder / "best_model.zip", self.best_path)
        # With the first seed, the run would draw its first images and noise once more.
        model.set_random_seed((model.seed or 0) + saved["env_steps"])
        model.num_timesteps = saved["env_steps"]
        model._n_updates = saved["updates"]
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(folder / "replay_buffer.pkl")
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

    def _on_step(self) -> bool:
        return True

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
            self.model.save(self.best_path)
        print(
            f"{point['env_steps']:>9,} env steps: validation return {point['return']:.4f}, error "
            f"{100 * point['error']:.2f} % at {point['mean_glimpses']:.2f}; {self.seconds:.0f} s",
            flush=True,
        )

    def _write(self, folder: Path) -> None:
        self.model.save(folder / "model.zip")
        shutil.copyfile(self.best_path, folder / "best_model.zip")
        if isinstance(self.model, OffPolicyAlgorithm):
            self.model.save_replay_buffer(folder / "replay_buffer.pkl")
