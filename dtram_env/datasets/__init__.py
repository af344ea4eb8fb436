"""Datasets: images and labels in memory, by name and split. Needs numpy and nothing heavier."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import mnist, signpost
from .errors import DatasetCorruptError, DatasetNotFoundError
from .splits import SPLITS, check_split, rows_of, stratified_split
from .store import ArrayStore

__all__ = [
    "DATASETS",
    "SPLITS",
    "Dataset",
    "DatasetCorruptError",
    "DatasetInfo",
    "DatasetNotFoundError",
    "data_root",
    "fetch",
    "load",
    "stratified_split",
]


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a dataset, read-only.

    Attributes:
        name: the dataset's name as results show it, such as "MNIST".
        split: one of `SPLITS`.
        images: ``(N, H, W, C)`` uint8, 0 is black.
        labels: ``(N,)`` int64 in [0, `num_classes`).
        class_names: a name for each label.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    _stores: dict[int, ArrayStore] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                "images: expected uint8 of shape (N, H, W, C), "
                f"got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int64:
            raise ValueError(
                f"labels: expected int64 of shape ({len(self.images)},), one for each image, "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise ValueError(
                f"labels: expected 0 to {self.num_classes - 1}, as there are {self.num_classes} "
                f"class names, got {self.labels.min()} to {self.labels.max()}"
            )
        for name in ("images", "labels"):
            view = getattr(self, name).view()  # the caller's own array stays as it was
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[type[Dataset], tuple[object, ...]]:
        # A copy takes the images along, but not the stores made from them: their windows overlap,
        # and written out one by one they are a hundred times as large.
        return Dataset, (self.name, self.split, self.images, self.labels, self.class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def store(self, margin: int) -> ArrayStore:
        """The images as a store with `margin` zeros on each side, made once for each margin.

        Environments with the same glimpse therefore share their images' memory.
        """
        if margin not in self._stores:
            self._stores[margin] = ArrayStore(self.images, margin)
        return self._stores[margin]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is loaded.

    Attributes:
        title: the dataset's name as results show it.
        description: one line.
        env_id: the environment that is registered with it.
        class_names: a name for each label.
        read: ``read(folder, part)`` gives images ``(N, H, W, C)`` uint8 and labels ``(N,)`` int64
            of an official part, "train" or "test".
        validation_count: how many of N official training images are kept for validation.
        fetch: ``fetch(folder, progress)`` brings the files into `folder`; None if it has no files.
        ready: whether the files are all in `folder` (not whether they are right).
    """

    title: str
    description: str
    env_id: str
    class_names: tuple[str, ...]
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]]
    validation_count: Callable[[int], int]
    fetch: Callable[[Path, bool | None], None] | None = None
    ready: Callable[[Path], bool] = lambda folder: True

    @property
    def needs_data(self) -> bool:
        """Whether it has files that must be fetched; if not, it is drawn."""
        return self.fetch is not None


DATASETS: dict[str, DatasetInfo] = {
    "mnist": DatasetInfo(
        title="MNIST",
        description="handwritten digits, 28x28x1, 60,000 + 10,000 images, 55 MB",
        env_id="DTRAM-MNIST-v0",
        class_names=mnist.CLASS_NAMES,
        read=mnist.read,
        validation_count=lambda n: 5000,
        fetch=mnist.fetch,
        ready=mnist.ready,
    ),
    "signpost": DatasetInfo(
        title="Signpost",
        description="drawn glyphs and arrows, 28x28x1, 6,000 + 2,000 images",
        env_id="DTRAM-Signpost-v0",
        class_names=signpost.CLASS_NAMES,
        read=lambda folder, part: signpost.draw(part),
        validation_count=lambda n: n // 10,
    ),
}

_loaded: dict[tuple[str, str, Path | None], Dataset] = {}
_lock = threading.RLock()


def load(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Loads one split of a dataset; the same object for the same arguments within a process.

    Args:
        name: a name in `DATASETS`; case does not matter.
        split: one of `SPLITS`. "validation" is a fixed, class-stratified part of the official
            training images (MNIST 5,000, others 10 %), "train" the rest of them.
        data_dir: see `data_root`.
        download: whether to fetch files that are missing.

    Raises:
        ValueError: unknown name or split.
        DatasetNotFoundError: files are missing and could not be, or were not to be, fetched.
        DatasetCorruptError: a file is short or altered.

    >>> signpost = load("signpost", "validation")
    >>> len(signpost), signpost.image_shape, signpost.num_classes
    (600, (28, 28, 1), 4)
    """
    name = name.lower()
    info = _info(name)
    check_split(split)
    root = data_root(data_dir) if info.needs_data else None
    with _lock:
        if (name, split, root) not in _loaded:
            folder = (root or Path()) / name
            if not info.ready(folder) and download:
                fetch(name, data_dir=root)
            elif not info.ready(folder):
                raise DatasetNotFoundError(
                    f"{name}: not all its files are in {folder}, and download=False. Fetch them by "
                    f"`python -m dtram_env.datasets download {name}`. {_no_data_hint()}"
                )
            images, labels = info.read(folder, "test" if split == "test" else "train")
            if split in ("train", "validation"):
                rows = rows_of(split, labels, info.validation_count(len(labels)))
                images, labels = images[rows], labels[rows]
            _loaded[name, split, root] = Dataset(
                info.title, split, images, labels, info.class_names
            )
        return _loaded[name, split, root]


def fetch(
    name: str, *, data_dir: str | Path | None = None, progress: bool | None = None
) -> Path | None:
    """Brings a dataset's files to disk: those that are missing, short or altered.

    Args:
        name: a name in `DATASETS`.
        data_dir: see `data_root`.
        progress: show a bar on standard error; None: only on a terminal.

    Returns:
        The folder that holds the files; None for a dataset that has none.

    Raises:
        ValueError: unknown name.
        DatasetNotFoundError: no source gave a file.
    """
    info = _info(name)
    if info.fetch is None:
        return None
    folder = data_root(data_dir) / name
    try:
        info.fetch(folder, progress)
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(f"{error}\n{_no_data_hint()}") from error.__cause__
    return folder


def data_root(data_dir: str | Path | None = None) -> Path:
    """The folder that holds every dataset: `data_dir`, else ``$DTRAM_DATA``, else ~/.cache/dtram.

    Returns:
        An absolute path; nothing is created.
    """
    chosen = data_dir if data_dir is not None else os.environ.get("DTRAM_DATA")
    return Path(chosen or Path("~", ".cache", "dtram")).expanduser().resolve()


def _info(name: str) -> DatasetInfo:
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r}: expected one of {', '.join(map(repr, DATASETS))}")
    return DATASETS[name]


def _no_data_hint() -> str:
    ids = [info.env_id for info in DATASETS.values() if not info.needs_data]
    return f"Environments that need no data: {', '.join(ids)}."
