"""A run of a baseline as a policy: its weights, its environment, and what is refused."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from agents.sb3 import Sb3Policy
from dtram_env.files import write_json
from tests.train.test_sb3_baselines import SMALL, small
from train.baselines.trained import is_baseline, load_baseline
from train.common.files import read_json
from train.common.film import record
from train.sb3_baselines import defining_options, prepare

WHOLE, CPU = "DTRAM-Signpost-v0", torch.device("cpu")


def make_run(folder: Path, algo: str, env_id: str, **changes: Any) -> Any:
    """Writes the folder of a run with random weights; returns its model or policy."""
    experiment = prepare(small(algo, env_id, **changes))
    write_json(folder / "options.json", defining_options(experiment))
    model = experiment.untrained(CPU)
    if experiment.steps:
        torch.manual_seed(1)
        for parameter in model.policy.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save(folder / "best_model.zip")
    return model


@pytest.mark.parametrize("algo", [*SMALL, "scan"])
def test_it_acts_as_the_model_that_was_saved(
    tmp_path: Path, request: pytest.FixtureRequest, algo: str
) -> None:
    env_id = request.getfixturevalue("policy_id") if algo.endswith("dqn") else WHOLE
    model = make_run(tmp_path, algo, env_id, env=("max_glimpses=3",))
    assert is_baseline(tmp_path)
    policy, found_id, keywords = load_baseline(tmp_path, CPU)
    assert (found_id, keywords["max_glimpses"]) == (env_id, 3)
    made = model if algo == "scan" else Sb3Policy(model)
    if algo != "scan":
        saved = model.policy.state_dict()
        for name, value in policy.model.state_dict().items():
            assert torch.equal(value, saved[name])
    how: Any = {"autoreset_mode": AutoresetMode.DISABLED, **keywords}
    env: Any = gym.make_vec(env_id, num_envs=1, split="test", **how).unwrapped
    for image in (3, 4):
        first, second = (record(one, env, image) for one in (policy, made))
        assert first.prediction == second.prediction and len(first.looks) <= 3
        for one, other in zip(first.looks, second.looks, strict=True):
            np.testing.assert_array_equal(one.location, other.location)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algo": "sarsa"}, "algo='sarsa': expected one of ppo, a2c"),
        ({"algo": 3}, "algo=3: expected a text"),
        ({"env_id": "notes:DTRAM-MNIST-v0"}, "environment 'notes:DTRAM-MNIST-v0': expected one"),
        ({"hyperparameters": {"env": {"data_dir": "."}}}, "env_options={'data_dir': '.'}: expect"),
        ({"seed": None}, "seed=None: expected"),
        ({"hyperparameters": {"env": 3}}, "hyperparameters.env=3: expected an object"),
        ({"hyperparameters": {"env": {"view": "x"}}}, "options.json: view='x': expected one of"),
        ({}, "best_model.zip: missing; expected a run that was validated once"),
    ],
)
def test_what_is_not_a_run_of_ours(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    make_run(tmp_path, "ppo", WHOLE)
    (tmp_path / "best_model.zip").unlink()
    options = read_json(tmp_path / "options.json")
    write_json(tmp_path / "options.json", options | changes)
    with pytest.raises(ValueError, match=said.replace("{", "\\{")):
        load_baseline(tmp_path, CPU)


@pytest.mark.parametrize("network", [None, {"width": 8}, {"activation_fn": "relu"}])
def test_damaged_weights_are_named(tmp_path: Path, network: dict[str, Any] | None) -> None:
    make_run(tmp_path, "ppo", WHOLE)
    if network is None:
        (tmp_path / "best_model.zip").write_bytes(b"PK")
    else:
        options = read_json(tmp_path / "options.json")
        options["hyperparameters"]["network"] |= network
        write_json(tmp_path / "options.json", options)
    with pytest.raises(ValueError, match=r"best_model.zip: damaged, or not of .*; delete the run"):
        load_baseline(tmp_path, CPU)
