"""What the benchmarks share: their options, their clock and their command line."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from train.common.options import check
from train.common.provenance import choose_device, provenance
from train.common.records import check_destination, write_result
from train.common.run import run_program


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of every benchmark."""

    json: Path | None = None
    """write the figures here, with command, commit, hardware and versions"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and name != "seed":  # True and False are no counts
                check(name, value, value >= 1, "1 or more")
            elif isinstance(value, float):
                check(name, value, value > 0, "more than 0")


def run_benchmark(
    kind: type[BenchmarkOptions],
    measure: Callable[[Any], dict[str, Any]],
    description: str | None,
    device: str = "cpu",
) -> None:
    """The command line: measures, prints and writes ``--json``, with `device` if it has no own."""

    def main() -> None:
        options = tyro.cli(kind, description=description)
        if options.json is not None:
            check_destination(options.json)
        result = measure(options)
        print(json.dumps(result, indent=2))
        if options.json is not None:
            origin = provenance(choose_device(getattr(options, "device", device)))
            settings = {k: v for k, v in asdict(options).items() if k not in ("json", "folder")}
            write_result(options.json, {**origin, "options": settings, **result})

    run_program(main)


def doubling(device: torch.device) -> tuple[int, ...]:
    """Batch sizes 128, 256 ... 65,536, on the CPU up to 1,024."""
    return tuple(128 * 2**k for k in range(10 if device.type == "cuda" else 4))


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_rate(
    work: Callable[[], object],
    seconds: float,
    rounds: int = 1,
    calls: int = 10,
    device: torch.device | str = "cpu",
) -> float:
    """Calls of `work` a second, the best of several rounds after a fifth of one as a warm-up.

    After so many `calls` it waits for the device, if that is a GPU, and looks at the clock.
    """

    def rate(seconds: float) -> float:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(calls):
                work()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            done += calls
        return done / (time.perf_counter() - began)

    rate(seconds / 5)
    return max(rate(seconds) for _ in range(rounds))
