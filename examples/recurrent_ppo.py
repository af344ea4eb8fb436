"""Recurrent PPO in one file, on the native Dict actions and the vector environment.

Install:  python3 -m venv .venv && .venv/bin/pip install -e .
Run:      OMP_NUM_THREADS=1 .venv/bin/python examples/recurrent_ppo.py --env-id DTRAM-Signpost-v0
Options:  .venv/bin/python examples/recurrent_ppo.py --help

The whole algorithm, top to bottom, after CleanRL's `ppo_atari_lstm.py`. A GRU reads the glimpses;
its state feeds three heads, where to look (Gaussian), whether to stop (Bernoulli), what it is
(categorical), and the value. The end is an exact pass over the test split by `dtram_env.evaluate`.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal
from torch.utils.tensorboard import SummaryWriter

import dtram_env


@dataclass(frozen=True)
class Options:
    """Trains on an environment with native actions, then evaluates on its test split."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    total_timesteps: int = 1_000_000
    """env steps, which are glimpses"""
    num_envs: int = 512
    """episodes side by side"""
    num_steps: int = 16
    """steps of each between two updates; more than an episode has, so that most are whole"""
    learning_rate: float = 1e-3
    """of Adam, falling linearly to 0"""
    gae_lambda: float = 0.95
    """of generalised advantage estimation"""
    update_epochs: int = 4
    """passes over the data of an update"""
    num_minibatches: int = 16
    """parts of the environments, each with its whole sequence, in a pass"""
    clip_coef: float = 0.2
    """how far from 1 the probability ratio may pay"""
    ent_coef: float = 0.01
    """weight of the entropy of stop and prediction"""
    vf_coef: float = 0.5
    """weight of the value's squared error"""
    label_coef: float = 0.0
    """weight of the cross-entropy with infos["label"] at every glimpse; 0 is reward alone"""
    max_grad_norm: float = 0.5
    """the gradient's norm is clipped at this"""
    location_std: float = 0.3
    """of the Gaussian, at first; it is learned"""
    first_stop: float = 0.1
    """probability of stopping, at first; if high, it answers well before it ever looks well"""
    hidden: int = 128
    """units of the GRU"""
    seed: int = 0
    """of weights, actions and images"""
    device: str = "cpu"
    """of network and environment; nothing leaves it"""
    run_dir: Path | None = None
    """folder of this run; runs/examples/ENV_ID__recurrent_ppo__SEED__TIME if not given"""

    def __post_init__(self) -> None:
        if not 0 < self.first_stop < 1:
            raise ValueError(f"--first-stop {self.first_stop}: expected between 0 and 1")
        if not self.location_std > 0:
            raise ValueError(f"--location-std {self.location_std}: expected above 0")


class Agent(nn.Module):
    """Glimpse network, GRU and heads; also the greedy `dtram_env.Policy` that is evaluated."""

    def __init__(self, env: Any, options: Options) -> None:
        super().__init__()
        actions = env.single_action_space
        if "prediction" not in actions.spaces or "thumbnail" in env.single_observation_space.spaces:
            raise ValueError(f"{actions}: expected predictions, and glimpses of one size")
        hidden = options.hidden
        pixels = env.single_observation_space["glimpse"].shape
        self.what = nn.Linear(pixels[0] * pixels[1] * pixels[2], hidden)
        self.where = nn.Linear(3, hidden)
        self.glimpse = nn.Linear(2 * hidden, hidden)
        self.core = nn.GRUCell(hidden, hidden)
        self.location = nn.Linear(hidden, 2)
        self.stop = nn.Linear(hidden, 1)
        self.prediction = nn.Linear(hidden, int(actions["prediction"].n))
        self.value = nn.Linear(hidden, 1)
        for head in (self.location, self.stop, self.prediction, self.value):
            nn.init.orthogonal_(head.weight, 0.01)
            nn.init.zeros_(head.bias)
        nn.init.constant_(self.stop.bias, math.log(options.first_stop / (1 - options.first_stop)))
        self.log_std = nn.Parameter(torch.full((2,), math.log(options.location_std)))

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        """Features (..., H) of observations whose leading axes are any."""
        what = F.relu(self.what(observation["glimpse"].flatten(-3) / 255))
        where = F.relu(self.where(torch.cat([observation["location"], observation["time"]], -1)))
        return F.relu(self.glimpse(torch.cat([what, where], -1)))

    def unroll(self, features: Tensor, h: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """All states (T, N, H), and the last, from features (T, N, H) and h (N, H).

        Where start (T, N) is 1, an episode begins: the state before is 0.
        """
        states = []
        for x, new in zip(features, start, strict=True):
            h = self.core(x, h * (1 - new)[:, None])
            states.append(h)
        return torch.stack(states), h

    def distributions(self, h: Tensor) -> tuple[Normal, Bernoulli, Categorical]:
        return (
            Normal(torch.tanh(self.location(h)), self.log_std.exp()),
            Bernoulli(logits=self.stop(h)[..., 0]),
            Categorical(logits=self.prediction(h)),
        )

    # The three methods of `dtram_env.Policy`.
    def reset(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.core.hidden_size, device=self.log_std.device)

    @torch.no_grad()
    def step(
        self, observation: dict[str, Tensor], state: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        h = self.core(self.encode(observation), state)
        location, stop, prediction = self.distributions(h)
        greedy = {
            "location": location.mean,
            "stop": (stop.logits > 0).long(),
            "prediction": prediction.logits.argmax(-1),
        }
        return greedy, h

    def select(self, state: Tensor, keep: Any) -> Tensor:
        return state[keep]


def log_prob(
    distributions: tuple[Normal, Bernoulli, Categorical], action: dict[str, Tensor], last: Tensor
) -> Tensor:
    """Log-probability of what the environment reads of an action.

    A step either looks again, at the location, or ends, with the prediction; at the last glimpse of
    the budget it ends whatever `stop` says. What is not read has no effect, and would be noise.
    """
    location, stop, prediction = distributions
    ends = (action["stop"] == 1) | last
    looked = location.log_prob(action["location"]).sum(-1)
    answered = prediction.log_prob(action["prediction"])
    chose = torch.where(last, 0.0, stop.log_prob(action["stop"].float()))
    return chose + torch.where(ends, answered, looked)


def main(options: Options) -> dtram_env.Evaluation:
    torch.manual_seed(options.seed)
    name = f"{options.env_id}__recurrent_ppo__{options.seed}__{int(time.time())}"
    run_dir = options.run_dir or Path("runs/examples") / name
    writer = SummaryWriter(str(run_dir))
    rows = "\n".join(f"|{key}|{value}|" for key, value in asdict(options).items())
    writer.add_text("hyperparameters", f"|option|value|\n|-|-|\n{rows}")

    # SAME_STEP wastes no step: the step that ends an episode returns the next one's first glimpse.
    # An episode's last observation is not needed, as episodes are never truncated.
    device, n, steps = options.device, options.num_envs, options.num_steps
    envs = gym.make_vec(
        options.env_id,
        num_envs=n,
        autoreset_mode=AutoresetMode.SAME_STEP,
        backend="torch",
        device=device,
    )
    agent = Agent(envs, options).to(device)
    optimizer = torch.optim.Adam(agent.parameters(), lr=options.learning_rate, eps=1e-5)

    observation, infos = envs.reset(seed=options.seed)
    start = torch.ones(n, device=device)  # 1 where `observation` is the first of an episode
    h = agent.reset(n)
    iterations = max(1, options.total_timesteps // (n * steps))
    began = time.time()
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - iteration / iterations)

        h_first, rollout, finished = h, [], []
        for _ in range(steps):
            with torch.no_grad():
                states, h = agent.unroll(agent.encode(observation)[None], h, start[None])
                distributions = agent.distributions(states[0])
                location, stop, prediction = (d.sample() for d in distributions)
                action = {"location": location, "stop": stop.long(), "prediction": prediction}
                last = observation["time"][:, 0] == 1
                logp = log_prob(distributions, action, last)
                value = agent.value(states[0])[:, 0]
            moment = {"start": start, "last": last, "logp": logp, "value": value}
            moment |= {f"observed {key}": part for key, part in observation.items()}
            moment |= {f"acted {key}": part for key, part in action.items()}
            moment["label"] = infos["label"]
            observation, reward, terminated, _, infos = envs.step(action)
            start = terminated.float()
            rollout.append(moment | {"reward": reward, "ended": start})
            final, ended = infos["final_info"], infos["_final_info"]
            finished.append((ended.sum(), final["num_glimpses"].sum(), final["is_success"].sum()))
        batch = {key: torch.stack([m[key] for m in rollout]) for key in rollout[0]}  # (T, N, ...)

        # GAE with gamma = 1: the reward itself is discounted, discount ** glimpses at the end.
        with torch.no_grad():
            after = agent.unroll(agent.encode(observation)[None], h, start[None])[1]
            next_value = agent.value(after)[:, 0]
        advantage = torch.zeros_like(batch["value"])
        trace = torch.zeros(n, device=device)
        for t in reversed(range(steps)):
            goes_on = 1 - batch["ended"][t]
            delta = batch["reward"][t] + goes_on * next_value - batch["value"][t]
            trace = delta + options.gae_lambda * goes_on * trace
            advantage[t], next_value = trace, batch["value"][t]
        batch["advantage"], batch["return"] = advantage, advantage + batch["value"]

        for _ in range(options.update_epochs):
            for part in torch.randperm(n, device=device).chunk(options.num_minibatches):
                mb = {key: values[:, part] for key, values in batch.items()}
                observed = {key: mb[f"observed {key}"] for key in ("glimpse", "location", "time")}
                acted = {key: mb[f"acted {key}"] for key in ("location", "stop", "prediction")}
                states, _ = agent.unroll(agent.encode(observed), h_first[part], mb["start"])
                distributions = agent.distributions(states)
                log_ratio = log_prob(distributions, acted, mb["last"]) - mb["logp"]
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1 - options.clip_coef, 1 + options.clip_coef)
                gain = (mb["advantage"] - advantage.mean()) / (advantage.std() + 1e-8)
                policy_loss = -torch.min(gain * ratio, gain * clipped).mean()
                value_loss = F.mse_loss(agent.value(states)[..., 0], mb["return"])
                entropy = (distributions[1].entropy() + distributions[2].entropy()).mean()
                logits = distributions[2].logits.flatten(0, 1)
                label_loss = F.cross_entropy(logits, mb["label"].flatten())
                loss = policy_loss + options.vf_coef * value_loss - options.ent_coef * entropy
                loss = loss + options.label_coef * label_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), options.max_grad_norm)
                optimizer.step()

        episodes, glimpses, right = (float(sum(column)) for column in zip(*finished, strict=True))
        seen = (iteration + 1) * n * steps
        scalars = {
            "charts/success_rate": right / max(episodes, 1),
            "charts/mean_glimpses": glimpses / max(episodes, 1),
            "charts/mean_return": float(batch["reward"].sum()) / max(episodes, 1),
            "charts/steps_per_second": seen / (time.time() - began),
            "losses/policy": policy_loss.item(),
            "losses/value": value_loss.item(),
            "losses/label": label_loss.item(),
            "losses/entropy": entropy.item(),
            "losses/approx_kl": ((ratio - 1) - log_ratio).mean().item(),
            "policy/location_std": agent.log_std.exp().mean().item(),
        }
        for key, scalar in scalars.items():
            writer.add_scalar(key, scalar, seen)
        if iteration % max(1, iterations // 20) == 0 or iteration == iterations - 1:
            print(
                f"{seen:>9,} steps  success {scalars['charts/success_rate']:.3f}  "
                f"glimpses {scalars['charts/mean_glimpses']:.2f}  "
                f"{scalars['charts/steps_per_second']:,.0f} steps/s",
                flush=True,
            )
    envs.close()

    result = dtram_env.evaluate(agent, options.env_id, split="test", backend="torch", device=device)
    made = {
        "options": asdict(options),
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
    }
    text = json.dumps(result.to_dict() | made, indent=2, default=str)
    (run_dir / "results.json").write_text(text + "\n")
    torch.save(agent.state_dict(), run_dir / "agent.pt")
    writer.close()
    print(
        f"test error {100 * result.error:.2f} %, mean glimpses {result.mean_glimpses:.2f}, "
        f"mean return {result.mean_return:.3f}, in {run_dir}"
    )
    return result


if __name__ == "__main__":
    main(tyro.cli(Options))
