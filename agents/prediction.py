"""Classifies the user's own images, shown to the agent as its environment would show them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import numpy as np
import torch
from PIL import Image

from dtram_env.checks import misfit
from dtram_env.datasets.errors import DatasetCorruptError
from dtram_env.datasets.storage.decode import (
    decode,
    loaded_copy,
    opened,
    pillow_limits,
    reading,
    resized,
    upright_size,
)
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.rendering import crop_boxes
from dtram_env.sensor import margin

from .checks import LARGEST_SIDE, Side, require
from .config import DTRAMConfig
from .cost import flops_of_first_glimpse, flops_per_glimpse
from .dtram import DTRAM
from .unroll import GlimpseSensor, classify

GivenImage: TypeAlias = np.ndarray | str | os.PathLike[str] | Image.Image
Box: TypeAlias = tuple[int, int, int, int]

_MEND = "Give a whole image file, or leave it out."
_MAX_GLIMPSE_VALUES = 8_000_000  # pixels times channels that the network reads at once
_MAX_BATCH_BYTES = 256 << 20  # of a batch's images
_costs: dict[DTRAMConfig, tuple[int, int]] = {}  # FLOPs of glimpse 1, and of a later one


class _Sensor(TypedDict):
    """How a model's images are shown: the fields of `GlimpseSensor`, and `Preparation`'s size."""

    glimpse_size: Side
    num_scales: Annotated[int, 1, LARGEST_SIDE]
    first_glimpse: Literal["center", "random", "thumbnail", "choose"]
    thumbnail_size: Annotated[int, 0, LARGEST_SIDE]
    image_size: Side | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """An agent's answer to one image, and its cost."""

    class_name: str
    class_index: int
    probability: float
    """of that class, in [0, 1]"""
    probabilities: np.ndarray
    """``(K,)`` float32, of every class"""
    num_glimpses: int
    """T"""
    locations: np.ndarray
    """``(T, 2)`` float32 in [-1, 1], where each glimpse was taken; (0, 0) for the whole image"""
    boxes: tuple[Box, ...]
    """left, top, width and height of each glimpse (of its finest scale) in pixels of the upright
    image as it was given. A thumbnail's is the whole image; a crop's may reach beyond the image"""
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
    """Classifies images by the agent's own stopping rule, each as if its environment showed it.

    Photographs are turned upright as their camera marked them; transparent pixels become white. As
    in training, the shorter side is resized to the model's ``image_size`` and the aspect kept; a
    model trained at native resolution sees images as they are. Brightness is not inverted: MNIST's
    digits are white on black. A model of grey images sees the luminance of colours. If training
    began at a random location, this begins at the centre, so that an answer depends on the image
    alone.

    Args:
        agent: as `load_agent` reads it; its `about` says how images are shown to it.
        images: arrays ``(H, W)`` or ``(H, W, C)`` uint8 (C: 1 grey, 3 RGB, 4 RGB and opacity) of
            any sizes, paths of image files, or Pillow's images, which are not changed.

    Returns:
        An answer for each image, in order.

    Raises:
        ValueError: there are no images; one of them has another type, or is too large or too
            narrow; or the model does not say how its images are shown.
        FileNotFoundError: a file is missing.
        dtram_env.datasets.DatasetCorruptError: an image is damaged, or a file is not an image.
    """
    answers = dict(predict_each(agent, images))
    return [answers[i] for i in range(len(images))]


def predict_each(
    agent: DTRAM,
    images: Sequence[GivenImage],
    failed: Callable[[int, Exception], None] | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """Classifies images in batches of similar size; see `predict`.

    It yields each image's index and answer, in any order. `failed` is called with the index of an
    image that cannot be read, and the error. If it is None, the error is raised.
    """
    single = isinstance(images, np.ndarray) and images.ndim < 4
    if single or isinstance(images, str | os.PathLike):
        raise ValueError(f"images: expected several, in a list, got one {type(images).__name__}")
    if not len(images):
        raise ValueError("images: expected at least one, got none")
    shown = preparation_of(agent)

    def read_all(index: Sequence[int], read: Callable[[str, GivenImage], Any]) -> dict[int, Any]:
        found = {}
        with pillow_limits():
            for i in index:
                try:
                    found[i] = read(f"images[{i}]", images[i])
                except (ValueError, OSError, DatasetCorruptError) as error:
                    if failed is None:
                        raise
                    failed(i, error)
        return found

    sizes = read_all(range(len(images)), shown.read_size)
    for index in _batches(shown, sizes):
        pixels = read_all(index, shown.read)
        if pixels:
            yield from _classify_batch(agent, shown, pixels, sizes)


@dataclass(frozen=True)
class Preparation:
    """How an agent's environment prepares images and takes glimpses of them."""

    sensor: GlimpseSensor
    channels: int
    """of an image: 1 grey, 3 RGB"""
    image_size: int | None
    """pixels to which the shorter side is resized; None: it stays as it is"""

    @property
    def margin(self) -> int:
        """Zeros around images, in pixels."""
        return margin(self.sensor.glimpse_size, self.sensor.num_scales)

    def read_size(self, name: str, image: GivenImage) -> tuple[int, int]:
        """Height and width of a given image, upright; errors call it `name`."""
        if isinstance(image, str | os.PathLike):
            with opened(os.fspath(image), _MEND) as file:
                size = upright_size(file)
                resized(*size, self.image_size)  # raises for an extreme aspect
            return size
        size = upright_size(image) if isinstance(image, Image.Image) else _array_size(name, image)
        with reading(name, _MEND):
            resized(*size, self.image_size)
        return size

    def read(self, name: str, image: GivenImage) -> np.ndarray:
        """Pixels ``(H, W, channels)`` uint8 of a given image; errors call it `name`."""
        if isinstance(image, str | os.PathLike):
            with opened(os.fspath(image), _MEND) as file:
                pixels = decode(file, self.image_size)
        else:
            if isinstance(image, np.ndarray):
                grey = image.ndim == 3 and image.shape[2] == 1
                image = Image.fromarray(image[..., 0] if grey else image)
            with reading(name, _MEND):
                pixels = decode(loaded_copy(image), self.image_size)
        if self.channels == 1:
            return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        return pixels


def preparation_of(agent: DTRAM) -> Preparation:
    """Reads from an agent's ``about["sensor"]`` how images are shown to it; raises as `predict`."""
    given: Any = agent.about.get("sensor")
    if problem := misfit(given, _Sensor, "about['sensor']"):
        raise ValueError(
            f"{problem}, as in a trained model's model.json; set agent.about['sensor'] if you know "
            "how its images were shown"
        )
    sensor = GlimpseSensor(*(given[name] for name in GlimpseSensor._fields))
    side = sensor.glimpse_size * 2 ** (sensor.num_scales - 1)
    largest = f"a coarsest crop of at most {LARGEST_SIDE:,} pixels"
    require("about['sensor'].num_scales", sensor.num_scales, side <= LARGEST_SIDE, largest)
    shape, thumbnail_size = agent.config.glimpse_shape, agent.config.thumbnail_size
    fits = (sensor.glimpse_size, sensor.thumbnail_size) == (shape[0], thumbnail_size)
    if not fits or shape[2] % sensor.num_scales:
        own = f"{shape}, and whose thumbnail_size is {thumbnail_size}"
        raise ValueError(
            f"about['sensor']={given!r}: does not fit this model, whose glimpses are {own}; copy "
            "model.json again"
        )
    channels = shape[2] // sensor.num_scales
    if channels not in (1, 3):
        raise ValueError(f"this model sees {channels} channels: expected 1 (grey) or 3 (RGB)")
    if sensor.first_glimpse == "random":
        sensor = sensor._replace(first_glimpse="center")
    return Preparation(sensor, channels, given["image_size"])


def _array_size(name: str, image: Any) -> tuple[int, int]:
    """Height and width of a given array; ValueError if it is none, or not an image."""
    if not isinstance(image, np.ndarray):
        expected = "an array, the path of a file, or a Pillow image"
        raise ValueError(f"{name}: expected {expected}, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise ValueError(f"{name}: expected an array of uint8, 0 to 255, got {image.dtype}")
    height, width, channels = (*image.shape, 1)[:3] if image.ndim in (2, 3) else (0, 0, 0)
    if not image.size or channels not in (1, 3, 4):
        expected = "an array (H, W) or (H, W, C), C = 1, 3 or 4"
        raise ValueError(f"{name}: expected {expected}, got {image.shape}")
    return height, width


def _batches(shown: Preparation, given_sizes: Mapping[int, tuple[int, int]]) -> Iterator[list[int]]:
    """Indices of images of similar size, as many as fit a batch."""
    sizes = {i: resized(*size, shown.image_size) for i, size in given_sizes.items()}
    sensor = shown.sensor
    side = max(sensor.glimpse_size, sensor.thumbnail_size)
    most = max(1, _MAX_GLIMPSE_VALUES // (side * side * shown.channels * sensor.num_scales))
    batch: list[int] = []
    width = 0
    for i in sorted(sizes, key=sizes.__getitem__):  # so heights grow
        tall, wide = sizes[i][0], max(width, sizes[i][1])
        padded = (tall + 2 * shown.margin) * (wide + 2 * shown.margin) * shown.channels
        too_many = (len(batch) + 1) * padded > _MAX_BATCH_BYTES
        if batch and (len(batch) == most or too_many):
            yield batch
            batch, wide = [], sizes[i][1]
        batch.append(i)
        width = wide
    if batch:
        yield batch


def _classify_batch(
    agent: DTRAM,
    shown: Preparation,
    pixels: Mapping[int, np.ndarray],
    given_sizes: Mapping[int, tuple[int, int]],
) -> Iterator[tuple[int, Prediction]]:
    """Classifies a batch of images: their pixels as the agent sees them, by index."""
    sizes = np.array([image.shape[:2] for image in pixels.values()])
    padded = np.zeros((len(pixels), *sizes.max(axis=0), shown.channels), dtype=np.uint8)
    for place, image in zip(padded, pixels.values(), strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    own_sizes = torch.from_numpy(sizes).to(agent.device) if (sizes != sizes[0]).any() else None
    store = TensorStore(torch.from_numpy(padded).to(agent.device), shown.margin, own_sizes)
    if agent.config not in _costs:
        _costs[agent.config] = flops_of_first_glimpse(agent), flops_per_glimpse(agent)
    first, later = _costs[agent.config]
    training = agent.training
    agent.eval()
    found = classify(agent, shown.sensor, store, torch.arange(len(pixels), device=agent.device))
    agent.train(training)
    prediction, probability, num_glimpses, all_locations = (part.cpu() for part in found)
    for k, i in enumerate(pixels):
        count, label = int(num_glimpses[k]), int(prediction[k])
        locations = all_locations[k, :count].numpy().copy()
        answer = Prediction(
            class_name=agent.class_names[label],
            class_index=label,
            probability=float(probability[k, label]),
            probabilities=probability[k].numpy().copy(),
            num_glimpses=count,
            locations=locations,
            boxes=_boxes(shown.sensor, locations, pixels[i].shape[:2], given_sizes[i]),
            flops=first + (count - 1) * later,
        )
        yield i, answer


def _boxes(
    sensor: GlimpseSensor, locations: np.ndarray, size: Sequence[int], given: Sequence[int]
) -> tuple[Box, ...]:
    """Boxes of glimpses in pixels of an image of size `given`, which the agent saw at `size`."""
    whole_first = sensor.first_glimpse == "thumbnail"
    boxes = crop_boxes(locations[int(whole_first) :], size, sensor.glimpse_size, whole_first)
    tall, wide = given[0] / size[0], given[1] / size[1]
    scaled = []
    for left, top, width, height in boxes:
        x0, y0 = round(left * wide), round(top * tall)
        x1, y1 = round((left + width) * wide), round((top + height) * tall)
        scaled.append((x0, y0, x1 - x0, y1 - y0))
    return tuple(scaled)
