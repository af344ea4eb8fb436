"""Stanford Cars (Krause, Stark, Deng, Fei-Fei, 2013): 196 models of cars, with boxes.

Its host is gone, so nothing is downloaded: the user's own copy is checked and unpacked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..fetch.archives import Archive, check_md5, unpack_archive
from ..paths import SETTINGS
from .listing import (
    ImageList,
    check_boxes,
    check_count,
    check_files,
    check_part,
    fetch_command,
    fetch_listed,
)

NAME = "cars"  # of its folder, and in the download command
COUNTS = {"train": 8144, "test": 8041}  # the talk's Table 1
NUM_CLASSES = 196

ARCHIVES = (
    Archive("cars_train.tgz", "065e5b463ae28d29e77c1b4b166cfe61", "cars_train"),
    Archive("cars_test.tgz", "4ce7ebf6a94d07f1952d94dd34c4d501", "cars_test"),
    Archive("car_devkit.tgz", "c3b158d763b6e2245038c8ad08e45376", "devkit"),
)
TEST_LABELS = "cars_test_annos_withlabels.mat"
TEST_LABELS_MD5 = "b0a2b23655a3edd16d84508592a98d10"

_META = "devkit/cars_meta.mat"
_TRAIN_LABELS = "devkit/cars_train_annos.mat"
_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def ready(folder: Path) -> bool:
    """Whether the folders and lists exist; their content is not checked."""
    return not _lacking(folder)


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Checks and unpacks the archives that the user put into `folder`; nothing is downloaded.

    The archives stay. If several processes start, one does this and the others wait.

    Args:
        folder: where the archives are and their files go; created if it is missing.
        progress: whether to show bars on standard error; None: only on a terminal.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which files to put where.
        DatasetCorruptError: a file differs from the published one.
    """
    fetch_listed(NAME, listing, folder, _unpack, progress)


def listing(folder: Path, part: str) -> ImageList:
    """Lists the images of an official part, in the order of its annotations.

    Args:
        folder: contains ``stanford_cars/`` or is that folder itself. It has torchvision's layout:
            ``cars_train/``, ``cars_test/``, ``devkit/`` and ``cars_test_annos_withlabels.mat``,
            beside these or in ``devkit/``.
        part: "train" (8,144 images) or "test" (8,041).

    Returns:
        The images with their models and boxes. The published corners count pixels from 1 and both
        lie inside the box: left and top are one less, and the width is ``x2 - x1 + 1``.

    Raises:
        ValueError: unknown part.
        DatasetNotFoundError: the data or one of its lists is missing.
        DatasetCorruptError: a list is damaged or contradicts the published counts, or names an
            image that is missing.
    """
    check_part(part)
    tree, command = _tree(folder), fetch_command(NAME, folder)
    if lacking := _lacking(folder):
        raise DatasetNotFoundError(
            f"{tree}: has no {', '.join(lacking)} of Stanford Cars. {command} says which files to "
            "put where."
        )
    fix = f"Put {ARCHIVES[2].name} into {tree} and run {command}."
    names = _class_names(tree / _META, fix)
    path = _annotations(folder, part)
    if part == "test":
        fix = f"Replace it with the published {TEST_LABELS} (MD5 {TEST_LABELS_MD5})."
    columns = _read_annotations(path, fix)

    check_count(len(columns["fname"]), COUNTS[part], f"{part} images", path, fix)
    files = [str(name) for name in columns["fname"]]
    left, top, right, bottom, labels = (
        _numbers(path, columns, field, fix) for field in _FIELDS[:5]
    )
    boxes = np.stack([left - 1, top - 1, right - left + 1, bottom - top + 1], axis=1)
    check_boxes(boxes, files, path, fix)
    unknown = ~np.isin(labels, np.arange(1, NUM_CLASSES + 1))
    if unknown.any():
        i = int(unknown.argmax())
        raise DatasetCorruptError(
            f"{path}: expected class 1 to {NUM_CLASSES} for {files[i]}, found {labels[i]:g}. {fix}"
        )
    place = _inner(tree / f"cars_{part}").relative_to(tree).as_posix()
    paths = tuple(f"{place}/{name}" for name in files)
    archive = f"put cars_{part}.tgz into {tree} and run {command}"
    check_files(tree, paths, path, f"{archive[0].upper()}{archive[1:]}.")
    return ImageList(
        root=tree,
        paths=paths,
        labels=labels.astype(np.int64) - 1,
        class_names=names,
        boxes=boxes,
        fix=f"Remove it, {archive}.",
    )


def _unpack(folder: Path, progress: bool) -> None:
    """Checks all archives in `folder`, then unpacks them; one that is needed must be there."""
    tree, command = _tree(folder), fetch_command(NAME, folder)
    found = {archive: _find(archive.name, tree, folder) for archive in ARCHIVES}
    lacking = {name.partition("/")[0] for name in _lacking(folder)}
    missing = {a.name: a.md5 for a in ARCHIVES if a.inside in lacking and found[a] is None}
    if TEST_LABELS in lacking:
        missing[TEST_LABELS] = TEST_LABELS_MD5
    if missing:
        lines = [
            f"cars: the host of Stanford Cars is gone. Put these files into {tree} by hand and run "
            f"{command}:",
            *(f"  {name} (MD5 {md5})" for name, md5 in missing.items()),
            f"The folders that they unpack to, {', '.join(a.inside for a in ARCHIVES)}, as "
            "torchvision's StanfordCars reads them, do as well. If they are in "
            f"ROOT/{folder.name} already, give ROOT as {SETTINGS}.",
        ]
        raise DatasetNotFoundError("\n".join(lines))
    again = "Replace it with the published one."
    archives = [(archive, path) for archive, path in found.items() if path is not None]
    if archives:
        check_md5(_annotations(folder, "test"), TEST_LABELS_MD5, again)
    for archive, path in archives:
        check_md5(path, archive.md5, again)
    for archive, path in archives:
        unpack_archive(path, archive, _inner(tree / archive.inside), again, progress)


def _tree(folder: Path) -> Path:
    """The folder that holds the three folders, or will hold them."""
    return folder / "stanford_cars" if (folder / "stanford_cars").is_dir() else folder


def _inner(folder: Path) -> Path:
    # Copies on other hosts contain each folder once more in a folder of its own name.
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def _annotations(folder: Path, part: str) -> Path:
    tree = _tree(folder)
    if part == "train":
        return tree / _TRAIN_LABELS
    return _find(TEST_LABELS, tree, tree / "devkit", folder) or tree / TEST_LABELS


def _lacking(folder: Path) -> list[str]:
    """The missing folders and lists."""
    tree = _tree(folder)
    folders = [f"cars_{part}" for part in COUNTS if not (tree / f"cars_{part}").is_dir()]
    lists = [name for name in (_META, _TRAIN_LABELS) if not (tree / name).is_file()]
    return folders + lists + [TEST_LABELS] * (not _annotations(folder, "test").is_file())


def _find(name: str, *folders: Path) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _load(path: Path, variable: str, fix: str) -> np.ndarray:
    """One variable of a MATLAB file, with at least one dimension."""
    from scipy.io import loadmat  # slow to import

    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True, variable_names=[variable])[variable])
    except KeyError as error:
        raise DatasetCorruptError(f"{path}: has no variable {variable}. {fix}") from error
    except Exception as error:  # its type depends on where the damage is
        raise DatasetCorruptError(f"{path}: damaged, or no MATLAB file ({error}). {fix}") from error


def _class_names(path: Path, fix: str) -> tuple[str, ...]:
    names = _load(path, "class_names", fix)
    check_count(len(names), NUM_CLASSES, "classes", path, fix)
    return tuple(str(name) for name in names)


def _read_annotations(path: Path, fix: str) -> np.ndarray:
    """One record for each image, with the fields `_FIELDS`."""
    table = _load(path, "annotations", fix)
    missing = [field for field in _FIELDS if field not in (table.dtype.names or ())]
    if missing:
        raise DatasetCorruptError(f"{path}: its annotations have no {', '.join(missing)}. {fix}")
    return table


def _numbers(path: Path, table: np.ndarray, field: str, fix: str) -> np.ndarray:
    """A field as float64; the file's unsigned integers would wrap around below 0."""
    values = table[field]
    for i, value in enumerate(values):
        if not np.isscalar(value) or isinstance(value, str):
            raise DatasetCorruptError(
                f"{path}: expected a number as {field} of {table['fname'][i]}, "
                f"found {np.asarray(value).tolist()!r}. {fix}"
            )
    return np.array(values.tolist(), dtype=np.float64)
