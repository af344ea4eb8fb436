"""MappedStore: a crop is the window of the zero-padded image, at any size; memory stays small."""

import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtram_env import GlimpseVectorEnv
from dtram_env.datasets import Dataset, DatasetCorruptError
from dtram_env.datasets.storage import mapped
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.datasets.storage.mapped import MappedStore, thumbnails_name
from dtram_env.datasets.storage.thumbnails import box_resize
from tests.dtram_env.datasets.images import Given, black_cache, ragged_images, window_of

IMAGES = ragged_images(9)
BOXES = np.arange(9 * 4, dtype=np.float32).reshape(9, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache of nine images of different sizes, with thumbnails of 4 pixels."""
    folder = tmp_path_factory.mktemp("mapped") / "train"
    build_cache(folder, Given(IMAGES, {"box": BOXES}), [4])
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> MappedStore:
    return MappedStore(folder)


def test_what_it_is(store: MappedStore) -> None:
    assert (len(store), store.channels, store.equal_size) == (9, 3, None)
    index = np.array([8, 0, 8])
    height, width = store.size(index)
    assert np.array_equal(height, [IMAGES[i].shape[0] for i in index])
    assert np.array_equal(width, [IMAGES[i].shape[1] for i in index])
    assert np.array_equal(store.metadata()["box"], BOXES) and list(store.metadata()) == ["box"]


def test_whole_images(store: MappedStore) -> None:
    for i, image in enumerate(IMAGES):
        assert np.array_equal(store.image(i), image)
    with pytest.raises(ValueError, match="read-only"):
        store.image(0)[0] = 1


def test_crop_by_hand(tmp_path: Path) -> None:
    images = [np.arange(1, 7, dtype=np.uint8).reshape(2, 3, 1), np.full((4, 1, 1), 9, np.uint8)]
    store = build_cache(tmp_path / "a", Given(images))
    crops = store.crop(np.array([0, 1, 0]), np.array([0, -1, 1]), np.array([1, 0, -1]), 2)
    assert crops[..., 0].tolist() == [[[2, 3], [5, 6]], [[0, 0], [9, 0]], [[0, 4], [0, 0]]]


@given(data=st.data(), side=st.integers(1, 20))
def test_crop_is_the_slice_of_the_padded_image(
    store: MappedStore, data: st.DataObject, side: int
) -> None:
    place = st.integers(-side - 4, 18)  # up to 4 pixels wholly outside, on every side
    windows = data.draw(st.lists(st.tuples(st.integers(0, 8), place, place), max_size=6))
    index, top, left = np.array(windows, dtype=np.int64).reshape(-1, 3).T
    crops = store.crop(index, top, left, side)
    assert crops.shape == (len(windows), side, side, 3) and crops.dtype == np.uint8
    for crop, (i, y, x) in zip(crops, windows, strict=True):
        np.testing.assert_array_equal(crop, window_of(IMAGES[i], y, x, side))


def test_thumbnails_read_are_thumbnails_made(store: MappedStore, folder: Path) -> None:
    assert (folder / thumbnails_name(4)).exists() and not (folder / thumbnails_name(5)).exists()
    index = np.array([3, 3, 0, 8])
    for side in (4, 5):
        expected = [box_resize(IMAGES[i][None], side)[0] for i in index]
        np.testing.assert_array_equal(store.thumbnail(index, side), expected)
        assert store.thumbnail(index[:0], side).shape == (0, side, side, 3)


def test_prepared_thumbnails_are_read(store: MappedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    index = np.arange(9)
    made = store.thumbnail(index, 6)
    some = store.select(np.array([7, 2]))
    some.prepare(6)  # of the whole cache, whichever images are asked
    monkeypatch.setattr(mapped, "box_resize", None)
    np.testing.assert_array_equal(store.thumbnail(index, 6), made)
    np.testing.assert_array_equal(some.thumbnail(np.array([1, 0]), 6), made[[2, 7]])


def test_select(store: MappedStore) -> None:
    rows = np.array([5, 1, 8, 5])
    some = store.select(rows)
    assert len(some) == 4
    for i, row in enumerate(rows):
        assert np.array_equal(some.image(i), IMAGES[row])
    np.testing.assert_array_equal(some.metadata()["box"], BOXES[rows])
    index, zero = np.arange(4), np.zeros(4, np.int64)
    for ours, theirs in (
        (some.crop(index, zero - 1, zero, 5), store.crop(rows, zero - 1, zero, 5)),
        (some.thumbnail(index, 4), store.thumbnail(rows, 4)),
        (some.thumbnail(index, 3), store.thumbnail(rows, 3)),
        (some.size(index), store.size(rows)),
    ):
        np.testing.assert_array_equal(ours, theirs)
    twice = some.select(np.array([2]))
    assert np.array_equal(twice.image(0), IMAGES[8])
    assert twice.equal_size == IMAGES[8].shape[:2] == twice.size(np.array([0]))


def test_none_of_the_images(store: MappedStore) -> None:
    none = store.select(np.zeros(0, np.int64))
    assert len(none) == 0 and none.equal_size is None and none.metadata()["box"].shape == (0, 4)


def test_images_of_one_size(tmp_path: Path) -> None:
    store = build_cache(tmp_path / "a", Given([np.full((5, 7, 1), k, np.uint8) for k in (1, 2)]))
    assert store.equal_size == (5, 7) == store.size(np.array([0, 1, 1]))


def test_a_pickle_is_the_place_and_the_rows(store: MappedStore) -> None:
    some = store.select(np.array([4, 0]))
    copied = pickle.dumps(some)
    assert len(copied) < 700
    twin = pickle.loads(copied)
    assert len(twin) == 2 and np.array_equal(twin.image(0), IMAGES[4])


def test_short_thumbnails_are_named(tmp_path: Path) -> None:
    build_cache(tmp_path / "a", Given(IMAGES), [4])
    path = tmp_path / "a" / thumbnails_name(4)
    path.write_bytes(path.read_bytes()[:-1])
    store = MappedStore(tmp_path / "a")
    for read in (lambda: store.thumbnail(np.array([0]), 4), lambda: store.prepare(4)):
        with pytest.raises(DatasetCorruptError, match=rf"{re.escape(str(path))}: damaged .*Delete"):
            read()
    path.unlink()
    np.testing.assert_array_equal(store.thumbnail(np.array([0]), 4), box_resize(IMAGES[0][None], 4))


# --- Memory


def private_megabytes() -> float:
    """Memory of this process that belongs to no file, megabytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = re.findall(r"^RssAnon:\s+(\d+) kB", status, re.M)
    return int(line) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_12000_images_of_512_pixels_open_at_once_and_take_no_memory(tmp_path: Path) -> None:
    black_cache(tmp_path / "a", 12_000, 512, thumbnail=224)
    before, start = private_megabytes(), time.process_time()
    store = MappedStore(tmp_path / "a")
    data = Dataset("Black", "train", store, np.arange(12_000) % 200, tuple(map(str, range(200))))
    env = GlimpseVectorEnv(
        data, num_envs=8, glimpse_size=224, first_glimpse="thumbnail", max_glimpses=3
    )
    assert time.process_time() - start < 1
    env.reset(seed=0)
    env.action_space.seed(0)
    seen = 0
    while seen < 150:
        observation, _, _, _, infos = env.step(env.action_space.sample())
        seen += int((infos["num_glimpses"] > 1).sum())
        assert not observation["glimpse"].any()
    # The batches themselves are some megabytes; the images are 9,437.
    assert private_megabytes() - before < 60
