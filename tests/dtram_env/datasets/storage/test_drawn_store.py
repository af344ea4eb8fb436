"""DrawnStore: crops of the drawing's images, equal to those of the built cache."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets.drawn import BIRDS, Drawing
from dtram_env.datasets.storage import drawn_store
from dtram_env.datasets.storage.cache import build_cache, open_cache
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.thumbnails import box_resize

SIDE = 96
DRAWING = replace(BIRDS, image_size=SIDE, num_classes=10, num_train=12, num_test=6)


@pytest.fixture
def store() -> DrawnStore:
    return DrawnStore(DRAWING, "train")


def test_what_it_is(store: DrawnStore) -> None:
    assert (len(store), store.channels, store.equal_size) == (12, 3, (SIDE, SIDE))
    assert len(DrawnStore(DRAWING, "test")) == 6
    assert store.size(np.array([0, 5])) == (SIDE, SIDE)


def test_images_are_the_drawings(store: DrawnStore) -> None:
    for part, i in (("train", 0), ("train", 11), ("test", 0)):
        image = DrawnStore(DRAWING, part).image(i)
        assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
        np.testing.assert_array_equal(image, DRAWING.draw(part, i))
    with pytest.raises(ValueError, match="read-only"):
        store.image(0)[0] = 1


def test_an_image_is_drawn_once_and_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_store, "_MEMORY", 3 * SIDE * SIDE * 3)  # three images
    drawn: list[int] = []

    def draw(self: Drawing, part: str, index: int) -> np.ndarray:
        drawn.append(index)
        return np.full((SIDE, SIDE, 3), index, np.uint8)

    monkeypatch.setattr(Drawing, "draw", draw)
    store = DrawnStore(DRAWING, "train")
    for i in (0, 1, 0, 2, 0, 3):  # 3 takes the place of 1, which was used longest ago
        assert (store.image(i) == i).all()
    assert drawn == [0, 1, 2, 3]
    for i in (0, 2, 3, 1):
        assert (store.image(i) == i).all()
    assert drawn == [0, 1, 2, 3, 1]


def test_thumbnails(store: DrawnStore) -> None:
    store.prepare(6)
    index = np.array([3, 3, 0])
    expected = [box_resize(DRAWING.draw("train", i)[None], 6)[0] for i in index]
    np.testing.assert_array_equal(store.thumbnail(index, 6), expected)
    assert store.thumbnail(index[:0], 6).shape == (0, 6, 6, 3)


def test_select_and_pickle(store: DrawnStore) -> None:
    some = store.select(np.array([5, 1, 8])).select(np.array([2, 0]))
    some.image(0)
    copied = pickle.dumps(some)
    assert len(copied) < 1000  # no pixels
    for each in (some, pickle.loads(copied)):
        assert len(each) == 2
        np.testing.assert_array_equal(each.image(0), DRAWING.draw("train", 8))
        np.testing.assert_array_equal(each.image(1), DRAWING.draw("train", 5))


@pytest.mark.parametrize("part", ["train", "test"])
def test_once_it_is_built_it_is_the_same(tmp_path: Path, part: str) -> None:
    source = DrawnStore(DRAWING, part)
    built, drawn = build_cache(tmp_path / part, source, [8]), DrawnStore(DRAWING, part)
    assert len(built) == len(drawn) and built.equal_size == drawn.equal_size
    index = np.arange(len(drawn))
    zero = np.zeros_like(index)
    np.testing.assert_array_equal(
        built.crop(index, zero - 2, zero + 3, SIDE), drawn.crop(index, zero - 2, zero + 3, SIDE)
    )
    np.testing.assert_array_equal(built.thumbnail(index, 8), drawn.thumbnail(index, 8))
    assert built.metadata() == {}


def test_a_fingerprint_names_what_changes_the_pixels_of_its_part() -> None:
    """So another number of test images leaves the cached training images valid."""
    expected = {"plan": "birds", "image_size": 96, "num_classes": 10, "seed": 0}
    expected |= {"figure_size": None, "part": "train", "count": 12, "version": 1}
    assert DrawnStore(DRAWING, "train").fingerprint() == expected
    more = replace(DRAWING, num_test=7)
    assert DrawnStore(more, "train").fingerprint() == expected
    assert DrawnStore(more, "test").fingerprint() == expected | {"part": "test", "count": 7}


def test_a_cache_of_another_drawing_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(DRAWING, num_train=2, num_test=2)
    build_cache(tmp_path / "a", DrawnStore(few, "train"))
    assert open_cache(tmp_path / "a", DrawnStore(few, "train")) is not None
    for other in (
        DrawnStore(few, "test"),
        DrawnStore(replace(few, seed=1), "train"),
        DrawnStore(replace(few, num_classes=11), "train"),
        DrawnStore(replace(few, plan="autos"), "train"),
        DrawnStore(replace(few, figure_size=96), "train"),
    ):
        assert open_cache(tmp_path / "a", other) is None
    monkeypatch.setattr(drawn_store, "PIXELS_VERSION", drawn_store.PIXELS_VERSION + 1)
    assert open_cache(tmp_path / "a", DrawnStore(few, "train")) is None
