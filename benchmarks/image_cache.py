"""The cache of images: how fast files are decoded into it, and what memory looking at it takes.

    python benchmarks/image_cache.py
    python benchmarks/image_cache.py --json out.json --folder /a/disk/with/2/GB

Decoding: JPEG files of 500x375, made here, become a cache with 512 pixels on the shorter side and
thumbnails of 224, on all cores. The limit is Pillow's own reading and resizing of the same files
by as many threads, with nothing kept; both are measured in turn.

Memory: a cache of 12,000 images of 512x683 is opened, and crops of 224 are taken at random, through
the vector environment. Only the process's own memory is counted (Linux's
RssAnon): the system takes back pages of the cache's files when it needs them. The files have holes
for pixels, which take no room on a disk (they do in memory, if the folder is in tmpfs).
"""

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from benchmarks.timing import (
    BenchmarkOptions,
    photograph,
    run_benchmark,
    seconds_of,
    status_of_process,
)
from dtram_env import GlimpseVectorEnv
from dtram_env.datasets import Dataset
from dtram_env.datasets.sources.listing import ImageList
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.datasets.storage.decode import DecodedImages, resized
from dtram_env.datasets.storage.mapped import FORMAT, MappedStore, describe, thumbnails_name

FILE_SIZE = (375, 500)  # height and width of the photographs


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measures decoding to the cache, and the memory of looking at it."""

    files: int = 600
    """photographs that are decoded"""
    image_size: int = 512
    """shorter side in the cache, in pixels"""
    glimpse_size: int = 224
    """side of crops and thumbnails, in pixels"""
    repeats: int = 3
    """measurements of decoding and of its limit, in turn; their medians are reported"""
    images: int = 12_000
    """images of the cache that is opened"""
    glimpses: int = 10_000
    """crops that are taken"""
    num_envs: int = 64
    """slots of the vector environment"""
    folder: Path | None = None
    """where the temporary files go; the system's place for them if not given"""


# -- memory ---------------------------------------------------------------------------------------


def private_memory() -> float:
    """Memory of this process that no file stands behind, in MB (1e6 bytes)."""
    return status_of_process("RssAnon")


def make_empty_cache(folder: Path, options: Options) -> None:
    """Writes a finished cache of black images: files with holes."""
    count, side = options.images, options.glimpse_size
    size = resized(*FILE_SIZE, options.image_size)
    folder.mkdir()
    np.save(folder / "sizes.npy", np.full((count, 2), size, dtype=np.int32))
    lengths = {"pixels.bin": size[0] * size[1] * 3, thumbnails_name(side): side * side * 3}
    files = {"sizes.npy": describe(folder / "sizes.npy")}
    for name, length in lengths.items():
        with (folder / name).open("wb") as file:
            file.truncate(count * length)
        files[name] = {"bytes": count * length, "sha256": "not computed"}
    meta = {"format": FORMAT, "channels": 3, "images": count, "files": files, "source": {}}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def take_crops(folder: Path, options: Options) -> tuple[int, float]:
    """Takes crops through the vector environment, in episodes of 3 glimpses, the first a thumbnail.

    Returns how many, and the largest private memory, MB.
    """
    labels, rng, n = np.arange(options.images) % 2, np.random.default_rng(0), options.num_envs
    envs = GlimpseVectorEnv(
        num_envs=n,
        dataset=Dataset("black", "train", MappedStore(folder), labels, ("a", "b")),
        split="train",
        max_glimpses=3,
        glimpse_size=options.glimpse_size,
        first_glimpse="thumbnail",
    )
    envs.reset(seed=0)
    zeros, taken, most = np.zeros(n, dtype=np.int64), 0, 0.0
    while taken < options.glimpses:
        location = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        action = {"location": location, "stop": zeros, "prediction": zeros}
        _, _, ended, _, infos = envs.step(action)
        # An episode begins with a thumbnail, and its last step shows no new crop.
        taken += int((~ended & (infos["num_glimpses"] > 1)).sum())
        most = max(most, private_memory())
    envs.close()
    return taken, most


def measure_memory(folder: Path, options: Options) -> dict[str, Any]:
    """Opens a large cache and looks at it."""
    cache = folder / "black"
    make_empty_cache(cache, options)
    before = private_memory()
    opening = seconds_of(lambda: MappedStore(cache))
    _, most = take_crops(cache, options)
    return {
        "seconds_to_open": round(opening, 3),
        "environment_private_mb": round(most - before, 1),
    }


# -- decoding -------------------------------------------------------------------------------------


def make_files(folder: Path, options: Options) -> ImageList:
    """Writes the photographs."""
    folder.mkdir()
    paths = tuple(f"{i}.jpg" for i in range(options.files))

    def write(i: int) -> None:
        photograph(i, *FILE_SIZE).save(folder / paths[i], quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(len(paths))))
    return ImageList(folder, paths, np.zeros(len(paths), np.int64), ("a",), None, "Run it again.")


def read_plainly(listing: ImageList, options: Options) -> None:
    """The limit: Pillow alone reads and resizes every file, nothing is kept."""
    height, width = resized(*FILE_SIZE, options.image_size)

    def read(path: str) -> None:
        with Image.open(listing.root / path) as file:
            file.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, listing.paths))


def measure_decoding(folder: Path, options: Options) -> dict[str, Any]:
    """Times decoding to a cache, and its limit, in turn."""
    listing = make_files(folder / "files", options)

    def decode(place: str) -> None:
        images = DecodedImages(listing, options.image_size)
        build_cache(Path(place) / "cache", images, [options.glimpse_size], progress=False)

    ours, limit = np.empty((2, options.repeats))
    for k in range(options.repeats):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            ours[k] = options.files / seconds_of(partial(decode, place))
        limit[k] = options.files / seconds_of(lambda: read_plainly(listing, options))
    size = sum((listing.root / path).stat().st_size for path in listing.paths)
    return {
        "images_per_second": round(float(np.median(ours)), 1),
        "pillow_alone_per_second": round(float(np.median(limit)), 1),
        "of_pillow_alone": round(float(np.median(ours / limit)), 3),
        "cores": os.cpu_count(),
        "mean_file_kb": round(size / options.files / 1e3, 1),
    }


def run(options: Options) -> dict[str, Any]:
    """Measures, and returns the content of ``--json``."""
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        # Memory first: decoding leaves some behind, which would be used again unseen.
        memory = measure_memory(Path(place), options)
        decoding = measure_decoding(Path(place), options)
    return {"figures": {"memory": memory, "decoding": decoding}}


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
