r"""Trains the frozen classifier of a policy-only environment, on uniformly random locations.

    python train/classifier.py --run-dir runs/mnist-classifier    # as pretrained/mnist-classifier
    python train/classifier.py --env-id DTRAM-ClutteredMNIST-v0 --augment compose=true --m 1 \
        --optimizer muon                                          # pretrained/cluttered-classifier
    python train/classifier.py --env-id DTRAM-BirdsSmall-v0 --m 4 --epochs 60 --learning-rate 2e-3 \
        --encoder resnet18 width=8 weights=pretrained/birds-small-look frozen_norms=true \
        --augment affine=0 flip=true                           # pretrained/birds-small-classifier
    python train/classifier.py --env-id DTRAM-Signpost-v0 --epochs 20

Every location is drawn uniformly in [-1, 1], that of the first glimpse too unless it is a
thumbnail, so no policy's glimpse distribution is favoured. Validation chooses the weights; the test
split is evaluated once.

    gym.make("agents:DTRAM-MNIST-Policy-v0", classifier="runs/mnist-classifier")
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agents import draws
from agents.dtram import DTRAM
from agents.objective import Losses, supervised_losses
from agents.stopping import LearnedStop
from agents.unroll import logits_along
from dtram_env.files import write_text
from train.common import distributed
from train.common.compiled import compiled
from train.common.optimizers import Optimizers
from train.common.options import (
    AtLeast1,
    PlainEncoder,
    ResNetEncoder,
    TrainingOptions,
    check,
    command_line,
)
from train.common.training import Selection, TrainingRun, learn_only, open_run, open_task
from train.common.training_task import Images, TrainingTask
from train.dtram.networks import new_agent
from train.dtram.options import RNN, Gaussian, StopOff


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Trains the frozen classifier of a policy-only environment."""

    epochs: AtLeast1 = 40
    """passes over the training split"""
    m: AtLeast1 = 2
    """trajectories drawn for each image"""

    def __post_init__(self) -> None:
        super().__post_init__()
        map_only = isinstance(self.encoder, PlainEncoder) and self.encoder.name == "pixels"
        by_step = isinstance(self.encoder, ResNetEncoder) and self.encoder.per_step
        fits = not (map_only or by_step or self.bf16)
        expected = "mlp, conv, cnn or a residual one without per_step, and no --bf16"
        check("encoder", self.encoder, fits, expected)


def train_classifier(
    options: Options, task: TrainingTask, network: DTRAM, run: TrainingRun
) -> None:
    """Minimises the cross-entropy after every glimpse of random trajectories."""
    images, glimpses = task.images("train"), task.max_glimpses
    modules = (network.encoder, network.core, network.classifier)
    parameters = [p for module in modules for p in module.parameters()]
    learn_only(network, parameters)
    steps = options.epochs * (len(images) // options.batch_size)
    optimizers = Optimizers(network, parameters, steps, options.learning_rate, options.optimizer)
    logits_of = compiled(logits_along, options.compile, task.device)

    def loss(store: Any, in_store: Tensor, labels: Tensor) -> Losses:
        uniform = draws.rand(glimpses, len(in_store), 2, dim=1, device=task.device)
        logits = logits_of(network, task.sensor, store, in_store, uniform * 2 - 1)
        total = cross_entropy(logits.flatten(0, 1), labels.repeat(glimpses))
        correct = (logits[-1].detach().argmax(-1) == labels).float().mean()
        return supervised_losses(total, correct, glimpses, task.discount)

    batch_loss = distributed.spread(network, loss)
    run.begin(optimizers, options.epochs)
    for epoch in run.epochs():
        network.train()
        augment = options.augment.at(epoch, options.epochs)
        for indices in run.batches(len(images), options.batch_size):
            store, in_store = task.augmented(images, indices, augment)
            in_store = in_store.repeat_interleave(options.m)
            labels = images.labels[indices].repeat_interleave(options.m)
            losses = batch_loss(store, in_store, labels)
            optimizers.zero_grad()
            losses.total.backward()
            optimizers.clip_gradient()
            optimizers.step()
            run.count(losses, env_steps=options.batch_size * options.m * glimpses)

        errors = errors_of_random_glimpses(task, network, task.images("validation"))
        metrics = {f"eval/error_at_{t}": e for t, e in enumerate(errors, start=1)}
        metrics |= {"eval/accuracy": 1 - errors[-1], "eval/mean_glimpses": float(len(errors))}
        selection = Selection((sum(errors) / len(errors), errors[-1]), metrics)
        if run.is_best(selection):
            run.save_model(network, **task.metadata)
        run.end_epoch(selection)


@torch.no_grad()
def errors_of_random_glimpses(
    task: TrainingTask, network: DTRAM, images: Images, seed: int = 0
) -> list[float]:
    """Error, in [0, 1], after 1 ... T_max random glimpses; a seed gives the same ones each time."""
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.zeros(task.max_glimpses, device=task.device)
    for batch in torch.arange(len(images), device=task.device).split(task.eval_batch_size):
        locations = torch.rand(task.max_glimpses, len(batch), 2, generator=generator) * 2 - 1
        logits = logits_along(network, task.sensor, images.store, batch, locations.to(task.device))
        wrong += (logits.argmax(-1) != images.labels[batch]).sum(-1)
    return (wrong / len(images)).tolist()


def train(options: Options) -> Path:
    """Trains and evaluates a classifier; returns the run's folder."""
    task = open_task(options)
    task.check_whole_task()
    options.check_batch_size(len(task.images("train")))
    how = RNN(), Gaussian(), StopOff(), options.bf16, options.seed
    network, _ = new_agent(task, options.encoder, *how)
    network.stopping = LearnedStop(1.0)  # never: the stopper does not learn
    run = open_run(options, task, network, "train/classifier.py", prefix="classifier_")
    if run.finished:
        return run.show()
    with run:
        for _ in run.stages(["classifier"]):
            train_classifier(options, task, network, run)
        if not distributed.leave():
            return run.path
        best = DTRAM.load(run.path, task.device)
        found = errors_of_random_glimpses(task, best, task.images("test"))
        percent = {t: round(100 * error, 4) for t, error in enumerate(found, start=1)}
        errors = ", ".join(f"{error:.2f}" for error in percent.values())
        after = f"error % after 1 ... {task.max_glimpses} random glimpses"
        write_text(run.path / "results.txt", f"{task.dataset}, test split, {after}: {errors}\n")
        about = task.about_test() | {"error_after_random_glimpses": percent}
        run.finish(about | run.about())
    return run.show()


if __name__ == "__main__":
    run_program(lambda: train(command_line(Options, __doc__, {})))
