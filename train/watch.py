"""Shows what a trained policy looks at: its glimpses in order, what it believes after each, and how
sure it is that it should stop.

    python train/watch.py runs/mine                       # the first test images
    python train/watch.py runs/mine --index 3 17          # these
    python train/watch.py runs/mine --hardest             # wrong answers, then the most glimpses
    python train/watch.py pretrained/mnist-conv digit.png # your own images
    python train/watch.py runs/ppo                        # a run of train/sb3_baselines.py

It writes ``watch.gif`` and ``watch.html``, one page with all pictures inside, and opens the page if
there is a display. `train/common/film.py` shows any other policy in the same way.
"""

import os
import sys
import webbrowser
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode

import dtram_env
from agents.dtram import DTRAM
from agents.loading import load_agent
from agents.prediction import preparation_of
from dtram_env import GlimpseVectorEnv
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.decode import pillow_limits
from train.baselines.trained import is_baseline, load_baseline
from train.common.evaluate_agent import load_policy
from train.common.film import Episode, record, write_film
from train.common.provenance import choose_device
from train.common.run import output_folder

SHOWN = 6  # images, unless --index or files say which


@dataclass(frozen=True)
class Options:
    """Shows what a trained policy looks at."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """folder of a run or of a shipped model"""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """your own image files, in place of images of the split; for a DT-RAM only"""
    index: tuple[int, ...] = ()
    """numbers of images in the split"""
    hardest: bool = False
    """images with a wrong answer, then those with the most glimpses; it goes through the split"""
    split: str = "test"
    """train, validation, test or train+validation"""
    stop: str | None = None
    """name of one of the model's stops; its default one if not given"""
    out: Path | None = None
    """folder of the GIF and the page; if not given, watch/ in the run's folder, or for a shipped
    model in the current one"""
    open: bool = True
    """open the page if there is a display"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""

    def __post_init__(self) -> None:
        given = {"FILE": self.files, "--index": self.index, "--hardest": self.hardest}
        named = [name for name, value in given.items() if value]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: expected at most one of them")


def watch(options: Options) -> Path:
    """Records the episodes and writes the GIF and the page; returns the page's path."""
    device, run_dir = choose_device(options.device), options.run_dir
    baseline = is_baseline(run_dir)
    if baseline and (options.files or options.stop is not None):
        expected = "expected images of its split, as --index or --hardest, without FILE and --stop"
        raise ValueError(f"{run_dir}: a run of train/sb3_baselines.py; {expected}")
    if options.files:
        agent = load_agent(run_dir, device, options.stop)
        episodes = own_episodes(agent, options.files)
        what = "your images"
    else:
        if baseline:
            policy, env_id, changed = load_baseline(run_dir, device, options.data_dir)
        else:
            _, policy, env_id, changed = load_policy(run_dir, device, options.stop)
        keywords = {**changed, "split": options.split, "data_dir": options.data_dir}
        images = options.index
        if options.hardest:
            images = hardest_images(policy, env_id, keywords)
        how: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, **keywords}
        with closing(gym.make_vec(env_id, num_envs=1, **how)) as made:
            env: Any = made.unwrapped
            first = range(min(SHOWN, env.num_images))
            episodes = [record(policy, env, image) for image in images or first]
            what = f"{env.dataset}, {env.split} split"
    folder = options.out or output_folder(run_dir) / "watch"
    stop = f", stop {options.stop}" if options.stop else ""
    return write_film(folder, f"{run_dir}{stop}: {what}", episodes)


def hardest_images(policy: Any, env_id: str, keywords: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of the images with a wrong answer, then of those with the most glimpses."""
    found = dtram_env.evaluate(policy, env_id, progress=sys.stderr.isatty(), **keywords)
    order = np.lexsort([-found.num_glimpses, found.prediction == found.label])
    return tuple(order[:SHOWN].tolist())


def own_episodes(agent: DTRAM, files: tuple[Path, ...]) -> list[Episode]:
    """Episodes of image files, which the agent sees as its environment would show them."""
    shown = preparation_of(agent)
    sensor, episodes = shown.sensor, []
    for path in files:
        with pillow_limits():
            pixels = shown.read(str(path), path)
        label = np.zeros(1, np.int64)  # not known; any will do
        env = GlimpseVectorEnv(
            Dataset(path.name, "test", pixels[None], label, agent.class_names),
            autoreset_mode=AutoresetMode.DISABLED,
            max_glimpses=agent.config.max_glimpses,
            glimpse_size=sensor.glimpse_size,
            num_scales=sensor.num_scales,
            first_glimpse=sensor.first_glimpse,
            thumbnail_size=sensor.thumbnail_size or None,
        )
        episodes.append(record(agent, env, 0, labelled=False))
    return episodes


def show(page: Path) -> None:
    """Opens a page in the browser if there is a display."""
    has_display = sys.platform in ("darwin", "win32")
    if has_display or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page.resolve().as_uri())


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    page = watch(options)
    print(f"{page.with_suffix('.gif')}\n{page}")
    if options.open:
        show(page)


if __name__ == "__main__":
    run_program(main)
