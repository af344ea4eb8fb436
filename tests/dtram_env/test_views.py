"""Views: codecs, grid and masks by hand; SB3's stock policies learn on them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.views import grid_centres

from .conftest import TOY, make_dataset


def test_grid_centres_row_by_row_from_the_top_left() -> None:
    np.testing.assert_array_equal(
        grid_centres(2), [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    )
    np.testing.assert_allclose(grid_centres(3)[[0, 4, 8]], [[-2 / 3] * 2, [0, 0], [2 / 3] * 2])


def test_the_default_grid_covers_the_image() -> None:
    env = gym.make("DTRAM-Signpost-v0", view="discrete", observe="canvas").unwrapped
    assert isinstance(env, GlimpseEnv) and env.grid == 4  # 28 / 8 = 3.5, rounded up
    env.reset(options={"image_index": 0})
    seen = np.zeros((28, 28), bool)
    for cell in range(16):
        if cell % 3 == 0:
            env.reset(options={"image_index": 0})
        canvas = env.step([cell, 0, 0])[0]["canvas"].reshape(28, 28, 2)
        seen |= canvas[..., 1] > 0
    assert seen.all()


def test_continuous_actions_by_hand() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, view="continuous", discount=0.5)
    assert env.action_space == spaces.Box(-1, 1, (8,), np.float32)
    label = int(env.reset(options={"image_index": 0})[1]["label"])
    action = np.zeros(8, np.float32)
    action[:3] = 0.25, -0.5, 0.0  # stop only if > 0
    observation, _, terminated, _, info = env.step(action)
    assert not terminated and observation["location"].tolist() == [0.25, -0.5]
    action[2], action[3 + label] = 1e-6, 0.5
    _, reward, terminated, _, info = env.step(action)
    assert terminated and info["prediction"] == label and reward == 0.25
    env.reset(options={"image_index": 0})
    tie = np.array([0, 0, 1, -1, 0.7, -1, 0.7, 0.7], np.float32)
    assert env.step(tie)[4]["prediction"] == 1  # the first of equals


def test_discrete_actions_by_hand() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, view="discrete", grid=2, discount=0.5)
    assert env.action_space == spaces.MultiDiscrete([4, 2, 5])
    env.reset(options={"image_index": 0})
    assert env.step([1, 0, 3])[0]["location"].tolist() == [0.5, -0.5]
    _, reward, terminated, _, info = env.step(np.array([0, 1, int(TOY.labels[0])]))
    assert (reward, terminated, info["is_success"]) == (0.25, True, True)


BACKENDS = [{}, {"backend": "torch", "device": "cpu"}]


@pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "torch"])
def test_continuous_locations_outside_the_image_are_clipped_in_batches(
    backend: dict[str, Any],
) -> None:
    env = GlimpseVectorEnv(TOY, num_envs=2, glimpse_size=4, view="continuous", **backend)
    env.reset(seed=0)
    actions = np.zeros((2, 8), np.float32)
    actions[:, :2] = [1.5, -7], [-1.25, 0.25]
    if backend:
        actions = torch.from_numpy(actions)
    location = env.step(actions)[0]["location"].tolist()
    assert location == [[1, -1], [-1, 0.25]]


@pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "torch"])
def test_unchecked_cells_are_clipped_in_batches(backend: dict[str, Any]) -> None:
    """An index beyond the grid could read other memory, and -1 would be the last cell."""
    keywords = {"view": "discrete", "grid": 2, "validate_actions": False, **backend}
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, **keywords)
    env.reset(seed=0)
    actions = np.array([[4, 0, 0], [-1, 0, 0], [2, 0, 0]])
    if backend:
        actions = torch.from_numpy(actions)
    location = env.step(actions)[0]["location"].tolist()
    assert location == [[0.5, 0.5], [-0.5, -0.5], [-0.5, 0.5]]


@pytest.mark.parametrize(
    ("view", "action", "message"),
    [
        ("continuous", [0.0] * 7, r"shape \(7,\): expected numbers of shape \(8,\)"),
        ("continuous", [np.nan] * 8, "expected finite numbers"),
        ("continuous", [0.0] * 7 + [np.inf], "expected finite numbers"),
        ("discrete", [0, 0], r"shape \(2,\): expected numbers of shape \(3,\)"),
        ("discrete", [4, 0, 0], r"action\[0\] \(cell\) = 4: expected an integer from 0 to 3"),
        ("discrete", [0, 2, 0], r"action\[1\] \(stop\) = 2: expected 0 or 1"),
        ("discrete", [0, 0, 5], r"action\[2\] \(prediction\) = 5"),
        ("discrete", [-1, 0, 0], r"action\[0\] \(cell\) = -1"),
    ],
)
def test_bad_actions(view: str, action: list[float], message: str) -> None:
    grid = {"grid": 2} if view == "discrete" else {}
    single = GlimpseEnv(TOY, glimpse_size=4, view=view, **grid)
    single.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        single.step(action)


def test_masks_forbid_seen_cells_and_early_stops() -> None:
    env = GlimpseEnv(
        TOY, glimpse_size=4, max_glimpses=9, view="discrete", grid=2, mask_seen=True, min_glimpses=3
    )
    env.reset(seed=0)

    def masks() -> tuple[list[bool], list[bool], list[bool]]:
        row = env.action_masks()
        assert row.shape == (4 + 2 + 5,) and row.dtype == bool
        return row[:4].tolist(), row[4:6].tolist(), row[6:].tolist()

    every = [True] * 5
    assert masks() == ([True] * 4, [True, False], every)  # the centre is no cell of a 2x2 grid
    env.step([2, 0, 0])
    assert masks() == ([True, True, False, True], [True, False], every)
    env.step([0, 0, 0])
    assert masks() == ([False, True, False, True], [True, True], every)
    env.step([1, 0, 0])
    env.step([3, 0, 0])
    assert masks()[0] == [True] * 4  # all seen: none forbidden
    env.reset()
    assert masks()[0] == [True] * 4


def test_a_first_glimpse_at_a_cell_counts_as_seen_but_a_thumbnail_does_not() -> None:
    common: dict[str, Any] = {"glimpse_size": 4, "view": "discrete", "grid": 3, "mask_seen": True}
    for first, seen in (("center", True), ("thumbnail", False), ("choose", False)):
        env = GlimpseEnv(TOY, first_glimpse=first, **common)
        env.reset(seed=0)
        assert env.action_masks()[4] == (not seen)
        assert env.action_masks()[9 + 1] == (first != "choose")  # at time 0 nothing can stop


def test_flat_is_the_image_over_255() -> None:
    image = GlimpseEnv(TOY, glimpse_size=4, num_scales=2)
    flat = GlimpseEnv(TOY, glimpse_size=4, num_scales=2, glimpse_format="flat")
    assert flat.observation_space["glimpse"] == spaces.Box(  # type: ignore[index]
        0, 1, (32,), np.float32
    )
    pixels = image.reset(options={"image_index": 3})[0]["glimpse"]
    numbers = flat.reset(options={"image_index": 3})[0]["glimpse"]
    np.testing.assert_array_equal(numbers, (pixels.ravel() / 255).astype(np.float32))


def test_default_formats() -> None:
    large = make_dataset(3, (40, 48, 3))
    for arguments, shape in [
        ({"glimpse_size": 8, "view": "native"}, (8, 8, 3)),
        ({"glimpse_size": 8, "view": "continuous"}, (8 * 8 * 3,)),
        ({"glimpse_size": 36, "view": "continuous"}, (36, 36, 3)),
        (
            {"glimpse_size": 36, "view": "continuous", "first_glimpse": "thumbnail"}
            | {"thumbnail_size": 20},
            (36 * 36 * 3,),
        ),
    ]:
        assert GlimpseEnv(large, **arguments).observation_space["glimpse"].shape == shape
    canvas = GlimpseEnv(large, glimpse_size=8, view="discrete", observe="canvas")
    assert canvas.observation_space["canvas"].shape == (40, 48, 4)  # type: ignore[index]


@pytest.mark.parametrize("observe", ["glimpse", "canvas"])
@pytest.mark.parametrize("view", ["continuous", "discrete"])
def test_stock_ppo_learns_on_the_views(view: str, observe: str) -> None:
    env = gym.make("DTRAM-Signpost-v0", view=view, observe=observe, max_glimpses=2)
    model = PPO(
        "MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu"
    )
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(64)
    after = model.policy.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any((after[name] != before[name]).any() for name in before)
    assert model.ep_info_buffer is not None
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert lengths and max(lengths) <= 2
