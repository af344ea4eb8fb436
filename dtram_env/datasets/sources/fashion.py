"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017): clothes, in MNIST's sizes, counts and format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..fetch.download import Mirror, RawFile, Source, fetch_files, find
from .mnist import read_part

NAME = "fashionmnist"  # its folder, and what the download command calls it

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# MNIST's names and sizes, other contents. The MD5s are of the unpacked files, whose .gz have the
# MD5s that the authors publish.
FILES: dict[str, tuple[RawFile, RawFile]] = {
    "train": (
        RawFile("train-images-idx3-ubyte", 47040016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        RawFile("train-labels-idx1-ubyte", 60008, "9018921c3c673c538a1fc5bad174d6f9"),
    ),
    "test": (
        RawFile("t10k-images-idx3-ubyte", 7840016, "8181f5470baa50b63fa0f6fddb340f0a"),
        RawFile("t10k-labels-idx1-ubyte", 10008, "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
}

# torchvision's mirror, then the authors' repository.
SOURCES: tuple[Source, ...] = (
    Mirror("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    Mirror("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
)


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Brings the four files into `folder`, those that are missing, short or altered.

    Args:
        folder: where they go; made if missing.
        progress: show a bar on standard error; None: only on a terminal.

    Raises:
        DatasetNotFoundError: no source gave one of them.
    """
    fetch_files(NAME, FILES["train"] + FILES["test"], SOURCES, folder, progress)


def ready(folder: Path) -> bool:
    """Whether each of the four files is there, raw or as ``.gz``; the content is not looked at."""
    return all(find(folder, file) is not None for file in FILES["train"] + FILES["test"])


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads an official part; each file is raw or, as it may be put there by hand, ``.gz``.

    Args:
        folder: where the files are.
        part: "train" (60,000 images) or "test" (10,000).

    Returns:
        Images ``(N, 28, 28, 1)`` uint8, read-only, and labels ``(N,)`` int64.

    Raises:
        ValueError: unknown part.
        DatasetNotFoundError: a file is missing.
        DatasetCorruptError: a file has another size or MD5 than the published one.
    """
    return read_part(NAME, FILES, folder, part)
