"""Pictures of the data that is drawn or composed, for the pages of its ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dtram_env import datasets
from dtram_env.datasets.catalog import drawing_of
from dtram_env.datasets.drawn import Drawing
from dtram_env.datasets.storage.thumbnails import box_resize
from dtram_env.rendering import COLOURS
from dtram_env.task import Task

from .pages import IMAGES, write_captions
from .samples import registered

LARGEST = 300_000  # bytes
_TILE, _GAP, _LINE = 224, 8, 20  # pixels
_QUALITY = 85
_DIGITS = (2, 6)  # rows and columns


@dataclass(frozen=True)
class Still:
    """A picture ``(h, w, 3)`` or ``(h, w)`` uint8, its file's suffix, and what it shows."""

    pixels: np.ndarray
    suffix: str
    caption: str


def make_stills(ids: Sequence[str]) -> None:
    """Writes the pictures of some ids (all that have one, if none is named), and what they show.

    Raises:
        ValueError: an id without a picture, or one that came out too large.
    """
    for env_id in ids or STILLS:
        if env_id not in STILLS:
            raise ValueError(f"--stills {env_id}: expected some of {', '.join(STILLS)}")
        still = STILLS[env_id](env_id)
        path = IMAGES / f"{env_id}{still.suffix}"
        Image.fromarray(still.pixels).save(path, quality=_QUALITY, optimize=True)
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(f"{path}: {size:,} bytes, expected at most {LARGEST:,}")
        write_captions({path.name: still.caption})
        print(f"{path}: {size:,} bytes")


def digits(env_id: str) -> Still:
    """The first images of a test split, twice enlarged."""
    rows, columns = _DIGITS
    images = datasets.load(registered(env_id)["dataset"], "test").images
    assert isinstance(images, np.ndarray)
    framed = np.pad(images[: rows * columns, ..., 0], ((0, 0), (1, 1), (1, 1)), constant_values=90)
    lines = [np.concatenate(line, axis=1) for line in np.split(framed, rows)]
    picture = np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1)
    return Still(picture, ".png", f"The first {rows * columns} images of the test split.")


def species(env_id: str) -> Still:
    """Three classes of a genus as the thumbnail shows them, and the part that tells, close up."""
    task = Task(split="test", **registered(env_id))
    drawing = drawing_of(str(task.dataset).lower(), task.choices)
    layout, labels = drawing.layout("test"), drawing.labels("test")
    rows = _one_genus(drawing, labels, layout.discriminative)
    part = int(layout.discriminative[rows[0]].argmax())
    side = task.glimpse_size
    canvas = Image.new("RGB", (len(rows) * (_TILE + _GAP) - _GAP, 2 * _TILE + _GAP + _LINE))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for column, (row, image) in enumerate(zip(rows, drawing.draw_many("test", rows), strict=True)):
        x = column * (_TILE + _GAP)
        left, top, width, height = layout.part_boxes[row, part].tolist()
        canvas.paste(_enlarged(box_resize(image[None], side)[0]), (x, 0))
        zoom = _TILE / drawing.image_size
        box = (
            left * zoom - 2,
            top * zoom - 2,
            (left + width) * zoom + 2,
            (top + height) * zoom + 2,
        )
        draw.rectangle([x + box[0], box[1], x + box[2], box[3]], outline=COLOURS[2], width=2)
        window = round(1.25 * max(width, height))
        close = _window(image, left + width // 2, top + height // 2, window)
        canvas.paste(_enlarged(close), (x, _TILE + _GAP))
        name = drawing.class_names[labels[row]]
        draw.text((x + 2, 2 * _TILE + _GAP + 2), name, fill=(255, 255, 255), font=font)
    said = (
        f"Above: three classes of one genus in the thumbnail of {side}x{side} pixels, the part "
        f"that tells them apart, the {drawing.part_names[part]}, boxed. Below: that part in the "
        f"image of {drawing.image_size}x{drawing.image_size}."
    )
    return Still(np.array(canvas), ".jpg", said)


def _one_genus(drawing: Drawing, labels: np.ndarray, discriminative: np.ndarray) -> list[int]:
    """The first image of each class of the first genus of three that one part tells apart."""
    names = drawing.class_names
    first = {int(label): int((labels == label).argmax()) for label in np.unique(labels)}
    genera: dict[str, list[int]] = {}
    for label, row in sorted(first.items()):
        if discriminative[row].sum() == 1:
            genera.setdefault(names[label].partition(",")[0], []).append(row)
    return next(rows for rows in genera.values() if len(rows) == 3)


def _window(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """The square about a point, moved to lie inside the image."""
    top, left = (min(max(c - side // 2, 0), len(image) - side) for c in (y, x))
    return image[top : top + side, left : left + side]


def _enlarged(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)


STILLS: dict[str, Callable[[str], Still]] = {
    "DTRAM-TranslatedMNIST-v0": digits,
    "DTRAM-ClutteredMNIST-v0": digits,
    "DTRAM-Birds-v0": species,
    "DTRAM-Autos-v0": species,
    "DTRAM-BirdsSmall-v0": species,
}
