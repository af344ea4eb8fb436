"""What an answer costs as the image grows: three looks of 224 pixels, or one look at everything.

    python benchmarks/image_side.py                      # 128 to 4096 pixels, one thread
    python benchmarks/image_side.py --device cuda --json out.json

Both networks have the same ResNet with random weights, and answer one image at a time. The cached
image is read from a memory-mapped cache with thumbnails, as in training: DT-RAM reads the thumbnail
and two crops, the one-look network all pixels. Peak memory is what the process gets beyond the
network, each measured in a process of its own.
"""

import ctypes
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.cost import flops_of_first_glimpse, flops_per_glimpse
from agents.dtram import DTRAM, DTRAMConfig
from agents.one_look import OneLook, OneLookConfig, one_look_flops
from agents.resnet import ResNetOptions
from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, classify
from benchmarks.timing import BenchmarkOptions, run_benchmark, seconds_of
from dtram_env.datasets.processes import process_pool
from dtram_env.datasets.sources.listing import ImageList
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.datasets.storage.decode import DecodedImages
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.tensors import HostStore
from train.common.provenance import choose_device

CLASSES = 200
STATUS = Path("/proc/self/status")
SCALE = {"pixel_mean": 128.0, "pixel_std": 64.0}


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measures time, FLOPs and memory of an answer on images of several sides."""

    sides: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    """sides of the square images, in pixels"""
    encoders: tuple[str, ...] = ("resnet18", "resnet50")
    """resnets, each measured with both networks"""
    look: int = 224
    """side of the first look and of a crop, in pixels"""
    looks: int = 3
    """looks of DT-RAM, which here takes all"""
    repeats: int = 2
    """measurements, of which the median is reported, after one that warms up"""
    device: str = "cpu"
    """where the networks run"""


def make_agent(encoder: str, options: Options) -> DTRAM:
    """A DT-RAM with random weights that takes all looks."""
    resnet, shape = ResNetOptions(encoder), (options.look, options.look, 3)
    names = {"encoder": encoder, "resnet": resnet, "hidden_size": resnet.out_features}
    config = DTRAMConfig(CLASSES, shape, options.looks, **names, **SCALE)  # type: ignore[arg-type]
    return DTRAM(config, stopping=FixedStop(options.looks)).eval()


def make_one_look(encoder: str, side: int) -> OneLook:
    """A one-look network with random weights."""
    resnet = ResNetOptions(encoder)
    names = {"encoder": encoder, "resnet": resnet, "hidden_size": resnet.out_features}
    config = OneLookConfig(CLASSES, (side, side, 3), **names, **SCALE)  # type: ignore[arg-type]
    return OneLook(config).eval()


def photograph(seed: int, height: int, width: int) -> Image.Image:
    """Something with a photograph's make-up: large shapes, smaller ones, grain."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(128, 9, (height, width, 1)).repeat(3, axis=2)
    for across, contrast in ((4, 40), (16, 20), (64, 12)):
        coarse = rng.normal(0, contrast, (3, across * height // width + 1, across + 1))
        for channel, values in enumerate(coarse.astype(np.float32)):
            smooth = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(smooth)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_cache(folder: Path, side: int, look: int) -> Path:
    """A cache with the pixels and the thumbnail of a photograph."""
    photograph(0, side, side).save(folder / "photo.png")
    listing = ImageList(
        folder, ("photo.png",), np.zeros(1, np.int64), ("a",), None, "Run it again."
    )
    build_cache(folder / "cache", DecodedImages(listing, None), [look], progress=False)
    return folder / "cache"


@torch.no_grad()
def measure(kind: str, encoder: str, side: int, cache: Path, options: Options) -> dict[str, float]:
    """Milliseconds, MFLOP and peak memory of one network on one cached image."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = choose_device(options.device)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    store = HostStore(MappedStore(cache), device)
    if kind == "dtram":
        agent = make_agent(encoder, options).to(device)
        sensor = GlimpseSensor(options.look, 1, "thumbnail")
        flops = flops_of_first_glimpse(agent) + (options.looks - 1) * flops_per_glimpse(agent)

        def answer() -> object:
            return classify(agent, sensor, store, index)
    else:
        network = make_one_look(encoder, side).to(device)
        # Counted on shapes alone, so that counting takes no memory.
        with torch.device("meta"):
            flops = one_look_flops(make_one_look(encoder, side))

        def answer() -> object:
            return network(store.whole(index)).argmax(dim=-1).cpu()

    make_one_look(encoder, 64).to(device)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8).to(device))
    before = start_of_peak(device)
    answer()
    after = peak_memory(device)
    seconds = [seconds_of(answer) for _ in range(options.repeats)]
    return {
        "ms": round(float(np.median(seconds)) * 1e3, 2),
        "mflop": round(flops / 1e6, 1),
        "peak_memory_mb": round(after - before, 1),
    }


def start_of_peak(device: torch.device) -> float:
    """Memory of this process on the device, in MB (1e6 bytes); `peak_memory` begins here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else memory freed before would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    return status_of_process("VmRSS")


def peak_memory(device: torch.device) -> float:
    """The most memory of this process on the device since `start_of_peak`, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return status_of_process("VmHWM")


def status_of_process(name: str) -> float:
    """An entry of Linux's table of this process's memory, such as VmRSS, in MB (1e6 bytes)."""
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"{STATUS}: expected a line {name}; memory can be measured on Linux only")


def run(options: Options) -> dict[str, Any]:
    """Measures all, each in a process of its own; returns the content of ``--json``."""
    figures: dict[str, Any] = {name: {} for name in options.encoders}
    with process_pool(1, max_tasks_per_child=1) as alone:
        for side in options.sides:
            with tempfile.TemporaryDirectory() as place:
                cache = make_cache(Path(place), side, options.look)
                for encoder in options.encoders:
                    figures[encoder][str(side)] = {
                        kind: alone.submit(measure, kind, encoder, side, cache, options).result()
                        for kind in ("dtram", "one_look")
                    }
    return {"figures": figures}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
