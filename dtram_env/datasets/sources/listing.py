"""Lists of image files, before they are decoded, and what the readers of such lists share."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..paths import data_root, locked, shows_progress
from ..splits import PARTS


@dataclass(frozen=True, eq=False)
class ImageList:
    """The image files of one official part."""

    root: Path  # the folder that the paths are relative to
    paths: tuple[str, ...]  # with "/" between folders on every system
    labels: np.ndarray  # (N,) int64 in [0, len(class_names))
    class_names: tuple[str, ...]
    # Bounding boxes (N, 4) float64 of the labelled objects: left, top, width and height in pixels
    # of the file's image, whose top left corner is (0, 0); None if unknown.
    boxes: np.ndarray | None
    fix: str  # what to do about a damaged file, one sentence

    def __len__(self) -> int:
        return len(self.paths)


def check_count(found: int, expected: int, what: str, where: Path) -> None:
    """Raises `DatasetCorruptError` if `where` has another number of `what` than was published."""
    if found != expected:
        raise DatasetCorruptError(f"{where}: expected {expected} {what}, found {found}.")


def check_files(root: Path, paths: Sequence[str], listed_in: Path) -> None:
    """Raises `DatasetCorruptError` if a file listed in `listed_in` is missing below `root`."""
    missing = [path for path in paths if not os.path.isfile(os.path.join(root, path))]
    if missing:
        many = f"; {len(missing)} are missing in all" if len(missing) > 1 else ""
        raise DatasetCorruptError(
            f"{root / missing[0]}: no such file, though {listed_in.name} names it{many}."
        )


def fetch_listed(
    dataset: str,
    listing: Callable[[Path, str], ImageList],
    folder: Path,
    bring: Callable[[Path, bool], None],
    progress: bool | None,
) -> None:
    """Calls ``bring(folder, progress)``, in one process at a time, if a part cannot be listed."""

    def is_complete() -> bool:
        try:
            for part in PARTS:
                listing(folder, part)
        except (DatasetNotFoundError, DatasetCorruptError):
            return False
        return True

    if not is_complete():
        with locked(folder / ".lock", dataset):
            if not is_complete():
                bring(folder, shows_progress(progress))
        for part in PARTS:
            listing(folder, part)


def fetch_command(dataset: str, folder: Path) -> str:
    """The command that downloads a dataset into `folder`, for messages."""
    command = f"python -m dtram_env.datasets download {dataset}"
    root = folder.expanduser().absolute().parent
    if folder.name == dataset and root.resolve() != data_root():
        command += f" --data-dir {shlex.quote(str(root))}"
    return f"`{command}`"
