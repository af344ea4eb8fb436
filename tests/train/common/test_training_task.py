"""A registered environment as training reads it."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from dtram_env.datasets import DatasetNotFoundError, load
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.thumbnails import box_resize
from tests.dtram_env.datasets.trees import PHOTOGRAPHS, make_folder
from train.common.augment import Augmentation
from train.common.training_task import TrainingTask, describe_env

pytestmark = pytest.mark.usefixtures("draw_in_threads")

CPU = torch.device("cpu")
FEW: dict[str, Any] = {
    "image_size": 96,
    "num_classes": 10,
    "num_train": 40,
    "num_test": 8,
    "glimpse_size": 24,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keywords of DTRAM-ImageFolder-v0 on a small tree of images of five sizes."""
    root = tmp_path_factory.mktemp("task")
    make_folder(root / "photos", train=8, test=2)
    return {"root": str(root / "photos"), "data_dir": str(root / "data"), "image_size": 20}


def test_pixel_scale_of_images_in_memory(signpost: TrainingTask) -> None:
    mean, std = signpost.pixel_scale()
    pixels = load("Signpost", "train").images
    assert isinstance(pixels, np.ndarray)
    assert (mean, std) == (pytest.approx(np.mean(pixels)), pytest.approx(np.std(pixels)))


def test_whole_images_of_one_size(signpost: TrainingTask) -> None:
    images = signpost.images("test")
    indices = torch.tensor([5, 0, 5])
    pixels, sizes = images.pixels(indices)
    assert sizes is None and len(images) == 2000
    assert isinstance(images.data.images, np.ndarray)
    np.testing.assert_array_equal(pixels.numpy(), images.data.images[indices.numpy()])
    pixels[:] = 0  # a copy
    assert images.data.images[5].any() and images.pixels(indices)[0].any()
    assert images.labels.tolist() == images.data.labels.tolist()


def test_whole_images_of_different_sizes(folder: dict[str, Any]) -> None:
    images = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, **folder).images("train")
    indices = torch.tensor([3, 0, 7, 3])
    pixels, sizes = images.pixels(indices)
    originals = [images.data.image(int(i)) for i in indices]
    assert sizes is not None and sizes.tolist() == [list(image.shape[:2]) for image in originals]
    # As large as the largest of the batch, with zeros around smaller ones.
    assert pixels.shape == (4, *sizes.max(dim=0).values.tolist(), 3)
    for image, padded in zip(originals, pixels.numpy(), strict=True):
        height, width, _ = image.shape
        np.testing.assert_array_equal(padded[:height, :width], image)
        assert not padded[height:].any() and not padded[:, width:].any()


def test_without_a_change_no_image_is_copied(folder: dict[str, Any]) -> None:
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, **folder)
    images, indices = task.images("train"), torch.tensor([4, 1])
    store, in_store = task.augmented(images, indices, Augmentation(affine=0.0))
    assert store is images.store and in_store is indices


def test_glimpses_of_augmented_images_are_those_of_the_changed_pixels(
    folder: dict[str, Any],
) -> None:
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, num_scales=2, **folder)
    images, indices = task.images("train"), torch.arange(8)
    torch.manual_seed(0)
    batch, in_batch = task.augmented(images, indices + 1, Augmentation(affine=0.0, flip=True))
    torch.manual_seed(0)
    flipped = torch.rand(8) < 0.5
    location = torch.tensor([[1, 1], [-1, 0.3], [0, 0], [0.7, -1]] * 2, dtype=torch.float32)
    there = torch.where(flipped[:, None], location * torch.tensor([-1, 1]), location)
    seen = task.sensor(images.store, indices + 1, there)
    seen = torch.where(flipped[:, None, None, None], seen.flip(2), seen)
    assert in_batch.tolist() == list(range(8)) and 0 < flipped.sum() < 8
    assert torch.equal(task.sensor(batch, in_batch, location), seen)


def test_pixel_scale_of_images_that_are_not_in_memory(folder: dict[str, Any]) -> None:
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, **folder)
    images = task.images("train")
    small = np.stack([box_resize(images.data.image(i)[None], 8)[0] for i in range(len(images))])
    assert task.pixel_scale() == pytest.approx((small.mean(), small.std()))


def test_a_random_crop_makes_squares_of_one_size(folder: dict[str, Any]) -> None:
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, **folder)
    images, indices = task.images("train"), torch.tensor([4, 1])
    augment = Augmentation(affine=0.0, scale_crop=(0.5, 1.0))
    store, _ = task.augmented(images, indices, augment)
    pixels, _ = images.pixels(indices)
    assert store.sizes is None and store.height == store.width == min(pixels.shape[1:3])


def test_copied_images_are_mirrored_as_they_are_read(folder: dict[str, Any]) -> None:
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, **folder)
    images, indices, found = task.images("train"), torch.arange(8), []
    for flip in (False, True):
        torch.manual_seed(0)
        augment = Augmentation(affine=0.0, scale_crop=(0.5, 1.0), flip=flip)
        store, places = task.augmented(images, indices, augment)
        found.append(store.whole(places))
    cropped, turned = found
    same = (turned == cropped).flatten(1).all(dim=1)
    assert 0 < same.sum() < 8
    assert torch.equal(turned[~same], cropped[~same].flip(2))


# --- Drawn data


def test_drawn_images_are_built_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keywords = {"data_dir": str(tmp_path), **FEW}
    task = TrainingTask("DTRAM-Birds-v0", CPU, **keywords)
    assert capsys.readouterr().out == (
        "DTRAM-Birds-v0: drawing its images, once; later runs read them\n"
    )
    caches = sorted((tmp_path / "birds" / "cache").glob("*/"))
    assert [path.name for path in caches if path.name[0] != "."] == [
        "test-96-10classes-8-seed0",
        "train-96-10classes-40-seed0",
    ]
    assert (caches[-1] / "thumbnails-24.bin").exists()
    drawn = {split: load_few(split, tmp_path) for split in ("train", "validation", "test")}
    for split, count in {"train": 36, "validation": 4, "test": 8}.items():
        images = task.images(split)
        assert isinstance(images.data.images, MappedStore) and len(images) == count
        assert images.labels.tolist() == drawn[split].labels.tolist()
        pixels, sizes = images.pixels(torch.tensor([2]))
        assert sizes is None and pixels.shape == (1, 96, 96, 3)
        np.testing.assert_array_equal(pixels[0].numpy(), drawn[split].image(2))
    TrainingTask("DTRAM-Birds-v0", CPU, **keywords)
    assert capsys.readouterr().out == ""
    more = TrainingTask("DTRAM-Birds-v0", CPU, **{**keywords, "num_test": 9})
    assert isinstance(more.images("test").data.images, MappedStore)


def load_few(split: str, data_dir: Path) -> Any:
    """The drawn images, from a folder without a cache."""
    env: Any = gym.make("DTRAM-Birds-v0", split=split, data_dir=str(data_dir / "none"), **FEW)
    return env.unwrapped.data


def test_drawn_images_stand_in_for_no_photographs(tmp_path: Path) -> None:
    for env_id, name in (("DTRAM-CUB-v0", "cub"), ("DTRAM-Cars-v0", "cars")):
        with pytest.raises(DatasetNotFoundError, match=f"datasets download {name}"):
            TrainingTask(env_id, CPU, data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# --- Real photographs


@pytest.mark.parametrize(
    ("env_id", "name", "title"),
    [
        ("DTRAM-CUB-v0", "cub", "CUB-200-2011"),
        ("DTRAM-Cars-v0", "cars", "Stanford Cars"),
    ],
)
def test_photographs(
    env_id: str, name: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, make = PHOTOGRAPHS[name]
    tree = make(tmp_path / reader.NAME, train=4)
    tree.publish(monkeypatch, reader)
    options: dict[str, Any] = {"image_size": 32, "glimpse_size": 8}
    task = TrainingTask(env_id, CPU, data_dir=str(tmp_path), **options)
    assert (task.env_id, task.dataset, task.class_names) == (env_id, title, tree.class_names)
    assert task.env_options == {"data": "real", **options}
    images = task.images("test")
    assert images.labels.tolist() == tree.labels["test"].tolist()
    pixels, sizes = images.pixels(torch.arange(3))
    assert sizes is not None and sizes.tolist() == [[32, 46], [48, 32], [32, 43]]
    assert pixels.shape == (3, 48, 46, 3)
    assert len(task.images("train")) == 11 and len(task.images("validation")) == 1
    described = describe_env(env_id, data_dir=str(tmp_path), **options)
    assert (described["dataset"], described["num_classes"]) == (title, 3)


# --- Batches and ids


def test_batches_for_evaluation_are_smaller_for_larger_inputs(
    signpost: TrainingTask, folder: dict[str, Any]
) -> None:
    assert signpost.eval_batch_size == signpost.whole_image_batch_size == 2000
    task = TrainingTask("DTRAM-ImageFolder-v0", CPU, glimpse_size=8, thumbnail_size=224, **folder)
    assert task.eval_batch_size == 8_000_000 // (224 * 224 * 3) == 53
    # Medians of five sizes at 20: 20x29, 30x20, 20x27, 20x20 and 32x20.
    assert task.images("train").data.typical_size == (20, 20)
    assert task.whole_image_batch_size == 53


def test_unknown_ids() -> None:
    for env_id in ("CartPole-v1", "other:DTRAM-MNIST-v0"):
        with pytest.raises(ValueError, match=f"environment '{env_id}': expected one of this pack"):
            TrainingTask(env_id, CPU)
