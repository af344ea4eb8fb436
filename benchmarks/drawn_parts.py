"""Shows that drawn species differ in their discriminative parts, and not in the thumbnail.

    python benchmarks/drawn_parts.py --profile small
    python benchmarks/drawn_parts.py --profile full --json benchmarks/results/drawn_parts_full.json

The same small network is trained three times, on crops of one size:

- "thumbnail": the whole image, shrunk to the size of a crop;
- "parts": crops at discriminative parts, in full resolution;
- "random": crops at random locations, in full resolution.

A training example is one crop, so all three cost the same: at one discriminative part, drawn from
the one or two of the image (from all parts if its genus has a single species), or at one random
location. A test image gets two crops, at both discriminative parts if there are two, and the answer
is the class with the largest mean log-probability. The thumbnail is one crop, because a second one
would be the same. The accuracy of the first crop alone is reported too.

To suit two CPU cores, the full profile uses the images of every fourth genus with all its species,
which keeps the shares of genera with 0, 1 and 2 discriminative parts. ``--every 1`` uses all.
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
from train.common.records import write_result
from train.common.run import run_program

KINDS = ("thumbnail", "parts", "random")
CROPS = 2
"""crops of an image at parts or at random locations"""
UPDATES = {"small": 800, "full": 800}
JITTER = 1 / 16
"""largest offset of a crop from the centre of its part, as a share of the crop's side"""


@dataclass(frozen=True)
class Options:
    """Trains and tests the three classifiers."""

    profile: Literal["small", "full"] = "small"
    """small: 128 pixels, 20 classes, crops of 32; full: 512 pixels, crops of 224"""
    plan: Literal["birds", "autos"] = "birds"
    """dataset"""
    every: int | None = None
    """use only the images of every N-th genus; small 1, full 4 if not given"""
    num_train: int | None = None
    """training images of all genera; the profile's number if not given"""
    num_test: int | None = None
    """test images of all genera; the profile's number if not given"""
    updates: int | None = None
    """training steps; 800 if not given"""
    batch_size: int = 64
    """crops in a batch"""
    learning_rate: float = 3e-3
    """peak of the one-cycle schedule"""
    processes: int = 2
    """processes that draw the images"""
    device: str = "auto"
    """device to train on"""
    seed: int = 0
    """seed of weights, crops and batches"""
    json: Path | None = None
    """file to write the figures to"""

    def __post_init__(self) -> None:
        for name in ("every", "num_train", "num_test", "updates", "batch_size", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"--learning-rate {self.learning_rate}: expected between 0 and 1")


@dataclass(frozen=True)
class Task:
    """The images of a dataset that are used, and their crops.

    Attributes:
        drawing: the dataset.
        classes: ``(C,)`` labels that are used: all species of every N-th genus.
        side: side of a crop, in pixels.
        seed: seed of the locations of crops.
    """

    drawing: Drawing
    classes: np.ndarray
    side: int
    seed: int

    def indices(self, part: str) -> np.ndarray:
        """Indices ``(N,)`` of the images of a part that are used."""
        return np.flatnonzero(np.isin(self.drawing.labels(part), self.classes))

    def targets(self, part: str) -> np.ndarray:
        """Indices ``(N,)`` int64 in `classes` of the classes of these images."""
        return np.searchsorted(self.classes, self.drawing.labels(part)[self.indices(part)])

    def genera(self) -> np.ndarray:
        """Names of the genera of `classes`, ``(C,)``."""
        names = self.drawing.class_names
        return np.array([names[label].split(",")[0] for label in self.classes])


def choose_task(options: Options) -> Task:
    """The images that the options choose.

    Raises:
        ValueError: some class has no image in one of the parts.
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
    """Left and top of the crops of every image, ``(N, CROPS, 2)``, for "parts" and "random"."""
    layout, indices = task.drawing.layout(part), task.indices(part)
    discriminative = layout.discriminative[indices]
    n, parts = discriminative.shape
    rng = np.random.default_rng([task.seed, part == "test"])
    chosen = np.where(discriminative.any(axis=1, keepdims=True), discriminative, True)
    # Discriminative parts in a random order; if there are two, each crop takes another.
    order = np.argsort(np.where(chosen, rng.random((n, parts)), 2.0), axis=1)
    which = np.arange(CROPS) % chosen.sum(axis=1, keepdims=True)
    which = np.take_along_axis(order, which, axis=1)
    boxes = layout.part_boxes[indices[:, None], which]
    middle = boxes[..., :2] + boxes[..., 2:] // 2
    reach = int(task.side * JITTER)
    middle += rng.integers(-reach, reach + 1, middle.shape)
    room = task.drawing.image_size - task.side
    return {
        "parts": np.clip(middle - task.side // 2, 0, room),
        "random": rng.integers(0, room + 1, (n, CROPS, 2)),
    }


def draw_crops(task: Task, part: str, folder: Path, processes: int) -> dict[str, np.ndarray]:
    """Draws every image once and keeps its crops.

    Returns:
        For each of `KINDS` a file in `folder`, mapped to memory, ``(N, crops, side, side, 3)``
        uint8; the thumbnail is one crop.
    """
    n, side = len(task.indices(part)), task.side
    files = {kind: folder / f"{part}_{kind}.npy" for kind in KINDS}
    for kind, file in files.items():
        shape = (n, 1 if kind == "thumbnail" else CROPS, side, side, 3)
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
    for k, row in zip(chunk.tolist(), task.indices(part)[chunk].tolist(), strict=True):
        image = task.drawing.draw(part, row)
        out["thumbnail"][k] = box_resize(image[None], task.side)
        for kind, corners in where.items():
            for crop, (left, top) in enumerate(corners[k].tolist()):
                out[kind][k, crop] = image[top : top + task.side, left : left + task.side]


def make_net(side: int, num_classes: int) -> nn.Sequential:
    """The classifier: four convolutions with pooling, and one linear layer on their map.

    Crops of 224 pixels begin with a 7x7 convolution of stride 4. It is wide enough for the waves of
    a texture, which its locations see in all phases; pooling takes the strongest response.
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


def as_input(crops: np.ndarray, device: torch.device) -> Tensor:
    """Crops ``(B, side, side, 3)`` as the network's input ``(B, 3, side, side)`` float32."""
    pixels = torch.from_numpy(np.array(crops)).to(device).permute(0, 3, 1, 2)
    return (pixels.float() - 127) / 50


def train_net(
    crops: np.ndarray, labels: np.ndarray, num_classes: int, options: Options, updates: int
) -> nn.Module:
    """Trains a network on crops ``(N, crops, side, side, 3)``; batches are flipped at random."""
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    net = make_net(crops.shape[2], num_classes).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=updates
    )
    epochs = -(-updates * options.batch_size // len(labels))
    rows = np.concatenate([rng.permutation(len(labels)) for _ in range(epochs)])
    for step in range(updates):
        batch = rows[step * options.batch_size : (step + 1) * options.batch_size]
        crop = rng.integers(0, crops.shape[1], len(batch))
        pixels = as_input(crops[batch, crop], device)
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
def answer(net: nn.Module, crops: np.ndarray, device: torch.device) -> np.ndarray:
    """The class with the largest mean log-probability over the crops of an image, ``(N,)``."""
    answers = []
    for chunk in np.array_split(crops, max(1, len(crops) // 100)):
        scores = net(as_input(chunk.reshape(-1, *chunk.shape[2:]), device)).log_softmax(1)
        answers.append(scores.unflatten(0, chunk.shape[:2]).mean(1).argmax(1).cpu().numpy())
    return np.concatenate(answers)


def score(task: Task, answers: np.ndarray) -> dict[str, Any]:
    """Accuracy, %: of species, of genera, and of species by number of discriminative parts."""
    targets, genera = task.targets("test"), task.genera()
    discriminative = task.drawing.layout("test").discriminative[task.indices("test")].sum(axis=1)
    right = answers == targets
    return {
        "accuracy": _percent(right),
        "genus_accuracy": _percent(genera[answers] == genera[targets]),
        "accuracy_by_discriminative_parts": {
            int(k): _percent(right[discriminative == k]) for k in np.unique(discriminative)
        },
    }


def _percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 1)


def compare(task: Task, options: Options, updates: int) -> tuple[dict[str, Any], float]:
    """Draws, trains and tests each of `KINDS`; returns their figures and the drawing's seconds."""
    device, results = choose_device(options.device), {}
    targets = {part: task.targets(part) for part in ("train", "test")}
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        crops = {
            part: draw_crops(task, part, Path(name), options.processes)
            for part in ("train", "test")
        }
        drawn = time.perf_counter() - start
        for kind in KINDS:
            start = time.perf_counter()
            train, test = crops["train"][kind], crops["test"][kind]
            net = train_net(train, targets["train"], len(task.classes), options, updates)
            results[kind] = score(task, answer(net, test, device))
            first = answer(net, test[:, :1], device)
            results[kind]["accuracy_of_first_look"] = _percent(first == targets["test"])
            results[kind]["seconds"] = round(time.perf_counter() - start, 1)
            print(f"{kind:9}", results[kind], flush=True)
        del crops, train, test  # they are mapped from files that are deleted next
    return results, round(drawn, 1)


def run(options: Options) -> dict[str, Any]:
    """Compares, prints, and returns the content of ``--json``."""
    task = choose_task(options)
    counts = {f"{part}_images": len(task.indices(part)) for part in ("train", "test")}
    genera, classes = len(np.unique(task.genera())), len(task.classes)
    print(
        f"{counts['train_images']} + {counts['test_images']} images of {classes} classes in "
        f"{genera} genera, crops of {task.side} at {task.drawing.image_size} pixels",
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
        write_result(options.json, figures)


if __name__ == "__main__":
    run_program(main)
