"""What an answer costs as a scene grows: three looks of the shipped DT-RAM, or one look at all.

    python benchmarks/scene_side.py                 # scenes of 256, 512 and 1024 pixels, one thread
    python benchmarks/scene_side.py --device cuda --json out.json

The time does not depend on weights: DT-RAM is the one shipped for 512 pixels at every side, and
the one-look network is the same ResNet-18 with random weights on all pixels. `train/reproduce.py
scenes` trains each, and has their errors and DT-RAM's mean number of looks, which is below three.
Both answer the same scenes, in turn, in one process, one at a time and in batches.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.cost import mean_flops
from agents.loading import load_agent, load_one_look
from agents.one_look import OneLook, one_look_flops
from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, classify
from benchmarks.timing import BenchmarkOptions, run_benchmark, seconds_of
from dtram_env.datasets.drawn import SCENES
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.sensor import margin
from train.common.options import check
from train.common.provenance import choose_device

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compares DT-RAM with one look at scenes of several sides."""

    sides: tuple[int, ...] = (256, 512, 1024)
    """sides of the scenes, in pixels; at least 256"""
    images: int = 64
    """scenes that are answered"""
    batch_sizes: tuple[int, ...] = (1, 64)
    """scenes that are answered together"""
    looks: int = 3
    """looks of DT-RAM at each scene, at most its budget of 6"""
    repeats: int = 5
    """measurements of each network, in turn; their medians are reported"""
    device: str = "cpu"
    """where they run"""


def compare(side: int, options: Options) -> dict[str, Any]:
    """FLOPs and milliseconds of an answer by both networks, and DT-RAM's share."""
    device = choose_device(options.device)
    drawing = replace(SCENES, image_size=side, num_test=options.images)
    images = torch.from_numpy(drawing.draw_many("test", np.arange(options.images))).to(device)
    agent, indices = load_agent(PRETRAINED / "scenes", device), torch.arange(len(images)).to(device)
    agent.stopping = FixedStop(options.looks)
    check("looks", options.looks, options.looks <= agent.config.max_glimpses, "at most 6")
    look = agent.config.glimpse_shape[0]
    store, sensor = TensorStore(images, margin(look, 1)), GlimpseSensor(look, 1, "thumbnail")
    store.thumbnail(indices[:1], look)  # made once, as in a cache on disk
    shape = {"image_shape": (side, side, 3)}
    one_look = OneLook(replace(load_one_look(PRETRAINED / "scenes-look").config, **shape))
    one_look = one_look.to(device).eval()

    def look_often(batch: Tensor) -> Tensor:
        return classify(agent, sensor, store, batch).prediction

    @torch.no_grad()
    def look_once(batch: Tensor) -> Tensor:
        return one_look(store.whole(batch)).argmax(dim=-1)

    def answer(network: Callable[[Tensor], Tensor], batch_size: int) -> None:
        for batch in indices.split(batch_size):
            network(batch).cpu()  # waits for the device

    with torch.device("meta"):  # counted on shapes alone
        flops = mean_flops(agent, options.looks), one_look_flops(OneLook(one_look.config))
    row: dict[str, Any] = {
        "dtram_mflop": round(flops[0] / 1e6, 2),
        "one_look_mflop": round(flops[1] / 1e6, 2),
        "share_of_flops": round(flops[0] / flops[1], 4),
    }
    for size in options.batch_sizes:
        works = [partial(answer, network, size) for network in (look_often, look_once)]
        for work in works:
            work()  # warms up
        spent = [[seconds_of(work) for work in works] for _ in range(options.repeats)]
        seconds = np.median(spent, axis=0) / options.images
        row[f"batches_of_{size}"] = {
            "dtram_ms": round(1e3 * float(seconds[0]), 3),
            "one_look_ms": round(1e3 * float(seconds[1]), 3),
            "share_of_time": round(float(np.median([a / b for a, b in spent])), 4),
        }
    return row


def run(options: Options) -> dict[str, Any]:
    """Measures all sides; returns the content of ``--json``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {"figures": {str(side): compare(side, options) for side in options.sides}}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
