"""PPO of Tianshou 2 on the policy-only task: a frozen classifier predicts the class.

Install:  python3 -m venv .venv-tianshou && .venv-tianshou/bin/pip install -e '.[train]' "tianshou>=2"
Run:      OMP_NUM_THREADS=1 .venv-tianshou/bin/python examples/tianshou_ppo.py

Actions of `view="single"` are one `Discrete`: a grid cell, or the last value to stop. Tianshou's
discrete actor accepts it unchanged. `observe="canvas"` shows all pixels seen so far, so the policy
needs no memory. (The whole task, with predictions, is `DTRAM-MNIST-v0` with `view="discrete"`.
Tianshou has no distribution for its `MultiDiscrete`: write one, and pass it to
`ProbabilisticActorPolicy`.)
"""  # noqa: E501 - one command

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ModuleWithVectorOutput
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch import Tensor, nn

ENV_ID = "agents:DTRAM-MNIST-Policy-v0"
OBSERVED = ("canvas", "location", "probs", "time")
WIDTH = 256


def make_env(split: str) -> gym.Env[Any, Any]:
    """One environment; a grid of 4 x 4 cells by default."""
    return gym.make(ENV_ID, split=split, view="single", observe="canvas", glimpse_format="flat")


class Trunk(ModuleWithVectorOutput):
    """Features of an observation; its parts are concatenated."""

    def __init__(self, observation_space: gym.spaces.Dict) -> None:
        super().__init__(WIDTH)
        inputs = sum(int(np.prod(observation_space[key].shape)) for key in OBSERVED)
        self.layers = nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        )

    def forward(self, obs: Batch, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        parts = [torch.as_tensor(obs[key], dtype=torch.float32) for key in OBSERVED]
        return self.layers(torch.cat(parts, -1)), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--total-timesteps", type=int, default=100_000)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)

    one = make_env("train")
    training = DummyVectorEnv([lambda: make_env("train") for _ in range(options.num_envs)])
    validation = DummyVectorEnv([lambda: make_env("validation") for _ in range(10)])
    training.seed(options.seed)
    validation.seed(options.seed + 1000)

    actor = DiscreteActor(
        preprocess_net=Trunk(one.observation_space),
        action_shape=int(one.action_space.n),
        softmax_output=False,
    )
    algorithm = PPO(
        policy=DiscreteActorPolicy(
            actor=actor, action_space=one.action_space, deterministic_eval=True
        ),
        critic=DiscreteCritic(preprocess_net=Trunk(one.observation_space)),
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=1.0,  # the reward is discounted already: discount ** glimpses
        gae_lambda=0.95,
        ent_coef=0.01,
        max_grad_norm=0.5,
    )

    steps = 128 * options.num_envs
    epochs = max(1, options.total_timesteps // (5 * steps))
    result = algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=Collector[CollectStats](
                algorithm, training, VectorReplayBuffer(steps, options.num_envs)
            ),
            test_collector=Collector[CollectStats](algorithm, validation),
            max_epochs=epochs,
            epoch_num_steps=min(5 * steps, options.total_timesteps),
            collection_step_num_env_steps=steps,
            update_step_num_repetitions=4,
            batch_size=256,
            test_step_num_episodes=500,
            show_progress=False,
        )
    )
    print(result)


if __name__ == "__main__":
    main()
