"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie, 2011): 200 species of birds, boxed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..fetch.archives import Archive, bring_archive, unpack_archive
from ..fetch.download import locked_folder
from .listing import (
    ImageList,
    check_boxes,
    check_count,
    check_files,
    check_part,
    fetch_command,
    is_whole,
)

NAME = "cub"  # its folder, and what the download command calls it
COUNTS = {"train": 5994, "test": 5794}  # the talk's Table 1
NUM_CLASSES = 200

# CaltechDATA, record 65de6-vp158; 1.2 GB.
ARCHIVE = Archive(
    name="CUB_200_2011.tgz",
    md5="97eceeb196236b17998738112f37df78",
    inside="CUB_200_2011",
    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
)

_LISTS = (
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "bounding_boxes.txt",
    "classes.txt",
)


def ready(folder: Path) -> bool:
    """Whether the lists and the folder of images are there; what they hold is not looked at."""
    tree = _tree(folder)
    return all((tree / name).is_file() for name in _LISTS) and (tree / "images").is_dir()


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Brings the images and lists into `folder`, unless each file that they name is there.

    The archive is downloaded, going on after an interruption, checked, unpacked and removed; or it
    lies in `folder` already, put there by hand, and stays. A tree that lacks something gets all
    files of the archive again. Of processes that start at once one does this and the others wait.

    Args:
        folder: where they go; made if missing.
        progress: show bars on standard error; None: only on a terminal.

    Raises:
        DatasetNotFoundError: the archive could not be had, or there is no room for it.
        DatasetCorruptError: the archive put there by hand is another one than published.
    """
    if is_whole(listing, folder):
        return
    if progress is None:
        progress = sys.stderr.isatty()
    command = fetch_command(NAME, folder)
    with locked_folder(NAME, folder):
        if not is_whole(listing, folder):
            archive = bring_archive(NAME, ARCHIVE, folder, command, progress)
            mend = f"Remove it and run {command}."
            unpack_archive(archive, ARCHIVE, _tree(folder), mend, progress)
            if archive.name != ARCHIVE.name:  # ours, not the user's
                archive.unlink()
    for part in COUNTS:
        listing(folder, part)


def listing(folder: Path, part: str) -> ImageList:
    """Lists the images of an official part, in the order of ``images.txt``.

    Args:
        folder: holds ``CUB_200_2011/`` as its archive unpacks, or is that folder itself.
        part: "train" (5,994 images) or "test" (5,794).

    Returns:
        The images with their species and boxes; "001.Black_footed_Albatross" is named
        "Black footed Albatross".

    Raises:
        ValueError: unknown part.
        DatasetNotFoundError: the data or one of its lists is not there.
        DatasetCorruptError: the lists contradict each other or the published counts, or name an
            image that is not there.
    """
    check_part(part)
    tree, command = _tree(folder), fetch_command(NAME, folder)
    if not tree.is_dir() or not any((tree / name).is_file() for name in _LISTS):
        raise _not_there(folder, command)
    mend = f"Fetch it again by {command}."
    images, class_of, split, boxes, classes = (
        _table(tree / name, columns, mend)
        for name, columns in zip(_LISTS, (1, 1, 1, 4, 1), strict=True)
    )
    for name, table in zip(_LISTS[1:4], (class_of, split, boxes), strict=True):
        _check_same_images(tree / name, table, images, mend)
    names = _class_names(tree / "classes.txt", classes, mend)
    labels = _numbers(tree / "image_class_labels.txt", class_of, range(1, NUM_CLASSES + 1), mend)
    is_train = _numbers(tree / "train_test_split.txt", split, range(2), mend)

    ids = [i for i in images if is_train[i] == (part == "train")]
    check_count(len(ids), COUNTS[part], f"{part} images", tree / "train_test_split.txt", mend)
    paths = tuple(f"images/{images[i][0]}" for i in ids)
    box_array = np.array([_box(tree / "bounding_boxes.txt", i, boxes[i], mend) for i in ids])
    check_boxes(box_array, paths, tree / "bounding_boxes.txt", mend)
    check_files(tree, paths, tree / "images.txt", mend)
    return ImageList(
        root=tree,
        paths=paths,
        labels=np.array([labels[i] - 1 for i in ids], dtype=np.int64),
        class_names=names,
        boxes=box_array,
        mend=f"Remove it and run {command}, which fetches it again.",
    )


def _tree(folder: Path) -> Path:
    """The folder of the lists, or where it will be."""
    if not (folder / ARCHIVE.inside).is_dir() and (folder / "images.txt").is_file():
        return folder
    return folder / ARCHIVE.inside


def _not_there(folder: Path, command: str) -> DatasetNotFoundError:
    if (folder / ARCHIVE.name).is_file():
        return DatasetNotFoundError(
            f"{folder / ARCHIVE.name}: not unpacked yet. Unpack it by {command}."
        )
    return DatasetNotFoundError(
        f"{folder}: no {ARCHIVE.inside} with CUB-200-2011's lists and images there. Fetch it by "
        f"{command}, or put {ARCHIVE.name} or the folder {ARCHIVE.inside} there by hand."
    )


def _table(path: Path, columns: int, mend: str) -> dict[int, list[str]]:
    """A list's lines: an id, then `columns` words."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file. {mend}") from error
    except UnicodeDecodeError as error:
        raise DatasetCorruptError(f"{path}: expected text, found {error}. {mend}") from error
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        first, *words = line.split() or [""]
        if not first.isdecimal() or len(words) != columns or int(first) in rows:
            raise DatasetCorruptError(
                f"{path}, line {number}: expected an id that no earlier line has and "
                f"{columns} more word{'s' * (columns > 1)}, found {line!r}. {mend}"
            )
        rows[int(first)] = words
    return rows


def _check_same_images(
    path: Path, table: dict[int, list[str]], images: dict[int, list[str]], mend: str
) -> None:
    if missing := images.keys() - table.keys():
        i = min(missing)
        raise DatasetCorruptError(
            f"{path}: has no line for image {i}, {images[i][0]}, which images.txt names. {mend}"
        )
    if unknown := table.keys() - images.keys():
        raise DatasetCorruptError(
            f"{path}: has a line for image {min(unknown)}, which images.txt does not name. {mend}"
        )


def _class_names(path: Path, classes: dict[int, list[str]], mend: str) -> tuple[str, ...]:
    check_count(len(classes), NUM_CLASSES, "classes", path, mend)
    if unknown := classes.keys() - set(range(1, NUM_CLASSES + 1)):
        raise DatasetCorruptError(
            f"{path}: expected classes 1 to {NUM_CLASSES}, found {min(unknown)}. {mend}"
        )
    return tuple(
        classes[k][0].partition(".")[2].replace("_", " ") or classes[k][0] for k in sorted(classes)
    )


def _numbers(path: Path, table: dict[int, list[str]], allowed: range, mend: str) -> dict[int, int]:
    known = {str(value): value for value in allowed}
    for i, (word,) in table.items():
        if word not in known:
            raise DatasetCorruptError(
                f"{path}: expected {allowed[0]} to {allowed[-1]} for image {i}, "
                f"found {word!r}. {mend}"
            )
    return {i: known[word] for i, (word,) in table.items()}


def _box(path: Path, i: int, words: list[str], mend: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DatasetCorruptError(
            f"{path}: expected four numbers for image {i}, found {' '.join(words)!r}. {mend}"
        ) from error
