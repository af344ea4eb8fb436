"""How fast the environment steps, beside its peers and its limits.

    python benchmarks/env_throughput.py
    python benchmarks/env_throughput.py --json env_throughput.json --device cuda

Random locations, random answers, a stop with probability 1/2 after each glimpse unless a row says
otherwise, steady state: actions are drawn before the clock starts. A vector step counts as one
env-step for every slot, as Gymnasium counts. Two limits: a bare gather cuts as many crops out of
random images, and does nothing else; the same work by hand also draws images, counts glimpses and
grades answers, in a loop written for that alone. The rows by batch size are the torch backend's,
beside the device's own limit: a copy of as many glimpses.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from benchmarks.timing import BenchmarkOptions, best_rate, doubling, run_benchmark
from dtram_env import GlimpseVectorEnv, sensor
from dtram_env.sb3 import Sb3VecEnv
from train.common.provenance import choose_device

POOL = 32  # batches of actions, used in turn


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measures env-steps a second."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment, of images of one size"""
    num_envs: tuple[int, ...] = (1, 8, 64, 1024, 16384)
    """numbers of environments side by side"""
    threads: tuple[int, ...] = (1, 2)
    """numbers of threads of the torch backend; NumPy has one"""
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
    """measure both backends, the peers and the limits by number of environments"""


Work = Iterator[Callable[[], object]]
"""Gives one step of all environments, and closes them afterwards."""


def run(options: Options) -> dict[str, Any]:
    """Runs every measurement, prints a line for each, and returns the content of ``--json``."""
    device = choose_device(options.device)
    figures = compare(options) if options.host else []
    rows = [by_size(options, size) for size in options.batch_sizes or doubling(device)]
    return {"figures": figures, "rows": rows}


def by_size(options: Options, n: int) -> dict[str, Any]:
    """The torch backend with `n` slots."""
    shape = (n, *make_vector(options, 1).reset()[0]["glimpse"].shape[1:])
    seen, to = (torch.zeros(shape, dtype=torch.uint8, device=options.device) for _ in range(2))
    copies = rate(options, n, lambda: to.copy_(seen))
    with vector(options, n, backend="torch", device=options.device) as step:
        steps = rate(options, n, step)
    # After an episode of E[T] steps comes one that only restarts.
    length = sum(0.5**t for t in range(options.max_glimpses))
    glimpses = steps * length / (length + 1)
    row = {
        "device": options.device,
        "batch_size": n,
        "steps_per_second": round(steps),
        "glimpses_per_second": round(glimpses),
        "copied_glimpses_per_second": round(copies),
        "fraction_of_copy": round(glimpses / copies, 4),
    }
    print(
        f"{n:9,d} slots, torch on {options.device}: {row['glimpses_per_second']:14,d} "
        f"glimpses/s; a copy of as many: {row['copied_glimpses_per_second']:14,d} glimpses/s",
        flush=True,
    )
    return row


def compare(options: Options) -> list[dict[str, Any]]:
    """A figure for each row, number of environments and number of threads."""
    figures = []
    for row in rows_of(options):
        for n in options.num_envs:
            if row.least <= n <= row.most:
                torch.set_num_threads(row.threads)
                with row.work(options, n) as step:
                    figure = {"name": row.name, "num_envs": n, "per_s": rate(options, n, step)}
                figures.append(figure)
                print(f"{row.name:55s} {n:6,d} {figure['per_s']:14,.0f} /s", flush=True)
    return figures


class Row(NamedTuple):
    """What is measured, for `least` to `most` environments."""

    name: str
    work: Callable[[Options, int], Any]  # a context manager, see `Work`
    most: int = 10**6
    least: int = 1
    threads: int = 1


def rows_of(options: Options) -> list[Row]:
    """The limits, ours, and the peers; of these the largest numbers take minutes to make."""

    found = [
        Row("bare gather", bare_gather),
        Row("the same work by hand, NextStep", same_work),
        *(
            Row(f"ours, numpy, {mode}", partial(vector, autoreset_mode=mode))
            for mode in ("NextStep", "Disabled", "SameStep")
        ),
        *(
            Row(
                f"ours, torch on {options.device}, NextStep, threads: {count}",
                partial(vector, backend="torch", device=options.device),
                threads=count,
            )
            for count in options.threads
        ),
        Row("ours, Sb3VecEnv", partial(sb3, kind="ours")),
        Row("ours, scalar, gym.make", scalar, most=1),
        Row("scalar class in Gymnasium's SyncVectorEnv", partial(gymnasium, mode="sync"), 1024),
        Row("scalar class in Gymnasium's AsyncVectorEnv", partial(gymnasium, mode="async"), 64),
        Row("scalar class in SB3's DummyVecEnv", partial(sb3, kind="dummy"), 1024),
        Row("scalar class in SB3's SubprocVecEnv", partial(sb3, kind="processes"), 64),
        Row("ours, numpy, NextStep, no stop", partial(vector, stop=0.0)),
    ]
    try:
        import ap_gym.envs.image_classification  # noqa: F401
    except ImportError:
        print("ap-gym is not installed, or not whole (pip install 'dtram[bench]'): no row")
    else:
        found.append(Row("ap-gym's image classification, no stop", ap_gym_peer, 1024))
    return found


def rate(options: Options, n: int, step: Callable[[], object]) -> float:
    """Env-steps a second of a step of `n` environments."""
    calls = max(1, min(200, 20_000 // n))
    return n * best_rate(step, options.seconds, options.rounds, calls, options.device)


def in_turn(use: Callable[[Any], object], items: Sequence[Any]) -> Callable[[], object]:
    """Uses prepared items, one each call."""
    turn = cycle(items)
    return lambda: use(next(turn))


def make_vector(options: Options, n: int, **keywords: Any) -> GlimpseVectorEnv:
    """The vector environment with `n` slots."""
    keywords = {"max_glimpses": options.max_glimpses, **keywords}
    env = gym.make_vec(options.env_id, num_envs=n, **keywords).unwrapped
    assert isinstance(env, GlimpseVectorEnv)
    return env


def draw_actions(
    options: Options, n: int, num_classes: int, stop: float = 0.5
) -> list[dict[str, np.ndarray]]:
    """Batches of native actions."""
    rng = np.random.default_rng(0)
    return [
        {
            "location": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "stop": (rng.random(n) < stop).astype(np.int64),
            "prediction": rng.integers(num_classes, size=n),
        }
        for _ in range(POOL)
    ]


# -- limits ----------------------------------------------------------------------------------------


@contextmanager
def bare_gather(options: Options, n: int) -> Work:
    """Crops of random images at random places, and nothing else."""
    env = make_vector(options, 1)
    side, (height, width) = env.glimpse_size, env.data.typical_size
    store = env.data.store(sensor.margin(side, env.num_scales))
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(POOL):
        location = rng.uniform(-1, 1, (n, 2))
        index = rng.integers(env.num_images, size=n)
        top = sensor.corner(location[:, 1], height, side)
        left = sensor.corner(location[:, 0], width, side)
        crops.append((index, top, left, side))
    yield in_turn(lambda crop: store.crop(*crop), crops)


@contextmanager
def same_work(options: Options, n: int) -> Work:
    """Draws images, counts glimpses, grades answers and takes glimpses: no checks, no infos."""
    env = make_vector(options, 1)
    store = env.data.store(sensor.margin(env.glimpse_size, env.num_scales))
    labels, paid = env.data.labels, env.discount ** np.arange(env.max_glimpses + 1)
    rng = np.random.default_rng(0)
    index, t, over = rng.integers(len(labels), size=n), np.ones(n, np.int64), np.zeros(n, bool)
    location = np.zeros((n, 2), np.float32)

    def step(action: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nonlocal index, t, over, location
        ended = ((action["stop"] == 1) | (t >= env.max_glimpses)) & ~over
        reward = np.where(ended & (action["prediction"] == labels[index]), paid[t], 0)
        index = np.where(over, rng.integers(len(labels), size=n), index)
        location = np.where((ended | over)[:, None], location, action["location"])
        location = np.where(over[:, None], 0, location)
        t = np.where(over, 1, t + ~ended)
        over = ended
        seen = sensor.glimpse(store, index, location, env.glimpse_size, env.num_scales)
        return seen, reward, ended

    yield in_turn(step, draw_actions(options, n, env.num_classes))


# -- ours ------------------------------------------------------------------------------------------


@contextmanager
def vector(options: Options, n: int, stop: float = 0.5, **keywords: Any) -> Work:
    """The vector environment; in "Disabled" every step is followed by a masked reset."""
    env = make_vector(options, n, **keywords)
    actions: list[Any] = draw_actions(options, n, env.num_classes, stop)
    if keywords.get("backend") == "torch":
        actions = [
            {key: torch.from_numpy(value).to(env.device) for key, value in action.items()}
            for action in actions
        ]
    env.reset(seed=0)
    disabled = keywords.get("autoreset_mode") == "Disabled"

    def step(action: Any) -> None:
        over = env.step(action)[2]
        if disabled:
            env.reset(options={"reset_mask": over})

    yield in_turn(step, actions)


@contextmanager
def scalar(options: Options, n: int) -> Work:
    """The scalar environment, resets included."""
    env = gym.make(options.env_id, max_glimpses=options.max_glimpses)
    classes = env.unwrapped.num_classes  # type: ignore[attr-defined]
    batches = draw_actions(options, 64, classes)
    actions = [{key: value[i] for key, value in b.items()} for b in batches for i in range(64)]
    env.reset(seed=0)

    def step(action: Any) -> None:
        if env.step(action)[2]:
            env.reset()

    yield in_turn(step, actions)


# -- peers -----------------------------------------------------------------------------------------


@contextmanager
def gymnasium(options: Options, n: int, mode: str) -> Work:
    """Gymnasium's own vector environments over the scalar class."""
    how: dict[str, Any] = {"vectorization_mode": mode, "max_glimpses": options.max_glimpses}
    env: Any = gym.make_vec(options.env_id, num_envs=n, **how)
    env.reset(seed=0)
    classes = env.single_action_space["prediction"].n
    yield in_turn(env.step, draw_actions(options, n, classes))
    env.close()


@contextmanager
def sb3(options: Options, n: int, kind: str) -> Work:
    """`Sb3VecEnv`, or SB3's own over the scalar class, in the discrete view."""
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    how: dict[str, Any] = {"max_glimpses": options.max_glimpses, "view": "discrete"}
    env: Any
    if kind == "ours":
        env = Sb3VecEnv(options.env_id, n, **how)
    else:
        makers = [lambda: gym.make(options.env_id, **how)] * n
        env = DummyVecEnv(makers) if kind == "dummy" else SubprocVecEnv(makers, "fork")
    rng = np.random.default_rng(0)
    counts = env.action_space.nvec
    env.reset()
    yield in_turn(env.step, [rng.integers(counts, size=(n, len(counts))) for _ in range(POOL)])
    env.close()


@contextmanager
def ap_gym_peer(options: Options, n: int) -> Work:
    """ap-gym's vector environment on the same images and sensor; its episodes have no stop."""
    from ap_gym.envs.image import ImageClassificationDataset
    from ap_gym.envs.image.image_perception_module import ImagePerceptionConfig
    from ap_gym.envs.image_classification import ImageClassificationVectorEnv

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
    peer = ImageClassificationVectorEnv(n, config)
    peer.action_space.seed(0)
    actions = [peer.action_space.sample() for _ in range(POOL)]
    peer.reset(seed=0)
    yield in_turn(peer.step, actions)
    peer.close()


if __name__ == "__main__":
    run_benchmark(Options, run, __doc__)
