"""How fast the environment steps.

    python benchmarks/env_throughput.py
    python benchmarks/env_throughput.py --json env_throughput.json --device cuda

Random locations, random answers, steady state: actions are drawn before the clock starts. A vector
step counts as one env-step for every slot, as Gymnasium counts; "useful" leaves out the steps in
which a slot only restarts. The fraction of a bare gather is the time to cut the same number of
crops out of random images, and do nothing else, over the time of a step. The rows by batch size are
the torch backend's, beside the device's own limit: a copy of as many glimpses.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from benchmarks.timing import BenchmarkOptions, best_rate, doubling, run_benchmark
from dtram_env import GlimpseVectorEnv, sensor
from train.common.provenance import choose_device

POOL = 32  # batches of actions, used in turn
MODES = ("NextStep", "Disabled", "SameStep")


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measures env-steps a second."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    num_envs: int = 1024
    """slots of the vector environment"""
    max_glimpses: int = 7
    """the budget"""
    seconds: float = 1.0
    """length of a round"""
    rounds: int = 3
    """rounds of each measurement; the best is reported"""
    device: str = "cpu"
    """where the torch backend runs"""
    batch_sizes: tuple[int, ...] = ()
    """slots of the torch backend, one after another; if not given, 128, 256 ... 65536 on a GPU, up
    to 1024 on the CPU"""
    host: bool = True
    """measure the numpy backend, the torch backend's modes, the scalar class and the peer"""
    seed: int = 0
    """seed of images and actions"""


def run(options: Options) -> dict[str, Any]:
    """Runs every measurement, prints a line for each, and returns the content of ``--json``."""
    device = choose_device(options.device)
    figures = compare(options) if options.host else []
    rows = [by_size(options, size) for size in options.batch_sizes or doubling(device)]
    return {"figures": figures, "rows": rows}


def by_size(options: Options, batch_size: int) -> dict[str, Any]:
    """The torch backend with so many slots, which stop with probability 1/2 after a glimpse."""
    options = replace(options, num_envs=batch_size)
    env = make_vector(options, 1)
    shape = (batch_size, *env.reset()[0]["glimpse"].shape[1:])
    seen, to = (torch.zeros(shape, dtype=torch.uint8, device=options.device) for _ in range(2))
    copies = rate_over([seen], to.copy_, options, 20, batch_size)["per_s"]
    figure = vector(options, "NextStep", 0.5, "torch")
    row = {
        "device": options.device,
        "batch_size": batch_size,
        "steps_per_second": round(figure["per_s"]),
        "glimpses_per_second": round(figure["useful_per_s"]),
        "copied_glimpses_per_second": round(copies),
        "fraction_of_copy": round(figure["useful_per_s"] / copies, 4),
    }
    print(
        f"{batch_size:9,d} slots, torch on {options.device}: {row['glimpses_per_second']:14,d} "
        f"glimpses/s; a copy of as many: {row['copied_glimpses_per_second']:14,d} glimpses/s",
        flush=True,
    )
    return row


def compare(options: Options) -> list[dict[str, Any]]:
    """Backends, modes, the scalar class and the peer."""
    figures: list[dict[str, Any]] = []
    gather = bare_gather(options)
    report(figures, "bare gather", gather)
    for stop in (0.5, 0.0):
        for mode in MODES:
            figure = vector(options, mode, stop, "numpy")
            figure["fraction_of_gather"] = figure["per_s"] / gather["per_s"]
            report(figures, f"vector, numpy, {mode}, P(stop)={stop}", figure)
            if (mode, stop) == ("NextStep", 0.0):
                without_stop = figure["per_s"]
    for mode in MODES:
        figure = vector(options, mode, 0.5, "torch")
        report(figures, f"vector, torch on {options.device}, {mode}, P(stop)=0.5", figure)
    report(figures, "scalar, unwrapped, P(stop)=0.5", scalar(options, wrapped=False))
    report(figures, "scalar, gym.make, P(stop)=0.5", scalar(options, wrapped=True))
    peer = ap_gym(options)
    if peer is not None:
        # The peer's episodes have no stop and last the whole step limit: so must ours.
        peer["ratio_of_ours"] = without_stop / peer["per_s"]
        report(figures, "ap-gym's image classification, vector, no stop", peer)
    return figures


def rate_over(
    items: Sequence[Any], use: Callable[[Any], object], options: Options, calls: int, num_envs: int
) -> dict[str, Any]:
    """Env-steps a second of a `use` of `num_envs` slots, with prepared items in turn."""
    turn = cycle(items)
    seconds, rounds, device = options.seconds, options.rounds, options.device
    rate = best_rate(lambda: use(next(turn)), seconds, rounds, calls, device)
    return {"per_s": num_envs * rate}


def make_vector(options: Options, num_envs: int, **keywords: Any) -> GlimpseVectorEnv:
    """The vector environment with some number of slots."""
    env = gym.make_vec(options.env_id, num_envs=num_envs, **keywords).unwrapped
    assert isinstance(env, GlimpseVectorEnv)
    return env


def bare_gather(options: Options) -> dict[str, Any]:
    """Crops of random images at random places, and nothing else."""
    env, n = make_vector(options, 1), options.num_envs
    side, (height, width) = env.glimpse_size, env.data.typical_size
    store = env.data.store(sensor.margin(side, env.num_scales))
    rng = np.random.default_rng(options.seed)
    crops = []
    for _ in range(POOL):
        location = rng.uniform(-1, 1, (n, 2))
        index = rng.integers(env.num_images, size=n)
        top = sensor.corner(location[:, 1], height, side)
        left = sensor.corner(location[:, 0], width, side)
        crops.append((index, top, left, side))
    return rate_over(crops, lambda crop: store.crop(*crop), options, 100, n)


def draw_actions(options: Options, num_classes: int, stop: float) -> list[dict[str, np.ndarray]]:
    """Batches of native actions."""
    rng, n = np.random.default_rng(options.seed), options.num_envs
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
    how: dict[str, Any] = {"autoreset_mode": mode, "backend": backend}
    how |= {"device": options.device} if backend == "torch" else {}
    env = make_vector(options, options.num_envs, max_glimpses=options.max_glimpses, **how)
    actions: list[Any] = draw_actions(options, env.num_classes, stop)
    if backend == "torch":
        actions = [
            {key: torch.from_numpy(value).to(options.device) for key, value in action.items()}
            for action in actions
        ]
    env.reset(seed=options.seed)

    def step(action: Any) -> None:
        over = env.step(action)[2]
        if mode == "Disabled":
            env.reset(options={"reset_mask": over})

    figure = rate_over(actions, step, options, 20, options.num_envs)
    if mode == "NextStep":
        # After an episode of E[T] steps comes one that only restarts.
        length = sum((1 - stop) ** t for t in range(options.max_glimpses))
        figure["useful_per_s"] = figure["per_s"] * length / (length + 1)
    return figure


def scalar(options: Options, wrapped: bool) -> dict[str, Any]:
    """The scalar environment, resets included."""
    env = gym.make(options.env_id, max_glimpses=options.max_glimpses)
    if not wrapped:
        env = env.unwrapped
    batches = draw_actions(options, env.unwrapped.num_classes, 0.5)  # type: ignore[attr-defined]
    rows = range(min(options.num_envs, 64))
    actions = [{key: value[i] for key, value in batch.items()} for batch in batches for i in rows]
    env.reset(seed=options.seed)

    def step(action: Any) -> None:
        if env.step(action)[2]:
            env.reset()

    return rate_over(actions, step, options, 200, 1)


def ap_gym(options: Options) -> dict[str, Any] | None:
    """The peer's vector environment on the same images and sensor, if it is installed."""
    try:
        from ap_gym.envs.image import ImageClassificationDataset
        from ap_gym.envs.image.image_perception_module import ImagePerceptionConfig
        from ap_gym.envs.image_classification import ImageClassificationVectorEnv
    except ImportError:
        print("ap-gym is not installed, or not whole (pip install 'dtram[bench]'): no ratio")
        return None
    env = make_vector(options, 1)
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

    config = ImagePerceptionConfig(
        dataset=SameImages(),
        sensor_size=(env.glimpse_size, env.glimpse_size),
        step_limit=options.max_glimpses,
    )
    peer = ImageClassificationVectorEnv(options.num_envs, config)
    peer.action_space.seed(options.seed)
    actions = [peer.action_space.sample() for _ in range(POOL)]
    peer.reset(seed=options.seed)
    figure = rate_over(actions, peer.step, options, 1, options.num_envs)
    peer.close()
    return figure


def report(figures: list[dict[str, Any]], name: str, figure: dict[str, Any]) -> None:
    """Keeps and prints a figure."""
    figures.append({"name": name, **figure})
    further = {
        "useful_per_s": "useful {:,.0f} /s",
        "fraction_of_gather": "{:.2f} of a bare gather",
        "ratio_of_ours": "ours is {:,.0f} times as fast",
    }
    line = [f"{name:52s} {figure['per_s']:14,.0f} /s"]
    line += [text.format(figure[key]) for key, text in further.items() if key in figure]
    print(*line, sep="   ", flush=True)


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
