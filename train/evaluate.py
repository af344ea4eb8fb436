"""Evaluates a trained DT-RAM through the registered environment, every image once.

    python train/evaluate.py pretrained/mnist-dtram-conv-0  # a shipped model, test split
    python train/evaluate.py runs/mine --json               # one JSON object on standard output
    python train/evaluate.py runs/mine --confidence 0.98    # another rule on the same trunk

This is the reference: it plays the episodes step by step. On the test split with the model's own
stop, the answers are also compared, image by image, with those that training wrote.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env
from agents.loading import load_agent
from agents.policy_only import POLICY_IDS, LookAndStop
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop
from train.common.files import read_tensors
from train.common.provenance import choose_device, provenance
from train.common.run import run_program


@dataclass(frozen=True)
class Options:
    """Evaluates a trained DT-RAM through the registered environment."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """a run's folder, or a shipped model's"""
    split: str = "test"
    """train, validation, test or train+validation"""
    threshold: float | None = None
    """stop when the stopper's probability exceeds this; the model's own if not given"""
    fixed: int | None = None
    """stop after this many glimpses instead"""
    confidence: float | None = None
    """stop when a class's probability exceeds this instead"""
    num_envs: int = 1000
    """episodes side by side"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """where the agent runs"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""

    def __post_init__(self) -> None:
        rules = ("threshold", "fixed", "confidence")
        given = [f"--{name}" for name in rules if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: expected at most one stopping rule")
        for name in ("threshold", "confidence"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"--{name} {value}: expected a probability, from 0 to 1")
        if self.fixed is not None and self.fixed < 1:
            raise ValueError(f"--fixed {self.fixed}: expected at least 1")
        if self.num_envs < 1:
            raise ValueError(f"--num-envs {self.num_envs}: expected at least 1")


def evaluate(options: Options) -> dict[str, Any]:
    """Runs the evaluation; returns what ``--json`` prints."""
    device = choose_device(options.device)
    agent = load_agent(options.run_dir, device)
    if (options.run_dir / "options.json").exists() and not (
        options.run_dir / "results.json"
    ).exists():
        print(f"{options.run_dir}: unfinished; its best model so far", file=sys.stderr)
    if "env_id" not in agent.about:
        raise ValueError(f"{options.run_dir}: its model.json names no environment (env_id)")
    env_id, env_options = agent.about["env_id"], dict(agent.about.get("env_options", {}))
    if options.data_dir is not None:
        env_options["data_dir"] = str(options.data_dir)
    if options.fixed is not None and options.fixed > agent.config.max_glimpses:
        raise ValueError(
            f"--fixed {options.fixed}: expected at most the budget, {agent.config.max_glimpses}"
        )
    own_stop = agent.stopping
    if options.threshold is not None:
        agent.stopping = LearnedStop(options.threshold)
    elif options.fixed is not None:
        agent.stopping = FixedStop(options.fixed)
    elif options.confidence is not None:
        agent.stopping = ConfidenceStop(options.confidence)

    policy = LookAndStop(agent) if env_id.rpartition(":")[2] in POLICY_IDS else agent
    found = dtram_env.evaluate(
        policy, env_id, options.split, num_envs=options.num_envs, **env_options
    )
    result = found.to_dict() | {"stopping": repr(agent.stopping)}
    written = options.run_dir / "test_images.safetensors"
    comparable = env_options.get("first_glimpse") != "random"  # the environment draws its own
    own = options.split == "test" and agent.stopping == own_stop
    if own and comparable and written.exists():
        before = read_tensors(written)
        same = torch.as_tensor(found.prediction) == before["prediction"]
        same &= torch.as_tensor(found.num_glimpses) == before["num_glimpses"]
        result["differs_from_training"] = int((~same).sum())
    return result | provenance(device)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, description=__doc__)
    result = evaluate(options)
    if options.json:
        print(json.dumps(result))
        return
    error = 100 * (1 - result["accuracy"])
    print(
        f"{result['env_id']}: {result['dataset']}, {result['split']} split, "
        f"{result['images']:,} images: error "
        f"{error:.2f} % at {result['mean_glimpses']:.2f} mean glimpses ({result['stopping']})"
    )
    if "differs_from_training" in result:
        print(
            "images answered otherwise than the training program answered them: "
            f"{result['differs_from_training']}"
        )


if __name__ == "__main__":
    run_program(main)
