"""The user's own images: a folder a class, parted by folders named train and test or by a draw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DatasetNotFoundError
from ..splits import stratified_split
from .listing import ImageList, check_part

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# In order: of several, the first is taken.
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")

_LAYOUT = "Expected ROOT/CLASS/IMAGE, or ROOT/train/CLASS/IMAGE and ROOT/test/CLASS/IMAGE"


def listing(root: Path, part: str, *, test_share: float = 0.2, seed: int = 0) -> ImageList:
    """Lists the images of a part, by class and then by path.

    Images are files that end in one of `SUFFIXES`, in any case, anywhere below a class's folder;
    whether they can be decoded is not looked at. What is hidden (begins with a dot) does not count.

    Two layouts. If `root` has a folder ``train`` and a folder ``test``, these are the parts and
    hold the classes' folders; whatever else is in `root` is left out. ``training`` and ``testing``
    do as well, in any case, and without a test folder one named ``val``, ``valid`` or
    ``validation`` is the test part. In any other case the folders of `root` are the classes, and a
    share of each is drawn for the test part: a function of the paths, `test_share` and `seed`
    alone, so that another file there is another draw.

    Args:
        root: the folder.
        part: "train" or "test".
        test_share: share of the images that the draw gives to the test part, in (0, 1). Each class
            gives its share, rounded by largest remainder, and keeps at least one training image.
        seed: of the draw, at least 0.

    Returns:
        The images. Classes are the folders' names, sorted by their characters; of the training
        part's folders, if there are two parts.

    Raises:
        ValueError: unknown part, or `test_share` or `seed` out of range; fewer than two classes; a
            class without training images; a class of the test part that the training part lacks.
        DatasetNotFoundError: no such folder, or no image in it, or none for this part.
    """
    check_part(part)
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share!r}: expected more than 0 and less than 1")
    if seed < 0:
        raise ValueError(f"seed={seed!r}: expected at least 0")
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise DatasetNotFoundError(
            f"root={str(root)!r}: no such folder. {_LAYOUT}; a relative path counts from "
            f"{Path.cwd()}."
        )
    parts = _parts(root)
    names = _class_names(parts[0] if parts else root)
    if parts and part == "test":
        paths, labels = _test_images(root, *parts, names)
    else:
        paths, labels = _images(root, parts[0] if parts else root, names)
        _check_every_class(root, labels, names)
    if not parts:
        in_test = _draw(labels, test_share, seed)
        rows = np.flatnonzero(in_test == (part == "test"))
        paths, labels = [paths[row] for row in rows], labels[rows]
    if not paths:
        more = f" to {parts[1]}" if parts else f", or give a test_share above {test_share}"
        raise DatasetNotFoundError(
            f"root={str(root)!r}: no image for the {part} part. Add images{more}."
        )
    return ImageList(
        root=root,
        paths=tuple(paths),
        labels=labels,
        class_names=names,
        boxes=None,
        mend=f"Replace it by a whole image or remove it from {root}.",
    )


def _parts(root: Path) -> tuple[Path, Path] | None:
    """The folders of the training and the test part; None if there are not both."""
    by_name: dict[str, Path] = {}
    for name in _folders(root):
        by_name.setdefault(name.lower(), root / name)
    train, test = (
        next((by_name[name] for name in names if name in by_name), None)
        for names in (TRAIN_NAMES, TEST_NAMES)
    )
    return (train, test) if train and test else None


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(_folders(folder))
    if len(names) >= 2:
        return names
    found = f"one, {names[0]!r}" if names else "none"
    hint = ""
    if names and names[0].lower() in TRAIN_NAMES:
        hint = f" For a drawn test part give root={str(folder / names[0])!r}."
    loose = sum(_is_image(name) for name in os.listdir(folder))
    if loose:
        hint += f" {loose} images lie in it directly: put them into a folder for each class."
    raise ValueError(
        f"root: expected at least two classes, as folders in {folder}, found {found}. "
        f"{_LAYOUT}.{hint}"
    )


def _test_images(
    root: Path, train: Path, test: Path, names: tuple[str, ...]
) -> tuple[list[str], np.ndarray]:
    unknown = [name for name in _folders(test) if name not in names]
    if unknown:
        raise ValueError(
            f"root={str(root)!r}: {test.name} has a class {unknown[0]!r} that {train.name} has "
            f"not. Give it a folder with images in {train.name}, or remove it from {test.name}."
        )
    return _images(root, test, names)  # it may lack a class


def _check_every_class(root: Path, labels: np.ndarray, names: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if not counts.any():
        raise DatasetNotFoundError(
            f"root={str(root)!r}: no image in the folders {', '.join(names[:5])}"
            f"{', …' * (len(names) > 5)}. {_LAYOUT}, where images end in {', '.join(SUFFIXES)}."
        )
    if not counts.all():
        empty = names[int(counts.argmin())]
        raise ValueError(
            f"root={str(root)!r}: the class {empty!r} has no training image. Put files that end in "
            f"{', '.join(SUFFIXES)} into its folder, or remove it."
        )


def _images(root: Path, folder: Path, names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Paths of all images of the classes, relative to `root`, and their labels."""
    present = set(_folders(folder))
    of_class = [sorted(_below(root, folder / name)) if name in present else [] for name in names]
    labels = np.repeat(np.arange(len(names)), [len(paths) for paths in of_class])
    return [path for paths in of_class for path in paths], labels.astype(np.int64)


def _below(root: Path, folder: Path) -> Iterator[str]:
    """Images in a folder and in those below it, relative to `root`; links are followed."""
    for here, folders, files in os.walk(folder, onerror=_fail, followlinks=True):
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _leads_up(here, name)
        ]
        place = Path(here).relative_to(root).as_posix()
        yield from (f"{place}/{name}" for name in files if _is_image(name))


def _leads_up(here: str, name: str) -> bool:
    """Whether a link leads to a folder that it lies in, so that following it would never end."""
    path = os.path.join(here, name)
    return os.path.islink(path) and Path(here).resolve().is_relative_to(Path(path).resolve())


def _fail(error: OSError) -> None:
    raise error


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _draw(labels: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Which rows are drawn for the test part, bool ``(N,)``."""
    # Raw bits of a bit generator never change between numpy releases; `permutation` may.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    _, drawn = stratified_split(labels[order], int(test_share * len(labels) + 0.5))
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[order[drawn]] = True
    _, first = np.unique(labels, return_index=True)
    in_train = np.bincount(labels, weights=~in_test)
    in_test[first[in_train == 0]] = False
    return in_test
