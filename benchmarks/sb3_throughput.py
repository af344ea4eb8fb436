"""How fast SB3 steps: `Sb3VecEnv` against its own `DummyVecEnv` over the scalar class.

    python benchmarks/sb3_throughput.py
    python benchmarks/sb3_throughput.py --json sb3_throughput.json --view continuous

Stepping: a fixed random policy, whose actions are drawn before the clock starts. PPO: its whole
collection and update, with one set of hyper-parameters for both.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env  # noqa: F401 - registers the ids
from agents.sb3 import policy_settings
from dtram_env.sb3 import Sb3VecEnv
from train.common.provenance import provenance
from train.common.records import write_result

POOL = 32  # batches of actions, used in turn


@dataclass
class Options:
    """Measures env-steps a second under Stable-Baselines3."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    view: str = "discrete"
    """its view"""
    num_envs: int = 256
    """environments side by side"""
    seconds: float = 2.0
    """length of a round of stepping"""
    rounds: int = 3
    """rounds of stepping, taken in turn; the best of each is reported"""
    ppo_steps: int = 40_960
    """env steps that PPO learns from, after a first rollout that is not counted"""
    json: Path | None = None
    """write the figures, the hardware and the versions here"""
    seed: int = 0
    """of images and actions"""


def main(options: Options) -> dict[str, Any]:
    """Runs both, prints a line for each, and returns the figures."""
    names = ("Sb3VecEnv", "DummyVecEnv")
    envs = dict(zip(names, (fast(options), scalar(options)), strict=True))
    stepping = dict.fromkeys(names, 0.0)
    for _ in range(options.rounds):
        for name, env in envs.items():
            stepping[name] = max(stepping[name], step_rate(env, options))
    figures = {}
    for name, env in envs.items():
        figures[name] = {"steps_per_s": stepping[name], "ppo_steps_per_s": ppo_rate(env, options)}
        env.close()
    ours, theirs = (figures[name] for name in names)
    ratios = {key: ours[key] / theirs[key] for key in ours}
    for name in names:
        row = figures[name]
        print(
            f"{name:12s} stepping {row['steps_per_s']:10,.0f} env-steps/s   PPO, collection and "
            f"update {row['ppo_steps_per_s']:8,.0f} env-steps/s"
        )
    print(
        f"ratio        stepping {ratios['steps_per_s']:10.1f}               PPO, collection and "
        f"update {ratios['ppo_steps_per_s']:8.1f}"
    )
    kept = {k: v for k, v in asdict(options).items() if k != "json"}
    result = {
        **provenance(torch.device("cpu")),
        "options": kept,
        "figures": figures,
        "ratio": ratios,
    }
    if options.json is not None:
        write_result(options.json, result)
    return result


def fast(options: Options) -> VecEnv:
    """Ours."""
    return Sb3VecEnv(options.env_id, options.num_envs, view=options.view)


def scalar(options: Options) -> VecEnv:
    """SB3's own, over the scalar class."""
    return DummyVecEnv([lambda: gym.make(options.env_id, view=options.view)] * options.num_envs)


def step_rate(env: VecEnv, options: Options) -> float:
    """Env-steps a second with actions drawn before."""
    env.action_space.seed(options.seed)
    pool = [
        np.stack([env.action_space.sample() for _ in range(options.num_envs)]) for _ in range(POOL)
    ]
    env.seed(options.seed)
    env.reset()
    for actions in pool[:4]:
        env.step(actions)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < options.seconds:
        env.step(pool[steps % POOL])
        steps += 1
    return steps * options.num_envs / (time.perf_counter() - began)


def ppo_rate(env: VecEnv, options: Options) -> float:
    """Env-steps a second of PPO's whole loop."""
    model = PPO(
        "MultiInputPolicy",
        env,
        gamma=1.0,
        n_steps=16,
        batch_size=1024,
        n_epochs=4,
        policy_kwargs=policy_settings(width=128),
        seed=options.seed,
        device="cpu",
    )
    model.learn(1)  # one rollout: everything is made and warm
    before, began = model.num_timesteps, time.perf_counter()
    model.learn(options.ppo_steps, reset_num_timesteps=False)
    return (model.num_timesteps - before) / (time.perf_counter() - began)


if __name__ == "__main__":
    main(tyro.cli(Options))
