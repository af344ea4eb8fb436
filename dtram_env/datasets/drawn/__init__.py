"""Drawn birds and cars: species that look alike in a thumbnail and differ in small textured parts.

Every image consists of ellipses and bars and needs no files. `genera` defines which parts
distinguish the species, `textures` explains why a thumbnail does not show them. `birds` and `autos`
are the two body plans, made of `pieces`. `figures` places them, `scenes` adds background and
clutter, and `canvas` paints. Random numbers come from `random_words`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...checks import check_choice, check_integer
from ..splits import PARTS
from . import autos, birds
from .canvas import Canvas, Texture
from .figures import WORDS, Figures, Plan, figures
from .genera import INKS, Genera, genera, names
from .random_words import Draws, RandomWords
from .scenes import grain, mottle, scene

__all__ = ["AUTOS", "BIRDS", "SCENES", "SMALL_BIRDS", "Drawing", "Layout"]

PLANS: dict[str, Plan] = {"birds": birds.BIRDS, "autos": autos.AUTOS}
_DISTRACTORS = {"birds": "autos", "autos": "birds"}  # plan of the irrelevant figures
_MOST_DISTRACTORS = 6

# Lowest and highest value of each setting. Textures need more pixels than 96; fewer classes do not
# give every kind of genus, and more run out of colours.
_RANGES = {
    "image_size": (96, 2048),
    "num_classes": (10, 400),
    "num_train": (1, 2**31),
    "num_test": (1, 2**31),
    "seed": (0, 2**63 - 1),  # the key of a random generator
}


@dataclass(frozen=True)
class Layout:
    """Contents of the N images of an official part; parts are in the order of `part_names`."""

    # (N, P, 4) int32, left, top, width and height of every part in pixels, inside the image.
    part_boxes: np.ndarray
    # (N, P) bool, the parts that distinguish the image's species from the others of its genus:
    # none, one, or two that no glimpse covers together.
    discriminative: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """A drawn dataset. An image depends only on the settings, its part and its index.

    It does not depend on the number of images. The look of a species does not depend on the seed.

    Attributes:
        plan: "birds" or "autos".
        image_size: side of the square images, pixels, 96 to 2048.
        num_classes: number of species, 10 to 400.
        num_train, num_test: numbers of images in the official parts.
        seed: another seed gives other images of the same species.
        figure_size: side of the image in which figures have their size, pixels, 96 to
            `image_size`. From 400 on, their parts suit thumbnails and crops of 224 pixels. Below,
            they are larger and suit thumbnails of 32 pixels and crops of a quarter of that image.
            None: `image_size`, so figures grow with the image. In a larger image the figure lies
            anywhere, among clutter of the same density and irrelevant figures of the other plan:
            one per two `figure_size` along the side, at most 6.

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
    figure_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("plan", self.plan, PLANS)
        ranges = dict(_RANGES)
        if self.figure_size is not None:
            ranges["figure_size"] = (_RANGES["image_size"][0], self.image_size)
        for name, bounds in ranges.items():
            object.__setattr__(self, name, check_integer(name, getattr(self, name), *bounds))

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each label: its genus, and the textures of its discriminative parts."""
        plan = PLANS[self.plan]
        return names(self._genera, plan.stems, plan.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts with textures."""
        return PLANS[self.plan].parts

    def labels(self, part: str) -> np.ndarray:
        """Classes of a part's images ``(N,)`` int64: shuffled, with frequencies that differ by 1.

        `part` is "train" or "test"; every method raises `ValueError` for another one.
        """
        return _labels(self, part).copy()

    def layout(self, part: str) -> Layout:
        """Contents of a part's images, computed without drawing them."""
        found = _figures(self, part)
        return Layout(
            part_boxes=found.part_boxes(len(self.part_names), self.image_size),
            discriminative=self._genera.discriminative[self._genera.genus[_labels(self, part)]],
        )

    def draw(self, part: str, index: int) -> np.ndarray:
        """Draws one image ``(S, S, 3)`` uint8; raises `ValueError` for an index out of range."""
        count = self.count(part)
        if not 0 <= index < count:
            raise ValueError(
                f"index {index}: expected 0 to {count - 1}, as part {part!r} has {count} images "
                f"(num_{part}={count})"
            )
        return self._draw(part, int(index), int(_labels(self, part)[index]))

    def draw_many(self, part: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Draws the images ``indices`` ``(B,)`` of a part: ``(B, S, S, 3)`` uint8."""
        images = np.empty((len(indices), self.image_size, self.image_size, 3), dtype=np.uint8)
        for image, i in zip(images, indices, strict=True):
            image[...] = self.draw(part, i)
        return images

    def count(self, part: str) -> int:
        """Number of images of a part."""
        check_choice("part", part, PARTS)  # "train" contains the validation images
        return self.num_train if part == "train" else self.num_test

    def _draw(self, part: str, index: int, label: int) -> np.ndarray:
        """Draws an image as class `label`, which may be another class of its genus."""
        found, random = _figures(self, part), self._random(part)
        clutter = float(found.clutter[index])
        canvas = scene(random, index, self.image_size, self._figure_size, clutter)
        self._paint_distractors(canvas, random, index)
        _paint(canvas, found, index, self._genera, label)
        mottle(canvas, random, index)
        grain(canvas, random, index, 8 + 14 * clutter)
        return canvas.pixels()

    def _paint_distractors(self, canvas: Canvas, random: RandomWords, index: int) -> None:
        """Paints figures of the other plan, of random classes, at random places."""
        count = min(self.image_size // (2 * self._figure_size), _MOST_DISTRACTORS)
        if count == 0:
            return
        plan = PLANS[_DISTRACTORS[self.plan]]
        table = _table(plan, self.num_classes)
        draws = random.draws("distractors", index, count, WORDS)
        labels = draws.below(self.num_classes)
        found = figures(plan, table, labels, draws, self.image_size, self._figure_size)
        for k, label in enumerate(labels.tolist()):
            _paint(canvas, found, k, table, label)

    @property
    def _figure_size(self) -> int:
        return self.figure_size or self.image_size

    @property
    def _genera(self) -> Genera:
        return _table(PLANS[self.plan], self.num_classes)

    def _random(self, part: str) -> RandomWords:
        return RandomWords(self.seed, list(PLANS).index(self.plan) * len(PARTS) + PARTS.index(part))


def _table(plan: Plan, num_classes: int) -> Genera:
    return genera(num_classes, len(plan.parts), plan.singles, plan.pairs)


def _paint(canvas: Canvas, found: Figures, index: int, table: Genera, label: int) -> None:
    """Paints figure `index` of `found` as class `label` of `table`."""
    inks = [INKS.index(name) for name in found.figure.inks]
    colours = table.colours[table.genus[label]][inks]
    # The texture of a part is the species' own, or else the figure's random one.
    own = table.texture[label]
    kinds = np.where(own < 0, found.kinds[index], own).tolist()
    parts = list(map(Texture, kinds, map(tuple, found.phases[index].tolist())))
    textures = [parts[p] if p >= 0 else None for p in found.figure.parts]
    canvas.paint(found.pieces.of(index), colours, textures)


@lru_cache(maxsize=16)
def _labels(drawing: Drawing, part: str) -> np.ndarray:
    """Every `num_classes` neighbours are all classes, in random order."""
    count, classes = drawing.count(part), drawing.num_classes
    keys = drawing._random(part).table("labels", -(-count // classes), classes)
    return np.argsort(keys, axis=1, kind="stable").reshape(-1)[:count].astype(np.int64)


@lru_cache(maxsize=16)
def _figures(drawing: Drawing, part: str) -> Figures:
    plan, labels = PLANS[drawing.plan], _labels(drawing, part)
    draws = Draws(drawing._random(part).table("figures", len(labels), WORDS))
    sizes = drawing.image_size, drawing._figure_size
    return figures(plan, drawing._genera, labels, draws, *sizes)


BIRDS = Drawing("birds")
AUTOS = Drawing("autos", num_classes=196, num_train=8144, num_test=8041)
SMALL_BIRDS = Drawing("birds", image_size=128, num_classes=20, num_train=8000, num_test=2000)
SCENES = replace(SMALL_BIRDS, image_size=512, figure_size=128)
