"""Recurrent PPO in one file, on the native Dict actions and the vector environment.

Install:  python3 -m venv .venv && .venv/bin/pip install -e '.[train]'
Run:      OMP_NUM_THREADS=1 .venv/bin/python examples/recurrent_ppo.py --env-id DTRAM-Signpost-v0
Run:      OMP_NUM_THREADS=1 .venv/bin/python examples/recurrent_ppo.py                # MNIST
Run:      OMP_NUM_THREADS=1 .venv/bin/python examples/recurrent_ppo.py --label-coef 1

The whole algorithm, top to bottom, modelled on CleanRL's `ppo_atari_lstm.py`. A GRU reads the
glimpses. Its state feeds four heads: location (Gaussian), stop (Bernoulli), prediction
(categorical) and value. At the end `dtram_env.evaluate` runs the greedy agent on every test image.
"""

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
    """environment steps; each is one glimpse"""
    num_envs: int = 512
    """number of parallel environments"""
    num_steps: int = 16
    """steps of each environment per update; longer than an episode, so that most are complete"""
    learning_rate: float = 1e-3
    """Adam's initial learning rate; it falls linearly to 0"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    update_epochs: int = 4
    """epochs per update"""
    num_minibatches: int = 16
    """minibatches per epoch; each holds whole sequences of some environments"""
    clip_coef: float = 0.2
    """PPO's clipping range of the probability ratio"""
    ent_coef: float = 0.01
    """weight of the entropy bonus of stop and prediction"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    label_coef: float = 0.0
    """weight of the cross-entropy with infos["label"] at every glimpse; 0: reward alone"""
    max_grad_norm: float = 0.5
    """gradient norms are clipped at this value"""
    location_std: float = 0.3
    """initial standard deviation of the location; it is learned"""
    first_stop: float = 0.1
    """initial probability of stopping; if high, it stops before it learns locations"""
    hidden: int = 128
    """hidden size of the GRU"""
    seed: int = 0
    """seed of weights, actions and images"""
    device: str = "cpu"
    """device of network and environment; rollouts stay on it"""
    run_dir: Path | None = None
    """folder of this run; default: runs/examples/ENV_ID__recurrent_ppo__SEED__TIME"""

    def __post_init__(self) -> None:
        if not 0 < self.first_stop < 1:
            raise ValueError(f"--first-stop {self.first_stop}: expected between 0 and 1")
        if not self.location_std > 0:
            raise ValueError(f"--location-std {self.location_std}: expected above 0")


class Agent(nn.Module):
    """Glimpse network, GRU and heads. It is also a greedy `dtram_env.Policy` for `evaluate`."""

    def __init__(self, env: Any, options: Options) -> None:
        super().__init__()
        actions = env.single_action_space
        if "prediction" not in actions.spaces or "thumbnail" in env.single_observation_space.spaces:
            raise ValueError(f"{actions}: expected predictions, and no separate thumbnail")
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
        """Features (..., H) of observations with any leading axes."""
        what = F.relu(self.what(observation["glimpse"].flatten(-3) / 255))
        where = F.relu(self.where(torch.cat([observation["location"], observation["time"]], -1)))
        return F.relu(self.glimpse(torch.cat([what, where], -1)))

    def unroll(self, features: Tensor, h: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the GRU on features (T, N, H) from state h (N, H).

        Returns all states (T, N, H) and the last one. Where start (T, N) is 1, an episode begins,
        and the state before it is reset to 0.
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

    # The two methods of `dtram_env.Policy`.
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


def log_prob(
    distributions: tuple[Normal, Bernoulli, Categorical], action: dict[str, Tensor], last: Tensor
) -> Tensor:
    """Log-probability of the parts of an action that the environment reads.

    A step either continues, and reads the location, or ends, and reads the prediction; at the
    budget's last glimpse it ends whatever `stop` is. Parts that are not read have no effect on the
    return, so their scores would only add noise.
    """
    location, stop, prediction = distributions
    ends = (action["stop"] == 1) | last
    log_location = location.log_prob(action["location"]).sum(-1)
    log_prediction = prediction.log_prob(action["prediction"])
    log_stop = torch.where(last, 0.0, stop.log_prob(action["stop"].float()))
    return log_stop + torch.where(ends, log_prediction, log_location)


def main(options: Options) -> dtram_env.Evaluation:
    torch.manual_seed(options.seed)
    name = f"{options.env_id}__recurrent_ppo__{options.seed}__{int(time.time())}"
    run_dir = options.run_dir or Path("runs/examples") / name
    writer = SummaryWriter(str(run_dir))
    rows = "\n".join(f"|{key}|{value}|" for key, value in asdict(options).items())
    writer.add_text("hyperparameters", f"|option|value|\n|-|-|\n{rows}")

    # With SAME_STEP the step that ends an episode returns the next one's first glimpse, so no step
    # is wasted. Episodes are never truncated, so their last observation is not needed.
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
            step = {"start": start, "last": last, "logp": logp, "value": value}
            step |= {f"obs {key}": part for key, part in observation.items()}
            step |= {f"action {key}": part for key, part in action.items()}
            step["label"] = infos["label"]
            observation, reward, terminated, _, infos = envs.step(action)
            start = terminated.float()
            rollout.append(step | {"reward": reward, "ended": start})
            final, ended = infos["final_info"], infos["_final_info"]
            finished.append((ended.sum(), final["num_glimpses"].sum(), final["is_success"].sum()))
        # Tensors (T, N, ...)
        batch = {key: torch.stack([step[key] for step in rollout]) for key in rollout[0]}

        # GAE with gamma = 1: the reward is discounted already, discount ** glimpses at the end.
        with torch.no_grad():
            after = agent.unroll(agent.encode(observation)[None], h, start[None])[1]
            next_value = agent.value(after)[:, 0]
        advantage = torch.zeros_like(batch["value"])
        gae = torch.zeros(n, device=device)
        for t in reversed(range(steps)):
            not_ended = 1 - batch["ended"][t]
            delta = batch["reward"][t] + not_ended * next_value - batch["value"][t]
            gae = delta + options.gae_lambda * not_ended * gae
            advantage[t], next_value = gae, batch["value"][t]
        batch["advantage"], batch["return"] = advantage, advantage + batch["value"]

        for _ in range(options.update_epochs):
            for part in torch.randperm(n, device=device).chunk(options.num_minibatches):
                mb = {key: values[:, part] for key, values in batch.items()}
                mb_obs = {key: mb[f"obs {key}"] for key in ("glimpse", "location", "time")}
                mb_action = {key: mb[f"action {key}"] for key in action}
                states, _ = agent.unroll(agent.encode(mb_obs), h_first[part], mb["start"])
                distributions = agent.distributions(states)
                log_ratio = log_prob(distributions, mb_action, mb["last"]) - mb["logp"]
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1 - options.clip_coef, 1 + options.clip_coef)
                mb_advantage = (mb["advantage"] - advantage.mean()) / (advantage.std() + 1e-8)
                policy_loss = -torch.min(mb_advantage * ratio, mb_advantage * clipped).mean()
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

        episodes, glimpses, successes = (float(sum(c)) for c in zip(*finished, strict=True))
        global_step = (iteration + 1) * n * steps
        scalars = {
            "charts/success_rate": successes / max(episodes, 1),
            "charts/mean_glimpses": glimpses / max(episodes, 1),
            "charts/mean_return": float(batch["reward"].sum()) / max(episodes, 1),
            "charts/steps_per_second": global_step / (time.time() - began),
            "losses/policy": policy_loss.item(),
            "losses/value": value_loss.item(),
            "losses/label": label_loss.item(),
            "losses/entropy": entropy.item(),
            "losses/approx_kl": ((ratio - 1) - log_ratio).mean().item(),
            "policy/location_std": agent.log_std.exp().mean().item(),
        }
        for key, scalar in scalars.items():
            writer.add_scalar(key, scalar, global_step)
        if iteration % max(1, iterations // 20) == 0 or iteration == iterations - 1:
            print(
                f"{global_step:>9,} steps  success {scalars['charts/success_rate']:.3f}  "
                f"glimpses {scalars['charts/mean_glimpses']:.2f}  "
                f"{scalars['charts/steps_per_second']:,.0f} steps/s",
                flush=True,
            )
    envs.close()

    result = dtram_env.evaluate(agent, options.env_id, split="test", backend="torch", device=device)
    provenance = {
        "options": asdict(options),
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
    }
    text = json.dumps(result.to_dict() | provenance, indent=2, default=str)
    (run_dir / "results.json").write_text(text + "\n", encoding="utf-8")
    torch.save(agent.state_dict(), run_dir / "agent.pt")
    writer.close()
    print(
        f"test error {100 * result.error:.2f} %, mean glimpses {result.mean_glimpses:.2f}, "
        f"mean return {result.mean_return:.3f}, in {run_dir}"
    )
    return result


if __name__ == "__main__":
    main(tyro.cli(Options))
