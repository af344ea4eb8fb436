"""Shows that drawn species differ in their discriminative parts, and not in the thumbnail.

    python benchmarks/drawn_parts.py --profile small
    python benchmarks/drawn_parts.py --profile full --json benchmarks/results/drawn_parts_full.json
    python benchmarks/drawn_parts.py --profile scenes

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
which keeps the shares of genera with 0, 1 and 2 discriminative parts.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from benchmarks.timing import BenchmarkOptions, run_benchmark
from dtram_env.datasets.drawn import BIRDS, SCENES, SMALL_BIRDS, Drawing
from dtram_env.datasets.storage.thumbnails import box_resize
from train.common.options import check
from train.common.provenance import choose_device

CROPS = 2
"""crops of an image at parts or at random locations"""
KINDS = {"thumbnail": slice(0, 1), "parts": slice(1, 3), "random": slice(3, 5)}
"""crops of an image that each network is trained on"""
JITTER = 1 / 16
"""largest offset of a crop from the centre of its part, as a share of the crop's side"""
PROFILES = {"small": (SMALL_BIRDS, 1, 32), "full": (BIRDS, 4, 224), "scenes": (SCENES, 1, 64)}
"""birds, every N-th genus, and side of a crop"""
BATCH_SIZE, LEARNING_RATE = 64, 3e-3  # crops a batch, and the peak of the one-cycle schedule


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Trains and tests the three classifiers."""

    profile: Literal["small", "full", "scenes"] = "small"
    """small: 128 pixels, 20 classes, crops of 32; full: 512 pixels, crops of 224; scenes: the birds
    of small in 512 pixels, crops of 64"""
    num_train: int | None = None
    """training images of all genera; the profile's number if not given"""
    num_test: int | None = None
    """test images of all genera; the profile's number if not given"""
    updates: int = 800
    """training steps"""
    device: str = "auto"
    """device to train on"""


class Task(NamedTuple):
    """The images of a dataset that are used, and their crops."""

    drawing: Drawing
    classes: np.ndarray  # (C,), labels that are used: all species of every N-th genus
    side: int  # of a crop, in pixels

    def indices(self, part: str) -> np.ndarray:
        """Indices ``(N,)`` of the images of a part that are used."""
        return np.flatnonzero(np.isin(self.drawing.labels(part), self.classes))

    def targets(self, part: str) -> np.ndarray:
        """Indices ``(N,)`` int64 in `classes` of the classes of these images."""
        return np.searchsorted(self.classes, self.drawing.labels(part)[self.indices(part)])


def choose_task(options: Options) -> Task:
    """The images that the options choose; ValueError if a class has no image."""
    drawing, every, side = PROFILES[options.profile]
    num_train = options.num_train or drawing.num_train
    num_test = options.num_test or drawing.num_test
    drawing = replace(drawing, num_train=num_train, num_test=num_test)
    genera = [name.split(",")[0] for name in drawing.class_names]
    kept = list(dict.fromkeys(genera))[::every]
    task = Task(drawing, np.flatnonzero(np.isin(genera, kept)), side)
    for part, count in (("train", num_train), ("test", num_test)):
        complete = len(np.unique(task.targets(part))) == len(task.classes)
        expected = f"at least {drawing.num_classes}, an image a class"
        check(f"num_{part}", count, complete, expected)
    return task


def places(task: Task, part: str) -> dict[str, np.ndarray]:
    """Left and top of the crops of every image, ``(N, CROPS, 2)``, for "parts" and "random"."""
    layout, indices = task.drawing.layout(part), task.indices(part)
    discriminative = layout.discriminative[indices]
    n, parts = discriminative.shape
    rng = np.random.default_rng([0, part == "test"])
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


def draw_crops(task: Task, part: str) -> dict[str, np.ndarray]:
    """Crops ``(N, crops, side, side, 3)`` uint8 for each of `KINDS`."""
    corners, side = np.concatenate(list(places(task, part).values()), axis=1), task.side
    crops = np.empty((len(corners), 1 + corners.shape[1], side, side, 3), np.uint8)
    for own, index, spots in zip(crops, task.indices(part), corners.tolist(), strict=True):
        image = task.drawing.draw(part, index)
        own[0] = box_resize(image[None], side)[0]
        own[1:] = [image[top : top + side, left : left + side] for left, top in spots]
    return {kind: crops[:, which] for kind, which in KINDS.items()}


def make_net(side: int, num_classes: int) -> nn.Sequential:
    """The classifier: four convolutions with pooling, and one linear layer on their map."""
    large = side > 64  # then the first one is 7x7, wide enough for the waves of a texture
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
    pixels = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2)
    return (pixels.float() - 127) / 50


def train_net(
    crops: np.ndarray, labels: np.ndarray, num_classes: int, updates: int, device: torch.device
) -> nn.Module:
    """Trains a network on crops ``(N, crops, side, side, 3)``; batches are flipped at random."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = make_net(crops.shape[2], num_classes).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=updates)
    epochs = -(-updates * BATCH_SIZE // len(labels))
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(epochs)])
    for batch in order[: updates * BATCH_SIZE].reshape(updates, -1):
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


def run(options: Options) -> dict[str, Any]:
    """Trains and tests each of `KINDS`; returns the content of ``--json``, accuracies in %."""
    task, device = choose_task(options), choose_device(options.device)
    targets = {part: task.targets(part) for part in ("train", "test")}
    crops = {part: draw_crops(task, part) for part in targets}
    used = {f"{part}_images": len(targets[part]) for part in targets}
    results = {}
    for kind in KINDS:
        inputs = crops["train"][kind], targets["train"], len(task.classes)
        net, test = train_net(*inputs, options.updates, device), crops["test"][kind]
        looks = {"accuracy": test, "accuracy_of_first_look": test[:, :1]}
        right = {name: answer(net, seen, device) == targets["test"] for name, seen in looks.items()}
        results[kind] = {name: round(100 * float(r.mean()), 1) for name, r in right.items()}
        print(f"{kind:9}", results[kind], flush=True)
    return {"used": {"classes": len(task.classes), **used}, "look": task.side, "results": results}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
