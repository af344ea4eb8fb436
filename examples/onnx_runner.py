"""Runs an exported DT-RAM with NumPy and onnxruntime, without torch.

Install:  python3 -m venv .venv-onnx && .venv-onnx/bin/pip install -e . onnxruntime
Run:      OMP_NUM_THREADS=1 .venv-onnx/bin/python examples/onnx_runner.py agent.onnx

`OnnxPolicy` is a `dtram_env.Policy`: the environment takes the glimpses, on its own images here.
Make the file with ``python train/export.py pretrained/mnist-conv``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime

import dtram_env

State = dict[str, np.ndarray]


class OnnxPolicy:
    """An exported agent; `about` is its description, see agents/export.py."""

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options)
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["dtram"])
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.predicts = True

    def check_env(self, env: Any) -> None:
        """Raises ValueError if the agent was made for another environment."""
        about, first = self.about, env.first_glimpse == "choose"
        if env.max_glimpses != about["max_glimpses"] or first != bool(about["first_location"]):
            raise ValueError(f"this agent was made for {about['env_id']}, {about['env_options']}")
        self.predicts = env.classifier is None  # policy-only environments take no prediction

    def reset(self, batch: int) -> State:
        parts = self.about["state"].items()
        return {name: np.zeros((batch, *part["shape"]), part["type"]) for name, part in parts}

    def step(self, observation: dict[str, np.ndarray], state: State) -> tuple[Any, State]:
        batch = len(observation["location"])
        if not observation["time"].any():  # the agent says where to look first
            location = np.tile(np.float32(self.about["first_location"]), (batch, 1))
            return self.action(location, np.zeros(batch), np.zeros(batch)), state
        seen = {"glimpse": observation["glimpse"], "location": observation["location"]}
        if "first_glimpse" in self.inputs:  # of another size than the others
            seen["first_glimpse"] = observation["thumbnail"]
        # Outputs are named in the order that agents/export.py gives.
        probs, location, _, stop, *after = self.session.run(None, seen | state)
        return self.action(location, stop, probs.argmax(1)), dict(zip(state, after, strict=True))

    def action(self, location: np.ndarray, stop: Any, prediction: Any) -> dict[str, np.ndarray]:
        action = {"location": location, "stop": stop.astype(np.int64)}
        return action | ({"prediction": prediction.astype(np.int64)} if self.predicts else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="agent.onnx")
    parser.add_argument("--split", default="test", help="train, validation or test")
    options = parser.parse_args()
    policy = OnnxPolicy(options.file)
    env_id, keywords = policy.about["env_id"], policy.about["env_options"]
    found = dtram_env.evaluate(policy, env_id, options.split, progress=True, **keywords)
    print(f"error {100 * found.error:.2f} % at {found.mean_glimpses:.2f} mean glimpses")

    env = gym.make(env_id, split=options.split, **keywords)  # and one image, step by step
    observation, info = env.reset(seed=0)
    state, ended = policy.reset(1), False
    while not ended:
        batch = {name: values[None] for name, values in observation.items()}
        action, state = policy.step(batch, state)
        one = {name: values[0] for name, values in action.items()}
        taken = info["num_glimpses"]
        observation, reward, ended, _, info = env.step(one)
        print(f"after glimpse {taken}: {one}, reward {reward:.3f}")


if __name__ == "__main__":
    main()
