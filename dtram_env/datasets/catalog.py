"""The table of datasets, and how each is read."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import numpy as np

from .drawn import AUTOS, BIRDS, SCENES, Drawing
from .sources import (
    cars,
    cluttered,
    cub,
    fashion,
    folder,
    glyphs,
    mnist,
    pair,
    patience,
    signpost,
)
from .sources.listing import ImageList
from .storage.cache import build_cache, open_cache
from .storage.decode import DecodedImages
from .storage.drawn_store import DrawnStore
from .storage.store import Pictures


@dataclass(frozen=True)
class ImageOptions:
    """Which images of a dataset, and in what form; each dataset has its own `DatasetInfo.options`.

    None stands for the dataset's own value.
    """

    image_size: int | None = None  # shorter side after resizing, pixels; None: no resizing
    crop_to_box: bool = False  # whether to crop images to their bounding boxes
    root: str | None = None  # folder of the user's own images; made absolute here
    num_classes: int | None = None  # of a drawn dataset
    num_train: int | None = None  # training and validation images of a drawn dataset
    num_test: int | None = None  # test images of a drawn dataset

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", str(Path(self.root).expanduser().resolve()))

    def given(self) -> set[str]:
        """Names of the options that differ from their defaults."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Part:
    """An official part of a dataset, "train" or "test"; the fields are those of `Dataset`."""

    images: np.ndarray | Pictures
    labels: np.ndarray
    class_names: tuple[str, ...]
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)
    state: object = None  # of the files that were read; another one if they change
    paths: tuple[str, ...] = ()

    def select(self, indices: np.ndarray) -> "Part":
        """The images at ``indices`` ``(M,)``, in that order."""
        images = self.images
        images = images[indices] if isinstance(images, np.ndarray) else images.select(indices)
        metadata = {name: values[indices] for name, values in self.metadata.items()}
        paths = tuple(self.paths[i] for i in indices) if self.paths else ()
        return replace(
            self, images=images, labels=self.labels[indices], metadata=metadata, paths=paths
        )


Reader = Callable[[Path, str, ImageOptions], Part]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a dataset before it is loaded."""

    title: str  # the dataset's name in results
    description: str
    env_id: str  # the registered environment that uses it
    read: Reader  # ``read(folder, part, options)`` returns an official part, "train" or "test"
    validation_count: int | None = None  # official training images for validation; None: a tenth
    # ``fetch(folder, progress)`` downloads the files into `folder`; None without files.
    fetch: Callable[[Path, bool | None], None] | None = None
    lacking: Callable[[Path], list[str]] = lambda folder: []  # files that are missing
    options: frozenset[str] = frozenset()  # accepted `ImageOptions`; none if in memory
    folder: str | None = None  # name of its folder below the root; None: its own name
    # Name of the drawn dataset that may replace it. It is large, so only the command downloads it;
    # `load` downloads the others.
    stand_in: str | None = None
    drawn: bool = False  # whether this package draws it

    @property
    def cached(self) -> bool:
        """Whether its images are decoded (or drawn) into a cache in its folder."""
        return bool(self.options)

    @property
    def uses_disk(self) -> bool:
        """Whether it reads or writes files in its folder."""
        return self.fetch is not None or self.cached


BOX_OPTIONS = frozenset({"image_size", "crop_to_box"})
DRAWINGS: dict[str, Drawing] = {"birds": BIRDS, "autos": AUTOS, "scenes": SCENES}


def drawn_cache(
    name: str, options: ImageOptions, place: Path, part: str
) -> tuple[Path, DrawnStore]:
    """The cache folder of a drawn part, and the store that draws it."""
    given = {key: getattr(options, key) for key in options.given()}
    drawing = replace(DRAWINGS[name], **given)
    figures = f"-figures{drawing.figure_size}" if drawing.figure_size else ""
    counts = f"{drawing.num_classes}classes-{drawing.count(part)}"
    folder = place / "cache" / f"{part}-{drawing.image_size}{figures}-{counts}-seed{drawing.seed}"
    return folder, DrawnStore(drawing, part)


def user_folders(place: Path, options: ImageOptions) -> tuple[Path, Path]:
    """The folder of the user's own images, and the folder below `place` for its cache."""
    if options.root is None:
        raise ValueError(
            "root=None: expected the folder of your images, with one folder per class, as in "
            'gym.make("DTRAM-ImageFolder-v0", root="photos") or --root photos'
        )
    root = Path(options.root)
    return root, place / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"


def _arrays(
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...]
) -> Reader:
    """Reader of a dataset whose images are held in memory."""
    return lambda place, part, options: Part(*read(place, part), class_names)


def _files(listing: Callable[[Path, str], ImageList]) -> Reader:
    """Reader of a dataset of image files."""
    return lambda place, part, options: _decoded(listing(place, part), place, part, options)


def _read_folder(place: Path, part: str, options: ImageOptions) -> Part:
    root, own = user_folders(place, options)
    return _decoded(folder.listing(root, part), own, part, options)


def _decoded(listed: ImageList, place: Path, part: str, options: ImageOptions) -> Part:
    """Decodes image files into a cache in `place`, unless it is there."""
    size = options.image_size or "native"
    cache = place / "cache" / f"{part}-{size}{'-box' * options.crop_to_box}"
    images = DecodedImages(listed, options.image_size, options.crop_to_box)
    store = build_cache(cache, images, label=f"decoding {place.name}, {part}")
    state = store.meta, listed.class_names, listed.labels.tobytes()
    return Part(store, listed.labels, listed.class_names, store.metadata(), state, listed.paths)


def _drawn(name: str, title: str, description: str) -> DatasetInfo:
    """A drawn dataset, read from its cache if there is one."""

    def read(place: Path, part: str, options: ImageOptions) -> Part:
        cache, drawn = drawn_cache(name, options, place, part)
        drawing, layout = drawn.drawing, drawn.drawing.layout(part)
        metadata = {"part_boxes": layout.part_boxes, "discriminative": layout.discriminative}
        built = open_cache(cache, drawn)
        state = built and built.meta
        return Part(built or drawn, drawing.labels(part), drawing.class_names, metadata, state)

    options = frozenset({"image_size", "num_classes", "num_train", "num_test"})
    env_id = f"DTRAM-{title}-v0"
    return DatasetInfo(f"{title} (drawn)", description, env_id, read, options=options, drawn=True)


def _from_mnist(title: str, description: str) -> DatasetInfo:
    """MNIST, or what `cluttered` makes from its files."""
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]] = mnist.read
    if title in cluttered.COMPOSITIONS:
        patches, side = cluttered.COMPOSITIONS[title]
        read = partial(cluttered.read, patches=patches, side=side)
    return DatasetInfo(
        title,
        description,
        f"DTRAM-{title}-v0",
        _arrays(read, mnist.CLASS_NAMES),
        validation_count=5000,
        fetch=mnist.fetch,
        lacking=mnist.lacking,
        folder="mnist",
    )


def _puzzle(
    title: str,
    draw: Callable[[str], tuple[np.ndarray, np.ndarray]],
    description: str,
    class_names: tuple[str, ...] = glyphs.CLASS_NAMES,
) -> DatasetInfo:
    """A small drawn dataset, made in memory."""
    read = _arrays(lambda place, part: draw(part), class_names)
    return DatasetInfo(title, description, f"DTRAM-{title}-v0", read, drawn=True)


DATASETS: dict[str, DatasetInfo] = {
    "mnist": _from_mnist("MNIST", "handwritten digits, 28x28x1, 60,000 + 10,000 images, 55 MB"),
    "signpost": _puzzle(
        "Signpost", signpost.draw, "drawn glyphs and arrows, 28x28x1, 6,000 + 2,000 images"
    ),
    "noisysignpost": _puzzle(
        "NoisySignpost", partial(signpost.draw, version=signpost.NOISY), "the same with noise"
    ),
    "widesignpost": _puzzle(
        "WideSignpost", partial(signpost.draw, version=signpost.WIDE), "the same on 100x100x1"
    ),
    "patience": _puzzle(
        "Patience",
        patience.draw,
        "a drawn glyph at one of 7 places, 40x40x1, 5,600 + 2,240 images",
    ),
    "pair": _puzzle(
        "Pair",
        pair.draw,
        "drawn glyphs to be added, 28x28x1, 6,400 + 2,000 images",
        pair.CLASS_NAMES,
    ),
    "fashionmnist": DatasetInfo(
        "FashionMNIST",
        "pieces of clothing, 28x28x1, 60,000 + 10,000 images, 55 MB",
        "DTRAM-FashionMNIST-v0",
        _arrays(fashion.read, fashion.CLASS_NAMES),
        fetch=fashion.fetch,
        lacking=fashion.lacking,
    ),
    "translatedmnist": _from_mnist(
        "TranslatedMNIST",
        "MNIST's digits somewhere on 60x60x1, made from MNIST's files",
    ),
    "clutteredmnist": _from_mnist(
        "ClutteredMNIST", "the same with four pieces of other digits, 60x60x1"
    ),
    "clutteredmnist100": _from_mnist("ClutteredMNIST100", "the same with eight on 100x100x1"),
    "cub": DatasetInfo(
        "CUB-200-2011",
        "photographs of 200 species of birds, 5,994 + 5,794 images, 1.2 GB",
        "DTRAM-CUB-v0",
        _files(cub.listing),
        fetch=cub.fetch,
        lacking=cub.lacking,
        options=BOX_OPTIONS,
        stand_in="birds",
    ),
    "cars": DatasetInfo(
        "Stanford Cars",
        "photographs of 196 models of cars, 8,144 + 8,041 images, 1.9 GB",
        "DTRAM-Cars-v0",
        _files(cars.listing),
        fetch=cars.fetch,
        lacking=cars.lacking,
        options=BOX_OPTIONS,
        stand_in="autos",
    ),
    "birds": _drawn(
        "birds", "Birds", "drawn birds of 200 species that differ in small parts, 512x512x3"
    ),
    "autos": _drawn(
        "autos", "Autos", "drawn motor vehicles of 196 models that differ in small parts, 512x512x3"
    ),
    "scenes": _drawn(
        "scenes", "Scenes", "drawn birds of 20 species somewhere in large scenes, 512x512x3"
    ),
    "imagefolder": DatasetInfo(
        "ImageFolder",
        "your own images, one folder per class, named by root=",
        "DTRAM-ImageFolder-v0",
        _read_folder,
        options=frozenset({"image_size", "root"}),
    ),
}
