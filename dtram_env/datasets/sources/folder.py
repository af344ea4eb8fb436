"""The user's own images: one folder per class, with a test part in its own folder or drawn."""

import errno
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import DatasetNotFoundError
from ..paths import text
from ..splits import stratified_split
from .listing import ImageList

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Read if Pillow can: AVIF if it was built so, HEIF with a plugin.
OPTIONAL_SUFFIXES = (".avif", ".heic", ".heif")
# The first of these that exists is used.
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")

# Folders that file servers and operating systems make, in lower case.
_NO_CLASSES = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
_TEST_SHARE = 0.2  # of the images, where the test part is drawn
_LAYOUT = "Expected ROOT/CLASS/IMAGE, or ROOT/train/CLASS/IMAGE and ROOT/test/CLASS/IMAGE"


def listing(root: Path, part: str) -> ImageList:
    """Lists the images of a part, by class and then by path.

    Images are all files below a class's folder that end in one of `SUFFIXES`, or of
    `OPTIONAL_SUFFIXES` where Pillow reads them; case does not matter. They are not opened. A
    warning counts the other files. Hidden files and folders, whose names begin with a dot, folders
    that file servers and operating systems make, such as ``@eaDir``, and links that lead back to a
    folder above them are ignored.

    There are two layouts. If `root` has folders called as in `TRAIN_NAMES` and `TEST_NAMES`, these
    are the parts and contain the classes' folders; everything else in `root` is ignored. Otherwise
    the folders of `root` are the classes, and a fifth of the images is drawn for the test part,
    from each class its share, but each class keeps a training image. The draw depends only on the
    paths, so an additional file changes it. Classes are sorted by their characters, and bytes of
    their names that are not UTF-8 are written as in ``caf\\xe9``.

    Raises:
        ValueError: fewer than two classes; a class without training images; a class of the test
            part that the training part lacks.
        DatasetNotFoundError: no such folder, or no image in it or for this part.
    """
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise DatasetNotFoundError(
            f"root={str(root)!r}: no such folder. {_LAYOUT}; a relative path counts from "
            f"{Path.cwd()}."
        )
    parts = _parts(root)
    train = parts[0] if parts else root
    names = _class_names(train)
    if parts and part == "test":
        test = parts[1]
        if unknown := [name for name in _folders(test) if name not in names]:
            raise ValueError(
                f"root={str(root)!r}: {test.name} has a class {unknown[0]!r} that {train.name} "
                f"lacks. Add a folder with images of it to {train.name}, or remove it from "
                f"{test.name}. {_drawn_part(train)}"
            )
        paths, labels = _images(root, test, names)  # it may lack a class
    else:
        paths, labels = _images(root, train, names)
        _check_every_class(root, labels, names)
    if not parts:
        indices = np.flatnonzero(_draw(labels, _TEST_SHARE, seed=0) == (part == "test"))
        paths, labels = [paths[i] for i in indices], labels[indices]
    if not paths:
        if parts and (loose := _loose_images(parts[1])):
            raise DatasetNotFoundError(
                f"root={str(root)!r}: {parts[1].name} has no images in folders of classes, but "
                f"{loose} images lie in it directly, so that their classes are unknown. Put them "
                f"into a folder for each class, as in {train.name}. {_drawn_part(train)}"
            )
        more = f" to {parts[1]}" if parts else ""
        raise DatasetNotFoundError(
            f"root={str(root)!r}: no image for the {part} part. Add images{more}."
        )
    fix = f"Replace it with an intact image or remove it from {root}."
    shown = tuple(map(text, names))
    return ImageList(root, tuple(paths), labels, shown, boxes=None, fix=fix)


def _parts(root: Path) -> tuple[Path, Path] | None:
    """The folders of the training and the test part; None unless both exist."""
    by_name = {name.lower(): root / name for name in reversed(_folders(root))}
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
        hint = f" {_drawn_part(folder / names[0])}"
    if loose := _loose_images(folder):
        hint += f" {loose} images lie in it directly: put them into a folder for each class."
    raise ValueError(
        f"root: expected at least two classes, as folders in {folder}, found {found}. "
        f"{_LAYOUT}.{hint}"
    )


def _loose_images(folder: Path) -> int:
    """Number of images that lie in a folder directly."""
    return sum(is_image(name) and name[0] != "." for name in os.listdir(folder))


def _drawn_part(train: Path) -> str:
    return f"For a test part drawn from the training images use root={str(train)!r}."


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
    """Paths of the classes' images, relative to `root`, and their labels."""
    present = set(_folders(folder))
    found = find_images(folder, [name for name in names if name in present])
    place = "" if folder == root else f"{folder.name}/"
    of_class = [[place + path for path in found.get(name, [])] for name in names]
    labels = np.repeat(np.arange(len(names)), [len(paths) for paths in of_class])
    return [path for paths in of_class for path in paths], labels.astype(np.int64)


def find_images(root: Path, folders: Sequence[str] = ("",)) -> dict[str, list[str]]:
    """Paths of all images below each of some folders of `root`, relative to `root`, sorted.

    A warning counts the other files. Follows links, but not back to a folder above them.
    """
    found: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    for folder in folders:
        images = []
        for path in _files_below(root / folder, (root.resolve(),)):
            if is_image(path):
                images.append(f"{folder}/{path}".lstrip("/"))
            else:
                others[_suffix(path)] += 1
        found[folder] = sorted(images, key=os.fsencode)  # in the same order in every locale
    if others:
        kinds = [f"{n} {kind or 'without a suffix'}" for kind, n in others.most_common(5)]
        more = [f"{len(others) - 5} more kinds"] * (len(others) > 5)
        warnings.warn(
            f"{root}: left out {others.total()} file{'s' * (others.total() > 1)}: "
            f"{', '.join(kinds + more)}. Images end in {', '.join(SUFFIXES)}, or "
            f"{', '.join(OPTIONAL_SUFFIXES)} if Pillow reads them",
            stacklevel=2,
        )
    return found


def is_image(path: str) -> bool:
    """Whether a file's name says that it is an image that Pillow reads."""
    suffix = _suffix(path)
    if suffix in OPTIONAL_SUFFIXES:
        from PIL import Image

        return suffix in Image.registered_extensions()
    return suffix in SUFFIXES


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[str]:
    """Paths of all files below a folder, relative to it; `above` are the folders passed."""
    passed = (*above, folder.resolve())
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry, passed):
                below = _files_below(folder / entry.name, passed)
                yield from (f"{entry.name}/{path}" for path in below)
            elif not (entry.name.startswith(".") or _is_directory(entry) or _is_endless(entry)):
                yield entry.name


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry, (folder.resolve(),))]
    return sorted(names, key=os.fsencode)


def _is_folder(entry: os.DirEntry[str], passed: Sequence[Path]) -> bool:
    """Whether an entry is a folder of the user's, and no link to one that contains it."""
    name = entry.name.lower()
    if name.startswith(".") or name in _NO_CLASSES or not _is_directory(entry):
        return False
    target = Path(entry).resolve() if entry.is_symlink() else None
    return target is None or not any(path.is_relative_to(target) for path in passed)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    # Of a link that leads to itself `is_dir` raises an error.
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def _is_endless(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that leads to itself."""
    try:
        return entry.is_symlink() and not os.stat(entry)
    except OSError as error:
        return error.errno == errno.ELOOP


def _draw(labels: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """The images drawn for the test part, bool ``(N,)``."""
    # Raw bits of a bit generator never change between numpy releases; `permutation` may.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    _, drawn = stratified_split(labels[order], int(test_share * len(labels) + 0.5))
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[order[drawn]] = True
    _, first = np.unique(labels, return_index=True)
    in_train = np.bincount(labels, weights=~in_test)
    in_test[first[in_train == 0]] = False
    return in_test
