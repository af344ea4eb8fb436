"""The training loop of a stage: batches, validation, checkpoints, metrics, signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from agents.dtram import DTRAM
from agents.halting.act_resnet import ACTResNet
from agents.objective import Losses
from agents.one_look import OneLook
from train.common.optimizers import make_optimizer
from train.common.options import OptimizerOptions
from train.common.run import Interrupt, RunFolder
from train.common.training_task import Task
from train.dtram.stages import Stage

# What a batch tells, under the names that Stable-Baselines3 uses where it has one.
LOGGED = {
    "train/loss": lambda losses: losses.total.detach(),
    "train/policy_gradient_loss": lambda losses: losses.policy,
    "train/value_loss": lambda losses: losses.baseline,
    "train/cross_entropy": lambda losses: losses.cross_entropy,
    "train/stop_entropy": lambda losses: losses.stop_entropy,
    "rollout/success_rate": lambda losses: losses.accuracy,
    "rollout/ep_len_mean": lambda losses: losses.mean_glimpses,
    "rollout/ep_rew_mean": lambda losses: losses.mean_return,
}


class Progress:
    """Where the run is; saved in every checkpoint and restored from it."""

    def __init__(self) -> None:
        self.stage, self.epoch, self.batch = 0, 0, 0
        self.images, self.env_steps = 0, 0
        self.seconds, self.validation_seconds = 0.0, 0.0  # the former with the latter in it
        self.best: list[float] | None = None  # criterion of the stage's best weights
        self.sums = [0.0] * len(LOGGED)  # over the epoch's batches so far

    def to_json(self) -> dict[str, Any]:
        return vars(self).copy()

    def restore(self, saved: dict[str, Any]) -> None:
        for name in vars(self):
            setattr(self, name, saved[name])

    def next_stage(self) -> None:
        self.stage, self.epoch, self.batch, self.best = self.stage + 1, 0, 0, None

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, [0.0] * len(LOGGED)


class Loop:
    """Runs stages: what they share.

    Args:
        task: what is learned.
        agent: who learns.
        folder: where the run is kept.
        progress: updated as the run goes on.
        interrupt: looked at between two batches.
        seed: of the order of images.
        how: weights move.
        program: what an interrupted run is resumed with.
    """

    def __init__(
        self,
        task: Task,
        agent: DTRAM | OneLook | ACTResNet,
        folder: RunFolder,
        progress: Progress,
        interrupt: Interrupt,
        *,
        seed: int,
        how: OptimizerOptions,
        program: str = "train/reinforce.py",
    ) -> None:
        self.program = program
        self.task, self.agent, self.seed = task, agent, seed
        self.how = how
        self.folder, self.progress, self.interrupt = folder, progress, interrupt
        self._counted = time.perf_counter()  # until when progress.seconds counts

    def run_stage(self, make_stage: Callable[[], Stage], restore: bool) -> None:
        """Trains a stage to its end, and leaves its best weights in the agent.

        Args:
            make_stage: makes what a batch teaches.
            restore: start from the latest checkpoint, which must be of this stage.

        Raises:
            SystemExit: a signal came; everything is saved.
            ValueError: the loss or a weight is no longer finite.
        """
        self._counted = time.perf_counter()
        stage = make_stage()
        learning = {id(parameter) for parameter in stage.parameters()}
        for parameter in self.agent.parameters():
            parameter.requires_grad_(id(parameter) in learning)
        optimizer = make_optimizer(self.agent, stage.learning_rate, self.how, stage.own_rates)
        if restore:
            self.folder.load_checkpoint(self.agent, optimizer)
        else:
            self.progress.env_steps += stage.env_steps_first
            # From here on the saved model may be this stage's: the start must not depend on it.
            self._save(optimizer)
        while self.progress.epoch < stage.epochs:
            means = self._epoch(stage, optimizer)
            self._validate(stage, means)
            self.progress.next_epoch()
            self._save(optimizer)
            if self.interrupt.signal is not None:
                self._leave()
        best = type(self.agent).load(self.folder.path, self.task.device)
        self.agent.load_state_dict(best.state_dict())
        self.agent.eval()
        if isinstance(self.agent, DTRAM) and isinstance(best, DTRAM):
            self.agent.stopping = best.stopping
        self._tick()

    def _tick(self) -> None:
        """Counts the time since the last call as training time, validation and saving included."""
        now = time.perf_counter()
        self.progress.seconds += now - self._counted
        self._counted = now

    def _epoch(self, stage: Stage, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Trains to the end of the epoch; means over its batches of what is logged."""
        progress, size = self.progress, stage.batch_size
        self.agent.train()
        stage.begin_epoch(progress.epoch)
        batches = stage.batches
        order = epoch_order(self.seed, progress.stage, progress.epoch, stage.images)
        order = order.to(self.task.device)
        sums = torch.tensor(progress.sums, device=self.task.device, dtype=torch.float64)
        bar = tqdm(
            total=batches,
            initial=progress.batch,
            unit="batch",
            leave=False,
            disable=None,
            desc=f"{stage.name} epoch {progress.epoch + 1}/{stage.epochs}",
        )
        first, began = progress.batch, time.perf_counter()

        def means() -> dict[str, float]:
            """Over the whole epoch so far; images a second since this process took it up."""
            seconds = time.perf_counter() - began
            found = dict(zip(LOGGED, (sums / progress.batch).tolist(), strict=True))
            return found | {"time/fps": (progress.batch - first) * size / seconds}

        for batch in range(first, batches):
            share = (progress.epoch * batches + batch) / (stage.epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = group.get("peak", stage.learning_rate) * one_cycle(share)
            losses = self._update(stage, optimizer, order[batch * size : (batch + 1) * size])
            sums += torch.stack([read(losses) for read in LOGGED.values()])
            progress.batch, progress.images = batch + 1, progress.images + size
            progress.env_steps += stage.env_steps_per_batch
            bar.update()
            if progress.batch % 50 == 0 and not bar.disable:
                bar.set_postfix_str(describe(means()))
            if progress.batch < batches and self.interrupt.signal is not None:
                bar.close()
                progress.sums = sums.tolist()
                self._save(optimizer)
                self._leave()
        bar.close()
        self._check_finite(sums)
        learning_rate = optimizer.param_groups[0]["lr"]
        return means() | {"train/learning_rate": learning_rate}

    def _update(self, stage: Stage, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> Losses:
        losses = stage.loss(rows)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), self.how.max_grad_norm)
        optimizer.step()
        return losses

    def _check_finite(self, sums: torch.Tensor) -> None:
        weights = torch.stack([p.detach().sum() for p in self.agent.parameters()])
        if not (torch.isfinite(sums).all() and torch.isfinite(weights).all()):
            raise ValueError(
                f"the loss or a weight is no longer finite after {self.progress.images:,} images; "
                "try a smaller --learning-rate or --max-grad-norm in a new --run-dir"
            )

    def _validate(self, stage: Stage, means: dict[str, float]) -> None:
        """Judges the weights, keeps them if they are the stage's best, and logs the epoch."""
        began, progress = time.perf_counter(), self.progress
        verdict = stage.judge()
        progress.validation_seconds += time.perf_counter() - began
        if progress.best is None or list(verdict.criterion) < progress.best:
            progress.best = list(verdict.criterion)
            if isinstance(self.agent, DTRAM):
                self.agent.stopping = self.agent.learned_stop(verdict.threshold)
            self.agent.save(self.folder.path, **self.task.about)
        self._tick()
        elapsed = {
            "time/time_elapsed": progress.seconds,
            "time/total_timesteps": progress.env_steps,
        }
        self.folder.log(progress.images, means | verdict.metrics | elapsed)
        print(
            f"{stage.name} {progress.epoch + 1}/{stage.epochs}: train {describe(means)}; "
            f"validation error {100 * (1 - verdict.metrics['eval/accuracy']):.2f} % at "
            f"{verdict.metrics['eval/mean_glimpses']:.2f}; {progress.seconds:.0f} s",
            flush=True,
        )

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self._tick()
        self.folder.save_checkpoint(self.agent, optimizer, self.progress.to_json())

    def _leave(self) -> None:
        """Says how to go on, and exits with the signal's usual status."""
        assert self.interrupt.signal is not None
        self.folder.leave(self.interrupt.signal, self.program)


def describe(means: dict[str, float]) -> str:
    """An epoch so far, in words."""
    return (
        f"error {100 * (1 - means['rollout/success_rate']):.2f} % at "
        f"{means['rollout/ep_len_mean']:.2f} glimpses, {means['time/fps']:,.0f} images/s"
    )


def epoch_order(seed: int, stage: int, epoch: int, images: int) -> torch.Tensor:
    """The order of the training images in an epoch: a function of these numbers alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + stage * 10_007 + epoch)
    return torch.randperm(images, generator=generator)


def one_cycle(share: float) -> float:
    """Learning rate relative to its peak after a share of the stage: 15 % up, then cosine to 0."""
    if share < 0.15:
        return 0.04 + 0.96 * share / 0.15
    return max(1e-3, 0.5 * (1 + math.cos(math.pi * (share - 0.15) / 0.85)))
