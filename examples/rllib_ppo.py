"""PPO of RLlib (new API stack), with an LSTM over the glimpses, on the vector environment.

Install:  python3 -m venv .venv-rllib && .venv-rllib/bin/pip install -e '.[train]' "ray[rllib]"
Run:      OMP_NUM_THREADS=1 .venv-rllib/bin/python examples/rllib_ppo.py
Cluster:  the same with --ray auto --num-env-runners 2

RLlib pins an older gymnasium, so it gets its own venv. Its stock networks accept one vector and no
Dict action, hence `view="discrete"` and the connector `FlattenObservations`. With
`gym_env_vectorize_mode="vector_entry_point"` all environments of a runner are one vector
environment of this project, in the autoreset mode NEXT_STEP, which RLlib expects and `gym.make_vec`
uses by default.
"""

import argparse
from typing import Any

import gymnasium as gym
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

ENV_ID = "dtram_env:DTRAM-MNIST-v0"  # the part before the colon is imported, on every worker


def make_env(config: dict[str, Any]) -> Any:
    """A scalar environment, or a vector environment if RLlib gives a number of environments."""
    keywords = dict(config)
    num_envs = keywords.pop("num_envs", None)
    if num_envs is None:
        return gym.make(ENV_ID, **keywords)
    return gym.make_vec(ENV_ID, num_envs=num_envs, **keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--total-timesteps", type=int, default=100_000)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--num-env-runners", type=int, default=0, help="0: in this process")
    parser.add_argument("--ray", help="auto or a cluster's address; none: this machine alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    if options.ray:
        ray.init(options.ray)
    else:
        ray.init(include_dashboard=False, num_cpus=options.num_env_runners + 1)
    register_env("dtram", make_env)
    config = (
        PPOConfig()
        .environment("dtram", env_config={"split": "train", "view": "discrete"})
        .env_runners(
            num_env_runners=options.num_env_runners,
            num_envs_per_env_runner=options.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[256],
                fcnet_activation="relu",
                use_lstm=True,
                lstm_cell_size=128,
                max_seq_len=8,  # an episode has 7 glimpses at most
            )
        )
        .training(
            gamma=1.0,  # the reward is discounted already: discount ** glimpses
            lambda_=0.95,
            lr=1e-3,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
            use_kl_loss=False,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=4,
        )
        .debugging(seed=options.seed)
    )
    algorithm = config.build_algo()
    seen = 0
    while seen < options.total_timesteps:
        found = algorithm.train()["env_runners"]
        seen = int(found["num_env_steps_sampled_lifetime"])
        print(
            f"{seen:>8,} steps  return {found['episode_return_mean']:.3f}  "
            f"glimpses {found['episode_len_mean']:.2f}",
            flush=True,
        )
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
