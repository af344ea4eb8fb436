"""Signpost: a glyph of the class, and an arrow that leads to it."""

import numpy as np
import pytest

from dtram_env.datasets import SPLITS, load
from dtram_env.datasets.sources import glyphs, signpost
from tests.dtram_env.best_policies import read_signpost
from tests.dtram_env.datasets.images import shown


def test_shapes_are_clearly_different() -> None:
    drawn, arrows = glyphs.shapes()
    shapes = np.concatenate([drawn, arrows]).reshape(8, 64)
    assert shapes.max() == 1 and set(shapes.sum(axis=1)) <= set(range(18, 45))
    apart = (shapes[:, None] != shapes[None]).sum(axis=2) + 64 * np.eye(8, dtype=int)
    assert apart.min() >= 14  # of 64 pixels


def test_arrows_point_where_their_name_says() -> None:
    _, arrows = glyphs.shapes()
    rows, columns = np.indices((8, 8)) - 3.5
    for (x, y), arrow in zip([(-1, 0), (1, 0), (0, -1), (0, 1)], arrows, strict=True):
        # The head is wider than the shaft, so the ink's centre lies towards it.
        along = (arrow * (x * columns + y * rows)).sum()
        across = (arrow * (y * columns + x * rows)).sum()
        assert along > 0 and across == 0


@pytest.mark.parametrize("split", SPLITS)
def test_the_location_shows_the_class(split: str) -> None:
    """The sensor shows the class at the centre, or where the arrow there points."""
    drawn, _ = glyphs.shapes()
    layout = read_signpost(split)
    data = load("signpost", split)
    assert np.array_equal(shown(data, drawn, layout.location), data.labels)


def test_the_centre_of_a_hard_image_has_no_information() -> None:
    """Among hard images whose arrows are alike, classes are equally frequent (chi-square)."""
    layout = read_signpost("train+validation")
    table = np.zeros((4, 4))
    np.add.at(table, (layout.direction[~layout.easy], layout.labels[~layout.easy]), 1)
    expected = table.sum() / 16
    assert ((table - expected) ** 2 / expected).sum() < 39.3  # 15 degrees of freedom, p = 0.0006


def test_decoys_have_no_information() -> None:
    """Three other places show the class as often as chance, on easy and hard images."""
    drawn, _ = glyphs.shapes()
    layout = read_signpost("train+validation")
    for k, step in enumerate([(-9, 0), (9, 0), (0, -9), (0, 9)]):
        seen = shown(load("signpost", "train+validation"), drawn, np.array(step) / 14)
        assert seen.min() >= 0  # every place carries a glyph
        decoy = layout.direction != k
        share = (seen == layout.labels)[decoy].mean()
        assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / decoy.sum())


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 5400), ("validation", 600), ("test", 2000), ("train+validation", 6000)],
)
def test_counts_and_exact_balance(split: str, count: int) -> None:
    layout = read_signpost(split)
    assert len(layout.labels) == len(load("signpost", split)) == count
    assert np.bincount(layout.labels).tolist() == [count // 4] * 4
    if split in ("test", "train+validation"):
        assert layout.easy.sum() == count // 2
        assert np.bincount(layout.labels[layout.easy]).tolist() == [count // 8] * 4


def test_an_image_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = signpost.draw("test")
    monkeypatch.setitem(signpost.COUNTS, "test", 400)
    fewer, fewer_labels = signpost.draw("test")
    assert np.array_equal(images[:400], fewer)
    assert np.array_equal(labels[:400], fewer_labels)


def test_three_of_sixteen_pixels_are_turned() -> None:
    """Pixels in no box have ink only where they were turned."""
    images, _ = signpost.draw("train", version=signpost.NOISY)
    corner = images[:, :6, :6] > 100
    assert abs(corner.mean() - 3 / 16) < 4 * np.sqrt(3 / 16 * 13 / 16 / corner.size)


def test_brightness_and_noise() -> None:
    images, _ = signpost.draw("test")
    flat = images.reshape(len(images), -1).astype(int)
    dark = flat[:, (flat < 24).all(axis=0)]
    assert dark.shape[1] > 28 * 28 // 2  # the background
    assert dark.min() == 0 and dark.max() == 23 and abs(dark.mean() - 11.25) < 0.05
    glyph = np.where(flat > 100, flat, 255).min(axis=1)
    assert glyph.min() >= 168 and len(np.unique(glyph)) > 50  # differs from image to image
