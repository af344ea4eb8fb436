"""`Dataset`: one split, read-only, checked, with metadata of each image."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.datasets.storage.mapped import MappedStore
from tests.dtram_env.datasets.images import Given

SIZES = ((3, 9), (5, 4), (8, 6), (4, 4))


def make(**changes: object) -> Dataset:
    fields: dict = {
        "name": "toy",
        "split": "test",
        "images": np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1),
        "labels": np.array([0, 1]),
        "class_names": ("a", "b"),
    }
    return Dataset(**(fields | changes))


@pytest.fixture
def ragged(tmp_path: Path) -> Dataset:
    """A cache of four images of different sizes; all pixels of image k are k."""
    images = [np.full((*size, 3), k, np.uint8) for k, size in enumerate(SIZES)]
    store = build_cache(tmp_path / "a", Given(images))
    return make(images=store, labels=np.array([0, 1, 1, 0]))


def test_properties() -> None:
    data = make()
    assert (len(data), data.num_classes, data.image_shape) == (2, 2, (3, 4, 1))
    assert data.typical_size == (3, 4) and data.image(1)[0, 0] == 12
    assert (data.drawn, data.stands_in_for, dict(data.metadata)) == (False, None, {})
    assert (data.paths, data.caption(1)) == ((), "1")


def test_images_of_different_sizes(ragged: Dataset) -> None:
    assert (len(ragged), ragged.image_shape) == (4, (None, None, 3))
    assert ragged.typical_size == (4, 5)  # medians of 3, 4, 5, 8 and 4, 4, 6, 9, cut
    assert (ragged.image(2) == 2).all() and ragged.image(2).shape == (8, 6, 3)
    assert ragged.store(1) is ragged.store(50) is ragged.images


def test_images_of_one_size_that_are_not_in_memory(tmp_path: Path) -> None:
    images = [np.full((5, 7, 3), k, np.uint8) for k in range(2)]
    data = make(images=build_cache(tmp_path / "a", Given(images)))
    assert (data.image_shape, data.typical_size) == ((5, 7, 3), (5, 7))


def test_prepare_makes_thumbnails(ragged: Dataset) -> None:
    assert isinstance(ragged.images, MappedStore)
    ragged.prepare(2)
    assert (ragged.images.folder / "thumbnails-2.bin").stat().st_size == 4 * 2 * 2 * 3
    make().prepare(2)  # arrays need nothing


def test_arrays_are_read_only_and_the_callers_are_not_touched() -> None:
    images, boxes = np.zeros((2, 3, 4, 1), dtype=np.uint8), np.zeros((2, 4))
    data = make(images=images, metadata={"box": boxes})
    for array in (data.images, data.labels, data.metadata["box"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1  # type: ignore[index]
    images[0] = boxes[0] = 1
    assert images.flags.writeable and boxes.flags.writeable


def test_store_is_shared_by_margin() -> None:
    data = make()
    assert data.store(2) is data.store(2)
    assert data.store(2) is not data.store(3)
    assert data.store(2).padded.shape == (2, 7, 8, 1)  # type: ignore[attr-defined]
    assert np.array_equal(data.store(3).images, data.images)  # type: ignore[attr-defined]


def test_a_pickle_has_everything_but_the_stores(ragged: Dataset) -> None:
    data = make(metadata={"box": np.eye(2)}, drawn=True, stands_in_for="CUB")
    size = len(pickle.dumps(data))
    data.store(50)
    assert len(pickle.dumps(data)) == size < 1500
    twin = pickle.loads(pickle.dumps(data))
    for name in ("name", "split", "class_names", "drawn", "stands_in_for"):
        assert getattr(twin, name) == getattr(data, name)
    for ours, theirs in (
        (twin.images, data.images),
        (twin.labels, data.labels),
        (twin.metadata["box"], np.eye(2)),
    ):
        assert np.array_equal(ours, theirs) and not ours.flags.writeable
    assert np.array_equal(pickle.loads(pickle.dumps(ragged)).image(3), ragged.image(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 3, 4), np.uint8)}, r"images: .*\(N, H, W, C\), got uint8 \(2, 3"),
        ({"images": np.zeros((2, 3, 4, 1))}, "images: expected uint8 .* got float64"),
        ({"labels": np.array([0])}, r"labels: expected int64 of shape \(2,\)"),
        ({"labels": np.array([0, 1], np.int32)}, "labels: expected int64 .* got int32"),
        ({"labels": np.array([0, 2])}, "labels: expected 0 to 1, .* got 0 to 2"),
        ({"paths": ("a.png",)}, "paths: expected 2, one for each image, or none, got 1"),
        ({"labels": np.array([-1, 1])}, "labels: expected 0 to 1, .* got -1 to 1"),
        (
            {"metadata": {"box": np.zeros((3, 4))}},
            r"metadata\['box'\]: expected 2 values, one for each image, got 3",
        ),
    ],
)
def test_bad_arrays(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
