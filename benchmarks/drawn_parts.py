"""Proof that a drawn dataset hides its species from afar: one classifier, three things to look at.

    python benchmarks/drawn_parts.py --profile small      # 128-pixel images, 32-pixel looks
    python benchmarks/drawn_parts.py --profile full       # 512-pixel images, 224-pixel looks

The same convolutional network is trained from the same start, at the same input size and for the
same number of updates, on

- "thumbnail": the whole image, shrunk to the size of a look;
- "parts": looks, at full resolution, at the parts that tell the species apart;
- "random": looks, at full resolution, at random places.

For equal compute a training example is one look in all three: at one discriminative part, drawn from the
one or two that the image has (from all parts where the genus has a single species), or at one
random place. A test image gets two such looks, at both discriminative parts if there are two, and the
answer is the class with the largest mean log-probability: what either part tells is used. A second
look at the thumbnail would show the same. What the first look alone says is reported too.

So that two CPU cores are enough, the full profile uses the images of every fourth genus: species of
one genus are all there, and the shares of genera with 0, 1 and 2 discriminative parts stay. `--every 1`
uses all.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from dtram_env.datasets.drawn import AUTOS, BIRDS, SMALL_BIRDS, Drawing
from dtram_env.datasets.storage.thumbnails import box_resize
from train.common.provenance import choose_device, provenance
from train.common.run import run_program, write_json

KINDS = ("thumbnail", "parts", "random")
LOOKS = 2
"""looks at a test image, and different ones at a training image"""
UPDATES = {"small": 800, "full": 800}
JITTER = 1 / 16
"""how far the middle of a look is from the middle of its part, as a share of the look, each way"""


@dataclass(frozen=True)
class Options:
    """Trains and tests the three classifiers."""

    profile: Literal["small", "full"] = "small"
    """small: 128 pixels, 20 classes, looks of 32; full: 512 pixels, looks of 224"""
    plan: Literal["birds", "autos"] = "birds"
    """which dataset"""
    every: int | None = None
    """use every so manieth genus, and its images alone: small 1, full 4"""
    num_train: int | None = None
    """training images of all genera; as many as the profile has if not given"""
    num_test: int | None = None
    """test images of all genera; as many as the profile has if not given"""
    updates: int | None = None
    """training steps: small 800, full 800"""
    batch_size: int = 64
    """looks a step"""
    learning_rate: float = 3e-3
    """the highest one; it rises from 4 % and falls to nothing"""
    processes: int = 2
    """that draw the images"""
    device: str = "auto"
    """where to train"""
    seed: int = 0
    """of weights, looks and batches"""
    json: Path | None = None
    """write the figures here as well"""

    def __post_init__(self) -> None:
        for name in ("every", "num_train", "num_test", "updates", "batch_size", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"--learning-rate {self.learning_rate}: expected between 0 and 1")


@dataclass(frozen=True)
class Task:
    """Which images of a dataset are used, and how they are looked at.

    Attributes:
        drawing: the dataset.
        classes: ``(C,)`` labels that are used: those of every so manieth genus.
        side: of a look, pixels.
        seed: of the places of the looks.
    """

    drawing: Drawing
    classes: np.ndarray
    side: int
    seed: int

    def rows(self, part: str) -> np.ndarray:
        """The images of a part that are used, ``(N,)`` indices in it."""
        return np.flatnonzero(np.isin(self.drawing.labels(part), self.classes))

    def targets(self, part: str) -> np.ndarray:
        """Indices in `classes` of these images' classes, ``(N,)`` int64."""
        return np.searchsorted(self.classes, self.drawing.labels(part)[self.rows(part)])

    def genera(self) -> np.ndarray:
        """Names of the genera of `classes`, ``(C,)``."""
        names = self.drawing.class_names
        return np.array([names[label].split(",")[0] for label in self.classes])


def choose_task(options: Options) -> Task:
    """The images that the options ask for.

    Raises:
        ValueError: a class that is used has no image in one of the parts.
    """
    whole = BIRDS if options.plan == "birds" else AUTOS
    if options.profile == "small":
        whole = replace(SMALL_BIRDS, plan=options.plan)
    drawing = replace(
        whole,
        num_train=options.num_train or whole.num_train,
        num_test=options.num_test or whole.num_test,
    )
    every = options.every or {"small": 1, "full": 4}[options.profile]
    stems = [name.split(",")[0] for name in drawing.class_names]
    kept = list(dict.fromkeys(stems))[::every]
    classes = np.array([label for label, stem in enumerate(stems) if stem in kept])
    task = Task(drawing, classes, {"small": 32, "full": 224}[options.profile], options.seed)
    for part in ("train", "test"):
        if len(np.unique(task.targets(part))) < len(classes):
            count = getattr(drawing, f"num_{part}")
            raise ValueError(
                f"--num-{part} {count}: expected at least {drawing.num_classes}, an image a class"
            )
    return task


def places(task: Task, part: str) -> dict[str, np.ndarray]:
    """Left and top of the looks at every image, ``(N, LOOKS, 2)``, for "parts" and "random"."""
    layout, rows = task.drawing.layout(part), task.rows(part)
    discriminative = layout.discriminative[rows]
    n, parts = discriminative.shape
    rng = np.random.default_rng([task.seed, part == "test"])
    chosen = np.where(discriminative.any(axis=1, keepdims=True), discriminative, True)
    # Telling parts in a drawn order; of two, each look takes another.
    order = np.argsort(np.where(chosen, rng.random((n, parts)), 2.0), axis=1)
    which = np.arange(LOOKS) % chosen.sum(axis=1, keepdims=True)
    which = np.take_along_axis(order, which, axis=1)
    boxes = layout.part_boxes[rows[:, None], which]
    middle = boxes[..., :2] + boxes[..., 2:] // 2
    reach = int(task.side * JITTER)
    middle += rng.integers(-reach, reach + 1, middle.shape)
    room = task.drawing.image_size - task.side
    return {
        "parts": np.clip(middle - task.side // 2, 0, room),
        "random": rng.integers(0, room + 1, (n, LOOKS, 2)),
    }


def draw_looks(task: Task, part: str, folder: Path, processes: int) -> dict[str, np.ndarray]:
    """Draws the images that are used once and keeps what is looked at.

    Returns:
        For each of `KINDS` a file in `folder`, mapped to memory, ``(N, looks, side, side, 3)``
        uint8; a thumbnail is one look.
    """
    n, side = len(task.rows(part)), task.side
    files = {kind: folder / f"{part}_{kind}.npy" for kind in KINDS}
    for kind, file in files.items():
        shape = (n, 1 if kind == "thumbnail" else LOOKS, side, side, 3)
        np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    chunks = np.array_split(np.arange(n), -(-n // 100))
    where = places(task, part)
    if processes == 1:
        for chunk in chunks:
            _draw_chunk(task, part, chunk, where, files)
    else:
        context = get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            jobs = [pool.submit(_draw_chunk, task, part, chunk, where, files) for chunk in chunks]
            for job in jobs:
                job.result()
    return {kind: np.load(file, mmap_mode="r") for kind, file in files.items()}


def _draw_chunk(
    task: Task,
    part: str,
    chunk: np.ndarray,
    where: dict[str, np.ndarray],
    files: dict[str, Path],
) -> None:
    out = {kind: np.load(file, mmap_mode="r+") for kind, file in files.items()}
    for k, row in zip(chunk.tolist(), task.rows(part)[chunk].tolist(), strict=True):
        image = task.drawing.draw(part, row)
        out["thumbnail"][k] = box_resize(image[None], task.side)
        for kind, corners in where.items():
            for look, (left, top) in enumerate(corners[k].tolist()):
                out[kind][k, look] = image[top : top + task.side, left : left + task.side]


def make_net(side: int, num_classes: int) -> nn.Sequential:
    """The classifier: four convolutions, pooling after them, and one linear layer on the map.

    Looks of 224 pixels go through a first convolution of 7x7 with a stride of 4. It is wide enough
    to feel a texture's waves; its places see them in all phases, and pooling takes the strongest.
    """
    large = side > 64
    layers: list[nn.Module] = []
    channels, size = 3, side
    for k, width in enumerate([24, 32, 64, 96] if large else [24, 32, 48, 64]):
        kernel, stride = (7, 4) if large and k == 0 else (3, 1)
        pool = 2 if large or k > 0 else 1
        layers += [
            nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(pool),
        ]
        channels, size = width, size // (stride * pool)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size**2, num_classes))


def as_input(looks: np.ndarray, device: torch.device) -> Tensor:
    """Looks ``(B, side, side, 3)`` as ``(B, 3, side, side)`` float32, in the network's scale."""
    pixels = torch.from_numpy(np.array(looks)).to(device).permute(0, 3, 1, 2)
    return (pixels.float() - 127) / 50


def train_net(
    looks: np.ndarray, labels: np.ndarray, num_classes: int, options: Options, updates: int
) -> nn.Module:
    """Trains a network on looks ``(N, looks, side, side, 3)``; batches are mirrored at random."""
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    net = make_net(looks.shape[2], num_classes).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=updates
    )
    epochs = -(-updates * options.batch_size // len(labels))
    rows = np.concatenate([rng.permutation(len(labels)) for _ in range(epochs)])
    for step in range(updates):
        batch = rows[step * options.batch_size : (step + 1) * options.batch_size]
        look = rng.integers(0, looks.shape[1], len(batch))
        pixels = as_input(looks[batch, look], device)
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        target = torch.from_numpy(labels[batch]).to(device)
        loss = nn.functional.cross_entropy(net(pixels), target, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def answer(net: nn.Module, looks: np.ndarray, device: torch.device) -> np.ndarray:
    """The class of largest mean log-probability over an image's looks, ``(N,)``."""
    answers = []
    for chunk in np.array_split(looks, max(1, len(looks) // 100)):
        scores = net(as_input(chunk.reshape(-1, *chunk.shape[2:]), device)).log_softmax(1)
        answers.append(scores.unflatten(0, chunk.shape[:2]).mean(1).argmax(1).cpu().numpy())
    return np.concatenate(answers)


def score(task: Task, answers: np.ndarray) -> dict[str, Any]:
    """Accuracy in percent: of species, of genera, and of species by number of discriminative parts."""
    targets, genera = task.targets("test"), task.genera()
    discriminative = task.drawing.layout("test").discriminative[task.rows("test")].sum(axis=1)
    right = answers == targets
    return {
        "accuracy": _percent(right),
        "genus_accuracy": _percent(genera[answers] == genera[targets]),
        "accuracy_by_telling_parts": {
            int(k): _percent(right[discriminative == k]) for k in np.unique(discriminative)
        },
    }


def _percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 1)


def compare(task: Task, options: Options, updates: int) -> tuple[dict[str, Any], float]:
    """Draws, trains and tests on each of `KINDS`; figures of each, and seconds of the drawing."""
    device, results = choose_device(options.device), {}
    targets = {part: task.targets(part) for part in ("train", "test")}
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        looks = {
            part: draw_looks(task, part, Path(name), options.processes)
            for part in ("train", "test")
        }
        drawn = time.perf_counter() - start
        for kind in KINDS:
            start = time.perf_counter()
            train, test = looks["train"][kind], looks["test"][kind]
            net = train_net(train, targets["train"], len(task.classes), options, updates)
            results[kind] = score(task, answer(net, test, device))
            first = answer(net, test[:, :1], device)
            results[kind]["accuracy_of_first_look"] = _percent(first == targets["test"])
            results[kind]["seconds"] = round(time.perf_counter() - start, 1)
            print(f"{kind:9}", results[kind], flush=True)
        del looks, train, test  # before their files
    return results, round(drawn, 1)


def run(options: Options) -> dict[str, Any]:
    """Compares, prints, and returns what ``--json`` writes."""
    task = choose_task(options)
    counts = {f"{part}_images": len(task.rows(part)) for part in ("train", "test")}
    genera, classes = len(np.unique(task.genera())), len(task.classes)
    print(
        f"{counts['train_images']} + {counts['test_images']} images of {classes} classes in "
        f"{genera} genera, looks of {task.side} at {task.drawing.image_size} pixels",
        flush=True,
    )
    updates = options.updates or UPDATES[options.profile]
    results, seconds = compare(task, options, updates)
    gap = round(results["parts"]["accuracy"] - results["thumbnail"]["accuracy"], 1)
    print(f"the thumbnail is {gap} points under the parts")
    return {
        **provenance(choose_device(options.device)),
        "options": {key: value for key, value in asdict(options).items() if key != "json"},
        "drawing": asdict(task.drawing),
        "used": {"classes": classes, "genera": genera, **counts},
        "look": task.side,
        "updates": updates,
        "mflops_a_look": round(_flops(task.side, classes) / 1e6, 1),
        "results": results,
        "points_between_parts_and_thumbnail": gap,
        "best_without_texture": round(100 * genera / classes, 1),
        "seconds_drawing": seconds,
    }


def _flops(side: int, num_classes: int) -> int:
    with FlopCounterMode(display=False) as counter:
        make_net(side, num_classes).eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops()


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, description=__doc__)
    figures = run(options)
    if options.json is not None:
        write_json(options.json, figures)


if __name__ == "__main__":
    run_program(main)
