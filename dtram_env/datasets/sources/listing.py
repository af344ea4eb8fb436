"""Image folders on disk, before they are decoded: which files, of which class, boxed where."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError

PARTS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images on disk of one official part, before they are decoded.

    Attributes:
        root: the folder that the paths are relative to.
        paths: one for each image, with "/" between folders on every system.
        labels: ``(N,)`` int64 in [0, ``len(class_names)``).
        class_names: a name for each label.
        boxes: ``(N, 4)`` float64, left, top, width and height of what the label names, in pixels of
            the file's image, whose left top corner is (0, 0); None if none are known.
        mend: what to do about a file that is damaged, one sentence.
    """

    root: Path
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    boxes: np.ndarray | None
    mend: str

    def __post_init__(self) -> None:
        n = len(self.paths)
        if self.labels.shape != (n,) or self.labels.dtype != np.int64:
            raise ValueError(
                f"labels: expected int64 of shape ({n},), one for each path, "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(
                f"labels: expected 0 to {len(self.class_names) - 1}, as there are "
                f"{len(self.class_names)} class names, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )
        if self.boxes is not None and self.boxes.shape != (n, 4):
            raise ValueError(
                f"boxes: expected shape ({n}, 4), one for each path, got {self.boxes.shape}"
            )

    def __len__(self) -> int:
        return len(self.paths)


def check_part(part: str) -> None:
    """Raises `ValueError` if `part` is none of `PARTS`."""
    if part not in PARTS:
        raise ValueError(f"part={part!r}: expected one of {', '.join(map(repr, PARTS))}")


def check_count(found: int, expected: int, what: str, where: Path, mend: str) -> None:
    """Raises `DatasetCorruptError` if `where` has another number of `what` than was published."""
    if found != expected:
        raise DatasetCorruptError(f"{where}: expected {expected} {what}, found {found}. {mend}")


def check_boxes(boxes: np.ndarray, names: Sequence[str], where: Path, mend: str) -> None:
    """Raises `DatasetCorruptError` if a box is empty or no box; names the image it is of."""
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    if bad.any():
        i = int(bad.argmax())
        raise DatasetCorruptError(
            f"{where}: expected a box with a width and a height above 0 for {names[i]}, "
            f"found left, top, width, height {boxes[i].tolist()}. {mend}"
        )


def check_files(root: Path, paths: Sequence[str], named_in: Path, mend: str) -> None:
    """Raises `DatasetCorruptError` if a file that `named_in` names is not below `root`."""
    missing = [path for path in paths if not os.path.isfile(os.path.join(root, path))]
    if missing:
        many = f"; {len(missing)} are missing in all" if len(missing) > 1 else ""
        raise DatasetCorruptError(
            f"{root / missing[0]}: no such file, though {named_in.name} names it{many}. {mend}"
        )


def is_whole(listing: Callable[[Path, str], ImageList], folder: Path) -> bool:
    """Whether both parts in `folder` can be listed; the images are not opened."""
    try:
        for part in PARTS:
            listing(folder, part)
    except (DatasetNotFoundError, DatasetCorruptError):
        return False
    return True


def fetch_command(dataset: str, folder: Path) -> str:
    """The command that brings a dataset into `folder`, for messages."""
    from .. import data_root  # it imports the readers, which import this

    words = f"python -m dtram_env.datasets download {dataset}"
    root = folder.expanduser().absolute().parent
    if folder.name == dataset and root.resolve() != data_root():
        words += f" --data-dir {shlex.quote(str(root))}"
    return f"`{words}`"
