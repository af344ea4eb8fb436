"""What the drawn puzzles share: glyphs and arrows of 8x8 pixels, and the bits they are drawn from.

An image of a puzzle is a function of (part, index): raw words of a counter-based generator
and integer arithmetic, without state. Ink has one brightness an image, on dark noise.
"""

from collections.abc import Mapping

import numpy as np

from ..splits import PARTS

GLYPH = 8  # side in pixels
CLASS_NAMES = ("ring", "cross", "bars", "checks")  # the glyphs
STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Unit steps (x, y) left, right, up and down, as the arrows point; y grows downwards."""

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


def random_words(
    counts: Mapping[str, int], part: str, side: int, puzzle: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random bits of every image: two words, and a byte for each pixel.

    Words ``(N, 2)`` uint64 and bytes ``(N, side, side)`` uint8. `counts` has the number of images
    of each part, `puzzle` tells the puzzles apart.
    """
    n, each = counts[part], 2 + side * side // 8
    key = np.array([0, PARTS.index(part) + len(PARTS) * puzzle], dtype=np.uint64)
    # Raw words never change between numpy releases, and word i does not depend on how many follow.
    words = np.random.Philox(key=key).random_raw(n * each).reshape(n, each)
    noise = np.ascontiguousarray(words[:, 2:]).astype("<u8").view(np.uint8)
    return words[:, :2], noise.reshape(n, side, side)


def balanced(words: np.ndarray, kinds: int) -> np.ndarray:
    """A kind 0, 1, … for each word ``(N,)``: every block of neighbours has each kind once."""
    return np.argsort(words.reshape(-1, kinds), axis=1, kind="stable").reshape(-1)


def choices(word: np.ndarray, number: int, shift: int = 0) -> np.ndarray:
    """Numbers 0 to 3 ``(N, number)``, of two bits each of the words ``(N,)``."""
    shifts = np.arange(shift, shift + 2 * number, 2, dtype=np.uint64)
    return ((word[:, None] >> shifts) & np.uint64(3)).astype(np.int64)


def images_of(ink: np.ndarray, word: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Images ``(N, side, side, 1)`` of ink, 0 or 1; bits 16 to 21 of a word are the brightness."""
    brightness = (np.uint64(168) + ((word >> np.uint64(16)) & np.uint64(63))).astype(np.uint8)
    return (ink * brightness[:, None, None] + noise % 24)[..., None]


def box(ink: np.ndarray, x: int, y: int) -> np.ndarray:
    """View ``(N, 8, 8)`` of the box whose centre is ``(x, y)`` pixels from the image's centre."""
    middle = (ink.shape[1] - GLYPH) // 2
    top, left = middle + y, middle + x
    return ink[:, top : top + GLYPH, left : left + GLYPH]


def shapes() -> tuple[np.ndarray, np.ndarray]:
    """Glyphs, and arrows in the order of `STEPS`, each ``(4, 8, 8)`` uint8 of 0 and 1."""
    cells = np.array([[list(box) for box in line.split()] for line in _SHAPES.split("\n") if line])
    *glyphs, up = (cells.transpose(1, 0, 2) == "#").astype(np.uint8)
    return np.stack(glyphs), np.stack([np.rot90(up), np.rot90(up, -1), up, np.rot90(up, 2)])
