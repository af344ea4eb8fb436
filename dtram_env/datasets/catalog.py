"""The datasets by name: one table, and how each is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from .drawn import AUTOS, BIRDS, Drawing
from .sources import cars, cluttered, cub, fashion, folder, mnist, signpost
from .sources.listing import ImageList
from .storage.cache import build_cache, open_cache
from .storage.decode import DecodedImages
from .storage.drawn_store import DrawnImages, DrawnStore
from .storage.store import Pictures


@dataclass(frozen=True)
class Choices:
    """What of a dataset is wanted; each dataset takes some of these (`DatasetInfo.choices`)."""

    image_size: int | None = None
    """shorter side that images are resized to, in pixels; None: as they are"""
    crop_to_box: bool = False
    """whether images are cut to their bounding boxes"""
    root: str | None = None
    """folder of the user's own images; a relative one counts from where this is made"""
    num_classes: int | None = None
    """classes of a drawn dataset; None: its own number"""
    num_train: int | None = None
    """images of a drawn dataset's training part, validation in it; None: its own number"""
    num_test: int | None = None
    """images of a drawn dataset's test part; None: its own number"""

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", str(Path(self.root).expanduser().resolve()))

    def given(self) -> set[str]:
        """Names of those that differ from their defaults."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Part:
    """An official part of a dataset, "train" or "test"; the fields are those of `Dataset`."""

    images: np.ndarray | Pictures
    labels: np.ndarray
    class_names: tuple[str, ...]
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)

    def select(self, rows: np.ndarray) -> Part:
        """Some of the images, by their rows ``(M,)``."""
        images = self.images
        return Part(
            images[rows] if isinstance(images, np.ndarray) else images.select(rows),
            self.labels[rows],
            self.class_names,
            {name: values[rows] for name, values in self.metadata.items()},
        )


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is loaded.

    Attributes:
        title: the dataset's name as results show it.
        description: one line.
        env_id: the environment that is registered with it.
        read: ``read(folder, part, choices)`` gives an official part, "train" or "test".
        validation_count: how many of N official training images are kept for validation.
        fetch: ``fetch(folder, progress)`` brings the files into `folder`; None if it has no files.
        ready: whether the files are all in `folder` (not whether they are right).
        choices: names of the `Choices` that it takes.
        place: name of its folder below the root; its own name if not given.
        fetched_on_use: whether files that are missing are fetched when they are needed; if not,
            only by the command.
        stand_in: name of the drawn dataset that may take its place.
        drawn: whether it is drawn by this package.
        cached: whether the images are decoded (or drawn) into a cache in its folder.
    """

    title: str
    description: str
    env_id: str
    read: Callable[[Path, str, Choices], Part]
    validation_count: Callable[[int], int] = lambda n: n // 10
    fetch: Callable[[Path, bool | None], None] | None = None
    ready: Callable[[Path], bool] = lambda folder: True
    choices: frozenset[str] = frozenset()
    place: str | None = None
    fetched_on_use: bool = True
    stand_in: str | None = None
    drawn: bool = False
    cached: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether it has files that must be fetched."""
        return self.fetch is not None

    @property
    def uses_disk(self) -> bool:
        """Whether anything of it is read from, or written to, its folder."""
        return self.needs_data or self.cached


DRAWN_CHOICES = frozenset({"image_size", "num_classes", "num_train", "num_test"})
DRAWINGS: dict[str, Drawing] = {"birds": BIRDS, "autos": AUTOS}


def cache_of_files(
    listed: ImageList, folder: Path, part: str, choices: Choices
) -> tuple[Path, DecodedImages]:
    """Where the decoded images of a part lie, and what they are decoded from."""
    size = "native" if choices.image_size is None else str(choices.image_size)
    name = f"{part}-{size}{'-box' * choices.crop_to_box}"
    images = DecodedImages(listed, choices.image_size, choices.crop_to_box)
    return folder / "cache" / name, images


def drawing_of(name: str, choices: Choices) -> Drawing:
    """A drawn dataset as it was asked for."""
    wanted = {key: getattr(choices, key) for key in DRAWN_CHOICES}
    return replace(DRAWINGS[name], **{k: v for k, v in wanted.items() if v is not None})


def cache_of_drawing(drawing: Drawing, folder: Path, part: str) -> tuple[Path, DrawnImages]:
    """Where the drawn images of a part are kept once they are built."""
    name = (
        f"{part}-{drawing.image_size}-{drawing.num_classes}classes-"
        f"{drawing.num_train}-{drawing.num_test}-seed{drawing.seed}"
    )
    return folder / "cache" / name, DrawnImages(drawing, part)


def _arrays(
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...]
) -> Callable[[Path, str, Choices], Part]:
    """Reader of a dataset whose images are held in memory."""
    return lambda place, part, choices: Part(*read(place, part), class_names)


def _files(listing: Callable[[Path, str], ImageList]) -> Callable[[Path, str, Choices], Part]:
    """Reader of a dataset of image files, which are decoded once."""

    def read(place: Path, part: str, choices: Choices) -> Part:
        return _decoded(listing(place, part), place, part, choices)

    return read


def _decoded(listed: ImageList, place: Path, part: str, choices: Choices) -> Part:
    where, images = cache_of_files(listed, place, part, choices)
    store = build_cache(where, images, label=f"decoding {place.name}, {part}")
    return Part(store, listed.labels, listed.class_names, store.metadata())


def _read_folder(place: Path, part: str, choices: Choices) -> Part:
    root, own = folder_place(place, choices)
    return _decoded(folder.listing(root, part), own, part, choices)


def folder_place(place: Path, choices: Choices) -> tuple[Path, Path]:
    """The user's folder, and the one below the data's root that its cache goes to.

    Raises:
        ValueError: no folder was named.
    """
    if choices.root is None:
        raise ValueError(
            "root=None: expected the folder of your images, one folder a class, as in "
            'gym.make("DTRAM-ImageFolder-v0", root="photos") or --root photos'
        )
    root = Path(choices.root)
    return root, place / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


def _drawn(name: str) -> Callable[[Path, str, Choices], Part]:
    def read(place: Path, part: str, choices: Choices) -> Part:
        drawing = drawing_of(name, choices)
        layout = drawing.layout(part)
        metadata = {"part_boxes": layout.part_boxes, "discriminative": layout.discriminative}
        images: Pictures | None = open_cache(*cache_of_drawing(drawing, place, part))
        if images is None:
            images = DrawnStore(drawing, part)
        return Part(images, drawing.labels(part), drawing.class_names, metadata)

    return read


def _composed(patches: int) -> Callable[[Path, str, Choices], Part]:
    return _arrays(lambda place, part: cluttered.read(place, part, patches), mnist.CLASS_NAMES)


DATASETS: dict[str, DatasetInfo] = {
    "mnist": DatasetInfo(
        title="MNIST",
        description="handwritten digits, 28x28x1, 60,000 + 10,000 images, 55 MB",
        env_id="DTRAM-MNIST-v0",
        read=_arrays(mnist.read, mnist.CLASS_NAMES),
        validation_count=lambda n: 5000,
        fetch=mnist.fetch,
        ready=mnist.ready,
    ),
    "signpost": DatasetInfo(
        title="Signpost",
        description="drawn glyphs and arrows, 28x28x1, 6,000 + 2,000 images",
        env_id="DTRAM-Signpost-v0",
        read=_arrays(lambda place, part: signpost.draw(part), signpost.CLASS_NAMES),
        drawn=True,
    ),
    "fashionmnist": DatasetInfo(
        title="FashionMNIST",
        description="pieces of clothing, 28x28x1, 60,000 + 10,000 images, 55 MB",
        env_id="DTRAM-FashionMNIST-v0",
        read=_arrays(fashion.read, fashion.CLASS_NAMES),
        fetch=fashion.fetch,
        ready=fashion.ready,
    ),
    "translatedmnist": DatasetInfo(
        title="TranslatedMNIST",
        description="MNIST's digits somewhere on 60x60x1, made from MNIST's files",
        env_id="DTRAM-TranslatedMNIST-v0",
        read=_composed(patches=0),
        validation_count=lambda n: 5000,
        fetch=mnist.fetch,
        ready=mnist.ready,
        place="mnist",
    ),
    "clutteredmnist": DatasetInfo(
        title="ClutteredMNIST",
        description="the same with four pieces of other digits, 60x60x1",
        env_id="DTRAM-ClutteredMNIST-v0",
        read=_composed(patches=4),
        validation_count=lambda n: 5000,
        fetch=mnist.fetch,
        ready=mnist.ready,
        place="mnist",
    ),
    "cub": DatasetInfo(
        title="CUB-200-2011",
        description="photographs of 200 species of birds, 5,994 + 5,794 images, 1.2 GB",
        env_id="DTRAM-CUB-v0",
        read=_files(cub.listing),
        fetch=cub.fetch,
        ready=cub.ready,
        choices=frozenset({"image_size", "crop_to_box"}),
        fetched_on_use=False,
        stand_in="birds",
        cached=True,
    ),
    "cars": DatasetInfo(
        title="Stanford Cars",
        description="photographs of 196 models of cars, 8,144 + 8,041 images, 1.9 GB",
        env_id="DTRAM-Cars-v0",
        read=_files(cars.listing),
        fetch=cars.fetch,
        ready=cars.ready,
        choices=frozenset({"image_size", "crop_to_box"}),
        fetched_on_use=False,
        stand_in="autos",
        cached=True,
    ),
    "birds": DatasetInfo(
        title="Birds (drawn)",
        description="drawn birds of 200 species that differ in small parts, 512x512x3",
        env_id="DTRAM-Birds-v0",
        read=_drawn("birds"),
        choices=DRAWN_CHOICES,
        drawn=True,
        cached=True,
    ),
    "autos": DatasetInfo(
        title="Autos (drawn)",
        description="drawn motor vehicles of 196 models that differ in small parts, 512x512x3",
        env_id="DTRAM-Autos-v0",
        read=_drawn("autos"),
        choices=DRAWN_CHOICES,
        drawn=True,
        cached=True,
    ),
    "imagefolder": DatasetInfo(
        title="ImageFolder",
        description="your own images, one folder a class, named by root=",
        env_id="DTRAM-ImageFolder-v0",
        read=_read_folder,
        choices=frozenset({"image_size", "root"}),
        cached=True,
    ),
}
