"""Answers to images of no dataset, shown to the agent as its environment would show them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch

from dtram_env.datasets import DatasetCorruptError
from dtram_env.datasets.storage.decode import (
    decode,
    large_images_allowed,
    opened,
    resized,
    upright_size,
)
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.sensor import margin

from .config import DTRAMConfig
from .cost import flops_of_first_look, flops_per_glimpse
from .dtram import DTRAM
from .unroll import Look, classify

if TYPE_CHECKING:
    from PIL import Image

GivenImage: TypeAlias = "np.ndarray | str | os.PathLike[str] | Image.Image"
Box: TypeAlias = tuple[int, int, int, int]

# Height and width of the images of datasets that are held in memory: a model does not tell them.
_OWN_SIZE = {
    "mnist": 28,
    "fashionmnist": 28,
    "signpost": 28,
    "translatedmnist": 60,
    "clutteredmnist": 60,
}
_MEND = "Give a whole image file, or leave it out."
_LOOKED_AT = 8_000_000  # values at most that the network is shown of a batch at a time
_PIXELS = 256 << 20  # bytes at most of a batch's images
_costs: dict[DTRAMConfig, tuple[int, int]] = {}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an agent says of one image, and what it cost."""

    class_name: str
    class_index: int
    probability: float
    """of that class"""
    probabilities: np.ndarray
    """``(K,)`` float32, of every class"""
    num_glimpses: int
    """T"""
    locations: np.ndarray
    """``(T, 2)`` float32 in [-1, 1], where each glimpse was taken; (0, 0) for the whole image"""
    boxes: tuple[Box, ...]
    """left, top, width and height of each glimpse (of its finest scale) in pixels of the upright
    image as it was given; the whole image for a look at it, and a crop may reach beyond"""
    flops: int
    """floating-point operations, as `cost.mean_flops` counts them"""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        values = {
            "probabilities": [round(p, 6) for p in self.probabilities.tolist()],
            "probability": round(self.probability, 6),
            "locations": [[round(x, 6), round(y, 6)] for x, y in self.locations.tolist()],
            "boxes": [list(box) for box in self.boxes],
        }
        return asdict(self) | values


def predict(agent: DTRAM, images: Sequence[GivenImage]) -> list[Prediction]:
    """Answers images by the agent's own stopping rule, each as if its environment showed it.

    Photographs are turned upright as their camera marked them, transparent pixels become white. As
    in training, the shorter side is resized to the model's ``image_size``, the aspect kept; a model
    that learned at native resolution sees images as they are. A model of small images in memory
    (MNIST's 28 pixels) gets the shorter side resized to the size that it was trained on; what is
    light and what is dark stays as it is: MNIST's digits are white on black. A model of grey images
    sees the luminance of colours. Where training began at random places, this begins at the centre,
    so that an answer does not depend on what else is asked.

    Args:
        agent: as `DTRAM.load` reads it: its `about` tells how images are shown to it.
        images: arrays ``(H, W)`` or ``(H, W, C)`` uint8 (C: 1 grey, 3 RGB, 4 RGB and opacity) of
            any sizes, paths of image files, or Pillow's images, which are not changed.

    Returns:
        An answer for each image, in order.

    Raises:
        ValueError: no images; something that is no image, or has another type; the model does not
            tell how its images are shown.
        FileNotFoundError: a file is missing.
        dtram_env.datasets.DatasetCorruptError: a file is damaged, or no image.
    """
    answers = dict(predict_each(agent, images))
    return [answers[i] for i in range(len(images))]


def predict_each(
    agent: DTRAM,
    images: Sequence[GivenImage],
    failed: Callable[[int, Exception], None] | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """Answers images one after another, those of similar size together; see `predict`.

    Args:
        agent: the agent.
        images: the images.
        failed: is told the row of an image that cannot be read, and why; the others are answered.
            If not given, the error is raised.

    Yields:
        An image's row and its answer, not in order.
    """
    if isinstance(images, str | os.PathLike) or (
        isinstance(images, np.ndarray) and images.ndim < 4
    ):
        raise ValueError(f"images: expected several, in a list, got one {type(images).__name__}")
    if not len(images):
        raise ValueError("images: expected at least one, got none")
    viewing = viewing_of(agent)

    def read_all(rows: Sequence[int], read: Callable[[str, GivenImage], Any]) -> dict[int, Any]:
        found = {}
        with large_images_allowed():
            for i in rows:
                try:
                    found[i] = read(f"images[{i}]", images[i])
                except (ValueError, OSError, DatasetCorruptError) as error:
                    if failed is None:
                        raise
                    failed(i, error)
        return found

    given = read_all(range(len(images)), _read_size)
    for rows in _batches(viewing, given):
        shown = read_all(rows, viewing.read)
        if shown:
            yield from _answer(agent, viewing, shown, given)


@dataclass(frozen=True)
class Viewing:
    """How images are shown to an agent: what of its environment is needed to see the same."""

    look: Look
    channels: int
    """of an image: 1 grey, 3 RGB"""
    image_size: int | None
    """the shorter side is resized to it, in pixels; None: as it is"""

    @property
    def margin(self) -> int:
        """Zeros around images, in pixels."""
        return margin(self.look.glimpse_size, self.look.num_scales)

    @property
    def at_once(self) -> int:
        """Images of a batch at most."""
        side = max(self.look.glimpse_size, self.look.thumbnail_size)
        return max(1, _LOOKED_AT // (side * side * self.channels * self.look.num_scales))

    def read(self, name: str, image: GivenImage) -> np.ndarray:
        """Pixels ``(H, W, channels)`` uint8 of a given image; `name` is for messages."""
        from PIL import Image

        if isinstance(image, str | os.PathLike):
            with opened(os.fspath(image), _MEND) as file:
                pixels = decode(file, self.image_size)
        elif isinstance(image, np.ndarray):
            grey = image.ndim == 3 and image.shape[2] == 1
            pixels = decode(Image.fromarray(image[..., 0] if grey else image), self.image_size)
        else:
            try:
                copy = image.copy()
            except (OSError, SyntaxError, ValueError, EOFError) as error:
                raise ValueError(f"{name}: damaged ({error}). {_MEND}") from error
            pixels = decode(copy, self.image_size)
        if self.channels == 1:
            return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        return pixels


def viewing_of(agent: DTRAM) -> Viewing:
    """How images are shown to an agent, as its `about` tells.

    Models say so since there are images of several sizes; for one of before it is what its
    registered environment does.

    Raises:
        ValueError: neither is known, or it does not fit the agent.
    """
    known = agent.about.get("look")
    if known is None:
        known = _look_of_environment(agent.about)
    try:
        look = Look(**{key: value for key, value in known.items() if key != "image_size"})
    except (TypeError, AttributeError):
        raise ValueError(
            f"about['look']={known!r}: expected {', '.join((*Look._fields, 'image_size'))}"
        ) from None
    image_size = known.get("image_size") or _own_size(agent.about)
    side, _, channels = agent.config.glimpse_shape
    made = (side, agent.config.thumbnail_size)
    if (look.glimpse_size, look.thumbnail_size) != made or channels % look.num_scales:
        raise ValueError(
            f"about['look']={known!r}: does not fit this model, whose glimpses are "
            f"{agent.config.glimpse_shape} and whose first look has the size "
            f"{agent.config.thumbnail_size or side}; copy model.json again"
        )
    channels //= look.num_scales
    if channels not in (1, 3):
        raise ValueError(f"this model sees {channels} channels: expected 1 (grey) or 3 (RGB)")
    if look.first_glimpse == "random":
        look = look._replace(first_glimpse="center")
    return Viewing(look, channels, image_size)


def _keywords(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the registered environment that a model was made for; empty if unknown."""
    name = str(about.get("env_id", "")).rpartition(":")[2]
    if name not in gym.registry:
        return {}
    return {**gym.spec(name).kwargs, **about.get("env_options", {})}


def _look_of_environment(about: Mapping[str, Any]) -> dict[str, Any]:
    keywords = _keywords(about)
    if not keywords:
        raise ValueError(
            'this DT-RAM does not tell how its images are shown: its model.json has no "look", and '
            f"no registered environment (env_id={about.get('env_id')!r}). If you know, set "
            'agent.about["look"] = {"glimpse_size": 8, "num_scales": 1, "first_glimpse": "center", '
            '"thumbnail_size": 0, "image_size": 28}'
        )
    first, side = keywords.get("first_glimpse", "center"), keywords["glimpse_size"]
    thumbnail = keywords.get("thumbnail_size") or side
    return {
        "glimpse_size": side,
        "num_scales": keywords.get("num_scales", 1),
        "first_glimpse": first,
        "thumbnail_size": thumbnail if first == "thumbnail" and thumbnail != side else 0,
        "image_size": keywords.get("image_size"),
    }


def _own_size(about: Mapping[str, Any]) -> int | None:
    """Side of the images that a model of small ones was trained on; None for any size."""
    return _OWN_SIZE.get(str(_keywords(about).get("dataset", "")).lower())


def _read_size(name: str, image: GivenImage) -> tuple[int, int]:
    """Height and width of a given image, upright; raises ValueError if it is none."""
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        with opened(os.fspath(image), _MEND) as file:
            return upright_size(file)
    if isinstance(image, Image.Image):
        return upright_size(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"{name}: expected an array, the path of a file, or a Pillow image, "
            f"got {type(image).__name__}"
        )
    if image.dtype != np.uint8:
        raise ValueError(f"{name}: expected an array of uint8, 0 to 255, got {image.dtype}")
    shape = image.shape
    if not (image.size and (image.ndim == 2 or (image.ndim == 3 and shape[2] in (1, 3, 4)))):
        raise ValueError(
            f"{name}: expected an array (H, W) or (H, W, C), C = 1, 3 or 4, got {shape}"
        )
    return shape[0], shape[1]


def _batches(viewing: Viewing, given: Mapping[int, tuple[int, int]]) -> Iterator[list[int]]:
    """Rows of images of similar size, as many as are shown at a time."""
    shown = {i: resized(*size, viewing.image_size) for i, size in given.items()}
    batch: list[int] = []
    height = width = 0
    for i in sorted(shown, key=shown.__getitem__):
        tall, wide = max(height, shown[i][0]), max(width, shown[i][1])
        padded = (tall + 2 * viewing.margin) * (wide + 2 * viewing.margin) * viewing.channels
        if batch and (len(batch) == viewing.at_once or (len(batch) + 1) * padded > _PIXELS):
            yield batch
            batch, (tall, wide) = [], shown[i]
        batch.append(i)
        height, width = tall, wide
    if batch:
        yield batch


def _answer(
    agent: DTRAM,
    viewing: Viewing,
    shown: Mapping[int, np.ndarray],
    given: Mapping[int, tuple[int, int]],
) -> Iterator[tuple[int, Prediction]]:
    """Answers a batch: `shown` are pixels as the agent sees them, `given` the images' own sizes."""
    sizes = np.array([pixels.shape[:2] for pixels in shown.values()])
    together = np.zeros((len(shown), *sizes.max(axis=0), viewing.channels), dtype=np.uint8)
    for place, pixels in zip(together, shown.values(), strict=True):
        place[: pixels.shape[0], : pixels.shape[1]] = pixels
    differ = bool((sizes != sizes[0]).any())
    store = TensorStore(
        torch.from_numpy(together).to(agent.device),
        viewing.margin,
        torch.from_numpy(sizes).to(agent.device) if differ else None,
    )
    first, other = _cost(agent)
    training = agent.training
    agent.eval()
    found = classify(agent, viewing.look, store, torch.arange(len(shown), device=agent.device))
    agent.train(training)
    prediction, probability, taken, all_locations = (part.cpu() for part in found)
    for k, i in enumerate(shown):
        count, label = int(taken[k]), int(prediction[k])
        locations = all_locations[k, :count].numpy().copy()
        yield (
            i,
            Prediction(
                class_name=agent.class_names[label],
                class_index=label,
                probability=float(probability[k, label]),
                probabilities=probability[k].numpy().copy(),
                num_glimpses=count,
                locations=locations,
                boxes=_boxes(viewing.look, locations, shown[i].shape[:2], given[i]),
                flops=first + (count - 1) * other,
            ),
        )


def _boxes(
    look: Look, locations: np.ndarray, shown: Sequence[int], given: Sequence[int]
) -> tuple[Box, ...]:
    """Boxes of the glimpses, in whole pixels of an image of size `given` that had size `shown`."""
    from dtram_env.rendering import crop_boxes

    whole_first = look.first_glimpse == "thumbnail"
    boxes = crop_boxes(locations[int(whole_first) :], shown, look.glimpse_size, whole_first)
    tall, wide = given[0] / shown[0], given[1] / shown[1]
    scaled = []
    for left, top, width, height in boxes:
        x0, y0 = round(left * wide), round(top * tall)
        x1, y1 = round((left + width) * wide), round((top + height) * tall)
        scaled.append((x0, y0, x1 - x0, y1 - y0))
    return tuple(scaled)


def _cost(agent: DTRAM) -> tuple[int, int]:
    """Operations of a first look and of a later one; counted once for all agents of a make."""
    if agent.config not in _costs:
        _costs[agent.config] = flops_of_first_look(agent), flops_per_glimpse(agent)
    return _costs[agent.config]
