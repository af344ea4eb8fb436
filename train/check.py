"""Answers what to ask first where training stays at chance; minutes on a CPU.

    python train/check.py --env-id DTRAM-ImageFolder-v0 --root photos --encoder cnn

For each question it prints a number and what to change. Give it the environment, encoder,
augmentation, optimizer and learning rate that you train with. Its trainings are short
(``--updates``), with a Gaussian locator and without a stop, and nothing is saved.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from agents.dtram import DTRAM
from agents.objective import Objective, hybrid_loss
from agents.unroll import deterministic_path
from train.common.augment import Augmentation
from train.common.optimizers import Optimizers
from train.common.options import AtLeast1, LearningOptions
from train.common.training import learn_only, open_task
from train.common.training_task import Images, TrainingTask
from train.dtram.curriculum import stage_parameters
from train.dtram.networks import new_agent, new_unroll
from train.dtram.options import RNN, Gaussian, StopOff

BATCH = 32  # images to learn by heart, and images in a batch at most
HELD_OUT = 1000  # validation images at most
LARGEST_LOOK = 128  # pixels a side of a look at the whole image
FEW = 30  # training images of a class
BY_HEART = 0.05  # error up to which a batch is learned by heart
CLEARLY = 0.9  # an error is clearly lower than another if it is below this share of it
LARGE = "--env glimpse_size=… num_scales=2 max_glimpses=…"


class Answer(NamedTuple):
    """The answer to a question of the check list."""

    question: str
    number: str
    change: str  # what to change, and when


@dataclass(frozen=True)
class Options(LearningOptions):
    """Goes through a check list where training stays at chance."""

    updates: AtLeast1 = 400
    """updates of each of the three short trainings"""


def guessing(options: Options, task: TrainingTask) -> Answer:
    """How many images a guess gets right, and how many there are to learn from."""
    counts = torch.bincount(task.images("train").labels, minlength=len(task.class_names))
    error, least, most = guess_error(task), int(counts.min()), int(counts.max())
    images = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    number = (
        f"error {error:.1%} if the most frequent class is always answered; {len(counts)} classes "
        f"of {images} training images"
    )
    change = "nothing"
    if least < FEW:
        change = f"fewer than {FEW} images of a class are few: --encoder resnet18 weights=DEFAULT"
    return Answer("What does guessing give?", number, change)


def covering(options: Options, task: TrainingTask) -> Answer:
    """How much of an image, or of its known boxes, a glimpse shows."""
    data, sensor = task.images("train").data, task.sensor
    height, width = data.typical_size
    side, whole_first = sensor.glimpse_size, sensor.first_glimpse == "thumbnail"
    share = min(1, side / height) * min(1, side / width)
    later = task.max_glimpses - whole_first
    number = (
        f"a glimpse shows {side}x{side} of {width}x{height} pixels, {share:.0%} of the image; "
        f"{later} of them at most {min(1, later * share):.0%}"
    )
    change = (
        f"if what tells classes apart is wider than {side} of {min(height, width)} pixels: {LARGE}"
    )
    if whole_first:
        shrunk = min(height, width) / (sensor.thumbnail_size or side)
        number += f"; the first look shrinks the image by {shrunk:.1f}"
    boxes = data.metadata.get("part_boxes", data.metadata.get("box"))
    if boxes is not None:
        fits = float((boxes.reshape(-1, 4)[:, 2:] <= side).all(axis=1).mean())
        number += f"; {fits:.0%} of the known boxes fit into a glimpse"
        change = "nothing" if fits > 0.5 else LARGE
    if share == 1:
        change = "a glimpse shows everything: a smaller glimpse_size, or a larger image_size"
    return Answer("Do glimpses cover the object?", number, change)


def learning_by_heart(options: Options, task: TrainingTask) -> Answer:
    """Whether a batch of training images can be learned."""
    images = task.images("train")
    generator = torch.Generator().manual_seed(options.seed)
    batch = torch.randperm(len(images), generator=generator)[:BATCH].to(task.device)
    plain = Augmentation(affine=0.0)
    agent = train(options, task, lambda: batch, plain, "by heart")
    error = error_of(task, agent, images, batch)
    number = f"error {error:.1%} on {len(batch)} training images after {options.updates} updates"
    change = (
        f"expected at most {BY_HEART:.0%}: --updates {2 * options.updates} if it is near, else "
        f"--learning-rate {options.learning_rate / 4:g} and {options.learning_rate * 4:g}, then "
        "another --encoder"
    )
    return Answer(
        "Can one batch be learned by heart?", number, "nothing" if error <= BY_HEART else change
    )


def looking_once(options: Options, task: TrainingTask) -> Answer:
    """How much the first glimpse says, and how much the whole image does."""
    side = min(LARGEST_LOOK, *task.images("train").data.typical_size)
    whole = open_task(
        options,
        first_glimpse="thumbnail",
        glimpse_size=side,
        thumbnail_size=side,
        num_scales=1,
        max_glimpses=1,
    )
    first, full = (_error_of_one_look(options, one) for one in (task, whole))
    guess = guess_error(task)
    number = (
        f"validation error {first:.1%} after the first glimpse, {full:.1%} after a look at the "
        f"whole image with {side}x{side} pixels; guessing {guess:.1%}"
    )
    if min(first, full) >= CLEARLY * guess:
        change = (
            "not where it looks: are the labels right? more images, --encoder resnet18 "
            "weights=DEFAULT, more --epochs"
        )
    elif full >= CLEARLY * first:
        change = (
            "the first glimpse says as much as the whole image: train/one_look.py may do, or a "
            "smaller thumbnail_size"
        )
    else:
        change = "nothing: there is something to look for"
    return Answer("Does one look already do?", number, change)


def _error_of_one_look(options: Options, task: TrainingTask) -> float:
    """Validation error of a short training on the first glimpse alone."""
    train_split, held_out = task.images("train"), task.images("validation")
    size = min(BATCH, options.batch_size, len(train_split))

    def batch() -> Tensor:
        return torch.randperm(len(train_split), device=task.device)[:size]

    agent = train(options, task, batch, options.augment, "one look", glimpses=1)
    some = torch.arange(min(HELD_OUT, len(held_out)), device=task.device)
    return error_of(task, agent, held_out, some, glimpses=1)


QUESTIONS = (guessing, covering, learning_by_heart, looking_once)


def guess_error(task: TrainingTask) -> float:
    """Validation error of always answering the most frequent training class."""
    most_frequent = task.images("train").labels.bincount().argmax()
    return float((task.images("validation").labels != most_frequent).double().mean())


def train(
    options: Options,
    task: TrainingTask,
    batch: Callable[[], Tensor],
    augment: Augmentation,
    name: str,
    glimpses: int | None = None,
) -> DTRAM:
    """A DT-RAM after some updates on the images of `batch`, without a stop.

    It takes `glimpses` glimpses, the whole budget if None; its locations learn from the true
    class's probability.
    """
    how = RNN(), Gaussian(), StopOff(), options.bf16, options.seed
    agent, _ = new_agent(task, options.encoder, *how)
    steps = glimpses or task.max_glimpses
    images = task.images("train")
    unroll = new_unroll(agent, task.sensor, Gaussian(), False, options.bf16)
    objective = Objective(task.discount, baseline="none")
    parameters = stage_parameters(agent, objective, steps, 0, answers=True)
    learn_only(agent, parameters)
    rate, settings = options.learning_rate, options.optimizer
    optimizers = Optimizers(agent, parameters, options.updates, rate, settings)
    agent.train()
    for _ in tqdm(range(options.updates), desc=name, leave=False, disable=None):
        indices = batch()
        trajectory = unroll(*task.augmented(images, indices, augment), steps)
        labels = images.labels[indices]
        losses = hybrid_loss(trajectory, labels, 1, objective, agent.scalar_baseline)
        optimizers.zero_grad()
        losses.total.backward()
        optimizers.clip_gradient()
        optimizers.step()
    return agent.eval()


def error_of(
    task: TrainingTask, agent: DTRAM, images: Images, indices: Tensor, glimpses: int | None = None
) -> float:
    """Share of wrong answers after some glimpses, the whole budget if None, on some images."""
    wrong = []
    for part in indices.split(task.eval_batch_size):
        path = deterministic_path(agent, task.sensor, images.store, part)
        *_, last = islice(path, glimpses)
        wrong.append(last.heads.logits.argmax(dim=-1) != images.labels[part])
    return float(torch.cat(wrong).double().mean())


def answers(options: Options) -> Iterator[Answer]:
    """The answers, one after the other; ValueError on a policy-only id."""
    task = open_task(options)
    task.check_whole_task()
    for question in QUESTIONS:
        yield question(options, task)


def main() -> None:
    for number, answer in enumerate(answers(tyro.cli(Options, description=__doc__)), start=1):
        print(f"{number}. {answer.question} {answer.number}", flush=True)
        print(f"   To change: {answer.change}.", flush=True)


if __name__ == "__main__":
    run_program(main)
