"""The bookkeeping of a training loop: progress, order of images, checkpoints, logging, signals.

A program writes its own loop around these calls::

    with run:
        for stage in run.stages(["trunk"]):
            run.begin(optimizers, epochs)
            for epoch in run.epochs():
                for indices in run.batches(len(images), batch_size):
                    ...                                  # loss, backward, step
                    run.count(losses)
                ...                                      # validation
                if run.is_best(selection):
                    ...                                  # save the model
                run.end_epoch(selection)

On Ctrl-C, SIGTERM, SIGHUP or SIGQUIT the run finishes its batch, saves a checkpoint, prints the
command that continues it, and exits. On the CPU the continued run equals an uninterrupted one bit
for bit.

With several processes (`distributed`) all of them run the same loop. Each gets its share of every
batch, and all decide the same: the loss comes from `distributed.spread`, validation is gathered.
"""

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from agents import draws
from agents.files import SavedNetwork, write_tensors
from agents.objective import Losses
from agents.precision import warn_without_bf16
from train.common import distributed
from train.common.files import Count, Seconds, read_tensors
from train.common.optimizers import Optimizers
from train.common.options import LearningOptions, TrainingOptions, describe_options, to_json
from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, new_folder, save_states
from train.common.training_task import TrainingTask, check_splits

LOGGED = {
    "train/loss": "total",
    "train/policy_gradient_loss": "policy",
    "train/value_loss": "baseline",
    "train/cross_entropy": "cross_entropy",
    "train/stop_entropy": "stop_entropy",
    "rollout/success_rate": "accuracy",
    "rollout/ep_len_mean": "mean_glimpses",
    "rollout/ep_rew_mean": "mean_return",
}
"""Fields of `Losses`, under the names that Stable-Baselines3 uses, where it has one."""


class Selection(NamedTuple):
    """How good the current weights are on validation, and the stop threshold chosen there."""

    criterion: tuple[float, float]  # smaller is better; the second decides between equal first ones
    metrics: dict[str, float]  # to log; eval/accuracy and eval/mean_glimpses are printed, too
    threshold: float = 1.0  # of the learned stop; 1, which no probability exceeds, means never


@dataclass
class Progress:
    """How much of a run is done; saved in every checkpoint."""

    stage: Count = 0
    epoch: Count = 0
    batch: Count = 0
    images: Count = 0
    env_steps: Count = 0
    seconds: Seconds = 0.0  # of training, with validation and checkpoints
    validation_seconds: Seconds = 0.0
    best: list[float] | None = None  # criterion of the stage's best weights
    sums: list[float] = field(default_factory=list)  # over the epoch's batches; empty: none yet


class TrainingRun(RunFolder):
    """A `RunFolder` with the state of a training loop.

    A resumed run loads the latest checkpoint's weights into `model`; `seed` orders the images.
    """

    def __init__(self, *folder: Any, model: nn.Module, seed: int) -> None:
        self.model, self.seed = model, seed
        self.progress = Progress()
        self._resuming = False
        self._interrupt, self._shared_signal = Interrupt(), distributed.SharedSignal()
        super().__init__(*folder)
        self._origin = provenance(self.device)
        self._clock = time.perf_counter()  # progress.seconds counts up to this moment
        try:
            if not self.finished:
                self._continue()
        except BaseException:
            self.close()
            raise

    def _continue(self) -> None:
        """Loads the latest checkpoint, if there is one."""
        if (latest := distributed.from_main(lambda: self.load_state(Progress))) is not None:
            self._resuming = True
            self.progress = Progress(**latest)
            self._load_weights()
            print(f"{self.path}: continuing after {self.progress.images:,} images")
        self.rewind(self.progress.images)

    def __enter__(self) -> Self:
        self._clock = time.perf_counter()
        self._interrupt.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            if distributed.is_lost(error):
                problem = "another process of this run ended or does not answer"
                text = f"error: {problem}; to go on: {self.way_to_resume()}"
                if distributed.says(text):  # before torchrun's SIGTERM can end this process, too
                    print(text, file=sys.stderr, flush=True)
                raise SystemExit(1) from error
        finally:
            self._interrupt.__exit__()
            self.close()

    def stages(self, names: Sequence[str]) -> Iterator[str]:
        """Yields the names of the unfinished stages, in order."""
        for name in names[self.progress.stage :]:
            self._name = name
            yield name
            stage = self.progress.stage + 1
            self.progress = replace(self.progress, stage=stage, epoch=0, batch=0, best=None)

    def begin(
        self,
        optimizers: Optimizers,
        epochs: int,
        *,
        env_steps: int = 0,
        more_means: Sequence[str] = (),
    ) -> None:
        """Begins a stage, or continues it from the latest checkpoint.

        `end_epoch` checks that the parameters of `optimizers` are finite; `env_steps` glimpses were
        taken to prepare the stage; `more_means` are names under which means are logged, beside
        those of `LOGGED`.
        """
        self._optimizers, self._epochs = optimizers, epochs
        self._names = (*LOGGED, *more_means)
        if self._resuming:
            self._resuming = False
            self._load_weights()  # again: the program has prepared the model for this stage
            saved = distributed.from_main(lambda: self.load_checkpoint("training.pt"))
            optimizers.load_state_dict(saved)
            self.restore_generators()
        else:
            self.progress.env_steps += env_steps
            # From here on the run's model may be replaced by this stage's. A killed run must
            # resume from the weights with which the stage began, not from that model.
            self._save()

    def epochs(self) -> Iterator[int]:
        """Yields the numbers of the unfinished epochs, counted from 0."""
        while self.progress.epoch < self._epochs:
            yield self.progress.epoch

    def batches(self, images: int, batch_size: int, count: int | None = None) -> Iterator[Tensor]:
        """Yields the epoch's batches of image numbers ``(batch_size,)`` int64, in a new order.

        There are `count`, or ``images // batch_size``. Of several processes each gets its share of
        a batch. A signal ends the program after a batch, and after a batch a checkpoint is saved if
        one is due. Raises ValueError if the loss or a weight is no longer finite after them, or if
        a batch has no image for one of the processes.
        """
        if batch_size < distributed.processes():
            expected = f"at least {distributed.processes()}, an image for each process"
            raise ValueError(f"--batch-size {batch_size}: expected {expected}")
        progress, count = self.progress, count or images // batch_size
        order = epoch_order(self.seed, progress.stage, progress.epoch, images).to(self.device)
        sums = progress.sums or [0.0] * len(self._names)
        self._sums = torch.tensor(sums, device=self.device, dtype=torch.float64)
        self._first, self._began = progress.batch, time.perf_counter()
        self._batch_size = batch_size
        shown = {"unit": "batch", "leave": False, "disable": None if self.is_main else True}
        name = f"{self._name} epoch {progress.epoch + 1}/{self._epochs}"
        with tqdm(total=count, initial=progress.batch, desc=name, **shown) as bar:
            for batch in range(progress.batch, count):
                with draws.sharing(distributed.share_of(batch_size)):
                    yield distributed.own(order[batch * batch_size : (batch + 1) * batch_size])
                progress.batch, progress.images = batch + 1, progress.images + batch_size
                bar.update()
                if progress.batch % 50 == 0 and not bar.disable:
                    bar.set_postfix_str(describe(self._means()))
                if progress.batch == count:
                    break
                got = self._shared_signal(self._interrupt.signal)
                if got is not None or self.save_is_due:
                    progress.sums = self._sums.tolist()
                    self._save()
                if got is not None:
                    bar.close()
                    self.leave(got)
        self._check_finite()  # before validation could choose such weights
        self._validation_began = time.perf_counter()

    def count(self, losses: Losses, *more: Tensor, env_steps: int = 0) -> None:
        """Adds a batch to the epoch's means; does not wait for the device.

        `losses` are means over this process's share of the batch; `more` are values ``()`` for the
        names in `begin`'s `more_means`, and `env_steps` glimpses, of the whole batch.
        """
        batch = [getattr(losses, name).detach() for name in LOGGED.values()]
        self._sums += distributed.mean_of_batch(torch.stack([*batch, *more]))
        self.progress.env_steps += env_steps

    def is_best(self, selection: Selection) -> bool:
        """Whether a selection is the stage's best so far; if so, later ones must beat it."""
        best = self.progress.best
        if best is not None and list(selection.criterion) >= best:
            return False
        self.progress.best = list(selection.criterion)
        return True

    def end_epoch(
        self,
        selection: Selection,
        more: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Logs the epoch, with `more` scalars, and prints it, with `warnings` of a few words each.

        It saves a checkpoint, and exits if a signal came.
        """
        progress, means = self.progress, self._means()
        progress.validation_seconds += time.perf_counter() - self._validation_began
        self._tick()
        scalars = means | {
            "train/learning_rate": self._optimizers.optimizers[-1].param_groups[0]["lr"],
            **selection.metrics,
            **(more or {}),
            "time/time_elapsed": progress.seconds,
            "time/total_timesteps": progress.env_steps,
        }
        self.log(progress.images, scalars)
        print(
            f"{self._name} {progress.epoch + 1}/{self._epochs}: train {describe(means)}; "
            f"validation error {100 * (1 - selection.metrics['eval/accuracy']):.2f} % at "
            f"{selection.metrics['eval/mean_glimpses']:.2f}; {progress.seconds:.0f} s"
            f"{''.join(f'; warning: {warning}' for warning in warnings)}",
            flush=True,
        )
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums = []
        self._save()
        if (got := self._shared_signal(self._interrupt.signal, now=True)) is not None:
            self.leave(got)

    def save_model(self, network: SavedNetwork, *inside: str, **about: Any) -> None:
        """Saves a model in the run's folder, or `inside` it; see `SavedNetwork.save`."""
        if self.is_main:
            network.save(self.path.joinpath(*inside), **about)

    def show(self) -> Path:
        """Prints the result of the finished run; returns its folder."""
        if self.is_main:
            print((self.path / "results.txt").read_text(encoding="utf-8"), end="")
            print(f"model and results: {self.path}")
        return self.path

    def about(self) -> dict[str, Any]:
        """The run's entries in its results: options, amount of training and provenance."""
        return {
            "options": dict(self.options),
            "train_seconds": round(self.progress.seconds, 1),
            "validation_seconds": round(self.progress.validation_seconds, 1),
            "images_seen": self.progress.images,
            "env_steps": self.progress.env_steps,
            **self._origin,
        }

    def _means(self) -> dict[str, float]:
        """Means over the epoch so far; images per second since this process began or resumed it."""
        batch = self.progress.batch
        seconds = time.perf_counter() - self._began
        found = dict(zip(self._names, (self._sums / max(batch, 1)).tolist(), strict=True))
        return found | {"time/fps": (batch - self._first) * self._batch_size / seconds}

    def _check_finite(self) -> None:
        weights = torch.stack([p.detach().sum() for p in self._optimizers.parameters])
        if not (torch.isfinite(self._sums).all() and torch.isfinite(weights).all()):
            raise ValueError(
                f"the loss or a weight is no longer finite after {self.progress.images:,} images; "
                "try a smaller --learning-rate in a new --run-dir"
            )

    def _load_weights(self) -> None:
        def read() -> dict[str, Tensor]:
            assert self.checkpoint is not None
            return read_tensors(self.checkpoint / "weights.safetensors")

        self.model.load_state_dict(distributed.from_main(read))

    def _tick(self) -> None:
        before, self._clock = self._clock, time.perf_counter()
        self.progress.seconds += self._clock - before

    def _save(self) -> None:
        self._tick()

        def write(folder: Path) -> None:
            write_tensors(folder / "weights.safetensors", self.model.state_dict())
            save_states(folder / "training.pt", self._optimizers.state_dict())

        self.save_checkpoint(write, asdict(self.progress))


def open_task(options: LearningOptions, **keywords: Any) -> TrainingTask:
    """The task that a program's options name, on their device; all of its splits can be read."""
    distributed.quiet()
    device = choose_device(options.device)
    if options.bf16:
        warn_without_bf16(device.type)
    keywords = options.env_keywords() | keywords
    try:
        task = TrainingTask(options.env_id, device, **keywords)
        check_splits(options.env_id, **{"data": "real", **keywords})
        return task
    except TypeError as error:  # of `dtram_env.settings`, which names the keyword
        raise ValueError(f"--env {shlex.join(options.env)}: {error}") from None


def open_run(
    options: TrainingOptions,
    task: TrainingTask,
    model: nn.Module,
    program: str,
    *,
    prefix: str = "",
) -> TrainingRun:
    """The run in ``--run-dir``, or in a new folder named by environment, time and seed.

    It prints the run's options, or that the run is finished. `program` is the program's path, and
    `prefix` begins the name of a new folder. From here on several processes train together.
    """
    distributed.join(task.device)
    name = f"{prefix}{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}"

    def new_path() -> Path:  # each process has a clock of its own
        return new_folder(Path("runs", task.env_id.rpartition(":")[2]), name)

    path = options.run_dir or distributed.from_main(new_path)
    folder = path, to_json(options), options.resume, task.device, program, options.save_minutes
    run = TrainingRun(*folder, model=model, seed=options.seed)
    print(f"{path}: finished already" if run.finished else describe_options(options))
    return run


def describe(means: Mapping[str, float]) -> str:
    """The means of an epoch as text."""
    return (
        f"error {100 * (1 - means['rollout/success_rate']):.2f} % at "
        f"{means['rollout/ep_len_mean']:.2f} glimpses, {means['time/fps']:,.0f} images/s"
    )


def epoch_order(seed: int, stage: int, epoch: int, images: int) -> Tensor:
    """The order of the training images in an epoch; depends on these four numbers alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + stage * 10_007 + epoch)
    return torch.randperm(images, generator=generator)


def learn_only(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    """Turns gradients on for the given parameters of a model and off for all others."""
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
