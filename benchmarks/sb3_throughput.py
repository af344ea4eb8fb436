"""How fast SB3 steps: `Sb3VecEnv` against its own `DummyVecEnv` over the scalar class.

    python benchmarks/sb3_throughput.py
    python benchmarks/sb3_throughput.py --json sb3_throughput.json --view continuous

Stepping: a fixed random policy, whose actions are drawn before the clock starts. PPO: its whole
collection and update, with one set of hyper-parameters for both.
"""

import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env  # noqa: F401 - registers the ids
from agents.sb3 import policy_settings
from benchmarks.timing import BenchmarkOptions, best_rate, run_benchmark, seconds_of
from dtram_env.sb3 import Sb3VecEnv

POOL = 32  # batches of actions, used in turn


@dataclass(frozen=True)
class Options(BenchmarkOptions):
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
    seed: int = 0
    """seed of images and actions"""


def run(options: Options) -> dict[str, Any]:
    """Runs both, prints a line for each, and returns the content of ``--json``."""
    make = [lambda: gym.make(options.env_id, view=options.view)] * options.num_envs
    ours = Sb3VecEnv(options.env_id, options.num_envs, view=options.view)
    envs: dict[str, VecEnv] = {"Sb3VecEnv": ours, "DummyVecEnv": DummyVecEnv(make)}
    stepping = dict.fromkeys(envs, 0.0)
    for _ in range(options.rounds):
        for name, env in envs.items():
            stepping[name] = max(stepping[name], step_rate(env, options))
    figures = {}
    for name, env in envs.items():
        figures[name] = {"steps_per_s": stepping[name], "ppo_steps_per_s": ppo_rate(env, options)}
        env.close()
    fast, scalar = figures.values()
    ratio = {key: fast[key] / scalar[key] for key in fast}
    return {"figures": figures, "ratio": ratio}


def step_rate(env: VecEnv, options: Options) -> float:
    """Env-steps a second with actions drawn before."""
    env.action_space.seed(options.seed)
    draw, n = env.action_space.sample, options.num_envs
    pool = cycle([np.stack([draw() for _ in range(n)]) for _ in range(POOL)])
    env.seed(options.seed)
    env.reset()
    return n * best_rate(lambda: env.step(next(pool)), options.seconds, calls=1)


def ppo_rate(env: VecEnv, options: Options) -> float:
    """Env-steps a second of PPO's whole loop."""
    how: Any = {"gamma": 1.0, "n_steps": 16, "batch_size": 1024, "n_epochs": 4, "device": "cpu"}
    network = policy_settings(width=128)
    model = PPO("MultiInputPolicy", env, **how, policy_kwargs=network, seed=options.seed)
    model.learn(1)  # one rollout: everything is made and warm
    before = model.num_timesteps
    seconds = seconds_of(lambda: model.learn(options.ppo_steps, reset_num_timesteps=False))
    return (model.num_timesteps - before) / seconds


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
