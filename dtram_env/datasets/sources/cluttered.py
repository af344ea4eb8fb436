"""Translated and cluttered MNIST: MNIST's digits at random places of larger images.

The tasks of the RAM paper (Mnih, Heess, Graves, Kavukcuoglu, 2014, section 4.1). *Translated*: the
whole digit at a random place on black. *Cluttered*: also patches of 8x8 pixels, cut from other
digits and added at random places; the paper's images of 60x60 pixels have four, those of 100x100
eight. The paper leaves some details open; they are chosen here:

- The digit's place is uniform over the places that keep all its 28x28 pixels inside.
- A patch comes from any other digit of the same part (training or test) with equal probability, so
  it carries no information about the class. It is cut anywhere inside that digit, including the
  black margin: one patch in seven is all black and invisible.
- A patch goes anywhere inside the image, also over the digit and over other patches. Overlapping
  pixels add up, to at most 255.
- There is one fixed image for each digit. The paper draws training images anew at every use.

Every image is a function of its part, its index and the part's digits: raw words of a counter-based
generator and integer arithmetic, without state.
"""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..splits import PARTS
from . import mnist

DIGIT = 28
PATCH = 8
COMPOSITIONS = {
    "TranslatedMNIST": (0, 60),
    "ClutteredMNIST": (4, 60),
    "ClutteredMNIST100": (8, 100),
}
"""Patches on an image, and its side in pixels, of each dataset."""


def read(folder: Path, part: str, patches: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes an official part from MNIST's files, with 0 patches (translated) or more (cluttered).

    Images ``(N, side, side, 1)`` uint8 and labels ``(N,)`` int64, in MNIST's order.
    """
    digits, labels = mnist.read(folder, part)
    return compose(digits, part, patches, side), labels


def compose(digits: np.ndarray, part: str, patches: int, side: int = 60) -> np.ndarray:
    """Places digits and adds patches of others: ``(N, side, side, 1)`` uint8, digit i on image i.

    An image with k patches is the image with k - 1 patches and one more.

    Args:
        digits: ``(N, 28, 28, 1)`` uint8, all digits of the part; 2 or more if there are patches.
        part: "train" or "test", which give different draws.
        patches: number of patches on an image, 0 or more.
        side: of the images, in pixels, 28 or more.
    """
    n = len(digits)
    index = np.arange(n)
    images = np.zeros((n, side, side, 1), dtype=np.uint8)
    # Views of every possible place of a digit or a patch; assigning to them writes the images.
    digit_at = sliding_window_view(images[..., 0], (DIGIT, DIGIT), axis=(1, 2), writeable=True)
    patch_at = sliding_window_view(images[..., 0], (PATCH, PATCH), axis=(1, 2), writeable=True)
    cut_at = sliding_window_view(digits[..., 0], (PATCH, PATCH), axis=(1, 2))
    _, top, left = _split(_words(n, part, 0), *digit_at.shape[1:3])
    digit_at[index, top, left] = digits[..., 0]
    for k in range(1, patches + 1):
        word, top, left = _split(_words(n, part, k), *patch_at.shape[1:3])
        word, cut_top, cut_left = _split(word, *cut_at.shape[1:3])
        other = (word % np.uint64(n - 1)).astype(np.int64)
        other += other >= index  # skips the image's own digit
        patch = cut_at[other, cut_top, cut_left].astype(np.uint16)
        patch_at[index, top, left] = np.minimum(patch_at[index, top, left] + patch, 255)
    return images


def _words(n: int, part: str, stream: int) -> np.ndarray:
    """One random word per image ``(N,)`` uint64; stream 0 is the digit's, k the k-th patch's."""
    key = np.array([0, PARTS.index(part) + len(PARTS) * stream], dtype=np.uint64)
    # Raw words never change between numpy releases, and word i does not depend on how many follow.
    return np.random.Philox(key=key).random_raw(n)


def _split(word: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a place from each word; returns the rest of the word, the top and the left."""
    word, left = np.divmod(word, np.uint64(width))
    word, top = np.divmod(word, np.uint64(height))
    return word, top.astype(np.int64), left.astype(np.int64)
