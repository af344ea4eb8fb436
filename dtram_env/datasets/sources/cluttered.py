"""Translated and cluttered MNIST: MNIST's digits at random places of images of 60x60.

The tasks of the RAM paper (Mnih, Heess, Graves, Kavukcuoglu, 2014, section 4.1). *Translated*: the
whole digit at a random place, all else black. *Cluttered*: moreover patches of 8x8 pixels, cut from
other digits, are added at random places; the paper's 60x60 images have four. What it leaves open is
chosen here:

- The digit's place is uniform over the 33x33 places at which all its 28x28 pixels are inside.
- A patch comes from a digit of the same part (training or test), any but the image's own with equal
  chance, so that it tells nothing about the class. It is cut anywhere inside that digit, on its
  black margin too: one patch in seven is all black and is not seen.
- A patch goes anywhere inside the image, over the digit and over other patches too. Where they
  meet, pixels add up and stop at 255.
- There is one image for each digit, always the same. The paper draws training images anew whenever
  they are used; here another seed gives another set.

Every image is a function of (seed, part, index) and the part's digits alone: raw words of a
counter-based generator, integer arithmetic, no state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import mnist

SIZE = 60
DIGIT = 28
PATCH = 8
PARTS = ("train", "test")


def read(folder: Path, part: str, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Composes an official part from MNIST's files.

    Args:
        folder: where MNIST's files are, see `mnist.read`.
        part: "train" (60,000 images) or "test" (10,000).
        patches: how many patches an image has; 0: translated, the paper's clutter: 4.

    Returns:
        Images ``(N, 60, 60, 1)`` uint8 and labels ``(N,)`` int64, in MNIST's order.

    Raises:
        ValueError: unknown part, or fewer than 0 patches.
        DatasetNotFoundError: a file is missing.
        DatasetCorruptError: a file is short or altered.
    """
    digits, labels = mnist.read(folder, part)
    return compose(digits, labels, part, patches), labels


def compose(
    digits: np.ndarray, labels: np.ndarray, part: str, patches: int, seed: int = 0
) -> np.ndarray:
    """Places digits, and adds patches of others.

    With the same seed, images of k patches are those of k - 1 and one patch more.

    Args:
        digits: ``(N, 28, 28, 1)`` uint8, all digits of the part.
        labels: ``(N,)``, their classes; only its length is looked at, as no place depends on them.
        part: "train" or "test", which are drawn differently.
        patches: how many patches an image has, 0 or more.
        seed: another seed is another dataset; the registered environments use 0.

    Returns:
        ``(N, 60, 60, 1)`` uint8; image i shows digit i.

    Raises:
        ValueError: an argument is of another shape or type, or out of range.
    """
    _check(digits, labels, part, patches, seed)
    n = len(digits)
    rows = np.arange(n)
    images = np.zeros((n, SIZE, SIZE, 1), dtype=np.uint8)
    # Views of every place that a digit or a patch can have; assigning to them writes the images.
    digit_at = sliding_window_view(images[..., 0], (DIGIT, DIGIT), axis=(1, 2), writeable=True)
    patch_at = sliding_window_view(images[..., 0], (PATCH, PATCH), axis=(1, 2), writeable=True)
    cut_at = sliding_window_view(digits[..., 0], (PATCH, PATCH), axis=(1, 2))
    _, top, left = _split(_words(n, part, 0, seed), *digit_at.shape[1:3])
    digit_at[rows, top, left] = digits[..., 0]
    for k in range(1, patches + 1):
        word, top, left = _split(_words(n, part, k, seed), *patch_at.shape[1:3])
        word, cut_top, cut_left = _split(word, *cut_at.shape[1:3])
        other = (word % np.uint64(n - 1)).astype(np.int64)
        other += other >= rows  # skips the image's own digit
        patch = cut_at[other, cut_top, cut_left].astype(np.uint16)
        patch_at[rows, top, left] = np.minimum(patch_at[rows, top, left] + patch, 255)
    return images


def _check(digits: np.ndarray, labels: np.ndarray, part: str, patches: int, seed: int) -> None:
    if digits.dtype != np.uint8 or digits.ndim != 4 or digits.shape[1:] != (DIGIT, DIGIT, 1):
        raise ValueError(
            f"digits: expected uint8 of shape (N, {DIGIT}, {DIGIT}, 1), "
            f"got {digits.dtype} {digits.shape}"
        )
    if labels.shape != digits.shape[:1]:
        raise ValueError(
            f"labels: expected shape ({len(digits)},), one for each digit, got {labels.shape}"
        )
    if part not in PARTS:
        raise ValueError(f"part={part!r}: expected 'train' or 'test'")
    if patches < 0:
        raise ValueError(f"patches={patches}: expected 0 or more")
    if patches and len(digits) < 2:
        raise ValueError(
            f"patches={patches}: they are cut from other digits, expected 2 digits or more, "
            f"got {len(digits)}"
        )
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed}: expected 0 to 2**63 - 1")


def _words(n: int, part: str, stream: int, seed: int) -> np.ndarray:
    """A word ``(N,)`` uint64 for each image; stream 0 is for the digit, k for the k-th patch."""
    key = np.array([seed, PARTS.index(part) + len(PARTS) * stream], dtype=np.uint64)
    # Raw words never change between numpy releases, and word i does not depend on how many follow.
    return np.random.Philox(key=key).random_raw(n)


def _split(word: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a place ``(top, left)`` from each word; what is left of the word comes first."""
    word, left = np.divmod(word, np.uint64(width))
    word, top = np.divmod(word, np.uint64(height))
    return word, top.astype(np.int64), left.astype(np.int64)
