"""GIFs of a trained agent, out of the environment's own frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from agents import DTRAM, POLICY_IDS
from agents.policy_only import LookAndStop
from dtram_env.rendering import COLOURS

from .pages import DOCS, IDS, IMAGES, write_captions
from .samples import make_id

EPISODES = 6
STEP_MS, END_MS = 600, 1800  # how long a frame is shown, and an episode's last
LARGEST = 300_000  # bytes

SHIPPED = {
    "DTRAM-MNIST-v0": "pretrained/mnist-dtram-conv-0",
    "DTRAM-MNIST-Policy-v0": "pretrained/mnist-policy-only",
    "DTRAM-BirdsSmall-v0": "pretrained/birds-small",
}
SIGNPOST_COMMAND = (
    "python train/reinforce.py --env-id DTRAM-Signpost-v0 --locator-grid 6 --location-entropy 0.02 "
    "--m 8 --run-dir runs/signpost"
)


def played() -> list[str]:
    """The ids with a GIF: those whose agent is shipped, and Signpost, whose is trained for it."""
    shipped = [i for i, folder in SHIPPED.items() if (DOCS.parent / folder).exists()]
    return [env_id for env_id in IDS if env_id in (*shipped, "DTRAM-Signpost-v0")]


@dataclass(frozen=True)
class Actor:
    """Who plays in a GIF.

    Attributes:
        policy: a `dtram_env.Policy`.
        said: what the caption calls it.
    """

    policy: Any
    said: str


def actor(env_id: str, signpost_run: Path) -> Actor:
    """The agent of an id's GIF.

    Args:
        env_id: one of `pages.IDS`.
        signpost_run: a DT-RAM trained on DTRAM-Signpost-v0.

    Raises:
        FileNotFoundError: a run is not there; the message says how to make it.
        ValueError: the id has no agent.
    """
    if env_id in SHIPPED:
        folder = SHIPPED[env_id]
        agent = DTRAM.load(folder)
        policy = LookAndStop(agent) if env_id in POLICY_IDS else agent
        return Actor(policy, f"the shipped DT-RAM, `{folder}`")
    if env_id == "DTRAM-Signpost-v0":
        if not signpost_run.exists():
            raise FileNotFoundError(f"{signpost_run}: no such run; make it: {SIGNPOST_COMMAND}")
        command = json.loads((signpost_run / "results.json").read_text())["command"]
        return Actor(DTRAM.load(signpost_run), f"a DT-RAM trained by `{command}`")
    known = ", ".join((*SHIPPED, "DTRAM-Signpost-v0"))
    raise ValueError(f"--gifs {env_id}: no agent is named for it in docs/gifs.py, only for {known}")


def make_gifs(ids: Sequence[str], signpost_run: Path) -> None:
    """Writes the GIFs of some ids (of `played`, if none is named), and what each shows.

    Raises:
        ValueError: an unknown id, one without an agent, or a GIF that came out too large.
        FileNotFoundError: an agent is not there.
    """
    for env_id in ids or played():
        if env_id not in IDS:
            raise ValueError(f"--gifs {env_id}: expected some of {', '.join(IDS)}")
        who = actor(env_id, signpost_run)
        path = IMAGES / f"{env_id}.gif"
        write_gif(path, *episodes(make_id(env_id), who.policy))
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(f"{path}: {size:,} bytes, expected at most {LARGEST:,}")
        text = (
            f"The first {EPISODES} images of the test split, not chosen, seen by {who.said}. The "
            "boxes are its glimpses, numbered in order; the agent sees only what is inside them."
        )
        write_captions({path.name: text})
        print(f"{path}: {size:,} bytes")


def episodes(env_id: str, policy: Any) -> tuple[list[np.ndarray], list[int]]:
    """Frames ``(h, w, 3)`` of the first test images, and how long to show each, in milliseconds."""
    env = gym.make(env_id, split="test", order="sequential", render_mode="rgb_array")
    assert isinstance(env.action_space, gym.spaces.Dict)
    frames: list[np.ndarray] = []
    times: list[int] = []

    def shoot(milliseconds: int) -> None:
        frame: Any = env.render()
        frames.append(frame)
        times.append(milliseconds)

    for _ in range(EPISODES):
        observation, _ = env.reset()
        shoot(STEP_MS)
        state, ended = policy.reset(1), False
        while not ended:
            batch = {key: value[None] for key, value in observation.items()}
            action, state = policy.step(batch, state)
            one = {key: np.asarray(action[key])[0] for key in env.action_space}
            observation, _, ended, _, _ = env.step(one)
            shoot(END_MS if ended else STEP_MS)
    env.close()
    return frames, times


def write_gif(path: Path, frames: list[np.ndarray], times: list[int]) -> None:
    """Writes a GIF that repeats for ever, with one palette for all its frames."""
    # The boxes' colours are few pixels among many: kept as they are, not left to be merged.
    boxes = [channel for colour in COLOURS for channel in colour]
    others = 256 - len(COLOURS)
    found = Image.fromarray(np.concatenate(frames)).quantize(others).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((boxes + found)[: 3 * 256])
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True
    )
