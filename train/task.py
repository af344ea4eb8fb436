"""What is learned: the images, labels and sensor of a registered environment, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

import dtram_env
from agents.cost import classifier_flops_per_glimpse
from agents.dtram import DTRAM
from agents.policy_only import POLICY_IDS, FrozenClassifier, agent_on
from agents.rollout import Look
from dtram_env import Classifier, GlimpseVectorEnv
from dtram_env.sensor import margin
from dtram_env.sensor_torch import TensorStore


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
    """One split on a device."""

    store: TensorStore
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: Tensor) -> Tensor:
        """``(B, H, W, C)`` uint8, a copy."""
        return self.store.images[rows]


class Task:
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
        self.env_id, self.device = env_id, device
        self._keywords = {"data": "real", **env_options}
        # Where data lies is this machine's business, not the task's.
        self.env_options = {k: v for k, v in self._keywords.items() if k != "data_dir"}
        env = self._environment("train")
        self.observation_space, self.action_space = (
            env.single_observation_space,
            env.single_action_space,
        )
        self.dataset: str = env.dataset
        self.class_names: tuple[str, ...] = tuple(env.class_names)
        self.max_glimpses: int = env.max_glimpses
        self.discount: float = env.discount
        self.classifier = _frozen(env.classifier)
        self.look = Look(env.glimpse_size, env.num_scales, env.first_glimpse)
        self.margin = margin(env.glimpse_size, env.num_scales)
        env.close()

    def images(self, split: str) -> Images:
        """A split's images and labels on the device, read once."""
        if split not in self._splits:
            env = self._environment(split)
            data = env.data
            env.close()
            pixels = torch.tensor(data.images, device=self.device)
            labels = torch.tensor(data.labels, dtype=torch.int64, device=self.device)
            self._splits[split] = Images(TensorStore(pixels, self.margin), labels)
        return self._splits[split]

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

    def batch_store(self, pixels: Tensor) -> TensorStore:
        """A batch of images ``(B, H, W, C)``, ready to be looked at."""
        return TensorStore(pixels, self.margin)

    def new_agent(self, **config: Any) -> DTRAM:
        """An untrained DT-RAM for this task; keywords are fields of `DTRAMConfig`.

        It scales pixels by the training split's mean and standard deviation. On a policy-only task
        its encoder, core and classifier are those of the classifier in the loop.

        Raises:
            ValueError: `config` asks for another network than the classifier's.
        """
        if self.classifier is not None:
            return agent_on(self.classifier, self.max_glimpses, self.class_names, **config).to(
                self.device
            )
        pixels = self.images("train").store.images.flatten()
        share = torch.bincount(pixels, minlength=256).double() / len(pixels)
        value = torch.arange(256, device=self.device).double()
        mean = (share * value).sum()
        std = (share * (value - mean).square()).sum().sqrt()
        scale = {"pixel_mean": mean.item(), "pixel_std": std.item()}
        return DTRAM.for_spaces(
            self.observation_space,
            self.action_space,
            self.max_glimpses,
            class_names=self.class_names,
            **(scale | config),
        ).to(self.device)
