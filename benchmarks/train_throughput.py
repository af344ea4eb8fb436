"""Training throughput: images/s of the whole training step, and how much of the machine it uses.

    python benchmarks/train_throughput.py                    # on the GPU if there is one
    python benchmarks/train_throughput.py --compile --bf16 --batch-sizes 4096 65536

The setting is the usual one of RAM programs: 6 glimpses of 8x8, one trajectory an image, recurrent
state 256. A step samples trajectories, computes the hybrid loss, its gradient and an AdamW update.
FLOPs are counted by torch on the step itself; the machine's own limit is the time of the same FLOPs
in large matrix products of the same type, in the same run.
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
from benchmarks.timing import BenchmarkOptions, best_rate, doubling, run_benchmark
from dtram_env import sensor
from dtram_env.datasets.storage.tensors import TensorStore
from train.common.compiled import compiled
from train.common.provenance import choose_device


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measures the training step."""

    glimpses: int = 6
    """glimpses of every trajectory"""
    batch_sizes: tuple[int, ...] = ()
    """images a step, one after another; if not given, 128, 256 ... 65536 on a GPU, up to 1024 on
    the CPU"""
    m: int = 1
    """trajectories an image"""
    hidden_size: int = 256
    """width of the recurrent state"""
    bf16: bool = False
    """run encoder and core under autocast to bfloat16"""
    compile: bool = False
    """compile the step, as --compile of the training programs"""
    seconds: float = 3.0
    """how long to measure each batch size, after a warm-up"""
    device: str = "auto"
    """where it runs"""


def make_step(
    options: Options, batch_size: int, device: torch.device, compile: bool = False
) -> Callable[[], None]:
    """The training step on random 28x28 images that stay on the device."""
    torch.manual_seed(0)
    count = 10_000
    pixels = torch.randint(0, 256, (count, 28, 28, 1), dtype=torch.uint8, device=device)
    store = TensorStore(pixels, sensor.margin(8, 1))
    labels, glimpse = torch.randint(0, 10, (count,), device=device), GlimpseSensor(8)
    glimpse.make_tables(store, labels[:1])
    agent = DTRAM(DTRAMConfig(10, (8, 8, 1), options.glimpses, hidden_size=options.hidden_size))
    agent = agent.to(device)
    objective = Objective(baseline="value")
    unroll = Unroll(agent, glimpse, 0.1, bf16=options.bf16)
    sample, loss = compiled(unroll, compile, device), compiled(hybrid_loss, compile, device)
    optimizer = torch.optim.AdamW(agent.parameters(), fused=True)

    def step() -> None:
        indices = torch.randint(0, count, (batch_size,), device=device)
        trajectory = sample(store, indices, options.glimpses, options.m)
        losses = loss(trajectory, labels[indices], options.m, objective, agent.scalar_baseline)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    return step


def measure(
    options: Options, batch_size: int, device: torch.device, limit: float
) -> dict[str, Any]:
    """The figures of one batch size; `limit` is the device's rate in FLOP/s."""
    with FlopCounterMode(display=False) as counter:
        make_step(options, batch_size, device)()
    flops = counter.get_total_flops() / batch_size
    step = make_step(options, batch_size, device, options.compile)
    images = best_rate(step, options.seconds, calls=5, device=device) * batch_size
    row = {
        "device": device.type,
        "batch_size": batch_size,
        "images_per_second": round(images),
        "glimpses_per_second": round(images * options.m * options.glimpses),
        "images_per_second_of_matmuls": round(limit / flops),
        "flops_per_image": round(flops),
        "achieved_gflops": round(images * flops / 1e9, 1),
        "matmul_gflops": round(limit / 1e9, 1),
        "fraction_of_matmul_rate": round(images * flops / limit, 3),
    }
    print(
        f"batch {batch_size:6,d}: {images:12,.0f} images/s, {row['glimpses_per_second']:12,d} "
        f"glimpses/s; matrix products of the same FLOPs: {limit / flops:12,.0f} images/s",
        flush=True,
    )
    return row


def matmul_rate(options: Options, device: torch.device) -> float:
    """FLOP/s of large matrix products."""
    n = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return best_rate(lambda: a @ b, options.seconds, calls=1, device=device) * 2 * n**3


def run(options: Options) -> dict[str, Any]:
    """Measures every batch size, and returns the content of ``--json``."""
    device = choose_device(options.device)
    sizes = options.batch_sizes or doubling(device)
    limit = matmul_rate(options, device)
    return {"rows": [measure(options, size, device, limit) for size in sizes]}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
