"""The torch backend: equal to numpy on the CPU; on a GPU the same, without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dtram_env import GlimpseVectorEnv

from .conftest import MODES, VIEWS, actions_of, assert_same, make_dataset

TOY = make_dataset()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize(
    "task",
    [*VIEWS, {"first_glimpse": "random"}],
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
