"""Plays an environment by hand: click where to look, press a key to answer.

    python -m dtram_env.play                                  # ten digits of MNIST
    python -m dtram_env.play DTRAM-Signpost-v0 --episodes 5
    python -m dtram_env.play DTRAM-ImageFolder-v0 --root photos --env image_size=512

The window shows what has been seen so far, coarse scales and a thumbnail enlarged, and the rest
dark. Answer with a digit, or choose a class by the arrow keys and Enter; on policy-only ids Enter
stops. Escape ends the game. It needs pygame (extra render).
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from . import sensor
from .checks import check_integer
from .optional import MissingDependencyError, require
from .output import in_one_line
from .rendering import COLOURS, Window, crop_boxes, draw_episode, readable
from .settings import read_words

_SIDE = 560  # largest side of the picture, in pixels
_PANEL, _LINE, _ROWS = 240, 22, 20  # width of the list of classes, height and number of its lines
_UNSEEN = (25, 25, 60)
_FPS = 30
# Keywords of the environment that the picture depends on.
_NEEDED = {"view": "native", "observe": "glimpse", "glimpse_format": "image"}


@dataclass
class Score:
    """The results of the episodes played so far."""

    images: list[int] = field(default_factory=list)  # their indices in the split
    right: list[bool] = field(default_factory=list)
    glimpses: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.images:
            return "no image was answered"
        error, mean = 100 * (1 - np.mean(self.right)), np.mean(self.glimpses)
        return f"return {np.mean(self.rewards):.3f}, error {error:.0f} %, {mean:.2f} glimpses"


class Game:
    """One episode after another, driven by clicks and answers; it knows no window.

    Args:
        env: a scalar environment with native views.
    """

    def __init__(self, env: Any) -> None:
        self.env: Any = env.unwrapped
        self.score = Score()
        self.asks_class: bool = self.env.classifier is None
        self.names: tuple[str, ...] = self.env.class_names if self.asks_class else ()
        for name, needed in _NEEDED.items():
            if (value := getattr(self.env.settings, name)) != needed:
                raise ValueError(
                    f"{name}={value!r}: play shows {name}={needed!r} only; leave it out"
                )
        self.selected = 0
        self.belief = ""
        self.over = True

    def start(self, seed: int | None = None) -> None:
        """Begins the next episode."""
        observation, self.info = self.env.reset(seed=seed)
        self.over = False
        self.locations: list[np.ndarray] = []
        height, width = self.env.data.image(self.info["image_index"]).shape[:2]
        self.seen = np.empty((height, width, 3), np.uint8)
        self.seen[:] = _UNSEEN
        # Pixels of the image in a pixel seen, on a side; infinite where nothing was seen.
        self.coarse = np.full((height, width), np.inf)
        self._see(observation)

    @property
    def can_look(self) -> bool:
        """Whether the budget has another glimpse."""
        return not self.over and self.info["num_glimpses"] < self.env.max_glimpses

    def look(self, x: float, y: float) -> None:
        """Takes a glimpse at a location in [-1, 1]; does nothing at the end of the budget."""
        if self.can_look:
            self._step({"location": np.clip([x, y], -1, 1).astype(np.float32), "stop": 0})

    def answer(self, prediction: int = 0) -> None:
        """Stops, with this class where the environment asks for one."""
        if not self.over and self.info["num_glimpses"]:
            self._step({"location": np.zeros(2, np.float32), "stop": 1}, prediction)

    def _step(self, action: dict[str, Any], prediction: int = 0) -> None:
        if self.asks_class:
            action["prediction"] = prediction
        observation, reward, self.over, _, self.info = self.env.step(action)
        if not self.over:
            self._see(observation)
            return
        self.score.images.append(self.info["image_index"])
        self.score.right.append(bool(self.info["is_success"]))
        self.score.glimpses.append(self.info["num_glimpses"])
        self.score.rewards.append(reward)

    def _see(self, observation: dict[str, np.ndarray]) -> None:
        """Adds what a glimpse shows, where nothing finer was seen."""
        if "probs" in observation:  # what the frozen classifier believes
            best = np.argsort(-observation["probs"])[:3]
            names = self.env.class_names
            self.belief = ", ".join(f"{names[k]} {observation['probs'][k]:.2f}" for k in best)
        if not self.info["num_glimpses"]:  # the agent chooses the first location
            return
        height, width = self.coarse.shape
        first = self.env.first_glimpse == "thumbnail" and self.info["num_glimpses"] == 1
        glimpse = observation.get("thumbnail") if first else None
        glimpse = observation["glimpse"] if glimpse is None else glimpse
        if first:
            self._paste(glimpse[..., : self.env.image_shape[2]], 0, 0, width, height)
            return
        self.locations.append(observation["location"])
        for k, pixels in enumerate(np.split(glimpse, self.env.num_scales, axis=2)):
            side = self.env.glimpse_size * 2**k
            x, y = (observation["location"][i : i + 1].astype(np.float64) for i in (0, 1))
            left, top = sensor.corner(x, width, side), sensor.corner(y, height, side)
            self._paste(pixels, int(left[0]), int(top[0]), side, side)

    def _paste(self, pixels: np.ndarray, left: int, top: int, width: int, height: int) -> None:
        coarse = max(width, height) / len(pixels)
        rows = (np.arange(height) * len(pixels) // height)[:, None]
        columns = np.arange(width) * pixels.shape[1] // width
        large = np.broadcast_to(pixels[rows, columns], (height, width, 3))
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, len(self.coarse)), min(left + width, self.coarse.shape[1])
        if y0 >= y1 or x0 >= x1:
            return
        place = np.s_[y0:y1, x0:x1]
        finer = coarse <= self.coarse[place]
        self.seen[place][finer] = large[y0 - top : y1 - top, x0 - left : x1 - left][finer]
        self.coarse[place][finer] = coarse

    def caption(self) -> str:
        """What to do now, or how the episode ended."""
        taken, budget = self.info["num_glimpses"], self.env.max_glimpses
        if self.over:
            truth = self.env.class_names[self.info["label"]]
            said = "right" if self.score.right[-1] else "wrong"
            return f"{said}, it is {truth}: {self.score.rewards[-1]:.3f}. Click to go on"
        how = ["click to look"] * self.can_look
        if taken:
            how.append("choose a class" if self.asks_class else f"Enter stops ({self.belief})")
        return f"glimpse {taken} of {budget}: {', or '.join(how)}"

    def frame(self) -> np.ndarray:
        """The picture ``(h, w, 3)`` uint8: what was seen, or at the end the whole image."""
        image = self.env.data.image(self.info["image_index"]) if self.over else self.seen
        locations, side = np.array(self.locations).reshape(-1, 2), self.env.glimpse_size
        boxes = crop_boxes(
            locations, self.coarse.shape, side, self.env.first_glimpse == "thumbnail"
        )
        # Numbers would hide what the player has to see, so they come at the end.
        picture = draw_episode(image, boxes if self.over else [], size=_SIDE)
        height = max(len(picture), _LINE * _ROWS) + _LINE
        canvas = Image.new("RGB", (picture.shape[1] + _PANEL, height))
        canvas.paste(Image.fromarray(picture), (0, 0))
        draw = ImageDraw.Draw(canvas)
        self.shown = picture.shape[:2]
        if not self.over:
            zoom = self.shown[0] / len(self.coarse)
            for number, (left, top, width, height) in enumerate(boxes):
                corners = np.array([left, top, left + width, top + height]) * zoom
                corners += (-1, -1, 0, 0)
                draw.rectangle(corners.round().tolist(), outline=COLOURS[number % len(COLOURS)])
        caption, font = readable(self.caption())
        draw.text((6, height - _LINE + 4), caption, fill=(255, 255, 255), font=font)
        top = min(max(self.selected - _ROWS // 2, 0), max(len(self.names) - _ROWS, 0))
        for row, name in enumerate(self.names[top : top + _ROWS]):
            k = top + row
            numbered = len(self.names) <= 10 and name != str(k)
            text, font = readable(f"{k}  {name}" if numbered else name)
            colour = (255, 200, 0) if k == self.selected else (200, 200, 200)
            draw.text((picture.shape[1] + 12, row * _LINE + 4), text, fill=colour, font=font)
        return np.array(canvas)


def handle(game: Game, event: Any, pygame: Any) -> bool:
    """Applies an event of the window; False if it ends the game."""
    if event.type == pygame.QUIT:
        return False
    if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:  # 4 and 5 are the wheel
        height, width = game.shown
        x, y = event.pos
        if game.over:
            game.start()
        elif x < width and y < height:
            game.look(2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1)
    if event.type == pygame.KEYDOWN:
        digit = event.key - pygame.K_0
        if event.key == pygame.K_ESCAPE:
            return False
        if game.over:
            game.start()
        elif event.key in (pygame.K_UP, pygame.K_DOWN) and game.names:
            step = 1 if event.key == pygame.K_DOWN else -1
            game.selected = (game.selected + step) % len(game.names)
        elif event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            game.answer(game.selected)
        elif 0 <= digit < len(game.names) <= 10:
            game.answer(digit)
    return True


def play(
    env_id: str,
    episodes: int = 10,
    seed: int | None = None,
    split: str = "test",
    events: Callable[[], Iterable[Any]] | None = None,
    **keywords: Any,
) -> Score:
    """Plays episodes in a window; returns the results of those that were answered.

    Args:
        env_id: a registered environment.
        episodes: number of images.
        seed: seed of the images and first locations.
        split: the images.
        events: gives the events since the last call; the window's own if None.
        **keywords: more keywords of the environment.

    Raises:
        MissingDependencyError: pygame is not installed.
    """
    pygame = require("pygame", "render")
    env = gym.make(env_id, split=split, **keywords)
    with closing(env), closing(Window(_FPS)) as window:
        game = Game(env)
        game.start(seed)
        while True:
            window.show(game.frame())
            for event in (events or pygame.event.get)():
                clicked = event.type == pygame.MOUSEBUTTONDOWN and event.button == 1
                seen = clicked or event.type == pygame.KEYDOWN
                done = seen and len(game.score.images) == episodes
                if done or not handle(game, event, pygame):
                    return game.score


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` are its words, sys.argv's if None."""
    parser = argparse.ArgumentParser(
        prog="python -m dtram_env.play", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("env_id", nargs="?", default="DTRAM-MNIST-v0", help="registered id")
    parser.add_argument("--episodes", type=int, default=10, help="number of images")
    parser.add_argument("--seed", type=int, help="of the images; random if not given")
    parser.add_argument("--split", default="test", help="train, validation or test")
    parser.add_argument("--root", help="folder of your own images (DTRAM-ImageFolder-v0)")
    parser.add_argument("--data-dir", help="folder of all datasets")
    parser.add_argument(
        "--env", nargs="*", default=[], metavar="KEY=VALUE", help="keywords of the environment"
    )
    options = vars(parser.parse_args(arguments))
    try:
        check_integer("--episodes", options["episodes"], 1)
        found = play(**read_words(options.pop("env"), options), **options)
    except (OSError, TypeError, ValueError, gym.error.Error, MissingDependencyError) as error:
        sys.exit(f"error: {in_one_line(error)}")
    print(f"you: {found}")
    best = gym.spec(options["env_id"].rpartition(":")[2]).reward_threshold
    if best is not None:
        print(f"the best policy known earns {best:.3f} on average")


if __name__ == "__main__":
    main()
