"""Images in memory as a source of the cache, and their expected crops."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dtram_env import sensor
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.mapped import FORMAT, describe, thumbnails_name


class Given:
    """A `cache.ImageSource` of given images; records which images were decoded.

    Args:
        images: arrays ``(H, W, C)`` uint8.
        metadata: what `metadata` gives.
    """

    def __init__(
        self, images: Sequence[np.ndarray], metadata: dict[str, np.ndarray] | None = None
    ) -> None:
        self.images, self.known = list(images), metadata or {}
        self.channels: int = self.images[0].shape[2]
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256(repr([image.shape for image in self.images]).encode())
        for values in (*self.images, *self.known.values()):
            digest.update(np.ascontiguousarray(values).tobytes())
        return {"images": digest.hexdigest()}

    def size(self, i: int) -> tuple[int, int]:
        height, width, _ = self.images[i].shape
        return height, width

    def pixels(self, i: int) -> np.ndarray:
        self.decoded.append(i)
        return self.images[i]

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        assert sizes.tolist() == [list(self.size(i)) for i in range(len(self))]
        return self.known


def ragged_images(
    count: int, least: int = 3, most: int = 14, channels: int = 3, seed: int = 0
) -> list[np.ndarray]:
    """Random images of random sizes; no pixel is 0, the value outside the image."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(least, most + 1, (count, 2)).tolist()
    return [rng.integers(1, 256, (*size, channels), dtype=np.uint8) for size in sizes]


def window_of(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """A window ``(side, side, C)`` of the zero-padded image, pixel by pixel."""
    out = np.zeros((side, side, image.shape[2]), dtype=np.uint8)
    for y in range(side):
        for x in range(side):
            if 0 <= top + y < image.shape[0] and 0 <= left + x < image.shape[1]:
                out[y, x] = image[top + y, left + x]
    return out


def shown(
    data: Dataset, shapes: np.ndarray, location: tuple[float, float] | np.ndarray = (0, 0)
) -> np.ndarray:
    """Which of the shapes ``(K, 8, 8)`` a glimpse of each image shows exactly ``(N,)``; -1: none.

    `location` is of all images ``(2,)`` or of each ``(N, 2)``.
    """
    index = np.arange(len(data))
    location = np.broadcast_to(np.float32(location), (len(index), 2))
    return shape_in(sensor.glimpse(data.store(sensor.margin(8, 1)), index, location, 8), shapes)


def shape_in(windows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """As `shown`, of windows ``(N, 8, 8, 1)``."""
    ink = windows[..., 0] > 100
    same = (ink[:, None] == shapes.astype(bool)).all(axis=(2, 3))
    return np.where(same.any(axis=1), same.argmax(axis=1), -1)


def black_cache(
    folder: Path,
    count: int,
    side: int,
    thumbnail: int | None = None,
    source: dict[str, Any] | None = None,
) -> None:
    """Writes a finished cache of black images as sparse files, which use no disk space."""
    folder.mkdir()
    np.save(folder / "sizes.npy", np.full((count, 2), side, np.int32))
    listed = {"sizes.npy": describe(folder / "sizes.npy")}
    files = {"pixels.bin": side} | ({thumbnails_name(thumbnail): thumbnail} if thumbnail else {})
    for name, pixels in files.items():
        with (folder / name).open("wb") as file:
            file.truncate(length := count * pixels * pixels * 3)
        listed[name] = {"bytes": length, "sha256": "not computed, as it takes long"}
    meta = {"format": FORMAT, "channels": 3, "images": count, "files": listed}
    meta["source"] = source or {}
    (folder / "meta.json").write_text(json.dumps(meta))
