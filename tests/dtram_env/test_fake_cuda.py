"""The environment on a CUDA device without data: no mix of devices, and no wait of the host."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from agents.dtram import DTRAM, DTRAMConfig
from agents.policy_only import FrozenClassifier
from dtram_env import GlimpseVectorEnv
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage import tensors
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.tensors import FlatStore
from tests.fake_devices import device_without_data

from .conftest import MODES, TALLY, TOY, VIEWS, actions_of, task_id


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    with device_without_data("cuda") as device:
        yield device


def play(data: Dataset, device: torch.device, mode: str, **task: Any) -> GlimpseVectorEnv:
    """Three steps and a reset of some images; everything that comes back is on the device."""
    any_answers = {"classifier": TALLY} if "classifier" in task else {}
    same = {**task, **any_answers}
    host = GlimpseVectorEnv(data, num_envs=4, glimpse_size=4, max_glimpses=2, **same)
    env = GlimpseVectorEnv(
        *(data,),
        **{"num_envs": 4, "glimpse_size": 4, "max_glimpses": 2, "autoreset_mode": mode, **task},
        backend="torch",
        device=device,
    )
    observation, _ = env.reset(seed=0)
    for action in actions_of(host, 3):
        given = torch.utils._pytree.tree_map(lambda x: torch.from_numpy(x).to(device), action)
        observation, reward, terminated, truncated, _ = env.step(given)
        found = [*observation.values(), reward, terminated, truncated]
        assert {tensor.device.type for tensor in found} == {"cuda"}
    env.reset(options={"image_index": np.array([0, 22, 5, 5])})
    return env


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", VIEWS, ids=task_id)
def test_every_view(cuda: torch.device, task: dict[str, Any], mode: str) -> None:
    play(TOY, cuda, mode, **task)


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("first", ["center", "random", "thumbnail", "choose"])
def test_images_of_any_size(
    cuda: torch.device, first: str, order: str, ragged: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(ragged.images, MappedStore)
    flat = FlatStore(ragged.images, cuda)
    monkeypatch.setattr(tensors, "make_store", lambda *_: flat)
    play(ragged, cuda, "SameStep", first_glimpse=first, order=order, num_scales=2)


@pytest.fixture
def frozen() -> FrozenClassifier:
    return FrozenClassifier(DTRAM(DTRAMConfig(5, (4, 4, 1), 2, hidden_size=8)), "new")


def test_a_frozen_classifier_answers(frozen: FrozenClassifier, cuda: torch.device) -> None:
    play(TOY, cuda, "SameStep", classifier=frozen)


def test_a_check_of_actions_waits_for_the_device(cuda: torch.device) -> None:
    with pytest.raises(DataDependentOutputException):
        play(TOY, cuda, "NextStep", validate_actions=True)


def test_a_tensor_on_the_host_is_found(cuda: torch.device) -> None:
    class Planted(type(TALLY)):  # type: ignore[misc]
        def step(self, observation: Any, state: Any) -> Any:
            probs, state = super().step(observation, state)
            return probs + torch.zeros(len(probs), 1), state

    with pytest.raises(RuntimeError, match="two devices"):
        play(TOY, cuda, "NextStep", classifier=Planted())
