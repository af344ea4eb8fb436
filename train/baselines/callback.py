"""What happens beside an SB3 algorithm while it learns: validation, checkpoints, signals."""

from __future__ import annotations

import os
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


class Judge(BaseCallback):
    """Looks at validation at equal distances, keeps the best weights, and saves to go on from.

    It acts between two rollouts, when the algorithm has just learned and holds nothing half-done.
    A resumed run's episodes begin anew.

    Args:
        run: where everything goes.
        steps: env steps of the whole run.
        points: how often validation is looked at, the start not counted.
        evaluate: scores a policy on validation.

    Attributes:
        curve: a row for every look at validation.
        best: the row whose weights are kept: highest return, the first of equals.
        seconds: spent learning, validation not counted.
    """

    def __init__(
        self,
        run: RunFolder,
        steps: int,
        points: int,
        evaluate: Callable[[Sb3Policy], dtram_env.Evaluation],
    ) -> None:
        super().__init__()
        self._run, self._steps, self._points, self._evaluate = run, steps, points, evaluate
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self.seconds = 0.0
        self.interrupt: Interrupt | None = None
        self._clock = time.perf_counter()

    @property
    def best_path(self) -> Path:
        """The file of the best weights, SB3's own format."""
        return self._run.path / "best_model.zip"

    def restore(self, model: Any) -> None:
        """Puts the latest checkpoint, if there is one, into an untrained model and this."""
        self._clock = time.perf_counter()
        self.model = model
        folder, saved = self._run.latest_checkpoint, self._run.latest_state()
        self._run.rewind(-1 if saved is None else saved["env_steps"])
        if folder is None or saved is None:
            return
        _load_weights(model, folder / "model.zip")
        # The one kept may be of a later look, which was lost and is now taken anew.
        _copy(folder / "best_model.zip", self.best_path)
        # Else it would draw the images and the noise of its beginning once more.
        model.set_random_seed((model.seed or 0) + saved["env_steps"])
        model.num_timesteps = saved["env_steps"]
        model._n_updates = saved["updates"]
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(folder / "replay_buffer.pkl")
        self.curve, self.best, self.seconds = saved["curve"], saved["best"], saved["seconds"]
        print(f"{self._run.path}: continuing after {model.num_timesteps:,} env steps")

    def finish(self) -> None:
        """The last look; what follows can be interrupted without a step being taken again."""
        self._look()
        self._save()

    def _on_rollout_start(self) -> None:
        due = len(self.curve) * self._steps / self._points
        if self.model.num_timesteps >= due:
            self._look()
            self._save()
        if self.interrupt is not None and self.interrupt.signal is not None:
            self._save()
            self._leave()

    def _on_step(self) -> bool:
        return True

    def _look(self) -> None:
        self._tick()
        if self.curve and self.curve[-1]["env_steps"] == self.model.num_timesteps:
            return
        self.model.policy.set_training_mode(False)
        found = self._evaluate(Sb3Policy(self.model))
        row = curve_point(self.model.num_timesteps, found, self.seconds)
        self.curve.append(row)
        self._run.log(
            self.model.num_timesteps,
            {
                "eval/mean_reward": found.mean_return,
                "eval/success_rate": found.accuracy,
                "eval/mean_ep_length": found.mean_glimpses,
            },
        )
        if self.best is None or row["return"] > self.best["return"]:
            self.best = row
            aside = self._run.path / "best_model.tmp.zip"
            self.model.save(aside)
            os.replace(aside, self.best_path)
        print(
            f"{row['env_steps']:>9,} env steps: validation return {row['return']:.4f}, error "
            f"{100 * row['error']:.2f} % at {row['mean_glimpses']:.2f}; {self.seconds:.0f} s",
            flush=True,
        )
        self._clock = time.perf_counter()

    def _tick(self) -> None:
        """Counts the time since the last call as training time."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        self._tick()

        def write(folder: Path) -> None:
            self.model.save(folder / "model.zip")
            shutil.copyfile(self.best_path, folder / "best_model.zip")
            if isinstance(self.model, OffPolicyAlgorithm):
                self.model.save_replay_buffer(folder / "replay_buffer.pkl")

        state = {
            "env_steps": self.model.num_timesteps,
            "updates": self.model._n_updates,
            "curve": self.curve,
            "best": self.best,
            "seconds": self.seconds,
        }
        self._run.write_checkpoint(write, state)
        self._clock = time.perf_counter()

    def _leave(self) -> None:
        """Says how to go on, and exits with the signal's usual status."""
        assert self.interrupt is not None and self.interrupt.signal is not None
        self._run.leave(self.interrupt.signal, "train/sb3_baselines.py")


def _copy(source: Path, target: Path) -> None:
    aside = target.with_name(target.name + ".tmp")
    shutil.copyfile(source, aside)
    os.replace(aside, target)


def _load_weights(model: Any, path: Path) -> None:
    """`set_parameters`, and the tensors that it leaves out: SAC's entropy coefficient."""
    model.set_parameters(path, device=model.device)
    _, _, others = load_from_zip_file(path, device=model.device)
    for name, value in (others or {}).items():
        if value is not None:
            recursive_setattr(model, f"{name}.data", value.data)
