"""The best policies of the drawn puzzles: they read glyphs exactly, and know the rules."""

from typing import Any, NamedTuple

import numpy as np

from dtram_env.datasets import load
from dtram_env.datasets.drawn import SMALL_BIRDS
from dtram_env.datasets.sources import glyphs, pair, patience

_SHAPES = np.concatenate(glyphs.shapes()).reshape(8, 64)
EMPTY = -1


def nearest_shape(windows: Any, shapes: int = 8) -> np.ndarray:
    """The glyph, 0 to 3, or arrow, 4 to 7, nearest to windows ``(B, 8, 8, 1)``; `EMPTY`: no ink."""
    ink = np.asarray(windows).reshape(-1, 64) > 100
    shape = (ink[:, None] != _SHAPES[:shapes]).sum(axis=2).argmin(axis=1)
    return np.where(ink.any(axis=1), shape, EMPTY)


class SignpostLayout(NamedTuple):
    """What the images of a split of Signpost show."""

    labels: np.ndarray  # (N,)
    easy: np.ndarray  # (N,) bool, whether the centre shows the class
    direction: np.ndarray  # (N,) the arrow's, an index of `glyphs.STEPS`; -1: an easy image
    location: np.ndarray  # (N, 2) float32, (x, y) in [-1, 1], centre of the glyph of the class


def read_signpost(split: str, name: str = "signpost", reach: int = 9) -> SignpostLayout:
    """Reads off the centre of each image where it shows the class, `reach` pixels away if hard."""
    data = load(name, split)
    side = data.images.shape[1]  # type: ignore[union-attr]
    box = slice(side // 2 - 4, side // 2 + 4)
    shape = nearest_shape(data.images[:, box, box])  # type: ignore[index]
    direction = np.where(shape < 4, -1, shape - 4)
    steps = np.where((shape < 4)[:, None], 0, glyphs.STEPS[direction])
    location = (steps * (2 * reach / side)).astype(np.float32)
    return SignpostLayout(data.labels, shape < 4, direction, location)


class _Puzzle:
    """Its state counts the glimpses seen."""

    def reset(self, batch: int) -> np.ndarray:
        return np.zeros(batch, dtype=np.int64)


class FollowArrow(_Puzzle):
    """Signpost: stops at a glyph; an arrow says where it is, `reach` image halves away."""

    def __init__(self, reach: float) -> None:
        self.reach = reach

    def step(self, observation: dict[str, Any], taken: np.ndarray) -> tuple[Any, np.ndarray]:
        glimpse, first = observation["glimpse"], taken == 0
        shape = np.where(first, nearest_shape(glimpse), nearest_shape(glimpse, 4))
        return {
            "location": (glyphs.STEPS[shape % 4] * self.reach).astype(np.float32),
            "stop": ((shape < 4) | ~first).astype(np.int64),
            "prediction": shape % 4,
        }, taken + 1


class ReadInOrder(_Puzzle):
    """Patience: looks at the seven places one after the other, and stops when it sees a glyph."""

    def step(self, observation: dict[str, Any], taken: np.ndarray) -> tuple[Any, np.ndarray]:
        shape, taken = nearest_shape(observation["glimpse"]), taken + 1
        place = patience.PLACES[np.minimum(taken, len(patience.PLACES) - 1)]
        return {
            "location": (2 * place / patience.SIZE).astype(np.float32),
            "stop": (shape != EMPTY).astype(np.int64),
            "prediction": shape % 4,
        }, taken


class AddTwo:
    """Pair: remembers the glyph at the centre, its state, and adds the one on its right."""

    def reset(self, batch: int) -> np.ndarray:
        return np.full(batch, EMPTY)

    def step(self, observation: dict[str, Any], first: np.ndarray) -> tuple[Any, np.ndarray]:
        shape = nearest_shape(observation["glimpse"])
        return {
            "location": np.tile(np.float32([2 * pair.REACH / pair.SIZE, 0]), (len(first), 1)),
            "stop": (first != EMPTY).astype(np.int64),
            "prediction": (first + shape) % 4,
        }, shape


class TellingParts:
    """Small birds, policy-only: looks at the parts by which the species of a genus differ.

    It is told where they are, and knows each image of the test split by its thumbnail. It stops
    when it has seen them all.
    """

    def check_env(self, env: Any) -> None:
        thumbnails = env.data.images.thumbnail(np.arange(env.num_images), env.glimpse_size)
        self.image_of = {image.tobytes(): number for number, image in enumerate(thumbnails)}
        layout = SMALL_BIRDS.layout("test")
        self.parts = layout.discriminative.sum(axis=1)
        order = np.argsort(~layout.discriminative, axis=1, kind="stable")[..., None]
        boxes = np.take_along_axis(layout.part_boxes, order, axis=1)  # left, top, width, height
        middle = boxes[..., :2] + boxes[..., 2:] / 2
        self.locations = (2 * middle / SMALL_BIRDS.image_size - 1).astype(np.float32)

    def reset(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """No glimpse seen, and an image that is not known yet."""
        return np.zeros(batch, dtype=np.int64), np.zeros(batch, dtype=np.int64)

    def step(self, observation: dict[str, Any], state: Any) -> tuple[Any, Any]:
        taken, image = state
        if not taken.any():
            image = np.array([self.image_of[seen.tobytes()] for seen in observation["glimpse"]])
        action = {
            "location": self.locations[image, np.minimum(taken, 4)],
            "stop": (taken >= self.parts[image]).astype(np.int64),
        }
        return action, (taken + 1, image)
