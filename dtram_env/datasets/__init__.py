"""Datasets by name and split: images, labels, class names. Needs numpy and nothing heavier."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path

from .catalog import (
    DATASETS,
    DRAWINGS,
    Choices,
    DatasetInfo,
    Part,
    cache_of_drawing,
    drawing_of,
    folder_place,
)
from .dataset import Dataset
from .errors import BuiltinDataWarning, DatasetCorruptError, DatasetNotFoundError
from .sources import mnist
from .splits import SPLITS, check_split, rows_of, stratified_split
from .storage.cache import build_cache

__all__ = [
    "DATA",
    "DATASETS",
    "SPLITS",
    "BuiltinDataWarning",
    "Choices",
    "Dataset",
    "DatasetCorruptError",
    "DatasetInfo",
    "DatasetNotFoundError",
    "build",
    "data_root",
    "fetch",
    "load",
    "mnist",
    "stratified_split",
]

DATA = ("auto", "real", "builtin")
_loaded: dict[tuple[str, str, Path | None, Choices], Dataset] = {}
_lock = threading.RLock()


def load(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    data: str = "auto",
    choices: Choices | None = None,
) -> Dataset:
    """Loads one split of a dataset; the same object for the same arguments within a process.

    Args:
        name: a name in `DATASETS`; case does not matter.
        split: one of `SPLITS`. "validation" is a fixed, class-stratified part of the official
            training images (MNIST 5,000, others 10 %), "train" the rest of them.
        data_dir: see `data_root`.
        download: whether to fetch files that are missing. Large datasets (CUB) are never fetched
            here, only by ``python -m dtram_env.datasets download``.
        data: "auto": the real data, or its drawn stand-in with a `BuiltinDataWarning` if the files
            are not there and it has one; "real": never a stand-in; "builtin": the stand-in.
        choices: which images, in what form; see `Choices`.

    Raises:
        ValueError: unknown name or split, or a choice that the dataset does not take.
        DatasetNotFoundError: files are missing and could not be, or were not to be, fetched.
        DatasetCorruptError: a file is short or altered.

    >>> signpost = load("signpost", "validation")
    >>> len(signpost), signpost.image_shape, signpost.num_classes
    (600, (28, 28, 1), 4)
    """
    name, choices = name.lower(), choices or Choices()
    info = _info(name)
    check_split(split)
    if data not in DATA:
        raise ValueError(f"data={data!r}: expected one of {', '.join(map(repr, DATA))}")
    with _lock:
        stand_in = _stand_in(name, data, data_dir, download)
        if stand_in is None:
            return _load(name, split, data_dir, choices)
        if data == "auto":
            warnings.warn(_stand_in_words(name, data_dir), BuiltinDataWarning, stacklevel=2)
        return _load(stand_in, split, data_dir, choices, stands_in_for=info.title)


def build(
    name: str,
    *,
    data_dir: str | Path | None = None,
    choices: Choices | None = None,
    thumbnail_sizes: tuple[int, ...] = (),
    progress: bool | None = None,
) -> Path:
    """Decodes or draws a whole dataset into its cache, both parts, unless it is there.

    Files are decoded at first use in any case; drawn images are drawn one by one until this was
    called. Works in processes: call it under ``if __name__ == "__main__":``.

    Args:
        name: a name in `DATASETS` whose images are cached.
        data_dir: see `data_root`.
        choices: which images, in what form.
        thumbnail_sizes: sides of thumbnails to make too.
        progress: of drawn images, show a bar on standard error; None: only on a terminal, as
            files that are decoded always do.

    Returns:
        The folder of the cache.

    Raises:
        ValueError, DatasetNotFoundError, DatasetCorruptError: as `load`.
    """
    name, choices = name.lower(), choices or Choices()
    info = _info(name)
    if not info.cached:
        raise ValueError(f"dataset {name!r}: it is held in memory, there is no cache to build")
    folder = _folder(name, data_dir)
    for part in ("train", "test"):
        if name in DRAWINGS:
            _check_choices(name, choices)
            where, source = cache_of_drawing(drawing_of(name, choices), folder, part)
            label = f"drawing {name}, {part}"
            build_cache(
                where, source, thumbnail_sizes, label=label, progress=progress, processes=True
            )
        else:
            split = "test" if part == "test" else "train+validation"
            data = load(name, split, data_dir=data_dir, data="real", choices=choices)
            for side in thumbnail_sizes:
                data.prepare(side)
    with _lock:  # a store that draws, loaded before, has been overtaken
        for key in [key for key in _loaded if key[0].partition(" for ")[0] == name]:
            del _loaded[key]
    return (folder_place(folder, choices)[1] if name == "imagefolder" else folder) / "cache"


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
    folder = _folder(name, data_dir)
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


def is_ready(name: str, data_dir: str | Path | None = None) -> bool:
    """Whether a dataset's files are there; always, if it has none."""
    return _info(name).ready(_folder(name, data_dir))


def _stand_in(name: str, data: str, data_dir: str | Path | None, download: bool) -> str | None:
    """The dataset to load in place of `name`; None for itself, whose files are then there."""
    info = _info(name)
    if data == "builtin":
        if info.stand_in is None and not info.drawn:
            raise ValueError(
                f"data='builtin': {info.title} has no drawn stand-in; use 'auto' or 'real', "
                "or DTRAM-Signpost-v0, which needs no data"
            )
        return info.stand_in
    if is_ready(name, data_dir):
        return None
    if download and info.fetched_on_use:
        fetch(name, data_dir=data_dir)
        return None
    if info.stand_in is not None and data == "auto":
        return info.stand_in
    why = ", and download=False" if info.fetched_on_use else ""
    builtin = ""
    if info.stand_in is not None:
        other = DATASETS[info.stand_in].env_id
        builtin = (
            f" Drawn images in its place are {other}, which gym.make takes by data='auto' or "
            "'builtin' as well, and train/reinforce.py and train/one_look.py by --data builtin."
        )
    raise DatasetNotFoundError(
        f"{name}: not all its files are in {_folder(name, data_dir)}{why}. Fetch them by "
        f"`python -m dtram_env.datasets download {name}`.{builtin} {_no_data_hint()}"
    )


def _stand_in_words(name: str, data_dir: str | Path | None) -> str:
    info = DATASETS[name]
    assert info.stand_in is not None
    drawn = DATASETS[info.stand_in]
    return (
        f"{info.title} is not in {_folder(name, data_dir)}: these are drawn images, not "
        f"{info.title}: {drawn.title}, {drawn.description}, the same as {drawn.env_id}. Results on "
        f"them are not {info.title}'s. The real images: `python -m dtram_env.datasets download "
        f"{name}`; data='real' makes their absence an error."
    )


def _load(
    name: str,
    split: str,
    data_dir: str | Path | None,
    choices: Choices,
    stands_in_for: str | None = None,
) -> Dataset:
    info = _info(name)
    _check_choices(name, choices, stands_in_for)
    root = data_root(data_dir) if info.uses_disk else None
    key = (name if stands_in_for is None else f"{name} for {stands_in_for}", split, root, choices)
    if key not in _loaded:
        part = info.read(_folder(name, data_dir), "test" if split == "test" else "train", choices)
        if split in ("train", "validation"):
            part = part.select(rows_of(split, part.labels, info.validation_count(len(part.labels))))
        _loaded[key] = _dataset(info, split, part, choices, stands_in_for)
    return _loaded[key]


def _dataset(
    info: DatasetInfo, split: str, part: Part, choices: Choices, stands_in_for: str | None
) -> Dataset:
    title = info.title if choices.root is None else Path(choices.root).name
    return Dataset(
        title,
        split,
        part.images,
        part.labels,
        part.class_names,
        part.metadata,
        info.drawn,
        stands_in_for,
    )


def _check_choices(name: str, choices: Choices, stands_in_for: str | None = None) -> None:
    info = DATASETS[name]
    wrong = sorted(choices.given() - info.choices)
    if wrong and not (wrong == ["image_size"] and not info.cached):  # the task checks that one
        known = ", ".join(sorted(info.choices)) or "none of them"
        instead = f", the drawn stand-in for {stands_in_for}," if stands_in_for else ""
        raise ValueError(
            f"{wrong[0]}={getattr(choices, wrong[0])!r}: {info.title}{instead} does not take it; "
            f"of the choices of images it takes {known}"
        )


def _folder(name: str, data_dir: str | Path | None) -> Path:
    return data_root(data_dir) / (_info(name).place or name)


def _info(name: str) -> DatasetInfo:
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r}: expected one of {', '.join(map(repr, DATASETS))}")
    return DATASETS[name]


def _no_data_hint() -> str:
    ids = [info.env_id for info in DATASETS.values() if info.drawn]
    return f"Environments that need no data: {', '.join(ids)}."
