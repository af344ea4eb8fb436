"""Augmented Random Search: what it counts as an env step, and what it continues with."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import dtram_env
from agents.sb3 import Sb3Policy
from dtram_env.sb3 import Sb3VecEnv
from train import sb3_baselines
from train.baselines.algorithms import ALGORITHMS, make_model, settings
from train.baselines.trained import load_baseline
from train.sb3_baselines import Options

SMALL = {"network.width": 8, "network.what_features": 4, "n_delta": 2, "n_eval_episodes": 8}
ONE_LOOK = {"num_envs": 8, "env.max_glimpses": 1}  # an episode is one action


@pytest.fixture
def model() -> Iterator[Any]:
    chosen = settings("whole-task", "ars", SMALL | ONE_LOOK)
    with closing(
        Sb3VecEnv("DTRAM-Signpost-v0", chosen.num_envs, split="train", **chosen.env)
    ) as env:
        yield make_model("ars", env, chosen, seed=0, device="cpu")


def test_every_action_of_an_episode_is_one_env_step(model: Any) -> None:
    model.learn(1)
    assert model.num_timesteps == 2 * 2 * 8  # of both signs of each change, for each episode
    model.learn(1, reset_num_timesteps=False)
    assert model.num_timesteps == 2 * 2 * 2 * 8


def test_it_continues_with_the_weights_that_it_is_given(model: Any, tmp_path: Path) -> None:
    model.learn(100)
    model.save(tmp_path / "model.zip")
    saved = ALGORITHMS["ars"].load().load(tmp_path / "model.zip")  # type: ignore[attr-defined]
    assert torch.equal(saved.weights, model.weights)
    with torch.no_grad():
        for weights in model.policy.parameters():
            weights.zero_()
    model.set_parameters(saved.get_parameters())
    assert torch.equal(parameters_to_vector(model.policy.parameters()), saved.weights)
    assert torch.equal(model.weights, saved.weights) and model.weights.any()


def test_a_run(tmp_path: Path, policy_id: str, interrupted: Any) -> None:
    words = tuple(f"{name}={value}" for name, value in SMALL.items())
    given: dict[str, Any] = {"total_timesteps": 300, "num_envs": 8, "eval_points": 4, "set": words}
    options = Options(algo="ars", env_id=policy_id, run_dir=tmp_path / "run", resume=True, **given)
    interrupted(lambda: sb3_baselines.train(options), 2, sb3_baselines)
    run = sb3_baselines.train(options)
    found = json.loads((run / "results.json").read_text())
    assert found["env_steps"] >= 300 and found["curve"][0]["env_steps"] == 0
    best: Any = ALGORITHMS["ars"].load().load(run / "best_model.zip")  # type: ignore[attr-defined]
    scored = dtram_env.evaluate(Sb3Policy(best), policy_id, "test", view="continuous")
    assert found["mean_return"] == scored.mean_return
    loaded, env_id, keywords = load_baseline(run, torch.device("cpu"))
    assert dtram_env.evaluate(loaded, env_id, "test", **keywords).to_dict() == scored.to_dict()
