"""What is learned: the images, labels and sensor of a registered environment, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import dtram_env
from agents.cost import classifier_flops_per_glimpse
from agents.dtram import DTRAM
from agents.policy_only import POLICY_IDS, FrozenClassifier, agent_on
from agents.unroll import GlimpseSensor
from dtram_env import Classifier, GlimpseVectorEnv, datasets
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.tensors import TensorStore, make_store
from dtram_env.sensor import margin
from dtram_env.sensor_torch import TorchStore
from train.common.augment import Augmentation


def check_id(env_id: str) -> None:
    """Raises ValueError unless `env_id` is one of this package's, as `gym.make` takes it."""
    known = (*dtram_env.ENV_IDS, *POLICY_IDS)
    package, _, name = env_id.rpartition(":")
    if name not in known or package not in ("", "agents", "dtram_env"):
        raise ValueError(
            f"environment {env_id!r}: expected one of this package's, as {', '.join(known)}"
        )


def describe_env(env_id: str, **keywords: Any) -> dict[str, Any]:
    """What a result says of an environment: track, dataset, classifier and its cost, classes.

    Args:
        env_id: a registered id.
        **keywords: of the environment.
    """
    check_id(env_id)
    env = gym.make_vec(env_id, num_envs=1, **keywords).unwrapped
    assert isinstance(env, GlimpseVectorEnv)
    classifier = _frozen(env.classifier)
    env.close()
    flops = 0 if classifier is None else classifier_flops_per_glimpse(classifier.network)
    return {
        "track": "whole-task" if classifier is None else "policy-only",
        "dataset": env.dataset,
        "num_classes": env.num_classes,
        "max_glimpses": env.max_glimpses,
        "classifier": None if classifier is None else classifier.name,
        "classifier_flops": flops,
    }


def _frozen(classifier: Classifier | None) -> FrozenClassifier | None:
    assert classifier is None or isinstance(classifier, FrozenClassifier)
    return classifier


@dataclass(frozen=True)
class Images:
    """One split: its images, wherever they are kept, and its labels on a device."""

    data: Dataset
    store: TorchStore
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Whole images.

        Args:
            rows: ``(B,)`` int64.

        Returns:
            ``(B, H, W, C)`` uint8, a copy; and None, or where images differ in size their heights
            and widths ``(B, 2)``: each is at the top left of its pixels then, with zeros around.
        """
        height, width = self.store.size(rows)
        if isinstance(height, int):
            return self.store.whole(rows), None
        assert isinstance(height, Tensor) and isinstance(width, Tensor)
        corner = torch.zeros_like(rows)
        side = int(torch.maximum(height.max(), width.max()))
        padded = self.store.crop(rows, corner, corner, side)
        most = int(height.max()), int(width.max())
        return padded[:, : most[0], : most[1]], torch.stack([height, width], dim=1)


class TrainingTask:
    """A registered environment as the dense unroll needs it.

    Args:
        env_id: a registered id.
        device: where the images go.
        **env_options: keywords of the environment, as `gym.make` takes them; ``data`` is "real"
            unless given.

    Attributes:
        env_options: the keywords that define the task; saved with models and results.
    """

    def __init__(self, env_id: str, device: torch.device, **env_options: Any) -> None:
        check_id(env_id)
        self._keywords = {"data": "real", **env_options}
        if self._keywords["data"] == "builtin":
            env_id = self._stand_in(env_id)
        self.env_id, self.device = env_id, device
        # Where data lies is this machine's business, not the task's.
        self.env_options = {k: v for k, v in self._keywords.items() if k != "data_dir"}
        env = self._environment("train")
        if isinstance(env.data.images, DrawnStore):
            env = self._build_cache(env)
        self.observation_space, self.action_space = (
            env.single_observation_space,
            env.single_action_space,
        )
        self.dataset: str = env.dataset
        self.class_names: tuple[str, ...] = tuple(env.class_names)
        self.channels = env.image_shape[2]
        self.max_glimpses: int = env.max_glimpses
        self.discount: float = env.discount
        self.classifier = _frozen(env.classifier)
        thumbnail = env.thumbnail_size if env.first_glimpse == "thumbnail" else 0
        own_size = thumbnail if thumbnail != env.glimpse_size else 0
        self.sensor = GlimpseSensor(env.glimpse_size, env.num_scales, env.first_glimpse, own_size)
        # The side of images in memory, or the shorter side that the cache resized images to.
        in_memory = isinstance(env.data.images, np.ndarray)
        self.image_size: int | None = env.image_shape[0] if in_memory else env.image_size
        self.margin = margin(env.glimpse_size, env.num_scales)
        env.close()

    def _stand_in(self, env_id: str) -> str:
        """The id of the drawn dataset itself: its results must not carry another's name."""
        package, _, name = env_id.rpartition(":")
        key = str(gym.spec(name).kwargs["dataset"]).lower()
        other = datasets.DATASETS[key].stand_in
        if other is None:
            return env_id
        self._keywords["data"] = "real"
        instead = datasets.DATASETS[other].env_id
        print(f"{name} with drawn data is {instead}: trained and reported under that name")
        return f"{package}:{instead}" if package else instead

    def _build_cache(self, env: GlimpseVectorEnv) -> GlimpseVectorEnv:
        """Draws a whole dataset once, before its images are asked for again and again."""
        assert isinstance(env.settings.dataset, str)
        thumbnails = (env.thumbnail_size,) if env.first_glimpse == "thumbnail" else ()
        print(f"{self.env_id}: drawing its images, once; later runs read them", flush=True)
        datasets.build(
            env.settings.dataset,
            data_dir=env.settings.data_dir,
            options=env.settings.image_options,
            thumbnail_sizes=thumbnails,
        )
        env.close()
        return self._environment("train")

    @property
    def about(self) -> dict[str, Any]:
        """What is saved with a model: the task, and how images are looked at."""
        return {
            "env_id": self.env_id,
            "env_options": self.env_options,
            "sensor": {**self.sensor._asdict(), "image_size": self.image_size},
        }

    def images(self, split: str) -> Images:
        """A split's images and labels on the device, read once."""
        if split not in self._splits:
            env = self._environment(split)
            data = env.data
            env.close()
            labels = torch.tensor(data.labels, dtype=torch.int64, device=self.device)
            self._splits[split] = Images(data, make_store(data, self.margin, self.device), labels)
        return self._splits[split]

    @property
    def scored_at_once(self) -> int:
        """Images in a batch that is only looked at: fewer, the larger what a network is shown."""
        side = max(self.sensor.glimpse_size, self.sensor.thumbnail_size)
        return max(1, min(2000, 8_000_000 // (side * side * self.channels)))

    @property
    def whole_at_once(self) -> int:
        """Whole images in a batch that is only looked at."""
        height, width = self.images("train").data.typical_size
        return max(1, min(self.scored_at_once, 64_000_000 // (height * width * self.channels)))

    def _environment(self, split: str) -> GlimpseVectorEnv:
        # A classifier in the loop is initialised at random before it is read: that must not move
        # the generator of a run, whose splits are read at other times when it is resumed.
        with torch.random.fork_rng(devices=[]):
            env = gym.make_vec(self.env_id, num_envs=1, split=split, **self._keywords).unwrapped
        assert isinstance(env, GlimpseVectorEnv)
        return env

    @cached_property
    def _splits(self) -> dict[str, Images]:
        return {}

    def batch_store(self, pixels: Tensor, sizes: Tensor | None = None) -> TensorStore:
        """A batch of images ``(B, H, W, C)`` (see `Images.pixels`), ready to be looked at."""
        return TensorStore(pixels, self.margin, sizes)

    def augmented(self, images: Images, rows: Tensor, augment: Augmentation) -> TensorStore:
        """Some images of a split, changed at random, ready to be looked at."""
        pixels, sizes = images.pixels(rows)
        changed = augment(pixels, sizes)
        # A random window of each is a square of one size.
        return self.batch_store(changed, sizes if augment.scale_crop is None else None)

    def pixel_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training images' pixels, 0 ... 255.

        Of images that are not in memory, the thumbnails of 500 evenly spaced ones.
        """
        train = self.images("train")
        if isinstance(train.store, TensorStore):
            pixels = train.store.images.flatten()
        else:
            rows = torch.linspace(0, len(train) - 1, min(len(train), 500), device=self.device)
            side = self.sensor.thumbnail_size or self.sensor.glimpse_size
            pixels = train.store.thumbnail(rows.round().long(), side).flatten()
        share = torch.bincount(pixels, minlength=256).double() / len(pixels)
        value = torch.arange(256, device=self.device).double()
        mean = (share * value).sum()
        std = (share * (value - mean).square()).sum().sqrt()
        return mean.item(), std.item()

    def new_agent(self, **config: Any) -> DTRAM:
        """An untrained DT-RAM for this task; keywords are fields of `DTRAMConfig`.

        On a policy-only task its encoder, core and classifier are those of the classifier in the
        loop.

        Raises:
            ValueError: `config` asks for another network than the classifier's.
        """
        if self.classifier is not None:
            return agent_on(self.classifier, self.max_glimpses, self.class_names, **config).to(
                self.device
            )
        return DTRAM.for_spaces(
            self.observation_space,
            self.action_space,
            self.max_glimpses,
            class_names=self.class_names,
            **config,
        ).to(self.device)
