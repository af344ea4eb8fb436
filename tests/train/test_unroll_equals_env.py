"""The dense unroll and the registered environment are one task: same glimpses, same rewards."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import dtram_env  # noqa: F401
from agents.objective import rewards
from agents.resnet import ResNetOptions
from agents.stopping import glimpses_taken
from agents.unroll import Unroll
from tests.dtram_env.datasets.trees import make_folder
from train.common.augment import Augmentation
from train.common.training_task import TrainingTask

pytestmark = pytest.mark.usefixtures("draw_in_threads")

RESIDUAL: dict[str, Any] = {
    "encoder": "resnet10",
    "resnet": ResNetOptions("resnet10", stem_stride=1, width=8),
}
GREY = {**RESIDUAL, "resnet": ResNetOptions("resnet10", stem_stride=1, width=8, channels=1)}
THUMBNAIL = {"first_glimpse": "thumbnail"}


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small DTRAM-BirdsSmall-v0, drawn once."""
    return {"num_train": 200, "num_test": 20, "data_dir": str(tmp_path_factory.mktemp("birds"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A DTRAM-ImageFolder-v0 of images whose longer sides differ: 210 of them train."""
    root = tmp_path_factory.mktemp("folder")
    make_folder(root / "photos", classes=3, train=70, test=1)
    return {"root": str(root / "photos"), "data_dir": str(root / "data"), "image_size": 24}


def compare(
    env_id: str, options: dict[str, Any], images_shown: int, m: int = 4, **agent_options: Any
) -> None:
    """Unrolls an untrained agent on validation images, and does the same in the environment."""
    torch.manual_seed(0)
    task = TrainingTask(env_id, torch.device("cpu"), **options)
    agent = task.new_agent(hidden_size=16, **agent_options).eval()
    for layer, std in ((agent.stopper[-1], 0.5), (agent.locator, 1.0)):
        torch.nn.init.normal_(layer.weight, std=std)
    indices = torch.arange(images_shown)
    images = task.images("validation")
    store, indices = task.augmented(images, indices, Augmentation(affine=0.0))
    trajectory = Unroll(agent, task.sensor, 0.4)(store, indices, task.max_glimpses, m)
    taken = glimpses_taken(trajectory.stop)
    labels = images.labels[indices].repeat_interleave(m)
    paid = rewards(trajectory, labels, task.discount).gather(0, (taken - 1)[None])[0]

    env = gym.make_vec(
        env_id, num_envs=images_shown * m, split="validation", autoreset_mode="Disabled", **options
    )
    index = indices.repeat_interleave(m)
    obs, infos = env.reset(options={"image_index": index.numpy()})
    np.testing.assert_array_equal(infos["label"], labels.numpy())
    if task.sensor.first_glimpse == "choose":
        assert len(trajectory.locations[0].unique(dim=0)) == images_shown * m
        nothing = np.zeros(images_shown * m, dtype=np.int64)
        start = {"location": trajectory.locations[0].numpy(), "stop": nothing}
        obs, *_ = env.step({**start, "prediction": nothing})
    total = np.zeros(images_shown * m)
    running = np.ones(images_shown * m, dtype=bool)
    for t in range(task.max_glimpses):
        if t == 0 and task.sensor.first_glimpse != "choose":
            seen, _ = task.sensor.first(store, index)
        else:
            seen = task.sensor(store, index, trajectory.locations[t])
        whole = t == 0 and "thumbnail" in obs
        np.testing.assert_array_equal(
            obs["thumbnail" if whole else "glimpse"][running], seen.numpy()[running]
        )
        if "thumbnail" in obs:  # the one that is not shown is 0
            assert not obs["glimpse" if whole else "thumbnail"][running].any()
        np.testing.assert_array_equal(
            obs["location"][running], trajectory.locations[t].numpy()[running]
        )
        action = {
            "location": trajectory.sampled_locations[t].detach().numpy(),
            "stop": trajectory.stop[t].long().numpy(),
            "prediction": trajectory.prediction[t].numpy(),
        }
        obs, reward, ended, truncated, infos = env.step(action)
        total += reward
        np.testing.assert_array_equal(ended, (taken <= t + 1).numpy())
        assert not truncated.any()
        running = ~ended
    env.close()
    assert not running.any()
    assert len(taken.unique()) > 1 and 0 < (total > 0).sum() < len(total)
    np.testing.assert_allclose(total, paid.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"glimpse_size": 7, "num_scales": 2, "discount": 0.9, "max_glimpses": 3},
        {"first_glimpse": "choose"},
    ],
)
@pytest.mark.parametrize("env_id", ["DTRAM-Signpost-v0", "DTRAM-MNIST-v0"])
def test_same_actions_same_glimpses_and_rewards(
    env_id: str, options: dict[str, Any], mnist_folder: Path
) -> None:
    compare(env_id, options, 60)


@pytest.mark.parametrize(
    ("options", "agent_options"),
    [
        (THUMBNAIL, {}),
        ({**THUMBNAIL, "num_scales": 2}, {}),
        (THUMBNAIL, GREY),
        ({**THUMBNAIL, "thumbnail_size": 14}, GREY),
    ],
    ids=["mlp", "scales", "resnet", "resnet, 14 pixels"],
)
def test_a_thumbnail_as_the_first_glimpse(
    options: dict[str, Any], agent_options: dict[str, Any]
) -> None:
    compare("DTRAM-Signpost-v0", options, 60, **agent_options)


@pytest.mark.parametrize(
    ("options", "agent_options"),
    [
        ({}, {"encoder": "cnn"}),
        ({"thumbnail_size": 32}, RESIDUAL),
        ({"thumbnail_size": 48}, RESIDUAL),
    ],
    ids=["cnn", "resnet", "resnet, 48 pixels"],
)
def test_small_birds(
    birds: dict[str, Any], options: dict[str, Any], agent_options: dict[str, Any]
) -> None:
    compare("DTRAM-BirdsSmall-v0", {**birds, **options}, 20, m=8, **agent_options)


@pytest.mark.parametrize(
    ("options", "agent_options"),
    [
        ({"first_glimpse": "center", "glimpse_size": 9}, {}),
        ({"first_glimpse": "center", "glimpse_size": 9, "num_scales": 2}, {}),
        ({"glimpse_size": 12}, {"encoder": "cnn"}),
        ({"glimpse_size": 12, "thumbnail_size": 16}, RESIDUAL),
        ({"glimpse_size": 12, "image_size": None}, RESIDUAL),
    ],
    ids=["center", "scales", "cnn", "resnet, 16 pixels", "native"],
)
def test_images_of_different_sizes(
    folder: dict[str, Any], options: dict[str, Any], agent_options: dict[str, Any]
) -> None:
    compare("DTRAM-ImageFolder-v0", {**folder, **options}, 21, m=8, **agent_options)
