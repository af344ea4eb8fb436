"""The pictures of the environment pages: trained agents at work, and drawn images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agents import POLICY_IDS, LookAndStop, load_agent
from dtram_env import datasets
from dtram_env.datasets.drawn import AUTOS, BIRDS, SCENES, SMALL_BIRDS, Drawing
from dtram_env.datasets.storage.thumbnails import box_resize
from dtram_env.rendering import COLOURS

from .samples import make_id, registered

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
LARGEST = 300_000  # bytes of a file

# The agent in an id's GIF: a model in the repository, or a run that a command makes.
AGENTS = {
    "DTRAM-MNIST-v0": "pretrained/mnist-conv",
    "DTRAM-MNIST-Policy-v0": "pretrained/mnist-policy-only",
    "DTRAM-TranslatedMNIST-v0": "pretrained/translated",
    "DTRAM-ClutteredMNIST-v0": "pretrained/cluttered",
    "DTRAM-ClutteredMNIST100-v0": "pretrained/cluttered-100",
    "DTRAM-BirdsSmall-v0": "pretrained/birds-small",
    "DTRAM-Scenes-v0": "pretrained/scenes",
    "DTRAM-Signpost-v0": "runs/signpost",
}
STILLS = {"DTRAM-Scenes-v0": 3}
"""Numbers of images in a still in place of a GIF, which would be too large."""
COMMANDS = {
    "DTRAM-Signpost-v0": (
        "python train/reinforce.py --env-id DTRAM-Signpost-v0 --locator cells grid=6 entropy=0.02 "
        "--m 8 --run-dir runs/signpost"
    ),
}
EPISODES = 6
STEP_MS, END_MS = 600, 1800  # duration of a frame, and of the last frame of an episode

SMALL_IMAGES = {
    "DTRAM-TranslatedMNIST-v0": (2, 6),
    "DTRAM-ClutteredMNIST-v0": (2, 6),
    "DTRAM-ClutteredMNIST100-v0": (2, 6),
    "DTRAM-WideSignpost-v0": (2, 6),
    "DTRAM-NoisySignpost-v0": (2, 12),
    "DTRAM-Patience-v0": (2, 12),
    "DTRAM-Pair-v0": (2, 12),
}
"""Rows and columns of images that are shown."""
DRAWINGS: dict[str, Drawing] = {
    "DTRAM-Birds-v0": BIRDS,
    "DTRAM-BirdsSmall-v0": SMALL_BIRDS,
    "DTRAM-Autos-v0": AUTOS,
    "DTRAM-Scenes-v0": SCENES,
}
_TILE, _GAP, _LINE = 224, 8, 20  # pixels


def captions(env_id: str) -> dict[str, str]:
    """The files in docs/images that show an id, each with its caption."""
    found = {}
    if env_id in AGENTS:
        made = COMMANDS.get(env_id)
        agent = f"DT-RAM trained by `{made}`" if made else f"the shipped `{AGENTS[env_id]}`"
        count, sees = STILLS.get(env_id, EPISODES), "only the pixels in the boxes"
        if registered(env_id)["first_glimpse"] == "thumbnail":
            sees = "the whole image shrunk, and the pixels in the boxes"
        found[f"{env_id}-glimpses.jpg" if env_id in STILLS else f"{env_id}.gif"] = (
            f"The first {count} test images with the glimpses of {agent}, numbered in order. "
            f"The agent sees {sees}."
        )
    if env_id in SMALL_IMAGES:
        rows, columns = SMALL_IMAGES[env_id]
        found[f"{env_id}.png"] = f"The first {rows * columns} test images."
    if env_id in DRAWINGS:
        side, drawing = registered(env_id)["glimpse_size"], DRAWINGS[env_id]
        size, window, part = drawing.image_size, drawing.figure_size, "that part"
        box = "part that distinguishes the classes."
        if window:
            part = "the part that distinguishes the classes"
            box = f"bird. Middle: the {window}x{window} pixels in the box."
        found[f"{env_id}.jpg"] = (
            f"Three classes of one genus. Top: the {side}x{side} thumbnail, with a box around the "
            f"{box} Bottom: {part} in the {size}x{size} image."
        )
    return found


def make_pictures(ids: Sequence[str]) -> None:
    """Writes the pictures of some ids.

    Args:
        ids: registered ids; empty for every id that has a picture.

    Raises:
        FileNotFoundError: an agent is missing; the message says how to train it.
        ValueError: an id without a picture, or a file that is too large.
    """
    known = list(dict.fromkeys((*AGENTS, *SMALL_IMAGES, *DRAWINGS)))
    for env_id in ids or known:
        if env_id not in known:
            raise ValueError(f"--pictures {env_id}: expected some of {', '.join(known)}")
        for file in captions(env_id):
            path = IMAGES / file
            if path.suffix == ".gif":
                write_gif(path, *episodes(env_id))
            elif path.stem.endswith("-glimpses"):
                frames, times = episodes(env_id)
                ends = [f for f, ms in zip(frames, times, strict=True) if ms == END_MS]
                ends = ends[: STILLS[env_id]]
                Image.fromarray(np.concatenate(ends, axis=1)).save(path, quality=75, optimize=True)
            else:
                pixels = small_images(env_id) if env_id in SMALL_IMAGES else classes(env_id)
                Image.fromarray(pixels).save(path, quality=85, optimize=True)
            size = path.stat().st_size
            if size > LARGEST:
                raise ValueError(f"{path}: {size:,} bytes, expected at most {LARGEST:,}")
            print(f"{path}: {size:,} bytes")


def episodes(env_id: str) -> tuple[list[np.ndarray], list[int]]:
    """Frames ``(h, w, 3)`` of the first test images, and the milliseconds to show each."""
    folder = ROOT / AGENTS[env_id]
    if env_id in COMMANDS and not folder.exists():
        raise FileNotFoundError(f"{folder}: no such run; make it with: {COMMANDS[env_id]}")
    agent = load_agent(folder)
    policy: Any = LookAndStop(agent) if env_id in POLICY_IDS else agent
    made = {k: value for k, value in agent.about["env_options"].items() if k != "data"}
    env = gym.make(
        make_id(env_id), split="test", order="sequential", render_mode="rgb_array", **made
    )
    assert isinstance(env.action_space, gym.spaces.Dict)
    frames: list[Any] = []
    times: list[int] = []
    for _ in range(EPISODES):
        observation, _ = env.reset()
        state, ended = policy.reset(1), False
        frames.append(env.render())
        times.append(STEP_MS)
        while not ended:
            batch = {key: value[None] for key, value in observation.items()}
            action, state = policy.step(batch, state)
            one = {key: np.asarray(action[key])[0] for key in env.action_space}
            observation, _, ended, _, _ = env.step(one)
            frames.append(env.render())
            times.append(END_MS if ended else STEP_MS)
    env.close()
    return frames, times


def write_gif(path: Path, frames: list[np.ndarray], times: list[int]) -> None:
    """Writes a GIF that repeats forever and has one palette for all frames."""
    # The boxes have few pixels, so a palette made from pixel counts would drop their colours.
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


def small_images(env_id: str) -> np.ndarray:
    """The first images of a test split in rows and columns, ``(h, w)`` uint8, enlarged twice."""
    rows, columns = SMALL_IMAGES[env_id]
    images = datasets.load(registered(env_id)["dataset"], "test").images
    assert isinstance(images, np.ndarray)
    framed = np.pad(images[: rows * columns, ..., 0], ((0, 0), (1, 1), (1, 1)), constant_values=90)
    lines = [np.concatenate(line, axis=1) for line in np.split(framed, rows)]
    return np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1)


def classes(env_id: str) -> np.ndarray:
    """Three classes of a genus, ``(h, w, 3)`` uint8: thumbnails, and the part that differs.

    A scene also has the figure between them, because it is small in the thumbnail.
    """
    drawing, side = DRAWINGS[env_id], registered(env_id)["glimpse_size"]
    layout, labels = drawing.layout("test"), drawing.labels("test")
    indices = _one_genus(drawing, labels, layout.discriminative)
    part = int(layout.discriminative[indices[0]].argmax())
    foot = (3 if drawing.figure_size else 2) * (_TILE + _GAP) - _GAP
    canvas = Image.new("RGB", (len(indices) * (_TILE + _GAP) - _GAP, foot + _LINE))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    images = drawing.draw_many("test", indices)
    for column, (index, image) in enumerate(zip(indices, images, strict=True)):
        x = column * (_TILE + _GAP)
        left, top, width, height = layout.part_boxes[index, part].tolist()
        middle = left + width // 2, top + height // 2
        views = [box_resize(image[None], side)[0]]
        box = [left, top, left + width, top + height]
        if drawing.figure_size:
            window = drawing.figure_size
            left, top = _corner(image, *middle, window)
            box = [left, top, left + window, top + window]
            views.append(_window(image, *middle, window))
        views.append(_window(image, *middle, round(1.25 * max(width, height))))
        for row, view in enumerate(views):
            large = Image.fromarray(view).resize((_TILE, _TILE), Image.Resampling.NEAREST)
            canvas.paste(large, (x, row * (_TILE + _GAP)))
        corners = np.array(box) * (_TILE / drawing.image_size)
        corners += np.array([x - 2, -2, x + 2, 2])
        draw.rectangle(corners.tolist(), outline=COLOURS[2], width=2)
        name = drawing.class_names[labels[index]]
        draw.text((x + 2, foot + 2), name, fill=(255, 255, 255), font=font)
    return np.array(canvas)


def _one_genus(drawing: Drawing, labels: np.ndarray, discriminative: np.ndarray) -> list[int]:
    """First image of each class of the first genus of three classes that one part distinguishes."""
    names = drawing.class_names
    first = {int(label): int((labels == label).argmax()) for label in np.unique(labels)}
    genera: dict[str, list[int]] = {}
    for label, index in sorted(first.items()):
        if discriminative[index].sum() == 1:
            genera.setdefault(names[label].partition(",")[0], []).append(index)
    return next(indices for indices in genera.values() if len(indices) == 3)


def _corner(image: np.ndarray, x: int, y: int, side: int) -> tuple[int, int]:
    """Left and top of the square about a point, moved to lie inside the image."""
    left, top = (min(max(c - side // 2, 0), len(image) - side) for c in (x, y))
    return left, top


def _window(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """The pixels of that square."""
    left, top = _corner(image, x, y, side)
    return image[top : top + side, left : left + side]
