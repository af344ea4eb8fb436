"""A registered environment's images, labels and glimpse sensor on a device, ready for training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import dtram_env
from agents.checks import Classes, Side
from agents.config import LARGEST_BUDGET
from agents.cost import classifier_flops_per_glimpse
from agents.dtram import DTRAM
from agents.first_look import FirstLookDTRAM
from agents.policy_only import POLICY_IDS, FrozenClassifier, agent_with_classifier
from agents.spatial_map import MapDTRAM
from agents.unroll import GlimpseSensor
from dtram_env import GlimpseVectorEnv, datasets
from dtram_env.checks import misfit
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.tensors import FlatStore, HostStore, TensorStore, make_store
from dtram_env.sensor import margin
from dtram_env.sensor_torch import TorchStore
from train.common.augment import Augmentation
from train.common.clutter import Composer

NumImages = Annotated[int, 1, 10**7] | None


class Task(TypedDict, total=False):
    """Keywords of an environment that define its task; none says where files are written."""

    max_glimpses: Annotated[int, 1, LARGEST_BUDGET]
    glimpse_size: Side
    num_scales: Annotated[int, 1, 16]
    thumbnail_size: Side | None
    image_size: Side | None
    num_classes: Classes | None
    num_train: NumImages
    num_test: NumImages
    discount: Annotated[float, 0, 1]
    first_glimpse: Literal["center", "random", "thumbnail", "choose"]
    crop_to_box: bool
    classifier: str | None
    dataset: str
    data: Literal["real"]
    root: str | None
    download: bool


def read_task(about: Mapping[str, Any], source: Path) -> tuple[str, dict[str, Any]]:
    """The id and the changed keywords of the environment that a saved model or result names.

    The file may come from a stranger. `gym.make` imports the module of an id ``module:NAME``, and
    keywords such as ``data_dir`` write files.

    Raises:
        ValueError: the id is not one of this project's, or a keyword is none of `Task`, or not of
            its kind. The message names `source`, the file.
    """
    env_id: Any = about.get("env_id")
    options = about.get("env_options", {})
    way_out = "copy the file again, or train again"
    try:
        check_id(env_id)
    except ValueError as error:
        raise ValueError(f"{source}: env_id: {error}; {way_out}") from None
    if not isinstance(options, dict) or not options.keys() <= Task.__annotations__.keys():
        expected = f"an object with keywords of the task only, {', '.join(Task.__annotations__)}"
        raise ValueError(f"{source}: env_options={options!r}: expected {expected}; {way_out}")
    if problem := misfit(options, Task, "env_options"):
        raise ValueError(f"{source}: {problem}; {way_out}")
    return env_id, dict(options)


def check_id(env_id: Any) -> None:
    """Raises ValueError unless `env_id` is one of this project's ids, with or without package."""
    known = (*dtram_env.ENV_IDS, *POLICY_IDS)
    package, _, name = str(env_id).rpartition(":")
    if name not in known or package not in ("", "agents", "dtram_env"):
        names = ", ".join(known)
        raise ValueError(f"environment {env_id!r}: expected one of this package's, as {names}")


def describe_env(env_id: str, **keywords: Any) -> dict[str, Any]:
    """An environment's entries in a result: track, dataset, classes and classifier; and its grid.

    The split is the training one.
    """
    check_id(env_id)
    env = gym.make_vec(env_id, num_envs=1, **keywords).unwrapped
    assert isinstance(env, GlimpseVectorEnv)
    env.close()
    about = {"dataset": env.dataset, "num_classes": env.num_classes, "grid": env.grid}
    if not isinstance(env.classifier, FrozenClassifier):
        return about | {"track": "whole-task", "classifier": None, "classifier_flops": 0}
    flops = classifier_flops_per_glimpse(env.classifier.network)
    name = env.classifier.name
    return about | {"track": "policy-only", "classifier": name, "classifier_flops": flops}


def check_splits(env_id: str, **keywords: Any) -> None:
    """Opens each split that a run reads, so that an error of one comes before the training."""
    with torch.random.fork_rng(devices=[]):  # as in `TrainingTask`
        for split in ("train", "validation", "test"):
            gym.make_vec(env_id, num_envs=1, split=split, **keywords).close()


@dataclass(frozen=True)
class Images:
    """One split: its images, in memory or on disk, and its labels on the device."""

    data: Dataset
    store: TorchStore
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Copies of whole images ``(B, H, W, C)`` uint8, and None if all have this size.

        Else each lies at the top left of its pixels, zeros fill the rest, and the second value is
        the images' heights and widths ``(B, 2)`` int64.
        """
        height, width = self.store.size(indices)
        if isinstance(height, int):
            return self.store.whole(indices), None
        assert isinstance(height, Tensor) and isinstance(width, Tensor)
        if isinstance(self.store, FlatStore):  # the batch's own would make the host wait
            tallest, widest = self.store.largest
        else:
            tallest, widest = int(height.max()), int(width.max())
        corner = torch.zeros_like(indices)
        padded = self.store.crop(indices, corner, corner, max(tallest, widest))
        return padded[:, :tallest, :widest], torch.stack([height, width], dim=1)


class TrainingTask:
    """A registered environment in the form that training in batches needs.

    Images go to `device`; `env_options` are keywords for `gym.make`. Missing photographs
    are an error. The attribute `image_size` is the side of images in memory, or the shorter side
    to which images on disk were resized; None if they keep their own size.
    """

    def __init__(self, env_id: str, device: torch.device, **env_options: Any) -> None:
        check_id(env_id)
        self._keywords = {"data": "real", **env_options}
        self._splits: dict[str, Images] = {}
        self.env_id, self.device = env_id, device
        # Saved with models and results. The folder of the data does not define the task.
        self.env_options = {k: v for k, v in self._keywords.items() if k != "data_dir"}
        env = self._environment("train")
        if any(isinstance(e.data.images, DrawnStore) for e in (env, self._environment("test"))):
            env = self._build_cache(env)
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self.dataset: str = env.dataset
        self.class_names: tuple[str, ...] = tuple(env.class_names)
        self.channels = env.image_shape[2]
        self.max_glimpses: int = env.max_glimpses
        self.discount: float = env.discount
        assert env.classifier is None or isinstance(env.classifier, FrozenClassifier)
        self.classifier = env.classifier  # the frozen one in the loop; None on the whole task
        thumbnail = env.thumbnail_size if env.first_glimpse == "thumbnail" else 0
        own_size = thumbnail if thumbnail != env.glimpse_size else 0
        self.sensor = GlimpseSensor(env.glimpse_size, env.num_scales, env.first_glimpse, own_size)
        in_memory = isinstance(env.data.images, np.ndarray)
        self.image_size: int | None = env.image_shape[0] if in_memory else env.image_size
        self.margin = margin(env.glimpse_size, env.num_scales)  # zeros around an image
        env.close()

    def check_whole_task(self) -> None:
        """Raises ValueError on a policy-only id, where a frozen classifier answers."""
        if self.classifier is not None:
            expected = "expected the id of the whole task, without 'Policy'"
            raise ValueError(
                f"--env-id {self.env_id}: a frozen classifier answers there; {expected}"
            )

    def _build_cache(self, env: GlimpseVectorEnv) -> GlimpseVectorEnv:
        """Draws a whole dataset once and caches it, because training reads each image often."""
        made = env.settings
        assert isinstance(made.dataset, str)
        sizes = (env.thumbnail_size,) if env.first_glimpse == "thumbnail" else ()
        print(f"{self.env_id}: drawing its images, once; later runs read them", flush=True)
        folder, options = made.data_dir, made.image_options
        datasets.build(made.dataset, data_dir=folder, options=options, thumbnail_sizes=sizes)
        env.close()
        return self._environment("train")

    @property
    def metadata(self) -> dict[str, Any]:
        """What is saved with a model: the task, and the sensor that shows images to it."""
        sensor = {**self.sensor._asdict(), "image_size": self.image_size}
        return {"env_id": self.env_id, "env_options": self.env_options, "sensor": sensor}

    def about_test(self) -> dict[str, Any]:
        """The task's entries in a result on the test split."""
        about = {"env_id": self.env_id, "env_options": self.env_options, "dataset": self.dataset}
        return {**about, "split": "test", "images": len(self.images("test"))}

    def images(self, split: str) -> Images:
        """A split's images and labels on the device; each split is read once."""
        if split not in self._splits:
            env = self._environment(split)
            data = env.data
            env.close()
            labels = torch.tensor(data.labels, dtype=torch.int64, device=self.device)
            store = make_store(data, self.margin, self.device)
            if not isinstance(store, HostStore):
                self.sensor.make_tables(store, labels[:1] * 0)
            self._splits[split] = Images(data, store, labels)
        return self._splits[split]

    @property
    def eval_batch_size(self) -> int:
        """Batch size for evaluation: at most 2,000, less for large glimpses or thumbnails."""
        side = max(self.sensor.glimpse_size, self.sensor.thumbnail_size)
        return max(1, min(2000, 8_000_000 // (side * side * self.channels)))

    @property
    def whole_image_batch_size(self) -> int:
        """Batch size for whole images."""
        height, width = self.images("train").data.typical_size
        return max(1, min(self.eval_batch_size, 64_000_000 // (height * width * self.channels)))

    def _environment(self, split: str) -> GlimpseVectorEnv:
        # Loading a classifier draws random weights first. Without the fork, the training run's
        # generator would depend on when a split is read, and a resumed run reads it elsewhere.
        with torch.random.fork_rng(devices=[]):
            env = gym.make_vec(self.env_id, num_envs=1, split=split, **self._keywords).unwrapped
        assert isinstance(env, GlimpseVectorEnv)
        return env

    def augmented(
        self, images: Images, indices: Tensor, augment: Augmentation
    ) -> tuple[TorchStore, Tensor]:
        """A store that shows some images ``(B,)`` of a split augmented, and their places in it.

        Images are copied only if `Augmentation.copies_images`; else only thumbnails and glimpses
        are read.
        """
        in_store = torch.arange(len(indices), device=self.device)
        store, places, in_reading = images.store, indices, augment
        if augment.copies_images:
            if augment.compose:
                pixels, sizes = self._composer(indices, augment), None
            else:
                pixels, sizes = images.pixels(indices)
                pixels = augment(pixels, sizes)
                # scale_crop makes all images squares of one size.
                sizes = sizes if augment.scale_crop is None else None
            store, places = TensorStore(pixels, self.margin, sizes), in_store
            in_reading = Augmentation(affine=0.0, flip=augment.flip)
        if not (in_reading.flip or in_reading.colour or in_reading.lighting):
            return store, places
        side = self.sensor.thumbnail_size or self.sensor.glimpse_size
        return in_reading.change_store(store, places, side), in_store

    @cached_property
    def _composer(self) -> Composer:
        """Composes anew the images of the training split."""
        digits = datasets.load("mnist", split="train", data_dir=self._keywords.get("data_dir"))
        return Composer(self.dataset, torch.tensor(digits.images, device=self.device))

    def pixel_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training images' pixels, 0 ... 255."""
        train = self.images("train")
        if isinstance(train.store, TensorStore):
            pixels = train.store.images.flatten()
        else:  # thumbnails of 500 evenly spaced images
            indices = torch.linspace(0, len(train) - 1, min(len(train), 500), device=self.device)
            side = self.sensor.thumbnail_size or self.sensor.glimpse_size
            pixels = train.store.thumbnail(indices.round().long(), side).flatten()
        share = torch.bincount(pixels, minlength=256).double() / len(pixels)
        value = torch.arange(256, device=self.device).double()
        mean = (share * value).sum()
        std = (share * (value - mean).square()).sum().sqrt()
        return mean.item(), std.item()

    def new_agent(self, **config: Any) -> DTRAM:
        """An untrained DT-RAM; keywords are fields of `DTRAMConfig`.

        On a policy-only task its encoder, core and classifier are the frozen classifier's.
        """
        budget, names = self.max_glimpses, self.class_names
        if self.classifier is not None:
            return agent_with_classifier(self.classifier, budget, names, **config).to(self.device)
        spaces = self.observation_space, self.action_space
        kind = MapDTRAM if config.get("core") == "map" else DTRAM
        kind = FirstLookDTRAM if config.get("first_look") else kind
        return kind.for_spaces(*spaces, budget, class_names=names, **config).to(self.device)
