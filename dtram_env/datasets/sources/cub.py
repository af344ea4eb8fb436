"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie, 2011): 200 bird species with boxes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError, advising
from ..fetch.archives import Archive, bring_archive, unpack_archive
from .listing import ImageList, check_boxes, check_count, check_files, fetch_command, fetch_listed

NAME = "cub"  # of its folder, and in the download command
COUNTS = {"train": 5994, "test": 5794}  # the talk's Table 1
NUM_CLASSES = 200

# CaltechDATA, record 65de6-vp158; 1.2 GB.
ARCHIVE = Archive(
    name="CUB_200_2011.tgz",
    md5="97eceeb196236b17998738112f37df78",
    inside="CUB_200_2011",
    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    size=1_150_585_339,
)

Lines = dict[int, list[Any]]  # the values on each line of a list, by the id that begins it

# Type and number of the values after the id on each line.
_LISTS: dict[str, tuple[Callable[[str], Any], int]] = {
    "images.txt": (str, 1),
    "image_class_labels.txt": (int, 1),
    "train_test_split.txt": (int, 1),
    "bounding_boxes.txt": (float, 4),
    "classes.txt": (str, 1),
}


def lacking(folder: Path) -> list[str]:
    """The lists, and the folder of images, that are missing; their content is not checked."""
    tree = _tree(folder)
    needed = {tree / name: (tree / name).is_file() for name in _LISTS}
    needed[tree / "images"] = (tree / "images").is_dir()
    return [path.relative_to(folder).as_posix() for path, found in needed.items() if not found]


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Downloads and unpacks the archive, unless all images and lists are in `folder`.

    The download resumes after an interruption, and the archive is removed at the end. An archive
    that the user put into `folder` is used instead, and stays. If a file is missing, the archive
    replaces all files. Raises `DatasetNotFoundError` if the download failed or the disk is full,
    and `DatasetCorruptError` if the user's archive differs from the published one.
    """

    def bring(folder: Path, progress: bool) -> None:
        command = fetch_command(NAME, folder)
        archive = bring_archive(NAME, ARCHIVE, folder, command, progress)
        fix = f"Remove it and run {command}."
        unpack_archive(archive, ARCHIVE, _tree(folder), fix, progress)
        if archive.name != ARCHIVE.name:  # downloaded
            archive.unlink()

    fetch_listed(NAME, listing, folder, bring, progress)


def listing(folder: Path, part: str) -> ImageList:
    """Lists the images of "train" (5,994) or "test" (5,794), in the order of ``images.txt``.

    `folder` contains ``CUB_200_2011/`` as its archive unpacks, once or in a folder of that name, or
    is that folder itself. Raises `DatasetNotFoundError` if a list is missing, and
    `DatasetCorruptError` if lists contradict each other or the published counts, or name an image
    that is missing.
    """
    tree, command = _tree(folder), fetch_command(NAME, folder)
    if not _has_a_list(tree):
        if (folder / ARCHIVE.name).is_file():
            raise DatasetNotFoundError(
                f"{folder / ARCHIVE.name}: not unpacked yet. Unpack it with {command}."
            )
        raise DatasetNotFoundError(
            f"{folder}: no {ARCHIVE.inside} with CUB-200-2011's {', '.join(_LISTS)} and images. "
            f"Fetch it with {command}, or put {ARCHIVE.name} or the folder {ARCHIVE.inside} there "
            "by hand."
        )
    with advising(f"Fetch it again with {command}."):
        files, classes, split, boxes, names = (
            _read_list(tree / name, kind, columns) for name, (kind, columns) in _LISTS.items()
        )
        for name, lines in zip(_LISTS, (files, classes, split, boxes), strict=False):
            _check_same_images(tree / name, lines, files)
        check_count(len(names), NUM_CLASSES, "classes", tree / "classes.txt")
        if unknown := names.keys() - set(range(1, NUM_CLASSES + 1)):
            raise DatasetCorruptError(
                f"{tree / 'classes.txt'}: expected classes 1 to {NUM_CLASSES}, "
                f"found {min(unknown)}."
            )
        _check_range(tree / "image_class_labels.txt", classes, 1, NUM_CLASSES)
        _check_range(tree / "train_test_split.txt", split, 0, 1)

        ids = [i for i in files if split[i][0] == (part == "train")]
        check_count(len(ids), COUNTS[part], f"{part} images", tree / "train_test_split.txt")
        paths = tuple(f"images/{files[i][0]}" for i in ids)
        box_array = np.array([boxes[i] for i in ids])
        check_boxes(box_array, paths, tree / "bounding_boxes.txt")
        check_files(tree, paths, tree / "images.txt")
    labels = np.array([classes[i][0] - 1 for i in ids], dtype=np.int64)
    # The species of the folder "001.Black_footed_Albatross" is "Black footed Albatross".
    folders = [names[k][0] for k in sorted(names)]
    species = tuple(name.partition(".")[2].replace("_", " ") or name for name in folders)
    fix = f"Remove it and run {command}, which fetches it again."
    return ImageList(tree, paths, labels, species, box_array, fix)


def _tree(folder: Path) -> Path:
    """The folder that holds the lists, or will hold them."""
    inside = folder / ARCHIVE.inside
    # Some programs unpack an archive into a new folder of its name.
    places = (inside, inside / ARCHIVE.inside, folder)
    return next((place for place in places if _has_a_list(place)), inside)


def _has_a_list(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _LISTS)


def _read_list(path: Path, kind: Callable[[str], Any], columns: int) -> Lines:
    """Reads a list whose lines are an id and then `columns` values of one kind."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise DatasetCorruptError(f"{path}: expected text, found {error}.") from error
    values: Lines = {}
    for number, line in enumerate(text.splitlines(), start=1):
        first, *words = line.split() or [""]
        try:
            key, found = int(first), [kind(word) for word in words]
            if key in values or len(found) != columns:
                raise ValueError(line)
        except ValueError as error:
            raise DatasetCorruptError(
                f"{path}, line {number}: expected an id that no earlier line has and {columns} "
                f"value{'s' * (columns > 1)} of type {kind.__name__}, found {line!r}."
            ) from error
        values[key] = found
    return values


def _check_same_images(path: Path, lines: Lines, files: Lines) -> None:
    if missing := files.keys() - lines.keys():
        first = f"{min(missing)}, {files[min(missing)][0]}"
        raise DatasetCorruptError(f"{path}: has no line for image {first}, which images.txt names.")
    if unknown := lines.keys() - files.keys():
        raise DatasetCorruptError(
            f"{path}: has a line for image {min(unknown)}, which images.txt does not name."
        )


def _check_range(path: Path, lines: Lines, low: int, high: int) -> None:
    for i, (value,) in lines.items():
        if not low <= value <= high:
            raise DatasetCorruptError(
                f"{path}: expected {low} to {high} for image {i}, found {value}."
            )
