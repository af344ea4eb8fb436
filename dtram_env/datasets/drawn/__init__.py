"""Drawn birds and cars: species that look alike from afar, told apart by texture on small parts.

No files, no learning and no photographs: every image is put together from ellipses and bars. What
makes it a task for looking twice is said in `genera` (which part tells which species apart) and
`textures` (why a thumbnail does not show it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import autos, birds
from .canvas import Texture
from .figures import Figures, figures
from .genera import INKS, Genera, genera, names
from .plan import Plan
from .scenes import grain, mottle, scene
from .textures import AMPLITUDE, period
from .words import Source

__all__ = ["AUTOS", "BIRDS", "SMALL_BIRDS", "Drawing", "Layout"]

PLANS: dict[str, Plan] = {"birds": birds.BIRDS, "autos": autos.AUTOS}
PARTS = ("train", "test")

_RANGES = {
    "image_size": (96, 2048),
    "num_classes": (10, 400),
    "num_train": (1, 2**31),
    "num_test": (1, 2**31),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Layout:
    """What was drawn where on the images of an official part, in the order of its rows.

    Attributes:
        part_boxes: ``(N, P, 4)`` int32, left, top, width and height of every part, pixels, within
            the image; in the order of `Drawing.part_names`.
        discriminative: ``(N, P)`` bool, which parts tell the image's species from the others of its genus:
            none, one, or two that no glimpse covers together.
        clutter: ``(N,)`` float32 in [0, 1], how much there is around the figure.
    """

    part_boxes: np.ndarray
    discriminative: np.ndarray
    clutter: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """A drawn dataset. Every image is a function of the settings, its part and its index alone.

    It does not depend on how many images there are, nor does what a species looks like depend on
    the seed.

    Attributes:
        plan: "birds" or "autos".
        image_size: side of the square images, pixels, 96 to 2048. From 400 on the parts are as
            small as a thumbnail of 224 pixels and such crops ask for; below, as large as one of 32
            pixels and crops of a quarter of the image do.
        num_classes: number of species, 10 to 400.
        num_train: images of the official training part.
        num_test: images of the official test part.
        seed: another seed is another set of images of the same species.

    Raises:
        ValueError: a setting is out of range.

    >>> birds = Drawing("birds", image_size=128, num_classes=20)
    >>> birds.draw("test", 5).shape, birds.class_names[4]
    ((128, 128, 3), 'thrush, barred wing')
    """

    plan: str
    image_size: int = 512
    num_classes: int = 200
    num_train: int = 5994
    num_test: int = 5794
    seed: int = 0

    def __post_init__(self) -> None:
        if self.plan not in PLANS:
            raise ValueError(f"plan={self.plan!r}: expected one of {', '.join(map(repr, PLANS))}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{name}={value!r}: expected a whole number, {low} to {high}")
            if not low <= value <= high:
                raise ValueError(f"{name}={value}: expected {low} to {high}; {_way_out(name)}")
            object.__setattr__(self, name, int(value))

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each label: its genus, and what tells it from others of that genus."""
        plan = PLANS[self.plan]
        return names(self._genera, plan.stems, plan.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that carry textures."""
        return PLANS[self.plan].parts

    def labels(self, part: str) -> np.ndarray:
        """Classes of the images of a part, ``(N,)`` int64; shuffled, frequencies differ by 1.

        Args:
            part: "train" or "test".

        Raises:
            ValueError: it is neither.
        """
        return _labels(self, self._check(part)).copy()

    def layout(self, part: str) -> Layout:
        """What is where on the images of a part; nothing is drawn for it.

        Args:
            part: "train" or "test".

        Raises:
            ValueError: it is neither.
        """
        found = _figures(self, self._check(part))
        return Layout(
            part_boxes=found.part_boxes(len(self.part_names), self.image_size),
            discriminative=self._genera.discriminative[self._genera.genus[_labels(self, part)]],
            clutter=found.clutter.astype(np.float32),
        )

    def draw(self, part: str, index: int) -> np.ndarray:
        """Draws an image.

        Args:
            part: "train" or "test".
            index: its row in that part.

        Returns:
            ``(S, S, 3)`` uint8.

        Raises:
            ValueError: there is no such part or row.
        """
        return self.draw_many(part, [index])[0]

    def draw_many(self, part: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Draws images, each as `draw` does.

        Args:
            part: "train" or "test".
            indices: ``(B,)``, their rows in that part.

        Returns:
            ``(B, S, S, 3)`` uint8.

        Raises:
            ValueError: there is no such part or row.
        """
        count = self._count(self._check(part))
        rows = np.asarray(indices)
        if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
            raise ValueError(
                f"indices: expected whole numbers of shape (B,), got {rows.dtype} {rows.shape}"
            )
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            bad = rows.min() if rows.min() < 0 else rows.max()
            raise ValueError(
                f"index {bad}: expected 0 to {count - 1}, as part {part!r} has {count} images "
                f"(num_{part}={count})"
            )
        images = np.empty((len(rows), self.image_size, self.image_size, 3), dtype=np.uint8)
        labels = _labels(self, part)[rows] if rows.size else []
        for image, row, label in zip(images, rows.tolist(), labels, strict=True):
            image[...] = self._draw(part, row, int(label))
        return images

    def _draw(self, part: str, row: int, label: int) -> np.ndarray:
        """Image `row` as class `label`, which may be another of the same genus."""
        found, source = _figures(self, part), self._source(part)
        clutter = float(found.clutter[row])
        canvas = scene(source, row, self.image_size, clutter)
        canvas.paint(
            found.pieces.of(row),
            self._genera.colours[self._genera.genus[label]][_inks(found)],
            self._textures(found, row, label),
        )
        mottle(canvas, source, row)
        grain(canvas, source, row, 8 + 14 * clutter)
        return canvas.pixels()

    def _textures(self, found: Figures, row: int, label: int) -> list[Texture | None]:
        """The texture of every piece: of the species where it has one, else as drawn."""
        own = self._genera.texture[label]
        kinds = np.where(own < 0, found.kinds[row], own).tolist()
        phases, wave = found.phases[row].tolist(), period(self.image_size)
        return [
            Texture(kinds[p], wave, tuple(phases[p]), AMPLITUDE) if p >= 0 else None
            for p in found.figure.parts
        ]

    @property
    def _genera(self) -> Genera:
        plan = PLANS[self.plan]
        return genera(self.num_classes, len(plan.parts), plan.singles, plan.pairs)

    def _source(self, part: str) -> Source:
        return Source(self.seed, list(PLANS).index(self.plan) * len(PARTS) + PARTS.index(part))

    def _count(self, part: str) -> int:
        return self.num_train if part == "train" else self.num_test

    def _check(self, part: str) -> str:
        if part not in PARTS:
            raise ValueError(
                f"part={part!r}: expected 'train' or 'test'; validation images are rows of 'train'"
            )
        return part


@lru_cache(maxsize=16)
def _labels(drawing: Drawing, part: str) -> np.ndarray:
    """Every `num_classes` neighbours are the classes in a drawn order."""
    count, classes = drawing._count(part), drawing.num_classes
    keys = drawing._source(part).rows("labels", -(-count // classes), classes)
    return np.argsort(keys, axis=1, kind="stable").reshape(-1)[:count].astype(np.int64)


@lru_cache(maxsize=16)
def _figures(drawing: Drawing, part: str) -> Figures:
    return figures(
        PLANS[drawing.plan],
        drawing._genera,
        _labels(drawing, part),
        drawing.image_size,
        drawing._source(part),
    )


def _inks(found: Figures) -> list[int]:
    return [INKS.index(name) for name in found.figure.inks]


def _way_out(name: str) -> str:
    return {
        "image_size": "parts of smaller images have too few pixels for their textures; the small "
        "profile has 128, the full one 512",
        "num_classes": "fewer make no genera of every kind; more run out of colours",
        "seed": "a seed is a name for a set of images, any number in that range will do",
    }.get(name, "a part has at least one image")


BIRDS = Drawing("birds")
AUTOS = Drawing("autos", num_classes=196, num_train=8144, num_test=8041)
SMALL_BIRDS = Drawing("birds", image_size=128, num_classes=20, num_train=8000, num_test=2000)
