"""Training throughput: images/s of the whole training step, and how much of the machine it uses.

    python benchmarks/train_throughput.py                 # CPU, and the GPU if there is one
    python benchmarks/train_throughput.py --json out.json

The setting is the usual one of RAM programs: 6 glimpses of 8x8, batch 128, one trajectory an
image, recurrent state 256. A step samples trajectories, computes the hybrid loss, its gradient and
an AdamW update. FLOPs are counted by torch on the step itself; the machine's rate is that of large
float32 matrix products in the same run.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM, DTRAMConfig
from agents.objective import Objective, hybrid_loss
from agents.unroll import GlimpseSensor, Unroll
from benchmarks.timing import BenchmarkOptions, best_rate, run_benchmark
from dtram_env import sensor
from dtram_env.datasets.storage.tensors import TensorStore


@dataclass(frozen=True)
class Options(BenchmarkOptions):
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


def make_step(options: Options, device: torch.device) -> Callable[[], None]:
    """The training step on random 28x28 images that stay on the device."""
    torch.manual_seed(0)
    count = 10_000
    pixels = torch.randint(0, 256, (count, 28, 28, 1), dtype=torch.uint8, device=device)
    store = TensorStore(pixels, sensor.margin(8, 1))
    labels = torch.randint(0, 10, (count,), device=device)
    agent = DTRAM(DTRAMConfig(10, (8, 8, 1), options.glimpses, hidden_size=options.hidden_size))
    agent = agent.to(device)
    unroll, objective = Unroll(agent, GlimpseSensor(8), 0.1), Objective(baseline="value")
    optimizer = torch.optim.AdamW(agent.parameters(), fused=True)

    def step() -> None:
        indices = torch.randint(0, count, (options.batch_size,), device=device)
        trajectory = unroll(store, indices, options.glimpses, options.m)
        targets = labels[indices]
        losses = hybrid_loss(trajectory, targets, options.m, objective, agent.scalar_baseline)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    return step


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    """The figures of one device."""
    step = make_step(options, device)
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops() / options.batch_size
    images = best_rate(step, options.seconds, device=device) * options.batch_size
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    matmul = best_rate(lambda: a @ b, options.seconds / 2, device=device) * 2 * n**3
    return {
        "device": device.type,
        "images_per_second": round(images),
        "flops_per_image": round(flops),
        "achieved_gflops": round(images * flops / 1e9, 1),
        "matmul_gflops": round(matmul / 1e9, 1),
        "fraction_of_matmul_rate": round(images * flops / matmul, 3),
    }


def run(options: Options) -> dict[str, Any]:
    """Measures every device, and returns the content of ``--json``."""
    names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    rows = [measure(options, torch.device(name)) for name in names]
    return {"rows": rows}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__, device="auto")
