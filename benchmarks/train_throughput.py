"""Training throughput: images/s of the whole training step, and how much of the machine it uses.

    python benchmarks/train_throughput.py                 # CPU, and the GPU if there is one
    python benchmarks/train_throughput.py --json out.json

The setting is the usual one of RAM programs: 6 glimpses of 8x8, batch 128, one trajectory an
image, recurrent state 256. A step samples trajectories, computes the hybrid loss, its gradient and
an AdamW update. FLOPs are counted by torch on the step itself; the machine's rate is that of large
float32 matrix products in the same run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM, DTRAMConfig
from agents.objective import Objective, hybrid_loss
from agents.unroll import GlimpseSensor, Unroll
from dtram_env import sensor
from dtram_env.datasets.storage.tensors import TensorStore
from train.common.provenance import provenance
from train.common.records import write_result


@dataclass(frozen=True)
class Options:
    """Measures the training step."""

    glimpses: int = 6
    """glimpses of every trajectory"""
    batch_size: int = 128
    """images a step"""
    m: int = 1
    """trajectories an image"""
    hidden_size: int = 256
    """width of the recurrent state"""
    seconds: float = 10.0
    """how long to measure, after a warm-up"""
    json: Path | None = None
    """write the figures here as well"""


def make_step(options: Options, device: torch.device) -> Callable[[], None]:
    """The training step on random 28x28 images that stay on the device."""
    torch.manual_seed(0)
    look = GlimpseSensor(8)
    store = TensorStore(
        torch.randint(0, 256, (10_000, 28, 28, 1), dtype=torch.uint8, device=device),
        sensor.margin(8, 1),
    )
    labels = torch.randint(0, 10, (10_000,), device=device)
    agent = DTRAM(DTRAMConfig(10, (8, 8, 1), options.glimpses, hidden_size=options.hidden_size))
    agent = agent.to(device)
    unroll, objective = Unroll(agent, look, 0.1), Objective()
    optimizer = torch.optim.AdamW(agent.parameters(), fused=True)

    def step() -> None:
        rows = torch.randint(0, 10_000, (options.batch_size,), device=device)
        trajectory = unroll(store, rows, options.glimpses, options.m)
        losses = hybrid_loss(trajectory, labels[rows], options.m, objective, agent.scalar_baseline)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    return step


def rate(work: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls of `work` a second, after a fifth of the time as warm-up."""

    def run(limit: float) -> float:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < limit:
            for _ in range(10):
                work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            count += 10
        return count / (time.perf_counter() - began)

    run(seconds / 5)
    return run(seconds)


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    """The figures of one device."""
    step = make_step(options, device)
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops() / options.batch_size
    images = rate(step, options.seconds, device) * options.batch_size
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    matmul = rate(lambda: a @ b, options.seconds / 2, device) * 2 * n**3
    return {
        "device": device.type,
        "images_per_second": round(images),
        "flops_per_image": round(flops),
        "achieved_gflops": round(images * flops / 1e9, 1),
        "matmul_gflops": round(matmul / 1e9, 1),
        "fraction_of_matmul_rate": round(images * flops / matmul, 3),
    }


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, description=__doc__)
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    print(
        f"{options.glimpses} glimpses 8x8, batch {options.batch_size}, M = {options.m}, "
        f"RNN {options.hidden_size}"
    )
    rows = [measure(options, device) for device in devices]
    for row in rows:
        print(
            f"{row['device']:5} {row['images_per_second']:>9,} images/s  "
            f"{row['flops_per_image'] / 1e6:.2f} MFLOP an image  {row['achieved_gflops']:,} of "
            f"{row['matmul_gflops']:,} GFLOP/s, {100 * row['fraction_of_matmul_rate']:.0f} %"
        )
    if options.json is not None:
        write_result(options.json, {**provenance(devices[-1]), "rows": rows})


if __name__ == "__main__":
    main()
