"""What a policy looked at and thought, glimpse by glimpse: recorded episodes, a GIF and a page.

For any `dtram_env.Policy`, in an environment that `gym.make_vec` made with
``num_envs=1, autoreset_mode=AutoresetMode.DISABLED``::

    episodes = [record(policy, env.unwrapped, image) for image in range(6)]
    write_film(Path("film"), "my policy", episodes)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from agents.dtram import DTRAM
from agents.policy_only import LookAndStop
from agents.stopping import LearnedStop
from dtram_env import GlimpseVectorEnv, sensor
from dtram_env.backends import to_host
from dtram_env.files import replacing
from dtram_env.rendering import COLOURS, crop_boxes, draw_episode, episode_caption, readable
from train.common.page import encoded, image, write_page

BARS = 7  # classes with a bar, those of the highest belief at any glimpse
PICTURE, GLIMPSE, GAP, LINE, NAME = 280, 96, 8, 18, 110  # pixels
SECONDS, LAST_SECONDS = 1.0, 2.5  # that a frame of the GIF stays; the last one of an episode longer
COLOUR_OF = {"right": (60, 180, 75), "wrong": (230, 25, 75), "stop": (240, 240, 240)}
OTHER = (110, 130, 160)  # colour of the other bars


class Look(NamedTuple):
    """A glimpse, and what the policy thought after it."""

    views: list[np.ndarray]  # the glimpse: its scales, or the thumbnail; each (n, n, C) uint8
    location: np.ndarray  # (2,)
    belief: np.ndarray | None = None  # (K,) probability of every class, if the policy tells it
    stop: float | None = None  # probability of stopping, if the policy learned it


@dataclass
class Episode:
    """The looks of one episode and its outcome."""

    title: str
    image: np.ndarray  # (H, W, C) uint8
    class_names: Sequence[str]
    glimpse_size: int
    whole_first: bool  # whether the first glimpse is a thumbnail
    label: int | None  # None: not known
    looks: list[Look] = field(default_factory=list)
    prediction: int | None = None  # at the end

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Boxes of the looks in the image, see `crop_boxes`."""
        locations = np.array([look.location for look in self.looks[int(self.whole_first) :]])
        return crop_boxes(locations, self.image.shape, self.glimpse_size, self.whole_first)


def record(policy: Any, env: GlimpseVectorEnv, image: int, labelled: bool = True) -> Episode:
    """Plays one episode of image number `image` in an environment of one slot, without autoreset.

    `labelled`: whether the environment's label is the true class. Raises ValueError if there is no
    such image, or the policy was made for another environment.
    """
    if hasattr(policy, "check_env"):
        policy.check_env(env)
    observation, infos = env.reset(options={"image_index": image})
    episode = Episode(
        f"{env.dataset} {env.data.caption(image)}" if labelled else env.dataset,
        env.data.image(image),
        env.class_names,
        env.glimpse_size,
        env.first_glimpse == "thumbnail",
        int(infos["label"][0]) if labelled else None,
    )
    state = policy.reset(1)
    while episode.prediction is None:
        seen, taken = observation, int(infos["num_glimpses"][0])
        action, state = policy.step(seen, state)
        if taken:
            location = to_host(seen["location"])
            views = _views(env, np.array([image]), location, taken)
            thoughts = _thoughts(policy, seen, action, state, env.num_classes)
            episode.looks.append(Look(views, location[0].copy(), *thoughts))
        observation, _, ended, _, infos = env.step(action)
        if ended[0]:
            episode.prediction = int(infos["prediction"][0])
    return episode


def _views(
    env: GlimpseVectorEnv, index: np.ndarray, location: np.ndarray, taken: int
) -> list[np.ndarray]:
    """What glimpse number `taken` shows, a view ``(n, n, C)`` for each scale."""
    size, scales = env.glimpse_size, env.num_scales
    store = env.data.store(sensor.margin(size, scales))
    if env.first_glimpse == "thumbnail" and taken == 1:
        return [store.thumbnail(index, env.thumbnail_size)[0]]
    return np.split(sensor.glimpse(store, index, location, size, scales)[0], scales, axis=-1)


def _thoughts(
    policy: Any, observation: Any, action: Any, state: Any, classes: int
) -> tuple[np.ndarray | None, float | None]:
    """Belief ``(K,)`` after a glimpse and probability of stopping, where the policy tells them.

    A policy that gives native actions and no probabilities believes in its prediction alone.
    """
    agent = policy.agent if isinstance(policy, LookAndStop) else policy
    if isinstance(agent, DTRAM):
        with torch.no_grad():
            heads = agent.heads(state, int(state.time[0]) - 1)
        rule = agent.stopping
        learned = isinstance(rule, LearnedStop) and rule.threshold < 1
        stop = float(torch.sigmoid(heads.stop_logit[0])) if learned else None
        return to_host(torch.softmax(heads.logits[0], dim=-1)), stop
    if "probs" in observation:
        return to_host(observation["probs"])[0], None
    if isinstance(action, dict) and "prediction" in action:
        return np.eye(classes)[int(action["prediction"][0])], None
    return None, None


def draw_look(episode: Episode, number: int) -> np.ndarray:
    """A frame ``(h, w, 3)`` uint8: the image with the glimpses 1 ... `number`, boxed and joined by
    a path; the last of them; bars of the belief after it and of the probability of stopping."""
    looks, names = episode.looks, episode.class_names
    look, over = looks[number - 1], number == len(looks)
    said = None if look.belief is None else int(look.belief.argmax())
    said = episode.prediction if over else said
    caption = f"{episode.title}, {episode_caption(number, said, episode.label, names, over)}"
    boxes = episode.boxes[:number]
    left = draw_episode(episode.image, boxes, caption, size=PICTURE, square=True, path=True)
    most = max(len(one.views) for one in looks)
    width = max(PICTURE, most * (GLIMPSE + GAP) + GAP)
    frame = Image.new("RGB", (left.shape[1] + width, left.shape[0]))
    frame.paste(Image.fromarray(left), (0, 0))
    draw, x = ImageDraw.Draw(frame), left.shape[1] + GAP
    colour = COLOURS[(number - 1) % len(COLOURS)]
    for k, view in enumerate(look.views):
        shown = Image.fromarray(draw_episode(view, [], size=GLIMPSE, square=True))
        at = x + k * (GLIMPSE + GAP), GAP
        frame.paste(shown, at)
        draw.rectangle((*at, at[0] + GLIMPSE - 1, at[1] + GLIMPSE - 1), outline=colour)
    y = GLIMPSE + 2 * GAP
    for name, kind, shares in bars(episode, BARS):
        share, fill = float(shares[number - 1]), COLOUR_OF.get(kind, OTHER)
        text, font = readable(name[:20])
        draw.text((x, y + 2), text, fill=(255, 255, 255), font=font)
        start, room = x + NAME, width - NAME - 40 - 2 * GAP
        draw.rectangle((start, y, frame.width, y + LINE), fill=(0, 0, 0))  # ends a long name
        draw.rectangle((start, y + 3, start + max(round(share * room), 1), y + LINE - 5), fill=fill)
        text, font = readable(f"{share:.2f}")
        draw.text((start + room + 6, y + 2), text, fill=(255, 255, 255), font=font)
        y += LINE
    return np.asarray(frame)


def bars(episode: Episode, most: int) -> list[tuple[str, str, np.ndarray]]:
    """Name, kind and lengths ``(T,)`` in [0, 1] after each look of the bars of an episode.

    They are of `most` classes at most, those of the highest belief at any look, and of the
    probability of stopping. Kinds are "right", "wrong", "stop", and "" for other classes.
    """
    found = []
    if episode.looks and all(look.belief is not None for look in episode.looks):
        belief = np.array([look.belief for look in episode.looks])
        for k in np.argsort(-belief.max(axis=0), kind="stable")[:most].tolist():
            kind = "right" if k == episode.label else ""
            if episode.label is not None and k == episode.prediction != episode.label:
                kind = "wrong"
            found.append((episode.class_names[k], kind, belief[:, k]))
    if episode.looks and all(look.stop is not None for look in episode.looks):
        found.append(("p(stop)", "stop", np.array([look.stop for look in episode.looks])))
    return found


def write_film(folder: Path, title: str, episodes: Sequence[Episode]) -> Path:
    """Writes ``watch.gif`` and ``watch.html`` with all episodes; returns the page's path.

    The page holds its pictures. All episodes are of one environment, so frames have one size.
    """
    films = [[draw_look(e, n) for n in range(1, len(e.looks) + 1)] for e in episodes]
    widest = max(frame.shape[1] for film in films for frame in film)
    frames, durations = [], []
    for film in films:
        for frame in film:
            wide = np.pad(frame, ((0, 0), (0, widest - frame.shape[1]), (0, 0)))
            frames.append(Image.fromarray(wide))
            durations.append(round(1000 * (LAST_SECONDS if frame is film[-1] else SECONDS)))
    folder.mkdir(parents=True, exist_ok=True)
    first, *others = frames
    how: dict[str, Any] = {"append_images": others, "duration": durations, "loop": 0}
    with replacing(folder / "watch.gif") as aside:
        first.save(aside, format="GIF", save_all=True, **how)
    sections = []
    for episode, film in zip(episodes, films, strict=True):
        pictures = [
            image(encoded(Image.fromarray(frame), "png"), "png", f"after glimpse {number}")
            for number, frame in enumerate(film, start=1)
        ]
        stops = ", ".join(f"{look.stop:.2f}" for look in episode.looks if look.stop is not None)
        said = f"{len(film)} glimpse{'s' * (len(film) > 1)}"
        said += f"; probability of stopping after each: {stops}" if stops else ""
        sections.append((episode.title, said, pictures))
    gif = image((folder / "watch.gif").read_bytes(), "gif", "all episodes, one after the other")
    return write_page(
        folder / "watch.html", "film.html", title=title, warnings=(), gif=gif, films=sections
    )
