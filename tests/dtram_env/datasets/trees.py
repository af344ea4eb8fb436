"""Small datasets on disk in the official layouts: real JPEGs of odd sizes, whose pixels are known.

Every image is `GROUND` with its class's colour (`colour_of`) inside its box. In each part the first
image is grey, the second CMYK, the others RGB.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

from dtram_env.datasets.fetch.download import RawFile
from dtram_env.datasets.sources import cars, cub, fashion

GROUND = (30, 30, 30)
# Height, width, and the box: left, top, width, height.
SHAPES = (
    (37, 53, (8, 8, 24, 16)),
    (61, 41, (0, 16, 41, 32)),
    (48, 64, (16, 0, 32, 40)),
    (33, 33, (1, 2, 30, 29)),
    (91, 57, (24, 40, 33, 51)),
)
MODES = ("L", "CMYK")


@dataclass(frozen=True)
class Tree:
    """A dataset that was written; arrays and paths by part, in the order of a listing.

    Attributes:
        folder: what a reader is given.
        root: what the paths are relative to.
        class_names: as a listing names them.
        paths: of the images.
        labels: ``(N,)``.
        sizes: ``(N, 2)``, height and width.
        boxes: ``(N, 4)``, left, top, width, height.
    """

    folder: Path
    root: Path
    class_names: tuple[str, ...]
    paths: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    sizes: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by part."""
        return {part: len(paths) for part, paths in self.paths.items()}

    def copy(self, folder: Path) -> Self:
        """Copies all files; a reader of the copy is given `folder`."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder, root=folder / self.root.relative_to(self.folder))

    def publish(self, monkeypatch: pytest.MonkeyPatch, reader: ModuleType) -> None:
        """Makes `cub` or `cars` expect this tree's counts."""
        monkeypatch.setattr(reader, "COUNTS", self.counts)
        monkeypatch.setattr(reader, "NUM_CLASSES", len(self.class_names))


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a class's boxes; the classes' brightness differs too."""
    return (250 - 50 * (label % 5), 90 + 10 * (label % 7), 60 + 30 * (label % 3))


def write_image(path: Path, label: int, number: int) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Writes the `number`-th image of a part; returns its size and box."""
    height, width, box = SHAPES[number % len(SHAPES)]
    left, top, box_width, box_height = box
    pixels = np.full((height, width, 3), GROUND, dtype=np.uint8)
    pixels[top : top + box_height, left : left + box_width] = colour_of(label)
    image = Image.fromarray(pixels)
    if number < len(MODES):
        image = image.convert(MODES[number])
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = path.suffix.lower() not in (".jpg", ".jpeg")
    if lossless and image.mode == "CMYK":  # PNG and its like have none
        image = image.convert("RGB")
    image.save(path, **({} if lossless else {"quality": 95, "subsampling": 0}))
    return (height, width), box


class _Writer:
    """Writes images below `root`, part by part, and records them."""

    def __init__(self, root: Path, parts: Iterable[str] = ("train", "test")) -> None:
        self.root = root
        self.rows: dict[str, list[tuple[Any, ...]]] = {part: [] for part in parts}

    def add(self, part: str, path: str, label: int) -> tuple[int, ...]:
        size, box = write_image(self.root / path, label, len(self.rows[part]))
        self.rows[part].append((path, label, size, box))
        return box

    def tree(self, folder: Path, class_names: tuple[str, ...]) -> Tree:
        columns = [
            {part: [row[k] for row in self.rows[part]] for part in self.rows} for k in range(4)
        ]
        paths, *numbers = columns
        labels, sizes, boxes = (
            {part: np.array(rows, dtype=np.int64).reshape(-1, *shape) for part, rows in c.items()}
            for c, shape in zip(numbers, ((), (2,), (4,)), strict=True)
        )
        return Tree(folder, self.root, class_names, paths, labels, sizes, boxes)


def make_cub(folder: Path, classes: int = 3, train: int = 2, test: int = 1) -> Tree:
    """Writes ``folder/CUB_200_2011`` with `train` and `test` images of each class."""
    root = folder / "CUB_200_2011"
    names = [f"{k + 1:03}.Odd_billed_Bird_{k}" for k in range(classes)]
    lines: dict[str, list[str]] = {name: [] for name in ("images", "class", "split", "box")}
    writer = _Writer(root)
    for label, name in enumerate(names):
        # Parts take turns, as they do in the published split.
        parts = ["test"] * test + ["train"] * train
        for j, part in enumerate(parts):
            i = len(lines["images"]) + 1
            path = f"{name}/Odd_Bird_{label}_{j}.jpg"
            box = writer.add(part, f"images/{path}", label)
            lines["images"].append(f"{i} {path}")
            lines["class"].append(f"{i} {label + 1}")
            lines["split"].append(f"{i} {int(part == 'train')}")
            lines["box"].append(f"{i} " + " ".join(f"{value:.1f}" for value in box))
    for name, key in (
        ("images", "images"),
        ("image_class_labels", "class"),
        ("train_test_split", "split"),
        ("bounding_boxes", "box"),
    ):
        (root / f"{name}.txt").write_text("\n".join(lines[key]) + "\n")
    (root / "classes.txt").write_text("".join(f"{k + 1} {n}\n" for k, n in enumerate(names)))
    return writer.tree(folder, tuple(f"Odd billed Bird {k}" for k in range(classes)))


def make_cars(folder: Path, classes: int = 3, train: int = 2, test: int = 1) -> Tree:
    """Writes ``folder/stanford_cars`` with `train` and `test` images of each class."""
    from scipy.io import savemat

    root = folder / "stanford_cars"
    names = tuple(f"Odd Car Sedan {2000 + k}" for k in range(classes))
    writer = _Writer(root)
    (root / "devkit").mkdir(parents=True)
    for part, per_class in (("train", train), ("test", test)):
        rows = []
        for i in range(per_class * classes):
            name, label = f"{i + 1:05}.jpg", i % classes
            left, top, width, height = writer.add(part, f"cars_{part}/{name}", label)
            corners = (left + 1, top + 1, left + width, top + height)
            # The published file holds them in the smallest unsigned type.
            rows.append((*map(np.uint8, corners), np.uint8(label + 1), name))
        place = root if part == "test" else root / "devkit"
        file = "cars_test_annos_withlabels.mat" if part == "test" else "cars_train_annos.mat"
        savemat(place / file, {"annotations": annotations(rows)})
    cells = np.empty((1, classes), dtype=object)
    cells[0] = names
    savemat(root / "devkit/cars_meta.mat", {"class_names": cells})
    return writer.tree(folder, names)


PHOTOGRAPHS: dict[str, tuple[ModuleType, Callable[..., Tree]]] = {
    "cub": (cub, make_cub),
    "cars": (cars, make_cars),
}
"""The readers of photographs, and what writes a tree for each."""


def annotations(rows: list[tuple[object, ...]]) -> np.ndarray:
    """The table of Cars: boxes (x1, y1, x2, y2), classes (from 1) and file names."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    table = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        table[0, i] = row
    return table


def make_folder(
    folder: Path,
    classes: int = 3,
    train: int = 4,
    test: int = 2,
    *,
    parts: bool = True,
    suffix: str = ".jpg",
) -> Tree:
    """Writes ``folder/train/CLASS`` and ``folder/test/CLASS``, or only ``folder/CLASS``.

    Without `parts` the tree has the one part "all", with `train` + `test` images of each class.
    """
    names = tuple(f"kind_{chr(ord('a') + k)}" for k in range(classes))
    counts = {"train": train, "test": test} if parts else {"all": train + test}
    writer = _Writer(folder, counts)
    for part, count in counts.items():
        for label, name in enumerate(names):
            for j in range(count):
                place = f"{part}/{name}" if parts else name
                writer.add(part, f"{place}/{j:03}{suffix}", label)
    return writer.tree(folder, names)


def make_fashion(
    images: Mapping[str, np.ndarray],
) -> tuple[dict[str, bytes], dict[str, tuple[RawFile, RawFile]]]:
    """The content of Fashion-MNIST's four files, by name, and the files that `fashion` has to
    expect then. The labels of each part's images go from 0 to 9 and begin again."""
    content, files = {}, {}
    for part, (first, second) in fashion.FILES.items():
        labels = np.arange(len(images[part]), dtype=np.uint8) % 10
        known = []
        for name, array in ((first.name, images[part]), (second.name, labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            data = content[name] = header + array.tobytes()
            known.append(RawFile(name, len(data), hashlib.md5(data).hexdigest()))
        files[part] = known[0], known[1]
    return content, files


def pack(archive: Path, *items: Path) -> str:
    """Packs files and folders under their own names; returns the archive's MD5."""
    with tarfile.open(archive, "w:gz") as tar:
        for item in items:
            tar.add(item, item.name)
    return hashlib.md5(archive.read_bytes()).hexdigest()
