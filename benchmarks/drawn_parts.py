"""Proof that a drawn dataset hides its species from afar: one classifier, three things to look at.

    python benchmarks/drawn_parts.py --profile small      # 128-pixel images, 32-pixel looks
    python benchmarks/drawn_parts.py --profile full       # 512-pixel images, 224-pixel looks

The same convolutional network is trained from the same start, at the same input size and for the
same number of updates, on

- "thumbnail": the whole image, shrunk to the size of a look;
- "parts": looks, at full resolution, at the parts that tell the species apart;
- "random": looks, at full resolution, at random places.

For equal compute a training example is one look in all three: at one telling part, drawn from the
one or two that the image has (from all parts where the genus has a single species), or at one
random place. A test image gets two such looks, at both telling parts if there are two, and the
answer is the class with the largest mean log-probability: what either part tells is used. The
thumbnail is the same at every look.
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
from dtram_env.datasets.thumbnails import box_resize
from train.provenance import choose_device, provenance
from train.run import write_json

KINDS = ("thumbnail", "parts", "random")
LOOKS = 2
"""looks at a test image, and different ones at a training image"""
JITTER = 1 / 16
"""how far the middle of a look is from the middle of its part, as a share of the look, each way"""


@dataclass(frozen=True)
class Options:
    """Trains and tests the three classifiers."""

    profile: Literal["small", "full"] = "small"
    """small: 128 pixels, 20 classes, looks of 32; full: 512 pixels, all classes, looks of 224"""
    plan: Literal["birds", "autos"] = "birds"
    """which dataset"""
    num_train: int | None = None
    """training images; all of the profile's if not given"""
    num_test: int = 2000
    """test images, the first ones of the profile's"""
    updates: int | None = None
    """training steps: small 800, full 1500"""
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


def choose_drawing(options: Options) -> Drawing:
    """The dataset, with as many images as are used."""
    whole = BIRDS if options.plan == "birds" else AUTOS
    if options.profile == "small":
        whole = replace(SMALL_BIRDS, plan=options.plan)
    if not 1 <= options.num_test <= whole.num_test:
        raise ValueError(f"--num-test {options.num_test}: expected 1 to {whole.num_test}")
    count = whole.num_train if options.num_train is None else options.num_train
    return replace(whole, num_train=count, num_test=options.num_test)


def places(drawing: Drawing, part: str, side: int, seed: int) -> dict[str, np.ndarray]:
    """Left and top of the looks at every image, ``(N, LOOKS, 2)``, for "parts" and "random"."""
    layout = drawing.layout(part)
    n, parts = layout.telling.shape
    rng = np.random.default_rng([seed, part == "test"])
    chosen = np.where(layout.telling.any(axis=1, keepdims=True), layout.telling, True)
    # Telling parts in a drawn order; of two, each look takes another.
    order = np.argsort(np.where(chosen, rng.random((n, parts)), 2.0), axis=1)
    which = np.arange(LOOKS) % chosen.sum(axis=1, keepdims=True)
    which = np.take_along_axis(order, which, axis=1)
    boxes = layout.part_boxes[np.arange(n)[:, None], which]
    middle = boxes[..., :2] + boxes[..., 2:] // 2
    reach = int(side * JITTER)
    middle += rng.integers(-reach, reach + 1, middle.shape)
    room = drawing.image_size - side
    return {
        "parts": np.clip(middle - side // 2, 0, room),
        "random": rng.integers(0, room + 1, (n, LOOKS, 2)),
    }


def draw_looks(
    drawing: Drawing, part: str, side: int, seed: int, folder: Path, processes: int
) -> dict[str, np.ndarray]:
    """Draws a part's images once and keeps what is looked at.

    Returns:
        For each of `KINDS` a file in `folder`, mapped to memory, ``(N, looks, side, side, 3)``
        uint8; a thumbnail is one look.
    """
    n = drawing.num_train if part == "train" else drawing.num_test
    files = {kind: folder / f"{part}_{kind}.npy" for kind in KINDS}
    for kind, file in files.items():
        shape = (n, 1 if kind == "thumbnail" else LOOKS, side, side, 3)
        np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    chunks = np.array_split(np.arange(n), max(1, n // 200))
    where = places(drawing, part, side, seed)
    context = get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [
            pool.submit(_draw_chunk, drawing, part, rows, where, side, files) for rows in chunks
        ]
        for job in jobs:
            job.result()
    return {kind: np.load(file, mmap_mode="r") for kind, file in files.items()}


def _draw_chunk(
    drawing: Drawing,
    part: str,
    rows: np.ndarray,
    where: dict[str, np.ndarray],
    side: int,
    files: dict[str, Path],
) -> None:
    out = {kind: np.load(file, mmap_mode="r+") for kind, file in files.items()}
    for row in rows.tolist():
        image = drawing.draw(part, row)
        out["thumbnail"][row] = box_resize(image[None], side)
        for kind, corners in where.items():
            for look, (left, top) in enumerate(corners[row].tolist()):
                out[kind][row, look] = image[top : top + side, left : left + side]


def make_net(side: int, num_classes: int) -> nn.Sequential:
    """The classifier: 3x3 convolutions, each followed by pooling, and one linear layer on a map.

    Looks of 224 pixels go through a first convolution of stride 2.
    """
    large = side > 64
    widths = [24, 32, 64, 96, 128] if large else [24, 32, 48, 64]
    layers: list[nn.Module] = []
    channels, size = 3, side
    for k, width in enumerate(widths):
        kernel, stride = (5, 2) if large and k == 0 else (3, 1)
        layers += [
            nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if large or k > 0:
            layers.append(nn.MaxPool2d(2))
        channels, size = width, size // (2 * stride if large or k > 0 else stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size**2, num_classes))


def as_input(looks: np.ndarray, device: torch.device) -> Tensor:
    """Looks ``(B, side, side, 3)`` as ``(B, 3, side, side)`` float32, in the network's scale."""
    pixels = torch.from_numpy(looks).to(device).permute(0, 3, 1, 2)
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


def score(drawing: Drawing, answers: np.ndarray) -> dict[str, Any]:
    """Accuracy in percent: of species, of genera, and of species by number of telling parts."""
    labels, telling = drawing.labels("test"), drawing.layout("test").telling.sum(axis=1)
    genus = np.array([name.split(",")[0] for name in drawing.class_names])
    right = answers == labels
    return {
        "accuracy": round(100 * float(right.mean()), 1),
        "genus_accuracy": round(100 * float((genus[answers] == genus[labels]).mean()), 1),
        "accuracy_by_telling_parts": {
            int(k): round(100 * float(right[telling == k].mean()), 1) for k in np.unique(telling)
        },
    }


def main(options: Options) -> dict[str, Any]:
    """Draws, trains three times, prints a line for each kind, and returns all figures."""
    drawing = choose_drawing(options)
    side = 32 if options.profile == "small" else 224
    updates = options.updates or {"small": 800, "full": 1500}[options.profile]
    device = choose_device(options.device)
    began = time.perf_counter()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        looks = {
            part: draw_looks(drawing, part, side, options.seed, Path(name), options.processes)
            for part in ("train", "test")
        }
        drawn = time.perf_counter() - began
        labels = drawing.labels("train")
        for kind in KINDS:
            start = time.perf_counter()
            net = train_net(looks["train"][kind], labels, drawing.num_classes, options, updates)
            results[kind] = score(drawing, answer(net, looks["test"][kind], device))
            results[kind]["seconds"] = round(time.perf_counter() - start, 1)
            print(f"{kind:9}", results[kind], flush=True)
        del looks
    gap = round(results["parts"]["accuracy"] - results["thumbnail"]["accuracy"], 1)
    genera = len({name.split(",")[0] for name in drawing.class_names})
    print(f"the thumbnail is {gap} points under the parts")
    return {
        "options": {k: v for k, v in asdict(options).items() if k != "json"},
        "drawing": asdict(drawing),
        "look": side,
        "updates": updates,
        "mflops_a_look": round(_flops(side, drawing.num_classes) / 1e6, 1),
        "results": results,
        "points_between_parts_and_thumbnail": gap,
        "best_without_texture": round(100 * genera / drawing.num_classes, 1),
        "seconds_drawing": round(drawn, 1),
        "seconds": round(time.perf_counter() - began, 1),
        **provenance(device),
    }


def _flops(side: int, num_classes: int) -> int:
    with FlopCounterMode(display=False) as counter:
        make_net(side, num_classes).eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops()


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    figures = main(chosen)
    if chosen.json is not None:
        write_json(chosen.json, figures)
