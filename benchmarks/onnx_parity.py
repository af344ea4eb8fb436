"""Whether exported agents answer as torch's do, and in what time: every shipped DT-RAM.

    python benchmarks/onnx_parity.py                                      # one thread, minutes
    python benchmarks/onnx_parity.py --models mnist-conv --json out.json

Both answer each test image once, through `dtram_env.evaluate`; the time is that of their steps.
Drawn datasets are cut to `--drawn` test images.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env
from agents import POLICY_IDS
from agents.export import export
from benchmarks.timing import BenchmarkOptions, run_benchmark
from dtram_env.datasets import DATASETS
from examples.onnx_runner import OnnxPolicy
from train.common.evaluate_agent import load_policy

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
MODELS = (
    *("mnist", "mnist-conv", "mnist-map", "mnist-policy-only"),
    *("translated", "cluttered", "cluttered-100", "birds-small", "scenes"),
)


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compares exported agents with torch's."""

    models: tuple[str, ...] = MODELS
    """folders in pretrained/"""
    drawn: int = 2000
    """test images of a drawn dataset"""
    num_envs: int = 1000
    """episodes side by side, the batch of a step"""


class Timed:
    """A policy that counts the seconds of its steps."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seconds = policy, 0.0
        self.check_env, self.reset = policy.check_env, policy.reset

    def step(self, observation: Any, state: Any) -> Any:
        began = time.perf_counter()
        result = self.policy.step(observation, state)
        self.seconds += time.perf_counter() - began
        return result


def compare(options: Options, model: str) -> dict[str, Any]:
    """Different answers of a model's two forms, and the time of each."""
    folder = PRETRAINED / model
    agent, policy, env_id, keywords = load_policy(folder, torch.device("cpu"), None)
    name = env_id.rpartition(":")[2]
    if DATASETS[str(gym.spec(name).kwargs["dataset"]).lower()].cached:
        keywords = keywords | {"num_test": options.drawn}
    with tempfile.TemporaryDirectory() as made:
        path = export(agent, Path(made) / "agent.onnx")
        both = {"torch": Timed(policy), "onnx": Timed(OnnxPolicy(path))}
        megabytes = path.stat().st_size / 1e6
        found = {
            kind: dtram_env.evaluate(timed, env_id, num_envs=options.num_envs, **keywords)
            for kind, timed in both.items()
        }
    different = (found["torch"].prediction != found["onnx"].prediction) | (
        found["torch"].num_glimpses != found["onnx"].num_glimpses
    )
    images = found["torch"].images
    milliseconds = {kind: 1000 * timed.seconds / images for kind, timed in both.items()}
    return {
        "env_id": name,
        "policy_only": name in POLICY_IDS,
        "images": images,
        "different": int(different.sum()),
        "megabytes": round(megabytes, 2),
        "milliseconds": {kind: round(value, 4) for kind, value in milliseconds.items()},
        "share": round(milliseconds["onnx"] / milliseconds["torch"], 3),
    }


def measure(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"figures": {model: compare(options, model) for model in options.models}}


if __name__ == "__main__":
    run_benchmark(Options, measure, __doc__)
