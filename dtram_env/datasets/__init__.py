"""Datasets by name and split: images, labels, class names. Loads neither torch nor torchvision.

`catalog` is the table of all datasets. `sources` reads them, `fetch` downloads them, `storage`
holds their images, and `drawn` draws the stand-ins.
"""

import threading
import warnings
from pathlib import Path

from ..checks import check_choice
from .catalog import DATASETS, DRAWINGS, DatasetInfo, ImageOptions, drawn_cache, user_folders
from .dataset import Dataset
from .errors import BuiltinDataWarning, DatasetCorruptError, DatasetNotFoundError
from .paths import data_root, text
from .splits import SPLITS, stratified_split
from .storage import mapped
from .storage.cache import build_cache

__all__ = [
    "DATA",
    "DATASETS",
    "SPLITS",
    "BuiltinDataWarning",
    "Dataset",
    "DatasetCorruptError",
    "DatasetInfo",
    "DatasetNotFoundError",
    "ImageOptions",
    "build",
    "data_root",
    "download",
    "is_ready",
    "load",
    "stratified_split",
    "verify",
]

DATA = ("auto", "real", "builtin")
_Key = tuple[str, str, str | None, Path | None, ImageOptions]
_loaded: dict[_Key, tuple[object, Dataset]] = {}  # with `Part.state`
_lock = threading.RLock()


def load(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    data: str = "auto",
    options: ImageOptions | None = None,
) -> Dataset:
    """Loads one split of a dataset; a process gets the same object while its files do not change.

    Args:
        name: a name in `DATASETS`, in upper or lower case.
        split: one of `SPLITS`. "validation" is a fixed, class-stratified part of the official
            training images (MNIST 5,000, others 10 %), and "train" is the rest.
        data_dir: see `data_root`.
        download: whether to download missing files. Large datasets (CUB) are only downloaded by
            ``python -m dtram_env.datasets download``.
        data: "real": the real data; "builtin": its drawn stand-in; "auto": the real data, or the
            stand-in with a `BuiltinDataWarning` if the files are missing.
        options: see `ImageOptions`.

    Raises:
        ValueError: unknown name or split, or an option that the dataset does not accept.
        DatasetNotFoundError: files are missing, and were not downloaded or could not be.
        DatasetCorruptError: a file is short or was changed.

    >>> signpost = load("signpost", "validation")
    >>> len(signpost), signpost.image_shape, signpost.num_classes
    (600, (28, 28, 1), 4)
    """
    name, options = name.lower(), options or ImageOptions()
    info = _info(name)
    check_choice("split", split, SPLITS)
    check_choice("data", data, DATA)
    with _lock:
        stand_in = _stand_in(name, data, data_dir, download)
        if stand_in is None:
            return _load(name, split, data_dir, options)
        if data == "auto":
            drawn = DATASETS[stand_in]
            warnings.warn(
                f"{info.title} is not in {_folder(name, data_dir)}: these are drawn images, not "
                f"{info.title}: {drawn.title}, {drawn.description}, the same as {drawn.env_id}. "
                f"Results on them are not {info.title}'s. The real images: "
                f"`python -m dtram_env.datasets download {name}`; data='real' makes their absence "
                "an error.",
                BuiltinDataWarning,
                stacklevel=2,
            )
        return _load(stand_in, split, data_dir, options, stands_in_for=info.title)


def build(
    name: str,
    *,
    data_dir: str | Path | None = None,
    options: ImageOptions | None = None,
    thumbnail_sizes: tuple[int, ...] = (),
    progress: bool | None = None,
) -> Path:
    """Decodes or draws a whole dataset into its cache, unless it is there; returns the folder.

    Files are decoded at their first use anyway. Drawn images are drawn one by one without a cache.
    Drawing uses several processes: call it under ``if __name__ == "__main__":``. It shows a bar on
    standard error if `progress` is True, or None and standard error a terminal. `thumbnail_sizes`
    are sides of thumbnails to make too, pixels.

    Raises:
        ValueError, DatasetNotFoundError, DatasetCorruptError: as `load`, or it has no cache.
    """
    name, options = name.lower(), options or ImageOptions()
    folder = _cached_folder(name, data_dir)
    for part, split in (("train", "train+validation"), ("test", "test")):
        if name in DRAWINGS:
            _check_options(name, options)
            cache, store = drawn_cache(name, options, folder, part)
            label = f"drawing {name}, {part}"
            build_cache(
                cache, store, thumbnail_sizes, label=label, progress=progress, processes=True
            )
        else:
            data = load(name, split, data_dir=data_dir, data="real", options=options)
            for side in thumbnail_sizes:
                data.prepare(side)
    return (user_folders(folder, options)[1] if name == "imagefolder" else folder) / "cache"


def download(
    name: str, *, data_dir: str | Path | None = None, progress: bool | None = None
) -> Path | None:
    """Downloads a dataset's files that are missing, short or changed.

    Returns their folder, or None for a dataset without files; `progress` as for `build`.

    Raises:
        ValueError: unknown name.
        DatasetNotFoundError: no source gave a file.
        DatasetCorruptError: a file that the user put there differs from the published one.
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


def verify(name: str, *, data_dir: str | Path | None = None) -> list[Path]:
    """Compares every file of a dataset's caches with its checksum; returns the caches' folders.

    `load` compares sizes only, because that takes no time. `download` checks downloaded files.

    Raises:
        ValueError: unknown name, or a dataset without a cache.
        DatasetNotFoundError: no cache is there yet.
        DatasetCorruptError: a file is missing or was changed; the error says what to delete.
    """
    folder = _cached_folder(name, data_dir)
    found = sorted(path.parent for path in folder.glob("**/cache/[!.]*/meta.json"))
    if not found:
        made = f"`python -m dtram_env.datasets build {name}` makes one"
        raise DatasetNotFoundError(f"{folder}: there is no cache to verify; {made}")
    for cache in found:
        mapped.verify(cache)
    return found


def is_ready(name: str, data_dir: str | Path | None = None) -> bool:
    """Whether all files of a dataset exist; True for a dataset without files."""
    return not _info(name).lacking(_folder(name, data_dir))


def _stand_in(name: str, data: str, data_dir: str | Path | None, may_download: bool) -> str | None:
    """Name of the drawn dataset to load instead; None: load `name`, whose files are then there."""
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
    if info.stand_in is None and may_download:
        download(name, data_dir=data_dir)
        return None
    if info.stand_in is not None and data == "auto":
        return info.stand_in
    folder, why, instead = _folder(name, data_dir), ", and download=False", ""
    if info.stand_in is not None:
        why = ""
        instead = (
            f" Drawn images in its place are {DATASETS[info.stand_in].env_id}, which gym.make also "
            "uses with data='auto' or 'builtin'; programs take --env-id with this id."
        )
    raise DatasetNotFoundError(
        f"{name}: not all its files are in {folder}: it has no {', '.join(info.lacking(folder))}"
        f"{why}. Fetch them with `python -m dtram_env.datasets download {name}`.{instead} "
        f"{_no_data_hint()}"
    )


def _load(
    name: str,
    split: str,
    data_dir: str | Path | None,
    options: ImageOptions,
    stands_in_for: str | None = None,
) -> Dataset:
    info = _info(name)
    _check_options(name, options, stands_in_for)
    root = data_root(data_dir) if info.uses_disk else None
    key = (name, split, stands_in_for, root, options)
    if key in _loaded and not info.cached:
        return _loaded[key][1]
    part = info.read(_folder(name, data_dir), "test" if split == "test" else "train", options)
    if key not in _loaded or _loaded[key][0] != part.state:
        if split in ("train", "validation"):
            count = info.validation_count or len(part.labels) // 10
            train, validation = stratified_split(part.labels, count)
            part = part.select(train if split == "train" else validation)
        title = info.title if options.root is None else text(Path(options.root).name)
        what = part.images, part.labels, part.class_names, part.metadata
        data = Dataset(title, split, *what, info.drawn, stands_in_for, part.paths)
        _loaded[key] = part.state, data
    return _loaded[key][1]


def _check_options(name: str, options: ImageOptions, stands_in_for: str | None = None) -> None:
    info = DATASETS[name]
    wrong = sorted(options.given() - info.options)
    # The task checks the image size of images in memory.
    if wrong and (wrong != ["image_size"] or info.cached):
        accepted = ", ".join(sorted(info.options)) or "none of them"
        instead = f", the drawn stand-in for {stands_in_for}," if stands_in_for else ""
        raise ValueError(
            f"{wrong[0]}={getattr(options, wrong[0])!r}: {info.title}{instead} does not accept it; "
            f"of the image options it accepts {accepted}"
        )


def _folder(name: str, data_dir: str | Path | None) -> Path:
    return data_root(data_dir) / (_info(name).folder or name.lower())


def _cached_folder(name: str, data_dir: str | Path | None) -> Path:
    """The folder of a dataset that has caches in it; raises ValueError for another one."""
    if not _info(name).cached:
        raise ValueError(f"dataset {name!r}: it is held in memory and has no cache")
    return _folder(name, data_dir)


def _info(name: str) -> DatasetInfo:
    if name.lower() not in DATASETS:
        raise ValueError(f"dataset {name!r}: expected one of {', '.join(map(repr, DATASETS))}")
    return DATASETS[name.lower()]


def _no_data_hint() -> str:
    ids = [info.env_id for info in DATASETS.values() if info.drawn]
    return f"Environments that need no data: {', '.join(ids)}."
