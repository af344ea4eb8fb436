"""Classes of the drawn images: species, grouped into genera.

A genus has its own colours and proportions, which a thumbnail shows. Its species differ only in the
textures of the genus's discriminative parts:

- about a fifth of the classes are alone in their genus, so the thumbnail is enough;
- about half share a genus whose species differ on one part;
- the rest come six to a genus and differ on two parts that lie far apart: two textures of one part
  times three of the other.

The genera depend on the plan and on the number of classes, not on the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .textures import NAMES, TEXTURES

PALETTE = {
    "red": (188, 60, 52),
    "orange": (206, 120, 40),
    "yellow": (200, 184, 64),
    "green": (70, 146, 62),
    "teal": (44, 140, 140),
    "blue": (58, 92, 186),
    "violet": (126, 70, 168),
    "pink": (206, 122, 160),
    "brown": (110, 72, 48),
    "grey": (126, 126, 130),
    "black": (46, 46, 54),
    "white": (206, 206, 200),
}
# Colours of the discriminative parts: far from black and white, so that textures are not clipped.
ACCENTS = (
    (128, 128, 128),
    (160, 120, 100),
    (104, 124, 156),
    (156, 140, 96),
    (112, 148, 112),
    (148, 108, 140),
)
INKS = ("body", "shade", "light", "head", "accent", "dark")
SHAPES = 4  # number of a genus's proportions


@dataclass(frozen=True)
class Genera:
    """The classes of a plan: C species in G genera."""

    genus: np.ndarray  # (C,) int64, the genus of every class
    texture: np.ndarray  # (C, P) int64, the texture of every part; -1: random in every image
    discriminative: np.ndarray  # (G, P) bool, the parts in which the species of a genus differ
    colours: np.ndarray  # (G, inks, 3) float32, in the order of `INKS`
    shape: np.ndarray  # (G, SHAPES) float64 in [-1, 1]


@lru_cache(maxsize=16)
def genera(
    num_classes: int, num_parts: int, singles: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> Genera:
    """The genera of a plan with P parts and C classes; see `figures.Plan`."""
    genus: list[int] = []
    texture: list[np.ndarray] = []
    discriminative: list[np.ndarray] = []

    def add(parts: tuple[int, ...], species: Sequence[tuple[int, ...]]) -> None:
        for kinds in species:
            row = np.full(num_parts, -1)
            row[list(parts)] = kinds
            genus.append(len(discriminative))
            texture.append(row)
        discriminative.append(np.isin(np.arange(num_parts), parts))

    alone, sizes, doubles = _sizes(num_classes)
    for _ in range(alone):
        add((), [()])
    for k, size in enumerate(sizes):
        add((singles[k % len(singles)],), [((k + j) % TEXTURES,) for j in range(size)])
    for k in range(doubles):
        species = [((k + i) % TEXTURES, j) for i in range(2) for j in range(TEXTURES)]
        add(pairs[k % len(pairs)], species)
    count = len(discriminative)
    parts = np.array(genus), np.array(texture), np.array(discriminative)
    digits = np.arange(count)[:, None] // 3 ** np.arange(SHAPES)
    return Genera(*parts, _colours(count), shape=(digits % 3 - 1).astype(np.float64))


def _sizes(num_classes: int) -> tuple[int, list[int], int]:
    """Genera of one species, sizes of genera with one discriminative part, number with two."""
    alone = round(num_classes / 5)
    doubles = round(0.3 * num_classes / (2 * TEXTURES))
    rest = num_classes - alone - doubles * 2 * TEXTURES
    count = -(-rest // TEXTURES)
    return alone, [rest // count + (k < rest % count) for k in range(count)], doubles


def _colours(count: int) -> np.ndarray:
    """Colours ``(count, inks, 3)``: each genus differs as much as possible from those before it."""
    palette, accents = np.array(list(PALETTE.values())), np.array(ACCENTS)
    body, head, accent = np.indices((len(palette), len(palette), len(accents))).reshape(3, -1)
    keep = body != head
    body, head, accent = palette[body[keep]], palette[head[keep]], accents[accent[keep]]
    nearest = np.full(len(body), 10**6)
    chosen = [0]
    while len(chosen) < count:
        last = chosen[-1]
        # The cap keeps one large difference from hiding two small ones: a crop may show one ink.
        inks = (body, head, 2 * accent)
        apart = sum(np.minimum(np.abs(ink - ink[last]).sum(axis=1), 150) for ink in inks)
        nearest = np.minimum(nearest, apart)
        chosen.append(int(nearest.argmax()))
    body, head, accent = (c[chosen].astype(np.float32) for c in (body, head, accent))
    shade, light = body * np.float32(0.75), body * np.float32(0.5) + np.float32(104)
    return np.stack([body, shade, light, head, accent, np.full_like(body, 34)], axis=1)  # INKS


def names(table: Genera, stems: tuple[str, ...], parts: tuple[str, ...]) -> tuple[str, ...]:
    """A name for every class: its genus, and the textures of its discriminative parts."""
    out = []
    for genus, row in zip(table.genus.tolist(), table.texture.tolist(), strict=True):
        round_, stem = divmod(genus, len(stems))
        word = stems[stem] + f" {round_ + 1}" * (round_ > 0)
        marks = [
            f"{NAMES[kind]} {part}" for kind, part in zip(row, parts, strict=True) if kind >= 0
        ]
        out.append(", ".join([word, *marks]))
    return tuple(out)
