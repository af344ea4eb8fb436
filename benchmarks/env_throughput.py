"""How fast the environment steps.

    python benchmarks/env_throughput.py
    python benchmarks/env_throughput.py --json env_throughput.json --device cuda

Random locations, random answers, steady state: actions are drawn before the clock starts. A vector
step counts as one env-step for every slot, as Gymnasium counts; "useful" leaves out the steps in
which a slot only restarts. The fraction of a bare gather is the time to cut the same number of
crops out of random images, and do nothing else, over the time of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

import dtram_env
from dtram_env import GlimpseEnv, sensor
from train.common.provenance import provenance
from train.common.records import write_result

POOL = 32  # batches of actions, used in turn


@dataclass
class Options:
    """Measures env-steps a second."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    num_envs: int = 1024
    """Slots of the vector environment."""
    max_glimpses: int = 7
    """The budget."""
    seconds: float = 1.0
    """Length of a round."""
    rounds: int = 3
    """Rounds of each measurement; the best is reported."""
    device: str = "cpu"
    """Where the torch backend runs."""
    torch: bool = True
    """Measure the torch backend too."""
    json: Path | None = None
    """Write the figures, the hardware and the versions here."""
    seed: int = 0
    """Of images and actions."""


def main(options: Options) -> dict[str, Any]:
    """Runs every measurement, prints a line for each, and returns them."""
    if options.seconds <= 0 or options.rounds < 1 or options.num_envs < 1:
        raise SystemExit("seconds must be above 0, rounds and num_envs at least 1")
    figures: list[dict[str, Any]] = []
    gather = bare_gather(options)
    report(figures, "bare gather", gather)
    for stop in (0.5, 0.0):
        for mode in ("NextStep", "Disabled", "SameStep"):
            figure = vector(options, mode, stop, "numpy")
            figure["fraction_of_gather"] = figure["per_s"] / gather["per_s"]
            report(figures, f"vector, numpy, {mode}, P(stop)={stop}", figure)
    if options.torch:
        for mode in ("NextStep", "Disabled", "SameStep"):
            figure = vector(options, mode, 0.5, "torch")
            report(figures, f"vector, torch on {options.device}, {mode}, P(stop)=0.5", figure)
    for wrapped in (False, True):
        name = "scalar, gym.make" if wrapped else "scalar, unwrapped"
        report(figures, f"{name}, P(stop)=0.5", scalar(options, wrapped))
    peer = ap_gym(options)
    if peer is not None:
        # The peer's episodes have no stop and last the whole step limit: so must ours.
        ours = next(f for f in figures if f["name"] == "vector, numpy, NextStep, P(stop)=0.0")
        peer["ratio_of_ours"] = ours["per_s"] / peer["per_s"]
        report(figures, "ap-gym's image classification, vector, no stop", peer)
    device = torch.device(options.device if options.torch else "cpu")
    kept = {k: v for k, v in asdict(options).items() if k != "json"}
    result = {**provenance(device), "options": kept, "figures": figures}
    if options.json is not None:
        write_result(options.json, result)
    return result


def best_rate(options: Options, batch: Callable[[], int], sync: Callable[[], None]) -> float:
    """Things a second that `batch` does (it returns how many), the best of the rounds."""
    batch()
    best = 0.0
    for _ in range(options.rounds):
        sync()
        start, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < options.seconds:
            done += batch()
        sync()
        spent = time.perf_counter() - start
        best = max(best, done / spent)
    return best


def nothing() -> None:
    """There is no device to wait for."""


def bare_gather(options: Options) -> dict[str, Any]:
    """Crops of random images at random places, and nothing else."""
    env = gym.make_vec(options.env_id, num_envs=1).unwrapped
    assert isinstance(env, dtram_env.GlimpseVectorEnv)
    side, (height, width) = env.glimpse_size, env.data.typical_size
    store = env.data.store(sensor.margin(side, env.num_scales))
    rng = np.random.default_rng(options.seed)
    rows = []
    for _ in range(POOL):
        location = rng.uniform(-1, 1, (options.num_envs, 2))
        index = rng.integers(env.num_images, size=options.num_envs)
        top = sensor.corner(location[:, 1], height, side)
        left = sensor.corner(location[:, 0], width, side)
        rows.append((index, top, left))
    turn = 0

    def batch() -> int:
        nonlocal turn
        for _ in range(100):
            store.crop(*rows[turn % POOL], side)
            turn += 1
        return 100 * options.num_envs

    return {"per_s": best_rate(options, batch, nothing)}


def draw_actions(options: Options, num_classes: int, stop: float) -> list[dict[str, np.ndarray]]:
    """Batches of native actions."""
    rng = np.random.default_rng(options.seed)
    n = options.num_envs
    return [
        {
            "location": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "stop": (rng.random(n) < stop).astype(np.int64),
            "prediction": rng.integers(num_classes, size=n),
        }
        for _ in range(POOL)
    ]


def vector(options: Options, mode: str, stop: float, backend: str) -> dict[str, Any]:
    """The vector environment; in "Disabled" every step is followed by a masked reset."""
    arguments: dict[str, Any] = {"backend": backend}
    if backend == "torch":
        arguments["device"] = options.device
    env = gym.make_vec(
        options.env_id,
        num_envs=options.num_envs,
        max_glimpses=options.max_glimpses,
        autoreset_mode=mode,
        **arguments,
    )
    actions: list[Any] = draw_actions(options, env.unwrapped.num_classes, stop)  # type: ignore[attr-defined]
    sync = nothing
    if backend == "torch":
        device = torch.device(options.device)
        actions = [
            {key: torch.from_numpy(value).to(device) for key, value in action.items()}
            for action in actions
        ]
        if device.type == "cuda":
            sync = torch.cuda.synchronize
    env.reset(seed=options.seed)
    turn = 0

    def batch() -> int:
        nonlocal turn
        for _ in range(20):
            over = env.step(actions[turn % POOL])[2]
            if mode == "Disabled":
                env.reset(options={"reset_mask": over})
            turn += 1
        return 20 * options.num_envs

    figure: dict[str, Any] = {"per_s": best_rate(options, batch, sync)}
    if mode == "NextStep":
        # After an episode of E[T] steps comes one that only restarts.
        length = options.max_glimpses if stop == 0 else (1 - (1 - stop) ** options.max_glimpses)
        length = length if stop == 0 else length / stop
        figure["useful_per_s"] = figure["per_s"] * length / (length + 1)
    return figure


def scalar(options: Options, wrapped: bool) -> dict[str, Any]:
    """The scalar environment, resets included."""
    env = gym.make(options.env_id, max_glimpses=options.max_glimpses)
    if not wrapped:
        env = env.unwrapped
    assert isinstance(env.unwrapped, GlimpseEnv)
    columns = draw_actions(options, env.unwrapped.num_classes, 0.5)
    actions = [
        {key: value[i] for key, value in batch.items()}
        for batch in columns
        for i in range(min(options.num_envs, 64))
    ]
    env.reset(seed=options.seed)
    turn = 0

    def batch() -> int:
        nonlocal turn
        for _ in range(200):
            if env.step(actions[turn % len(actions)])[2]:
                env.reset()
            turn += 1
        return 200

    return {"per_s": best_rate(options, batch, nothing)}


def ap_gym(options: Options) -> dict[str, Any] | None:
    """The peer's vector environment on the same images and sensor, if it is installed."""
    try:
        from ap_gym.envs.image import ImageClassificationDataset
        from ap_gym.envs.image.image_perception_module import ImagePerceptionConfig
        from ap_gym.envs.image_classification import ImageClassificationVectorEnv
    except ImportError:
        print("ap-gym is not installed, or not whole (pip install 'dtram[bench]'): no ratio")
        return None

    env = gym.make_vec(options.env_id, num_envs=1).unwrapped
    assert isinstance(env, dtram_env.GlimpseVectorEnv)
    data = env.data

    class SameImages(ImageClassificationDataset):
        def _get_num_classes(self) -> int:
            return data.num_classes

        def _get_num_channels(self) -> int:
            return data.image_shape[2]

        def _get_length(self) -> int:
            return len(data)

        def _get_data_point_batch(self, idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.stack([data.image(i) for i in idx]), data.labels[idx]

    peer = ImageClassificationVectorEnv(
        options.num_envs,
        ImagePerceptionConfig(
            dataset=SameImages(),
            sensor_size=(env.glimpse_size, env.glimpse_size),
            step_limit=options.max_glimpses,
        ),
    )
    peer.action_space.seed(options.seed)
    actions = [peer.action_space.sample() for _ in range(POOL)]
    peer.reset(seed=options.seed)
    turn = 0

    def batch() -> int:
        nonlocal turn
        peer.step(actions[turn % POOL])
        turn += 1
        return options.num_envs

    try:
        return {"per_s": best_rate(options, batch, nothing)}
    finally:
        peer.close()


def report(figures: list[dict[str, Any]], name: str, figure: dict[str, Any]) -> None:
    """Keeps and prints a figure."""
    figures.append({"name": name, **figure})
    line = f"{name:52s} {figure['per_s']:14,.0f} /s"
    if "useful_per_s" in figure:
        line += f"   useful {figure['useful_per_s']:,.0f} /s"
    if "fraction_of_gather" in figure:
        line += f"   {figure['fraction_of_gather']:.2f} of a bare gather"
    if "ratio_of_ours" in figure:
        line += f"   ours is {figure['ratio_of_ours']:,.0f} times as fast"
    print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
