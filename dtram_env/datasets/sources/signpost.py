"""Signpost: a drawn dataset with a known best location for every image. It needs no files.

Four glyphs, one for each class, and four arrows, all 8x8 pixels, on images of 28x28. The centre of
an *easy* image (exactly half of them) shows the glyph of its class, so one glimpse there is enough.
The centre of a *hard* image shows an arrow, which points to the glyph of its class, 9 pixels from
the centre. The other places around the centre show glyphs of random classes. An agent that sees
only the centre is right on at most 50 % + 50 % / 4 of the images; an agent that follows the arrow
is right on all.

Every image is a function of (seed, part, index): raw words of a counter-based generator and integer
arithmetic, without state.
"""

from dataclasses import dataclass

import numpy as np

from ...checks import check_choice
from ..splits import split_indices

SIZE = 28
GLYPH = 8
REACH = 9  # pixels from the image's centre to the centre of an outer glyph
COUNTS = {"train": 6000, "test": 2000}
CLASS_NAMES = ("ring", "cross", "bars", "checks")
DIRECTIONS = ("left", "right", "up", "down")

# Unit steps (x, y) of DIRECTIONS; y grows downwards, as in the image.
_STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])

# The glyphs of CLASS_NAMES, and the arrow up.
_SHAPES = """
.######. ##....## ######## ##..##.. ...##...
######## ###..### ........ ##..##.. ..####..
##....## .######. ######## ..##..## .######.
##....## ..####.. ........ ..##..## ##.##.##
##....## ..####.. ######## ##..##.. ...##...
##....## .######. ........ ##..##.. ...##...
######## ###..### ######## ..##..## ...##...
.######. ##....## ........ ..##..## ...##...
"""

_NOISE_WORDS = SIZE * SIZE // 8
_WORDS = _NOISE_WORDS + 2  # raw 64-bit words per image


@dataclass(frozen=True)
class Layout:
    """What the images of a split show, in the order of the split."""

    labels: np.ndarray  # (N,) int64, the class
    easy: np.ndarray  # (N,) bool, whether the centre shows the class
    direction: np.ndarray  # (N,) int64, the arrow's, an index of `DIRECTIONS`; -1: an easy image
    location: np.ndarray  # (N, 2) float32, (x, y) in [-1, 1], centre of the glyph of the class


def layout(split: str = "train", seed: int = 0) -> Layout:
    """Returns what the images of a split, one of `SPLITS`, show."""
    part = "test" if split == "test" else "train"
    code, _ = _words(part, seed)
    labels, easy, direction, _, _ = _contents(code)
    indices = split_indices(split, labels, len(labels) // 10)
    labels, easy = labels[indices], easy[indices]
    direction = np.where(easy, -1, direction[indices])
    location = np.where(easy[:, None], 0.0, _STEPS[direction] * (2 * REACH / SIZE))
    return Layout(labels, easy, direction, location.astype(np.float32))


def draw(part: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws "train" (6,000 images) or "test" (2,000); another seed is another dataset.

    Images ``(N, 28, 28, 1)`` uint8 and labels ``(N,)`` int64; classes are equally frequent.
    """
    code, noise = _words(part, seed)
    labels, easy, direction, decoys, brightness = _contents(code)
    glyphs, arrows = _shapes()
    ink = np.zeros((len(code), SIZE, SIZE), dtype=np.uint8)
    around = decoys.copy()
    hard = np.flatnonzero(~easy)
    around[hard, direction[hard]] = labels[hard]
    for k, (x, y) in enumerate(_STEPS * REACH):
        _box(ink, x, y)[...] = glyphs[around[:, k]]
    _box(ink, 0, 0)[...] = np.where(easy[:, None, None], glyphs[labels], arrows[direction])
    images = ink * brightness[:, None, None] + noise
    return images[..., None], labels


def _words(part: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bits of every image: two words ``(N, 2)`` uint64, and noise ``(N, 28, 28)`` uint8."""
    check_choice("part", part, COUNTS)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed}: expected 0 to 2**63 - 1")
    n = COUNTS[part]
    key = np.array([seed, list(COUNTS).index(part)], dtype=np.uint64)
    # Raw words never change between numpy releases, and word i does not depend on how many follow.
    words = np.random.Philox(key=key).random_raw(n * _WORDS).reshape(n, _WORDS)
    noise = np.ascontiguousarray(words[:, 2:]).astype("<u8").view(np.uint8)
    return words[:, :2], (noise % 24).reshape(n, SIZE, SIZE)


def _contents(code: np.ndarray) -> tuple[np.ndarray, ...]:
    """Labels, easy, direction, decoys ``(N, 4)`` and brightness of the images."""
    # Every 8 neighbours are the 8 pairs (class, easy), shuffled: both are exactly balanced.
    kind = np.argsort(code[:, 0].reshape(-1, 8), axis=1, kind="stable").reshape(-1)
    bits = code[:, 1]
    direction = (bits & np.uint64(3)).astype(np.int64)
    shifts = np.arange(2, 10, 2, dtype=np.uint64)
    decoys = ((bits[:, None] >> shifts) & np.uint64(3)).astype(np.int64)
    brightness = (np.uint64(168) + ((bits >> np.uint64(16)) & np.uint64(63))).astype(np.uint8)
    return (kind % 4).astype(np.int64), kind < 4, direction, decoys, brightness


def _box(ink: np.ndarray, x: int, y: int) -> np.ndarray:
    """View ``(N, 8, 8)`` of the box whose centre is ``(x, y)`` pixels from the image's centre."""
    top, left = (SIZE - GLYPH) // 2 + y, (SIZE - GLYPH) // 2 + x
    return ink[:, top : top + GLYPH, left : left + GLYPH]


def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """Glyphs and arrows, each ``(4, 8, 8)`` uint8 of 0 and 1."""
    cells = np.array([[list(box) for box in line.split()] for line in _SHAPES.split("\n") if line])
    *glyphs, up = (cells.transpose(1, 0, 2) == "#").astype(np.uint8)
    return np.stack(glyphs), np.stack([np.rot90(up), np.rot90(up, -1), up, np.rot90(up, 2)])
