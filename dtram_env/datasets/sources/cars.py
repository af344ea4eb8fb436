"""Stanford Cars (Krause, Stark, Deng, Fei-Fei, 2013): 196 models of cars, with boxes.

Its host is gone, so nothing is downloaded: the user's own copy is checked and unpacked.
"""

from pathlib import Path

import numpy as np

from ...optional import require
from ..errors import DatasetCorruptError, DatasetNotFoundError, advising
from ..fetch.archives import Archive, check_md5, unpack_archive
from ..paths import SETTINGS
from .listing import ImageList, check_boxes, check_count, check_files, fetch_command, fetch_listed

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


def fetch(folder: Path, progress: bool | None = None) -> None:
    """Checks and unpacks the archives that the user put into `folder`; nothing is downloaded.

    The archives stay. Raises `DatasetNotFoundError`, which says which files to put where, or
    `DatasetCorruptError` if a file differs from the published one.
    """
    fetch_listed(NAME, listing, folder, _unpack, progress)


def listing(folder: Path, part: str) -> ImageList:
    """Lists the images of "train" (8,144) or "test" (8,041), in the order of the annotations.

    `folder` contains ``stanford_cars/`` or is that folder itself. It has torchvision's layout:
    ``cars_train/``, ``cars_test/``, ``devkit/`` and ``cars_test_annos_withlabels.mat``, beside
    these or in ``devkit/``.

    The published corners of boxes count pixels from 1 and both lie inside the box: left and top are
    one less, and the width is ``x2 - x1 + 1``. Raises `DatasetNotFoundError` if a list is missing,
    and `DatasetCorruptError` if one is damaged or contradicts the published counts, or names an
    image that is missing.
    """
    tree, command = _tree(folder), fetch_command(NAME, folder)
    if missing := lacking(folder):
        raise DatasetNotFoundError(
            f"{tree}: has no {', '.join(missing)} of Stanford Cars. {command} says which files to "
            "put where."
        )
    fix = f"Put {ARCHIVES[2].name} into {tree} and run {command}."
    with advising(fix):
        names = tuple(map(str, _load(tree / _META, "class_names")))
        check_count(len(names), NUM_CLASSES, "classes", tree / _META)
    path = _annotations(folder, part)
    if part == "test":
        fix = f"Replace it with the published {TEST_LABELS} (MD5 {TEST_LABELS_MD5})."
    with advising(fix):
        columns = _load(path, "annotations")
        if missing := [name for name in _FIELDS if name not in (columns.dtype.names or ())]:
            raise DatasetCorruptError(f"{path}: its annotations have no {', '.join(missing)}.")
        check_count(len(columns), COUNTS[part], f"{part} images", path)
        files = [str(name) for name in columns["fname"]]
        left, top, right, bottom, labels = (_numbers(path, columns, f) for f in _FIELDS[:5])
        boxes = np.stack([left - 1, top - 1, right - left + 1, bottom - top + 1], axis=1)
        check_boxes(boxes, files, path)
        unknown = ~np.isin(labels, np.arange(1, NUM_CLASSES + 1))
        if unknown.any():
            i = int(unknown.argmax())
            raise DatasetCorruptError(
                f"{path}: expected class 1 to {NUM_CLASSES} for {files[i]}, found {labels[i]:g}."
            )
    place = _inner(tree / f"cars_{part}").relative_to(tree).as_posix()
    paths = tuple(f"{place}/{name}" for name in files)
    put = f"cars_{part}.tgz into {tree} and run {command}."
    with advising(f"Put {put}"):
        check_files(tree, paths, path)
    labels = labels.astype(np.int64) - 1
    return ImageList(tree, paths, labels, names, boxes, fix=f"Remove it, put {put}")


def _unpack(folder: Path, progress: bool) -> None:
    """Checks all archives in `folder`, then unpacks them; one that is needed must be there."""
    tree, command = _tree(folder), fetch_command(NAME, folder)
    found = {archive: _find(archive.name, tree, folder) for archive in ARCHIVES}
    absent = {name.partition("/")[0] for name in lacking(folder)}
    missing = {a.name: a.md5 for a in ARCHIVES if a.inside in absent and found[a] is None}
    if TEST_LABELS in absent:
        missing[TEST_LABELS] = TEST_LABELS_MD5
    if missing:
        names = "".join(f"\n  {name} (MD5 {md5})" for name, md5 in missing.items())
        raise DatasetNotFoundError(
            f"cars: the host of Stanford Cars is gone. Put these files into {tree} by hand and run "
            f"{command}:{names}\nThe folders {', '.join(a.inside for a in ARCHIVES)} that they "
            f"unpack to do as well. If they are in ROOT/{folder.name} already, give ROOT as "
            f"{SETTINGS}."
        )
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
    """Copies on other hosts contain each folder once more in a folder of its own name."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def _annotations(folder: Path, part: str) -> Path:
    tree = _tree(folder)
    if part == "train":
        return tree / _TRAIN_LABELS
    return _find(TEST_LABELS, tree, tree / "devkit", folder) or tree / TEST_LABELS


def lacking(folder: Path) -> list[str]:
    """The folders and lists that are missing; their content is not checked."""
    tree = _tree(folder)
    folders = [f"cars_{part}" for part in COUNTS if not (tree / f"cars_{part}").is_dir()]
    lists = [name for name in (_META, _TRAIN_LABELS) if not (tree / name).is_file()]
    return folders + lists + [TEST_LABELS] * (not _annotations(folder, "test").is_file())


def _find(name: str, *folders: Path) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _load(path: Path, variable: str) -> np.ndarray:
    """One variable of a MATLAB file, with at least one dimension."""
    loadmat = require("scipy.io", "cars").loadmat  # slow to import
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True, variable_names=[variable])[variable])
    except KeyError as error:
        raise DatasetCorruptError(f"{path}: has no variable {variable}.") from error
    except Exception as error:  # its type depends on where the damage is
        raise DatasetCorruptError(f"{path}: damaged, or no MATLAB file ({error}).") from error


def _numbers(path: Path, table: np.ndarray, field: str) -> np.ndarray:
    """A field as float64; the file's unsigned integers would wrap around below 0."""
    values = table[field]
    for i, value in enumerate(values):
        if not np.isscalar(value) or isinstance(value, str):
            raise DatasetCorruptError(
                f"{path}: expected a number as {field} of {table['fname'][i]}, "
                f"found {np.asarray(value).tolist()!r}."
            )
    return np.array(values.tolist(), dtype=np.float64)
