"""The torch backend: equal to numpy on the CPU; on a GPU the same, without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dtram_env import GlimpseVectorEnv

from .conftest import MODES, TALLY, VIEWS, actions_of, assert_same, make_dataset

TOY = make_dataset()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize(
    "task",
    [*VIEWS, {"first_glimpse": "random"}, {"first_glimpse": "random", "classifier": TALLY}],
    ids=lambda task: "-".join(map(str, task.values())),
)
def test_torch_equals_numpy(task: dict[str, Any], order: str, mode: str) -> None:
    task = {"glimpse_size": 4, "max_glimpses": 3, "discount": 0.9, "order": order, **task}
    common = {"num_envs": 7, "autoreset_mode": mode, **task}
    host = GlimpseVectorEnv(TOY, **common)
    device = GlimpseVectorEnv(TOY, backend="torch", device="cpu", **common)
    assert host.observation_space == device.observation_space
    expected, facts = host.reset(seed=3)
    observation, infos = device.reset(seed=3)
    assert all(isinstance(value, torch.Tensor) for value in observation.values())
    assert_same(observation, expected)
    assert_same(infos, facts)
    for action in actions_of(host, 80):  # more than one block of random rows
        given = (
            {key: torch.from_numpy(value) for key, value in action.items()}
            if isinstance(action, dict)
            else torch.from_numpy(action)
        )
        observation, reward, over, cut, infos = device.step(given)
        expected, paid, ended, _, facts = host.step(action)
        assert_same(observation, expected)
        np.testing.assert_allclose(reward.numpy(), paid, rtol=1e-6)
        assert reward.dtype == torch.float32
        assert_same(over, ended)
        assert cut.dtype == torch.bool and not cut.any()
        compare_infos(infos, facts)
        if mode == "Disabled":
            assert_same(
                device.reset(options={"reset_mask": over})[0],
                host.reset(options={"reset_mask": ended})[0],
            )


def compare_infos(tensors: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Tensors hold every key, arrays those that a slot has; where a mask is set, they agree."""
    for key, mask in arrays.items():
        if not key.startswith("_") or key == "_dataset":
            continue
        name = key[1:]
        assert_same(tensors[key], mask)
        if name == "final_info":
            compare_infos(tensors[name], arrays[name])
        elif name == "final_obs":
            for i in np.flatnonzero(mask):
                row = {k: value[i] for k, value in tensors[name].items()}
                assert_same(row, arrays[name][i])
        else:
            np.testing.assert_array_equal(tensors[name].numpy()[mask], arrays[name][mask])
    for key in set(tensors) - set(arrays):
        mask = tensors[key if key.startswith("_") else f"_{key}"]
        assert not mask.any(), f"{key}: a slot has it on tensors only"


def test_torch_does_not_validate_unless_asked() -> None:
    quiet = GlimpseVectorEnv(TOY, num_envs=2, glimpse_size=4, backend="torch")
    strict = GlimpseVectorEnv(
        TOY, num_envs=2, glimpse_size=4, backend="torch", validate_actions=True
    )
    action = {
        "location": torch.zeros(2, 2),
        "stop": torch.tensor([0, 1]),
        "prediction": torch.tensor([0, 99]),
    }
    for env in (quiet, strict):
        env.reset(seed=0)
    assert quiet.step(action)[1].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"action\['prediction'\]\[1\] = 99"):
        strict.step(action)
    with pytest.raises(ValueError, match=r"action\['stop'\] has shape \(3,\): expected \(2,\)"):
        quiet.step({**action, "stop": torch.zeros(3)})
    with pytest.raises(ValueError, match="99 is out of range"):
        strict.reset(options={"image_index": torch.tensor([0, 99])})


class Questions(TorchDispatchMode):
    """Counts the operations for which a host would wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
        self.asked += func.overloadpacket.__name__ in waits
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", ["native", "continuous", "discrete", "single"])
def test_validation_asks_the_device_once_a_step(view: str, mode: str) -> None:
    common: dict[str, Any] = {"num_envs": 4, "glimpse_size": 4, "max_glimpses": 2, "view": view}
    if view == "single":
        common["classifier"] = TALLY
    for validate, expected in ((False, 0), (True, 1)):
        env = GlimpseVectorEnv(
            TOY, backend="torch", validate_actions=validate, autoreset_mode=mode, **common
        )
        pool = actions_of(env, 12)
        env.reset(seed=0)
        for action in pool:
            given = torch.utils._pytree.tree_map(torch.from_numpy, action)
            with Questions() as questions:
                env.step(given)
            assert questions.asked == expected
        if mode == "Disabled":  # by now all rest: nonsense is not looked at, nor asked about
            nonsense = torch.utils._pytree.tree_map(lambda x: torch.full_like(x, 99), given)
            with Questions() as questions:
                env.step(nonsense)
            assert questions.asked == expected
        images = {"image_index": torch.tensor([0, 22, 5, 5])}
        with Questions() as questions:
            env.reset(options=images)
        assert questions.asked == expected


def test_a_location_that_nobody_checked_shows_the_centre() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend="torch")
    env.reset(options={"image_index": np.array([22, 0, 7])})
    location = torch.tensor([[np.nan, 0.4], [np.nan, np.nan], [np.inf, -np.inf]])
    observation = env.step(
        {"location": location, "stop": torch.zeros(3), "prediction": torch.zeros(3)}
    )[0]
    glimpse = observation["glimpse"].numpy()
    # 14x10 images, centre (5, 7); y = 0.4 is row 9.8, and the crop begins at floor(8.3) = 8.
    np.testing.assert_array_equal(glimpse[0], TOY.images[22, 8:12, 3:7])
    np.testing.assert_array_equal(glimpse[1], TOY.images[0, 5:9, 3:7])
    expected = np.zeros((4, 4, 1))
    expected[2:, :2] = TOY.images[7, :2, 8:]  # infinities are clipped: the top right corner
    np.testing.assert_array_equal(glimpse[2], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", VIEWS, ids=lambda task: "-".join(map(str, task.values())))
def test_a_gpu_is_never_waited_for_and_sees_the_same(task: dict[str, Any], mode: str) -> None:
    task = {"glimpse_size": 4, "max_glimpses": 3, "num_envs": 7, "autoreset_mode": mode, **task}
    host = GlimpseVectorEnv(TOY, backend="torch", **task)
    device = GlimpseVectorEnv(TOY, backend="torch", device="cuda", **task)
    pool = actions_of(host, 70)
    host.reset(seed=0)
    device.reset(seed=0)
    expected, seen = [], []
    on_device = [
        {key: torch.from_numpy(value).cuda() for key, value in action.items()}
        if isinstance(action, dict)
        else torch.from_numpy(action).cuda()
        for action in pool
    ]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for action in on_device:
            observation, reward, over, _, _ = device.step(action)
            seen.append((observation, reward, over))
            if mode == "Disabled":
                device.reset(options={"reset_mask": over})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for action in pool:
        observation, reward, over, _, _ = host.step(action)
        expected.append((observation, reward, over))
        if mode == "Disabled":
            host.reset(options={"reset_mask": over})
    for (observation, reward, over), (obs, rew, end) in zip(seen, expected, strict=True):
        assert_same({key: value.cpu() for key, value in observation.items()}, to_numpy(obs))
        torch.testing.assert_close(reward.cpu(), rew)
        assert (over.cpu() == end).all()


def to_numpy(observation: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in observation.items()}
