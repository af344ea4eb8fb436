"""Trains the frozen classifier of a policy-only environment, on uniformly random locations.

    python train/classifier.py --run-dir runs/mnist-classifier    # as pretrained/mnist-classifier
    python train/classifier.py --env-id DTRAM-Signpost-v0 --epochs 20

It favours no policy: every location, the first one too, is drawn uniformly in [-1, 1]. Validation
chooses the weights; the test split is looked at once, at the end.

    gym.make("agents:DTRAM-MNIST-Policy-v0", classifier="runs/mnist-classifier")
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM
from agents.objective import Losses, supervised_losses
from agents.unroll import read_logits
from train.common.augment import Affine, Augmentation
from train.common.options import OptimizerOptions
from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, run_program
from train.common.training_task import Images, Task
from train.dtram.loop import Loop, Progress
from train.dtram.stages import NEVER, Stage, Verdict


@dataclass(frozen=True)
class Options:
    """Trains the frozen classifier of a policy-only environment."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment whose images and sensor it is for"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    encoder: Literal["mlp", "conv"] = "mlp"
    """glimpse encoder"""
    core: Literal["rnn", "gru", "lstm"] = "rnn"
    """recurrent cell"""
    hidden_size: int = 256
    """width of the recurrent state"""
    epochs: int = 40
    """passes over the training split"""
    batch_size: int = 96
    """images a batch"""
    m: int = 2
    """trajectories drawn for each image"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 0.01
    """AdamW's"""
    augment: float = 0.5
    """strength of the random affine augmentation; 0 is none"""
    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/classifier_DATE_TIME if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "m", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least 1"
                )
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def to_json(self) -> dict[str, Any]:
        """The options that define the run."""
        values = asdict(self)
        for name in ("run_dir", "resume", "data_dir", "device"):
            del values[name]
        return values


class RandomLooks(Stage):
    """The one stage: cross-entropy after every glimpse of random trajectories.

    Args:
        task: the images and the sensor.
        network: its encoder, core and classifier learn.
        options: of the run.
    """

    name = "classifier"

    def __init__(self, task: Task, network: DTRAM, options: Options) -> None:
        self.epochs, self.batch_size = options.epochs, options.batch_size
        self.learning_rate = options.learning_rate
        self._task, self._network, self._m = task, network, options.m
        self.images = len(task.images("train"))
        self.batches = self.images // self.batch_size
        self.env_steps_first = 0
        self.env_steps_per_batch = self.batch_size * options.m * task.max_glimpses
        self._augment = Augmentation(Affine(options.augment), 0.0, 0.0, flip=False)
        self._train = task.images("train")

    def parameters(self) -> list[nn.Parameter]:
        network = self._network
        learned = (network.encoder, network.core, network.classifier)
        return [p for module in learned for p in module.parameters()]

    def loss(self, rows: Tensor) -> Losses:
        store = self._task.augmented(self._train, rows, self._augment)
        index = torch.arange(len(rows), device=rows.device).repeat_interleave(self._m)
        labels = self._train.labels[rows].repeat_interleave(self._m)
        steps = self._task.max_glimpses
        locations = torch.rand(steps, len(index), 2, device=rows.device) * 2 - 1
        logits = read_logits(self._network, self._task.look, store, index, locations)
        loss = cross_entropy(logits.flatten(0, 1), labels.repeat(steps))
        correct = (logits[-1].detach().argmax(-1) == labels).float().mean()
        return supervised_losses(loss, correct, steps, self._task.discount)

    def judge(self) -> Verdict:
        errors = random_errors(self._task, self._network, self._task.images("validation"))
        metrics = {f"eval/error_at_{t}": e for t, e in enumerate(errors, start=1)}
        metrics |= {"eval/accuracy": 1 - errors[-1], "eval/mean_glimpses": float(len(errors))}
        return Verdict((sum(errors) / len(errors), errors[-1]), NEVER, metrics)


@torch.no_grad()
def random_errors(task: Task, network: DTRAM, images: Images, seed: int = 0) -> list[float]:
    """Share of wrong answers after 1 … T_max random glimpses; the same ones at every call."""
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.zeros(task.max_glimpses, device=task.device)
    for index in torch.arange(len(images), device=task.device).split(task.scored_at_once):
        where = torch.rand(task.max_glimpses, len(index), 2, generator=generator) * 2 - 1
        logits = read_logits(network, task.look, images.store, index, where.to(task.device))
        wrong += (logits.argmax(-1) != images.labels[index]).sum(-1)
    return (wrong / len(images)).tolist()


def train(options: Options) -> Path:
    """Trains and reports; returns the run's folder."""
    run_dir = options.run_dir or Path(
        "runs",
        options.env_id.rpartition(":")[2],
        f"classifier_{time.strftime('%Y-%m-%d_%H-%M-%S')}",
    )
    device = choose_device(options.device)
    origin = provenance(device)
    torch.manual_seed(options.seed)
    places = {} if options.data_dir is None else {"data_dir": str(options.data_dir)}
    task = Task(options.env_id, device, **places)
    if task.classifier is not None:
        raise ValueError(
            f"--env-id {options.env_id}: it has a classifier in the loop already; expected the id "
            "of the whole task, without 'Policy'"
        )
    images = len(task.images("train"))
    if options.batch_size > images:
        raise ValueError(f"--batch-size {options.batch_size}: expected at most {images}, the split")
    network = task.new_agent(
        encoder=options.encoder, core=options.core, hidden_size=options.hidden_size
    )
    run = RunFolder(run_dir, options.to_json(), options.resume, device)
    if run.finished:
        print(f"{run_dir}: finished already")
        return run_dir
    progress, saved = Progress(), run.latest_state()
    if saved is not None:
        progress.restore(saved)
    run.rewind(progress.images)
    with Interrupt() as interrupt:
        loop = Loop(
            task,
            network,
            run,
            progress,
            interrupt,
            seed=options.seed,
            how=OptimizerOptions(weight_decay=options.weight_decay),
            program="train/classifier.py",
        )
        loop.run_stage(lambda: RandomLooks(task, network, options), restore=saved is not None)
        errors = random_errors(task, network, task.images("test"))
        run.finish(
            {
                "env_id": options.env_id,
                "dataset": task.dataset,
                "split": "test",
                "images": len(task.images("test")),
                "error_after_random_glimpses": {
                    t: round(100 * error, 4) for t, error in enumerate(errors, start=1)
                },
                "options": options.to_json(),
                "train_seconds": round(progress.seconds, 1),
                **origin,
            }
        )
    print(
        f"{task.dataset}, test split, error % after 1 ... {task.max_glimpses} random glimpses: "
        + ", ".join(f"{100 * error:.2f}" for error in errors)
    )
    print(f"classifier: {run_dir}")
    return run_dir


if __name__ == "__main__":
    run_program(lambda: train(tyro.cli(Options, description=__doc__)))
