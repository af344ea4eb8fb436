"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017): clothes, in MNIST's sizes, counts and format."""

from pathlib import Path

import numpy as np

from ..fetch.download import Mirror, RawFile, Source, fetch_files
from . import mnist

NAME = "fashionmnist"  # of its folder, and in the download command

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

# MNIST's names and sizes, with other contents. The authors publish the MD5s of the .gz files; these
# are of the unpacked files.
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


lacking = mnist.lacking  # the four files have MNIST's names


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Downloads the four files; see `mnist.fetch`."""
    fetch_files(NAME, FILES["train"] + FILES["test"], SOURCES, folder, progress)


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads an official part, of MNIST's size and shape; see `mnist.read`."""
    return mnist.read(folder, part, NAME, FILES)
