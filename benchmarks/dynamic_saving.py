"""Does stopping early save time? Measured time an image, dynamic against fixed, over their FLOPs.

    python benchmarks/dynamic_saving.py                            # ResNet-50, 512/224, on the CPU
    python benchmarks/dynamic_saving.py --first-look 448 --device cuda
    python benchmarks/dynamic_saving.py --encoder resnet18 --json out.json

The talk's setting: images of 512 pixels, a look at the whole, then crops of 224, 3 glimpses at
most, batches of 64. The weights are random, so a rule stops given shares of a batch after each
glimpse, by default so that the mean is 1.9; the fixed model takes all 3. Both answer the same
images by `agents.unroll.classify`, in turn, in one process. The saving is real if the quotient,
the ratio of their times over the ratio of their FLOPs, is near 1.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.cost import flops_of_first_glimpse, flops_per_glimpse, mean_flops
from agents.dtram import DTRAM, DTRAMConfig
from agents.resnet import RESNETS, ResNetOptions
from agents.stopping import FixedStop, StoppingRule
from agents.unroll import GlimpseSensor, classify
from benchmarks.timing import BenchmarkOptions, run_benchmark, seconds_of
from dtram_env import sensor
from dtram_env.datasets.storage.tensors import TensorStore
from train.common.options import check
from train.common.provenance import choose_device


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compares the time of a dynamic model with that of a fixed one."""

    encoder: str = "resnet50"
    """one of the resnets"""
    width: int = 64
    """channels of its stem; torchvision's is 64"""
    image_size: int = 512
    """side of the images, in pixels"""
    glimpse_size: int = 224
    """side of a crop, in pixels"""
    first_look: int = 224
    """side of the look at the whole image, in pixels; the talk's on CUB is 448"""
    shares: tuple[float, ...] = (0.35, 0.4, 0.25)
    """share of the images that stop after glimpse 1, 2 ...; as many as the budget T_max"""
    batch_size: int = 64
    """images a batch"""
    images: int = 64
    """images that are answered"""
    repeats: int = 3
    """measurements of each model, in turn; their medians are reported"""
    device: str = "cpu"
    """where it runs"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("encoder", self.encoder, self.encoder in RESNETS, f"one of {', '.join(RESNETS)}")
        shares = min(self.shares, default=-1) >= 0 and abs(sum(self.shares) - 1) <= 1e-9
        check("shares", self.shares, shares, "shares, 0 to 1, that sum to 1")


@dataclass(frozen=True)
class ShareStop:
    """Stops given shares of a batch after each glimpse, spread evenly over the batch."""

    shares: tuple[float, ...]

    def stops(self, time: Tensor, logits: Tensor, stop_logit: Tensor) -> Tensor:
        t = int(time[0])
        left = sum(self.shares[t - 1 :])
        now = self.shares[t - 1] / left if left else 1.0
        steps = torch.arange(len(stop_logit) + 1, device=stop_logit.device, dtype=torch.float64)
        return (steps * now + 0.5).floor().diff() > 0


def make_agent(options: Options, device: torch.device) -> DTRAM:
    """A random model as on CUB."""
    torch.manual_seed(0)
    resnet = ResNetOptions(options.encoder, width=options.width)
    own_size = options.first_look if options.first_look != options.glimpse_size else 0
    config = DTRAMConfig(
        200,
        (options.glimpse_size, options.glimpse_size, 3),
        len(options.shares),
        thumbnail_size=own_size,
        encoder=options.encoder,
        resnet=resnet,
        hidden_size=resnet.out_features,
        pixel_mean=128.0,
        pixel_std=64.0,
    )
    return DTRAM(config).to(device).eval()


def make_store(options: Options, device: torch.device) -> TensorStore:
    """Random images; their thumbnails are made, as they are in a cache on disk."""
    shape = (options.images, options.image_size, options.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    store = TensorStore(pixels, sensor.margin(options.glimpse_size, 1))
    store.thumbnail(torch.zeros(1, dtype=torch.int64, device=device), options.first_look)
    return store


def run(options: Options) -> dict[str, Any]:
    """Times both models in turn; returns the content of ``--json``."""
    device = choose_device(options.device)
    agent, store = make_agent(options, device), make_store(options, device)
    own_size = agent.config.thumbnail_size
    glimpse_sensor = GlimpseSensor(options.glimpse_size, 1, "thumbnail", own_size)
    rules: dict[str, StoppingRule] = {
        "dynamic": ShareStop(options.shares),
        "fixed": FixedStop(len(options.shares)),
    }
    glimpses: dict[str, float] = {}

    def answer(name: str) -> None:
        """Answers all images, and keeps the mean number of glimpses."""
        agent.stopping, taken = rules[name], 0
        for indices in torch.arange(options.images, device=device).split(options.batch_size):
            taken += int(classify(agent, glimpse_sensor, store, indices).num_glimpses.sum())
        glimpses[name] = taken / options.images

    answer("dynamic")  # warms up
    spent = [[seconds_of(partial(answer, name)) for name in rules] for _ in range(options.repeats)]
    seconds = np.array(spent) / options.images  # (repeats, 2)
    ratios = seconds[:, 0] / seconds[:, 1]
    medians = dict(zip(rules, np.median(seconds, axis=0).tolist(), strict=True))
    flops = {name: mean_flops(agent, glimpses[name]) for name in rules}
    time_ratio, flop_ratio = float(np.median(ratios)), flops["dynamic"] / flops["fixed"]
    figures = {
        "seconds_per_image": {name: round(median, 6) for name, median in medians.items()},
        "mean_glimpses": {name: round(mean, 4) for name, mean in glimpses.items()},
        "mean_flops": {name: round(count) for name, count in flops.items()},
        "flops_of_first_glimpse": flops_of_first_glimpse(agent),
        "flops_per_glimpse": flops_per_glimpse(agent),
        "time_ratio": round(time_ratio, 4),
        "flop_ratio": round(flop_ratio, 4),
        "quotient": round(time_ratio / flop_ratio, 4),
        "quotients": (ratios / flop_ratio).round(4).tolist(),
    }
    return {"figures": figures}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
