"""CUB, Cars and a folder of images through the registered ids, from small trees on disk."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.thumbnails import box_resize

from .datasets.images import window_of
from .datasets.trees import PHOTOGRAPHS, Tree, colour_of, make_folder

# Height and width of `trees.SHAPES` with the shorter side at 32: 53 * 32 / 37 = 45.8, …
AT_32 = [(32, 46), (48, 32), (32, 43), (32, 32), (51, 32)]
SETS = {"DTRAM-CUB-v0": "cub", "DTRAM-Cars-v0": "cars"}


@pytest.fixture(params=SETS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tree(env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Three classes with two training images and one test image each, in the official layout."""
    reader, make = PHOTOGRAPHS[SETS[env_id]]
    tree = make(tmp_path / reader.NAME)
    tree.publish(monkeypatch, reader)
    return tree


def make(env_id: str, tree: Tree, **keywords: Any) -> GlimpseEnv:
    keywords = {"split": "train+validation", "glimpse_size": 8, "image_size": 32, **keywords}
    env = gym.make(env_id, data_dir=str(tree.folder.parent), **keywords).unwrapped
    assert isinstance(env, GlimpseEnv)
    return env


def is_rgb(part: str, number: int) -> bool:
    """Whether an image of a tree is neither grey nor CMYK, whose colours are others."""
    return number >= 2


def middle_of(box: np.ndarray, height: int, width: int) -> list[float]:
    """The location of a box's centre."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return [2 * x / width - 1, 2 * y / height - 1]


def test_sizes_labels_and_names(env_id: str, tree: Tree) -> None:
    for split, part in (("train+validation", "train"), ("test", "test")):
        env = make(env_id, tree, split=split)
        count = tree.counts[part]
        assert (
            env.dataset
            == {"DTRAM-CUB-v0": "CUB-200-2011", "DTRAM-Cars-v0": "Stanford Cars"}[env_id]
        )
        assert (env.num_images, env.class_names) == (count, tree.class_names)
        assert env.image_shape == (None, None, 3) and env.image_size == 32
        assert env.action_space["prediction"].n == 3  # type: ignore[index]
        for i in range(count):
            info = env.reset(options={"image_index": i})[1]
            assert info["label"] == tree.labels[part][i]
            assert info["dataset"] == env.dataset
            assert env.data.image(i).shape == (*AT_32[i % 5], 3)


def test_glimpses_of_boxes_show_the_class(env_id: str, tree: Tree) -> None:
    """An agent that looks at the box's centre sees the class's colour, on either backend."""
    singles = make(env_id, tree)
    keywords: dict[str, Any] = {"glimpse_size": 8, "image_size": 32, "split": "train+validation"}
    envs = [
        gym.make_vec(
            env_id, num_envs=6, backend=backend, data_dir=str(tree.folder.parent), **keywords
        )
        for backend in ("numpy", "torch")
    ]
    starts = [env.reset(options={"image_index": np.arange(6)}) for env in envs]
    boxes = starts[0][1]["box"]
    np.testing.assert_array_equal(starts[1][1]["box"], boxes)
    location = np.float32([middle_of(boxes[i], *AT_32[i % 5]) for i in range(6)])
    action = {"location": location, "stop": np.zeros(6, np.int64)}
    action["prediction"] = tree.labels["train"]
    seen = [np.asarray(env.step(action)[0]["glimpse"]) for env in envs]
    np.testing.assert_array_equal(*seen)
    for i, glimpse in enumerate(seen[0]):
        singles.reset(options={"image_index": i})
        one = singles.step({key: values[i] for key, values in action.items()})[0]["glimpse"]
        np.testing.assert_array_equal(one, glimpse)
        if is_rgb("train", i):
            colour = colour_of(int(tree.labels["train"][i]))
            assert np.abs(glimpse.astype(int) - colour).max() < 16


def test_the_first_look_is_the_whole_image(env_id: str, tree: Tree) -> None:
    env = make(env_id, tree, thumbnail_size=12)
    for i in range(env.num_images):
        observation = env.reset(options={"image_index": i})[0]
        expected = box_resize(env.data.image(i)[None], 12)[0]
        np.testing.assert_array_equal(observation["thumbnail"], expected)
        assert not observation["glimpse"].any()
    assert isinstance(env.data.images, MappedStore)
    assert (env.data.images.folder / "thumbnails-12.bin").exists()


def test_crop_to_box(env_id: str, tree: Tree) -> None:
    env = make(env_id, tree, crop_to_box=True, image_size=16)
    for i in range(env.num_images):
        info = env.reset(options={"image_index": i})[1]
        _, _, width, height = tree.boxes["train"][i]
        shorter = min(width, height)
        expected = round(height * 16 / shorter), round(width * 16 / shorter)
        image = env.data.image(i)
        assert image.shape[:2] == expected
        assert info["box"].tolist() == [0, 0, expected[1], expected[0]]
        if is_rgb("train", i):  # no background is left
            colour = colour_of(int(info["label"]))
            assert np.abs(image[2:-2, 2:-2].astype(int) - colour).max() < 24
    native = make(env_id, tree, crop_to_box=True, image_size=None)
    assert native.data.image(2).shape == (40, 32, 3)


def test_each_set_of_options_has_its_own_cache(env_id: str, tree: Tree) -> None:
    for options in ({}, {"crop_to_box": True}, {"image_size": None}):
        make(env_id, tree, first_glimpse="center", **options)
    found = sorted(path.parent.name for path in tree.folder.rglob("meta.json"))
    assert found == ["train-32", "train-32-box", "train-native"]
    # Nothing but the cache was written, and nothing elsewhere.
    assert {path.name for path in tree.folder.iterdir()} == {tree.root.name, "cache"}
    assert list(tree.folder.parent.iterdir()) == [tree.folder]


def test_no_canvas_of_images_of_different_sizes(env_id: str, tree: Tree) -> None:
    message = "observe='canvas': the images of .* differ in size; expected 'glimpse', or images of"
    with pytest.raises(ValueError, match=message):
        make(env_id, tree, observe="canvas")


# --- A folder of the user


def test_a_folder_of_images(tmp_path: Path) -> None:
    tree = make_folder(tmp_path / "zoo", train=12)
    keywords: dict[str, Any] = {
        "root": str(tree.folder),
        "data_dir": str(tmp_path / "data"),
        "image_size": 32,
        "glimpse_size": 8,
    }
    sizes = {"train": 33, "validation": 3, "test": 6}
    for split, count in sizes.items():
        env: Any = gym.make("DTRAM-ImageFolder-v0", split=split, **keywords).unwrapped
        assert (env.dataset, env.num_images, env.class_names) == ("zoo", count, tree.class_names)
        info = env.reset(seed=0)[1]
        assert set(info) == {"label", "image_index", "num_glimpses", "dataset"}  # no boxes
    env = gym.make("DTRAM-ImageFolder-v0", split="test", **keywords).unwrapped
    for i, label in enumerate(tree.labels["test"]):
        assert env.reset(options={"image_index": i})[1]["label"] == label
        assert env.data.image(i).shape == (*AT_32[i % 5], 3)
    assert {path.name for path in tree.folder.iterdir()} == {"train", "test"}  # nothing was written


def test_glimpses_of_a_large_photograph_are_of_its_own_resolution(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    sizes = {"train/a": (700, 400), "train/b": (90, 1200), "test/a": (5, 5), "test/b": (20, 30)}
    pixels = {}
    for name, size in sizes.items():
        path = tmp_path / "zoo" / name / "0.png"
        path.parent.mkdir(parents=True)
        pixels[name] = rng.integers(1, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels[name]).save(path)
    keywords: dict[str, Any] = {
        "root": str(tmp_path / "zoo"),
        "data_dir": str(tmp_path / "data"),
        "image_size": None,
        "glimpse_size": 16,
        "num_scales": 2,
        "first_glimpse": "center",
    }
    train: Any = gym.make("DTRAM-ImageFolder-v0", split="train+validation", **keywords).unwrapped
    # The smallest is smaller than a glimpse.
    test: Any = gym.make("DTRAM-ImageFolder-v0", split="test", **keywords).unwrapped
    for env, index, name in ((train, 0, "train/a"), (train, 1, "train/b"), (test, 0, "test/a")):
        np.testing.assert_array_equal(env.data.image(index), pixels[name])
        glimpse = env.reset(options={"image_index": index})[0]["glimpse"]
        height, width = sizes[name]
        window = window_of(pixels[name], height // 2 - 16, width // 2 - 16, 32)
        if name == "test/a":  # 2.5 - 8 + 0.5 and 2.5 - 16 + 0.5
            window = window_of(pixels[name], -13, -13, 32)
            np.testing.assert_array_equal(glimpse[..., :3], window_of(pixels[name], -5, -5, 16))
        else:
            np.testing.assert_array_equal(glimpse[..., :3], window[8:24, 8:24])
        blocks = window.reshape(16, 2, 16, 2, 3).sum(axis=(1, 3), dtype=np.int64)
        np.testing.assert_array_equal(glimpse[..., 3:], (blocks + 2) // 4)


def test_the_grid_is_for_a_typical_image(tmp_path: Path) -> None:
    make_folder(tmp_path / "zoo", train=5, test=1)
    keywords: dict[str, Any] = {"root": str(tmp_path / "zoo"), "data_dir": str(tmp_path / "data")}
    env: Any = gym.make_vec(
        "DTRAM-ImageFolder-v0",
        num_envs=3,
        split="train+validation",
        view="discrete",
        image_size=32,
        glimpse_size=8,
        **keywords,
    ).unwrapped
    # Three times each of AT_32, whose medians are 32 and 32.
    assert isinstance(env, GlimpseVectorEnv) and env.data.typical_size == (32, 32)
    assert env.grid == 4 and env.single_action_space.nvec.tolist() == [16, 2, 3]
