"""PPO of TorchRL on the native Dict actions: a distribution for each part of the action.

Install:  python3 -m venv .venv-torchrl && .venv-torchrl/bin/pip install -e '.[train]' torchrl
Run:      OMP_NUM_THREADS=1 .venv-torchrl/bin/python examples/torchrl_ppo.py

TorchRL reads the native spaces unchanged. Two things to know:

- It stores observation and action in one TensorDict. Both have a `location`, and the action would
  overwrite the observation, so the observed one is renamed.
- `observe="canvas"` shows all pixels seen so far, so the policy needs no memory.
"""

import argparse

import torch
from tensordict import TensorDict
from tensordict.nn import CompositeDistribution, TensorDictModule, set_composite_lp_aggregate
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, RenameTransform, SerialEnv, TransformedEnv
from torchrl.envs.utils import check_env_specs
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import dtram_env  # noqa: F401 - registers the ids

ENV_ID = "DTRAM-MNIST-v0"
OBSERVED = ["canvas", "observed_location", "time"]
ACTION = ["location", "stop", "prediction"]


def make_env() -> EnvBase:
    """One environment; `categorical_action_encoding` gives integer actions instead of one-hot."""
    env = GymEnv(ENV_ID, observe="canvas", glimpse_format="flat", categorical_action_encoding=True)
    rename = RenameTransform(
        in_keys=["location"], out_keys=["observed_location"], create_copy=False
    )
    return TransformedEnv(env, rename)


class Trunk(nn.Module):
    """A network from an observation to some outputs."""

    def __init__(self, env: EnvBase, outputs: int) -> None:
        super().__init__()
        inputs = sum(env.observation_spec[key].shape[-1] for key in OBSERVED)
        self.layers = nn.Sequential(
            nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
        )
        self.head = nn.Linear(256, outputs)

    def forward(self, *observed: Tensor) -> Tensor:
        return self.head(self.layers(torch.cat(observed, -1)))


class Actor(Trunk):
    """Parameters of the three distributions."""

    def __init__(self, env: EnvBase) -> None:
        super().__init__(env, 2 + 2 + int(env.action_spec["prediction"].n))
        self.log_std = nn.Parameter(torch.full((2,), -1.0))

    def forward(self, *observed: Tensor) -> tuple[Tensor, ...]:
        out = super().forward(*observed)
        loc = torch.tanh(out[..., :2])
        return loc, self.log_std.exp().expand_as(loc), out[..., 2:4], out[..., 4:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--total-timesteps", type=int, default=200_000)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    set_composite_lp_aggregate(False).set()  # a log-probability for each part of an action

    for view in ("native", "continuous", "discrete"):
        check_env_specs(GymEnv(ENV_ID, view=view))
    one = make_env()
    check_env_specs(one)

    parameters = [
        ("params", "location", "loc"),
        ("params", "location", "scale"),
        ("params", "stop", "logits"),
        ("params", "prediction", "logits"),
    ]
    actor = ProbabilisticActor(
        TensorDictModule(Actor(one), in_keys=OBSERVED, out_keys=parameters),
        in_keys=["params"],
        out_keys=ACTION,
        spec=one.full_action_spec,
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": {
                "location": lambda loc, scale: torch.distributions.Independent(
                    Normal(loc, scale), 1
                ),
                "stop": Categorical,
                "prediction": Categorical,
            }
        },
        return_log_prob=True,
    )
    critic = ValueOperator(Trunk(one, 1), in_keys=OBSERVED)

    frames = 256 * options.num_envs
    env = SerialEnv(options.num_envs, make_env)
    env.set_seed(options.seed)
    updates = max(1, options.total_timesteps // frames)
    collector = Collector(
        env,
        actor,
        frames_per_batch=frames,
        total_frames=updates * frames,
        auto_register_policy_transforms=True,
    )
    # gamma = 1: the reward is discounted already, discount ** glimpses at the end.
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    loss_module = ClipPPOLoss(
        actor, critic, entropy_coeff=0.01, critic_coeff=0.5, normalize_advantage=True
    )
    loss_module.set_keys(action=ACTION, sample_log_prob=[f"{part}_log_prob" for part in ACTION])
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3)

    seen = 0
    for batch in collector:
        with torch.no_grad():
            advantage(batch)
        flat: TensorDict = batch.reshape(-1)
        for _ in range(4):
            for part in torch.randperm(len(flat)).chunk(8):
                losses = loss_module(flat[part])
                loss = sum(losses[k] for k in ("loss_objective", "loss_critic", "loss_entropy"))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
        seen += frames
        paid, ended = batch["next", "reward"], batch["next", "done"]
        episodes = int(ended.sum())
        print(
            f"{seen:>8,} steps  success {float((paid > 0).sum()) / episodes:.3f}  "
            f"glimpses {len(flat) / episodes:.2f}",
            flush=True,
        )
    collector.shutdown()


if __name__ == "__main__":
    main()
