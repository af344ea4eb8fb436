"""Patience and Pair show what their pages say; what holds for every puzzle, Signpost too."""

import hashlib
from typing import Any

import numpy as np
import pytest

from dtram_env.datasets import SPLITS, load
from dtram_env.datasets.sources import glyphs, pair, patience, signpost
from tests.dtram_env.datasets.images import shown

EMPTY = 4  # noise only
SHAPES = np.concatenate([glyphs.shapes()[0], np.zeros((1, 8, 8), np.uint8)])


def seen_at(name: str, split: str, pixels: np.ndarray) -> np.ndarray:
    """The glyph ``(N,)`` in a glimpse at ``pixels`` (x, y) from the centre, or `EMPTY`."""
    data = load(name, split)
    return shown(data, SHAPES, 2 * pixels / data.images.shape[1])


@pytest.mark.parametrize("split", SPLITS)
def test_patience_shows_one_glyph_of_the_class(split: str) -> None:
    labels = load("patience", split).labels
    seen = np.stack([seen_at("patience", split, pixels) for pixels in patience.PLACES])
    assert ((seen != EMPTY).sum(axis=0) == 1).all()
    assert np.array_equal(seen.sum(axis=0) - 6 * EMPTY, labels)


def test_no_glimpse_sees_two_places_of_patience() -> None:
    """A glimpse of 8 pixels that touches a box of 8 cannot reach the next one, 16 pixels away."""
    apart = np.abs(patience.PLACES[:, None] - patience.PLACES[None]).max(axis=2)
    assert (apart[~np.eye(7, dtype=bool)] >= 16).all()


def test_going_on_is_better_than_a_guess_in_patience() -> None:
    """After t empty places the glyph is equally likely at each of the 7 - t others."""
    for discount, better in ((0.62, True), (0.61, False)):
        on = [np.mean(discount ** np.arange(1, n + 1)) for n in range(1, 7)]
        assert (min(on) > 1 / 4) == better


@pytest.mark.parametrize("split", ["test", "train+validation"])
def test_classes_and_places_are_balanced(split: str) -> None:
    labels = load("patience", split).labels
    seen = np.stack([seen_at("patience", split, pixels) for pixels in patience.PLACES])
    pairs = np.bincount(4 * (seen != EMPTY).argmax(axis=0) + labels, minlength=28)
    assert (pairs == len(labels) // 28).all()


@pytest.mark.parametrize("split", ["test", "train+validation"])
def test_pair_adds_the_centre_and_the_right(split: str) -> None:
    centre = seen_at("pair", split, np.array([0, 0]))
    right = seen_at("pair", split, np.array([9, 0]))
    labels = load("pair", split).labels
    assert np.array_equal((centre + right) % 4, labels)
    for one in (centre, right):  # every glyph is as frequent with every class
        assert (np.bincount(4 * one + labels, minlength=16) == len(labels) // 16).all()


@pytest.mark.parametrize("pixels", [(-9, 0), (0, -9), (0, 9)])
def test_the_other_glyphs_of_pair_say_nothing(pixels: tuple[int, int]) -> None:
    """Glyph and class are independent (chi-square), also where the centre is known."""
    other = seen_at("pair", "train+validation", np.array(pixels))
    centre = seen_at("pair", "train+validation", np.array([0, 0]))
    labels = load("pair", "train+validation").labels
    assert other.min() >= 0 and other.max() < EMPTY
    table = np.bincount(16 * centre + 4 * other + labels, minlength=64)
    expected = len(labels) / 64
    assert ((table - expected) ** 2 / expected).sum() < 108  # 63 degrees of freedom, p = 0.0003


@pytest.mark.parametrize(
    ("puzzle", "options", "digest"),
    [
        (signpost, {}, "ac5ab100d103d97c"),
        (signpost, {"version": signpost.NOISY}, "d3b17d5eba6aeacf"),
        (signpost, {"version": signpost.WIDE}, "6ae9b1a65df0dbb0"),
        (patience, {}, "a02fc8c08c3b1d8e"),
        (pair, {}, "d28729a9f2a98ebb"),
    ],
)
def test_the_drawing_never_changes(puzzle: Any, options: dict[str, Any], digest: str) -> None:
    """A changed digest means another dataset: raise the version of its environment."""
    images, labels = puzzle.draw("test", **options)
    found = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert found[:16] == digest


@pytest.mark.parametrize("puzzle", [signpost, patience, pair])
def test_parts_differ_and_repeat(puzzle: Any) -> None:
    images, labels = puzzle.draw("test")
    again, again_labels = puzzle.draw("test")
    assert np.array_equal(images, again) and np.array_equal(labels, again_labels)
    assert not np.array_equal(labels, puzzle.draw("train")[1][: len(labels)])
