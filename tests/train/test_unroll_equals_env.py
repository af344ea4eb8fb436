"""The dense unroll and the registered environment are one task: same glimpses, same rewards."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import dtram_env  # noqa: F401
from agents.objective import rewards
from agents.rollout import Unroll
from agents.stopping import glimpses_taken
from train.task import Task


@pytest.mark.parametrize(
    "options", [{}, {"glimpse_size": 7, "num_scales": 2, "discount": 0.9, "max_glimpses": 3}]
)
@pytest.mark.parametrize("env_id", ["DTRAM-Signpost-v0", "DTRAM-MNIST-v0"])
def test_same_actions_same_glimpses_and_rewards(env_id, options, mnist_folder) -> None:
    torch.manual_seed(0)
    task = Task(env_id, torch.device("cpu"), **options)
    agent = task.new_agent(hidden_size=16)
    torch.nn.init.normal_(agent.stopper[-1].weight, std=2.0)
    torch.nn.init.normal_(agent.locator.weight, std=1.0)
    m, rows = 4, torch.arange(60)
    images = task.images("validation")
    store = task.batch_store(images.pixels(rows))
    trajectory = Unroll(agent, task.look, 0.4)(store, rows, task.max_glimpses, m)
    taken = glimpses_taken(trajectory.stop)
    labels = images.labels[rows].repeat_interleave(m)
    paid = rewards(trajectory, labels, task.discount).gather(0, (taken - 1)[None])[0]

    env = gym.make_vec(
        env_id, num_envs=60 * m, split="validation", autoreset_mode="Disabled", **options
    )
    index = rows.repeat_interleave(m)
    obs, infos = env.reset(options={"image_index": index.numpy()})
    np.testing.assert_array_equal(infos["label"], labels.numpy())
    total = np.zeros(60 * m)
    running = np.ones(60 * m, dtype=bool)
    for t in range(task.max_glimpses):
        seen = task.look(store, index, trajectory.seen_at[t])
        np.testing.assert_array_equal(obs["glimpse"][running], seen.numpy()[running])
        np.testing.assert_array_equal(
            obs["location"][running], trajectory.seen_at[t].numpy()[running]
        )
        action = {
            "location": trajectory.location[t].detach().numpy(),
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
