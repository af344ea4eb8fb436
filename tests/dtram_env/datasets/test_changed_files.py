"""What is loaded shows the files as they are now, in one process; what is open stays as it was."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import dtram_env  # noqa: F401, registers the environments
from dtram_env.datasets import Dataset, DatasetCorruptError, ImageOptions, build, load
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.mapped import MappedStore
from tests.dtram_env.datasets.trees import PHOTOGRAPHS

RED, BLUE = (255, 0, 0), (0, 0, 255)


def mk(root: Path, name: str, colour: tuple[int, int, int] = RED) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for name in ("a/0", "a/1", "b/0"):
            mk(tmp_path / "mine", f"{part}/{name}.png")
    return tmp_path / "mine"


def read(root: Path, split: str) -> Dataset:
    options = ImageOptions(root=str(root))
    return load("imagefolder", split, data_dir=root.parent / "data", options=options)


def colours(data: Dataset) -> list[tuple[int, ...]]:
    return [tuple(data.image(i)[0, 0].tolist()) for i in range(len(data))]


# What is changed; the split that is read, its labels, class names and colours after that.
CHANGES: dict[str, tuple[Callable[[Path], object], str, list[int], str, list[Any]]] = {
    "an image more": (
        lambda root: mk(root, "train/b/1.png", BLUE),
        *("train+validation", [0, 0, 1, 1], "ab", [RED, RED, RED, BLUE]),
    ),
    "a class more": (
        lambda root: mk(root, "train/c/0.png", BLUE),
        *("train+validation", [0, 0, 1, 2], "abc", [RED, RED, RED, BLUE]),
    ),
    "a class more that the test part lacks": (
        lambda root: mk(root, "train/c/0.png"),
        *("test", [0, 0, 1], "abc", [RED] * 3),
    ),
    "a class before the others": (
        lambda root: mk(root, "train/A/0.png"),
        *("test", [1, 1, 2], "Aab", [RED] * 3),
    ),
    "an image less": (
        lambda root: (root / "test/a/0.png").unlink(),
        *("test", [0, 1], "ab", [RED, RED]),
    ),
    "other pixels": (
        lambda root: mk(root, "test/a/1.png", BLUE),
        *("test", [0, 0, 1], "ab", [RED, BLUE, RED]),
    ),
    "another class": (
        lambda root: (root / "test/a/1.png").rename(root / "test/b/1.png"),
        *("test", [0, 1, 1], "ab", [RED] * 3),
    ),
}


@pytest.mark.parametrize("without_cache", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_read_again(mine: Path, change: str, without_cache: bool) -> None:
    do, split, labels, names, seen = CHANGES[change]
    before = read(mine, split)
    was = before.labels.tolist(), colours(before)
    assert read(mine, split) is before
    do(mine)
    if without_cache:
        shutil.rmtree(mine.parent / "data")
    after = read(mine, split)
    assert (after.labels.tolist(), "".join(after.class_names)) == (labels, names)
    assert colours(after) == seen
    assert read(mine, split) is after
    assert (before.labels.tolist(), colours(before)) == was


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_published_files_that_changed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, make = PHOTOGRAPHS[name]
    tree = make(tmp_path / name)
    tree.publish(monkeypatch, reader)
    before = load(name, "test", data_dir=tmp_path)
    height, width = tree.sizes["test"][2]
    Image.new("RGB", (int(width), int(height)), BLUE).save(tree.root / tree.paths["test"][2])
    after = load(name, "test", data_dir=tmp_path)
    assert np.abs(after.image(2).astype(int) - BLUE).max() < 16  # a JPEG
    assert (
        np.array_equal(after.image(0), before.image(0))
        and load(name, "test", data_dir=tmp_path) is after
    )


@pytest.mark.parametrize("split", ["train+validation", "test"])
def test_a_deleted_cache_is_made_again(mine: Path, split: str) -> None:
    before = read(mine, split)
    shutil.rmtree(mine.parent / "data")
    after = read(mine, split)
    after.prepare(5)
    copy = pickle.loads(pickle.dumps(after))
    for data in (before, after, copy):
        assert colours(data) == [RED] * 3
        assert not isinstance(data.images, np.ndarray)
        assert (data.images.thumbnail(np.arange(3), 5) == RED).all()


@pytest.mark.parametrize("deleted", ["all", "train-96-10classes-30-seed0"])
def test_a_deleted_cache_of_drawn_images_is_drawn(tmp_path: Path, deleted: str) -> None:
    few = ImageOptions(image_size=96, num_classes=10, num_train=30, num_test=6)
    cache = tmp_path / "birds" / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dtram_env.datasets.build_cache", in_threads)
        build("birds", data_dir=tmp_path, options=few)
    built = load("birds", "validation", data_dir=tmp_path, options=few)
    assert isinstance(built.images, MappedStore)
    shutil.rmtree(cache if deleted == "all" else cache / deleted)
    drawn = load("birds", "validation", data_dir=tmp_path, options=few)
    assert isinstance(drawn.images, DrawnStore)
    assert np.array_equal(built.image(1), drawn.image(1))


def in_threads(*arguments: Any, processes: bool, **keywords: Any) -> MappedStore:
    from dtram_env.datasets.storage.cache import build_cache

    return build_cache(*arguments, **keywords)


def test_an_open_environment_goes_on_with_the_images_as_they_were(mine: Path) -> None:
    keywords: dict[str, Any] = {"root": mine, "data_dir": mine.parent / "data", "split": "test"}
    small = {"glimpse_size": 4, "image_size": None}
    open_one, other = (gym.make("DTRAM-ImageFolder-v0", **keywords, **small) for _ in range(2))
    for name in ("a/0", "a/1", "b/0"):
        mk(mine, f"test/{name}.png", BLUE)
    new = gym.make("DTRAM-ImageFolder-v0", **keywords, **small)
    for env, colour in ((open_one, RED), (new, BLUE), (other, RED)):
        observation, _ = env.reset(seed=0)  # a thumbnail
        assert (observation["glimpse"] == colour).all()
    assert (open_one.unwrapped.data.image(0) == RED).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", ["other files", "no files"])
def test_what_cannot_go_on_is_said(mine: Path, change: str) -> None:
    """A thumbnail, a part and a copy would be of the new images."""
    before = read(mine, "test").images
    assert isinstance(before, MappedStore)
    packed = pickle.dumps(before)
    if change == "other files":
        mk(mine, "test/a/0.png", BLUE)
        read(mine, "test").prepare(5)
    else:
        shutil.rmtree(mine.parent / "data")
    uses: list[Callable[[], object]] = [
        lambda: before.prepare(5),
        lambda: before.select(np.array([0])),
        lambda: pickle.loads(packed),
    ]
    if change == "other files":  # else the thumbnail is made from the image
        uses.append(lambda: before.thumbnail(np.array([0]), 5))
    for use in uses:
        with pytest.raises(DatasetCorruptError, match=r"test-native: no longer .* environment aga"):
            use()
