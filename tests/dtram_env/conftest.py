"""Small data sets whose pixels and labels the tests know, and helpers that several tests share."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from dtram_env.datasets import Dataset
from dtram_env.datasets.fetch.download import RawFile
from dtram_env.datasets.sources import fashion
from dtram_env.datasets.storage.cache import build_cache
from tests.dtram_env.datasets.images import Given, ragged_images
from tests.dtram_env.datasets.trees import make_fashion, make_folder

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # windows need no screen


def make_dataset(
    count: int = 23,
    shape: tuple[int, int, int] = (14, 10, 1),
    split: str = "train",
    classes: int = 5,
    metadata: bool = False,
) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, *shape), dtype=np.uint8)  # 0 only outside the image
    labels = rng.integers(0, classes, count)
    names = tuple(f"class {k}" for k in range(classes))
    return Dataset("Toy", split, images, labels, names, make_metadata(count) if metadata else {})


TOY = make_dataset()  # 23 random images, 14 pixels high, 10 wide, grey, of 5 classes


def make_metadata(count: int) -> dict[str, np.ndarray]:
    """Metadata of three shapes and types; no row is all 0, which marks slots without a value."""
    rows = np.arange(1, count + 1)
    return {
        "box": np.float32(rows[:, None] + [0, 0.25, 0.5, 0.75]),
        "part_boxes": np.int32(rows[:, None, None] * 100 + np.arange(8).reshape(2, 4)),
        "discriminative": np.stack([rows % 2 == 0, rows % 2 == 1], axis=1),
    }


@pytest.fixture(scope="session")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """23 random colour images of different sizes, 3 to 20 pixels, in a cache, with metadata."""
    images, metadata = ragged_images(23, most=20), make_metadata(23)
    store = build_cache(tmp_path_factory.mktemp("ragged") / "train", Given(images, metadata))
    labels = np.arange(23) % 5
    return Dataset("Ragged", "train", store, labels, tuple("abcde"), store.metadata())


@dataclass(frozen=True)
class SmallData:
    """A data root with which every registered id can be made without a large download or drawing.

    Attributes:
        root: the folder; it has a small Fashion-MNIST, a folder of images, and caches of others.
        fashion_files: the files that `fashion` has to accept as the published ones.
    """

    root: Path
    fashion_files: dict[str, tuple[RawFile, RawFile]]

    def keywords(self, env_id: str) -> dict[str, Any]:
        """Keywords to make an id with."""
        if "MNIST" in env_id and "Fashion" not in env_id:
            return {}  # MNIST is on every machine that runs the tests
        keywords: dict[str, Any] = {"data_dir": str(self.root)}
        if env_id in ("DTRAM-CUB-v0", "DTRAM-Cars-v0"):
            keywords["data"] = "builtin"
        if env_id == "DTRAM-ImageFolder-v0":
            keywords["root"] = str(self.root / "photos")
        return keywords


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "photos", train=6, test=4)
    (root / fashion.NAME).mkdir()
    rng, counts = np.random.default_rng(0), {"train": 40, "test": 20}
    images = {part: rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in counts.items()}
    content, files = make_fashion(images)
    for name, data in content.items():
        (root / fashion.NAME / name).write_bytes(data)
    return SmallData(root, files)


@pytest.fixture
def keywords_of(
    small_data: SmallData, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, Any]]:
    """Keywords with which the tests make an id: small data in a temporary folder."""
    monkeypatch.setattr(fashion, "FILES", small_data.fashion_files)
    return small_data.keywords


@pytest.fixture
def planted() -> Dataset:
    """A test split of 50 images whose top left pixel is the label plus 1; all else is 0."""
    images = np.zeros((50, 12, 12, 1), dtype=np.uint8)
    labels = np.arange(50) % 4
    images[:, 0, 0, 0] = labels + 1
    return Dataset("Planted", "test", images, labels, ("a", "b", "c", "d"))


class Tally:
    """A classifier with known answers: every glimpse votes for one class.

    The class is the sum of the glimpse's pixels, plus 1 if it was taken right of the centre, modulo
    the number of classes; the probabilities are the fractions of the votes. Arithmetic is exact, on
    arrays and tensors, so every batch gives the same numbers.

    Args:
        classes: K.
    """

    name = "tally"

    def __init__(self, classes: int = 5) -> None:
        self.classes = classes

    def __repr__(self) -> str:
        return self.name

    def initial(self, batch: int) -> tuple[Any, ...]:
        return (np.zeros((batch, self.classes), np.int64),)

    def step(
        self, observation: dict[str, Any], state: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        glimpse, right = observation["glimpse"], observation["location"][:, 0] > 0
        (votes,) = state
        tensors = isinstance(glimpse, torch.Tensor)
        xp: Any = torch if tensors else np
        assert glimpse.dtype == xp.uint8 and glimpse.ndim == 4, "the native glimpse"
        assert isinstance(votes, torch.Tensor) == tensors
        vote = (glimpse.reshape(len(glimpse), -1).sum(-1, dtype=xp.int64) + right) % self.classes
        one = {"device": glimpse.device} if tensors else {}
        votes = votes + (vote[:, None] == xp.arange(self.classes, **one))
        shares = [votes, votes.sum(-1)[:, None]]
        top, bottom = (x.float() if tensors else x.astype(np.float32) for x in shares)
        return top / bottom, (votes,)


TALLY = Tally()
VIEWS = [
    {"view": "native"},
    {"view": "native", "first_glimpse": "thumbnail", "thumbnail_size": 6},
    {"view": "native", "first_glimpse": "thumbnail", "num_scales": 2},
    {"view": "native", "first_glimpse": "choose", "glimpse_format": "flat"},
    {"view": "continuous"},
    {"view": "continuous", "observe": "canvas", "first_glimpse": "thumbnail"},
    {"view": "continuous", "glimpse_format": "image"},
    {"view": "discrete", "mask_seen": True, "min_glimpses": 2, "grid": 3},
    {"view": "discrete", "observe": "canvas", "glimpse_format": "image", "mask_seen": True},
    {"view": "discrete", "observe": "canvas", "first_glimpse": "choose", "mask_seen": True},
    {"view": "native", "classifier": TALLY},
    {"view": "continuous", "classifier": TALLY, "first_glimpse": "thumbnail"},
    {"view": "discrete", "classifier": TALLY, "observe": "canvas", "min_glimpses": 2},
    {"view": "single", "classifier": TALLY, "first_glimpse": "choose", "mask_seen": True},
]
MODES = ["NextStep", "SameStep", "Disabled"]


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal structure, types, shapes and values; tensors count as arrays."""
    ours, theirs = (x.numpy() if isinstance(x, torch.Tensor) else x for x in (ours, theirs))
    if isinstance(theirs, tuple):
        assert isinstance(ours, tuple) and len(ours) == len(theirs), where
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}[{place}]")
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict) and set(ours) == set(theirs), (where, ours, theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert ours.dtype == object and ours.shape == theirs.shape, where
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other, where)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (where, ours, theirs)
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, (where, ours, theirs)


def check_env(env: Any, *expected: str) -> None:
    """Gymnasium's checker finds nothing, SB3's warns with each of the `expected` words alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(env)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sb3_check(env, warn=True, skip_render_check=False)
    said = [str(warning.message) for warning in caught]
    for words in expected:
        assert sum(words in text for text in said) == 1, said
    assert len(said) == len(expected), said


def actions_of(env: Any, steps: int, seed: int = 0) -> list[Any]:
    """Random actions of the environment's (batched) space."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def on_tensors(action: Any) -> Any:
    """An action, or a dict of them, as tensors."""
    if isinstance(action, dict):
        return {key: torch.from_numpy(value) for key, value in action.items()}
    return torch.from_numpy(action)


def task_id(task: dict[str, Any]) -> str:
    """Name of a parametrised case, from the values of its keywords."""
    return "-".join(map(str, task.values()))
