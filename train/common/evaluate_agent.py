"""Evaluates a saved DT-RAM through the environment that it was trained for."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import dtram_env
from agents.cost import mean_flops
from agents.dtram import DTRAM
from agents.loading import load_agent
from agents.policy_only import LookAndStop
from agents.stopping import FixedStop, StoppingRule
from train.common.files import read_tensors
from train.common.provenance import choose_device, provenance
from train.common.run import has_results
from train.common.training_task import read_task


def load_policy(
    folder: Path, device: torch.device, stop: str | None
) -> tuple[DTRAM, DTRAM | LookAndStop, str, dict[str, Any]]:
    """A saved DT-RAM, and as a policy of its environment, whose id and changed keywords follow.

    Raises as `evaluate_agent`.
    """
    agent = load_agent(folder, device, stop)
    if (folder / "options.json").exists() and not has_results(folder):
        print(f"{folder}: unfinished; taking its best model so far", file=sys.stderr)
    if "env_id" not in agent.about:
        raise ValueError(f"{folder}: its model.json names no environment (env_id)")
    env_id, changed = read_task(agent.about, folder / "model.json")
    spec = gym.spec(env_id.rpartition(":")[2])  # registered by importing agents
    whole_task = spec.kwargs.get("classifier") is None
    return agent, agent if whole_task else LookAndStop(agent), env_id, changed


def evaluate_agent(
    folder: Path,
    split: str = "test",
    *,
    stop: str | None = None,
    rule: StoppingRule | None = None,
    num_envs: int = 1000,
    data_dir: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Plays one episode for every image of a split, without sampling.

    `folder` is a run's or a shipped model's, `stop` names one of its stops, and `rule` replaces its
    own stop. Returns `Evaluation.to_dict`, the changed keywords of the environment, the stopping
    rule and the origin. On the test split with the model's own stop also
    ``differs_from_training``: number of images with another prediction or number of glimpses than
    the training program wrote.

    Raises ValueError if the model names no environment of this project, or `rule` needs more than
    its budget.
    """
    chosen_device = choose_device(device)
    agent, policy, env_id, changed = load_policy(folder, chosen_device, stop)
    env_options = changed | {"data_dir": data_dir}
    if isinstance(rule, FixedStop) and rule.glimpses > agent.config.max_glimpses:
        expected = f"at most the budget, {agent.config.max_glimpses}"
        raise ValueError(f"--fixed {rule.glimpses}: expected {expected}")
    header = type(agent).read_header(folder)
    named = stop or header.get("default_stop")
    if named is not None and "discount" in header["stops"][named]:
        env_options["discount"] = header["stops"][named]["discount"]
    own_stop = agent.stopping
    agent.stopping = rule or own_stop

    found = dtram_env.evaluate(policy, env_id, split, num_envs=num_envs, **env_options)
    flops = mean_flops(agent, found.mean_glimpses)
    shown = {name: value for name, value in changed.items() if name != "data"}
    result = found.to_dict() | {"env_options": shown, "stopping": repr(agent.stopping)}
    result["mean_flops"] = round(flops)
    default = named == header.get("default_stop")
    written = folder / f"test_images{'' if default else f'-{stop}'}.safetensors"
    comparable = env_options.get("first_glimpse") != "random"  # the environment draws its own
    comparable &= split == "test" and agent.stopping == own_stop
    if comparable and written.exists():
        trained = read_tensors(written)
        same = torch.as_tensor(found.prediction) == trained["prediction"]
        same &= torch.as_tensor(found.num_glimpses) == trained["num_glimpses"]
        result["differs_from_training"] = int((~same).sum())
    return result | provenance(chosen_device)
