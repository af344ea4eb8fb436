"""Trains the frozen classifier of a policy-only environment, on uniformly random locations.

    python train/classifier.py --run-dir runs/mnist-classifier    # as pretrained/mnist-classifier
    python train/classifier.py --env-id DTRAM-Signpost-v0 --epochs 20

Every location, the first one too, is drawn uniformly in [-1, 1], so no policy's glimpse
distribution is favoured. Validation chooses the weights; the test split is evaluated once.

    gym.make("agents:DTRAM-MNIST-Policy-v0", classifier="runs/mnist-classifier")
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM
from agents.objective import supervised_losses
from agents.stopping import LearnedStop
from agents.unroll import logits_along
from train.common.backbone import pixel_scale
from train.common.optimizers import make_optimizers, one_cycle
from train.common.options import (
    EnvOptions,
    PlainEncoder,
    TrainingOptions,
    check,
    command_line,
    describe_options,
    to_json,
)
from train.common.provenance import choose_device, provenance
from train.common.run import run_program
from train.common.training import Selection, TrainingRun, learn_only
from train.common.training_task import Images, TrainingTask


@dataclass(frozen=True)
class Options(TrainingOptions, EnvOptions):
    """Trains the frozen classifier of a policy-only environment."""

    epochs: int = 40
    """passes over the training split"""
    m: int = 2
    """trajectories drawn for each image"""

    def __post_init__(self) -> None:
        self.check_training()
        check("m", self.m, self.m >= 1, "at least 1")
        plain = isinstance(self.encoder, PlainEncoder) and not self.bf16
        check("encoder", self.encoder, plain, "mlp, conv or cnn, without --bf16")


def train_classifier(
    options: Options, task: TrainingTask, network: DTRAM, run: TrainingRun
) -> None:
    """Minimises the cross-entropy after every glimpse of random trajectories."""
    images, glimpses = task.images("train"), task.max_glimpses
    modules = (network.encoder, network.core, network.classifier)
    parameters = [p for module in modules for p in module.parameters()]
    learn_only(network, parameters)
    optimizers = make_optimizers(network, options.learning_rate, options.optimizer)
    batches = options.epochs * (len(images) // options.batch_size)
    schedules = [one_cycle(optimizer, batches) for optimizer in optimizers]
    run.begin(parameters, optimizers, schedules, options.epochs)
    for _ in run.epochs():
        network.train()
        for indices in run.batches(len(images), options.batch_size):
            store = task.augmented(images, indices, options.augment)
            index = torch.arange(len(indices), device=task.device).repeat_interleave(options.m)
            labels = images.labels[indices].repeat_interleave(options.m)
            locations = torch.rand(glimpses, len(index), 2, device=task.device) * 2 - 1
            logits = logits_along(network, task.sensor, store, index, locations)
            loss = cross_entropy(logits.flatten(0, 1), labels.repeat(glimpses))
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, options.optimizer.max_grad_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            correct = (logits[-1].detach().argmax(-1) == labels).float().mean()
            losses = supervised_losses(loss, correct, glimpses, task.discount)
            run.count(losses, env_steps=len(index) * glimpses)

        began = time.perf_counter()
        errors = errors_of_random_glimpses(task, network, task.images("validation"))
        metrics = {f"eval/error_at_{t}": e for t, e in enumerate(errors, start=1)}
        metrics |= {"eval/accuracy": 1 - errors[-1], "eval/mean_glimpses": float(len(errors))}
        selection = Selection((sum(errors) / len(errors), errors[-1]), metrics)
        if run.is_best(selection):
            network.save(run.path, **task.metadata)
        run.end_epoch(selection, time.perf_counter() - began)


@torch.no_grad()
def errors_of_random_glimpses(
    task: TrainingTask, network: DTRAM, images: Images, seed: int = 0
) -> list[float]:
    """Error, in [0, 1], after 1 ... T_max random glimpses; a seed gives the same ones each time."""
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.zeros(task.max_glimpses, device=task.device)
    for index in torch.arange(len(images), device=task.device).split(task.eval_batch_size):
        locations = torch.rand(task.max_glimpses, len(index), 2, generator=generator) * 2 - 1
        logits = logits_along(network, task.sensor, images.store, index, locations.to(task.device))
        wrong += (logits.argmax(-1) != images.labels[index]).sum(-1)
    return (wrong / len(images)).tolist()


def train(options: Options) -> Path:
    """Trains and evaluates a classifier; returns the run's folder."""
    device = choose_device(options.device)
    origin = provenance(device)
    torch.manual_seed(options.seed)
    task = TrainingTask(options.env_id, device, **options.env_keywords())
    if task.classifier is not None:
        raise ValueError(
            f"--env-id {options.env_id}: a frozen classifier answers there already; expected "
            "the id of the whole task, without 'Policy'"
        )
    images = len(task.images("train"))
    fits = options.batch_size <= images
    check("batch_size", options.batch_size, fits, f"at most {images}, the training images")
    scale = pixel_scale(options.encoder, task)
    network = task.new_agent(encoder=options.encoder.name, **scale)
    network.stopping = LearnedStop(1.0)  # never: the stopper does not learn
    name = f"classifier_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    run_dir = options.run_dir or Path("runs", options.env_id.rpartition(":")[2], name)
    run = TrainingRun(
        run_dir,
        to_json(options),
        options.resume,
        device,
        "train/classifier.py",
        model=network,
        seed=options.seed,
    )
    if run.finished:
        print(f"{run_dir}: finished already")
        return run_dir
    print(describe_options(options))
    with run:
        for _ in run.stages(["classifier"]):
            train_classifier(options, task, network, run)
        best = DTRAM.load(run.path, device)
        errors = errors_of_random_glimpses(task, best, task.images("test"))
        percent = {t: round(100 * error, 4) for t, error in enumerate(errors, start=1)}
        results = {
            "env_id": options.env_id,
            "dataset": task.dataset,
            "split": "test",
            "images": len(task.images("test")),
            "error_after_random_glimpses": percent,
            "options": to_json(options),
            "train_seconds": round(run.progress.seconds, 1),
            **origin,
        }
        run.finish(results)
    text = ", ".join(f"{error:.2f}" for error in percent.values())
    print(
        f"{task.dataset}, test split, error % after 1 ... {task.max_glimpses} random glimpses: "
        f"{text}\nclassifier: {run_dir}"
    )
    return run_dir


if __name__ == "__main__":
    run_program(lambda: train(command_line(Options, __doc__, {})))
