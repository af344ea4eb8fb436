"""Where an agent looked: maps of its locations, and single images with its glimpses and beliefs."""

from typing import Any

import matplotlib
import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from agents.unroll import GlimpseSensor, Scores
from dtram_env.rendering import crop_boxes, draw_episode
from train.common.page import encoded, image, picture
from train.common.training_task import Images, TrainingTask

BINS = 16  # of a map, on each side
MOST_MAPS = 12  # numbers of glimpses, and glimpses, that have maps
SHOWN = 12  # images of a group
BARS = 5  # classes with a bar, those of the highest belief after any glimpse
STEPS = 12  # glimpses whose beliefs are shown: the first ones, and the last ones
PICTURE = 280  # pixels


def glimpse_boxes(
    sensor: GlimpseSensor, locations: Tensor, shape: tuple[int, ...]
) -> list[tuple[int, int, int, int]]:
    """Boxes in an image of the glimpses at `locations` ``(T, 2)``, see `crop_boxes`."""
    whole_first = sensor.first_glimpse == "thumbnail"
    crops = locations[int(whole_first) :].cpu().numpy()
    return crop_boxes(crops, shape, sensor.glimpse_size, whole_first)


def location_maps(sensor: GlimpseSensor, locations: Tensor, taken: Tensor) -> dict[str, Any]:
    """Maps of the locations ``(T, N, 2)`` of glimpses that N images took, for ``run.html``.

    A row of maps is of the images that took a number of glimpses, the first row of all images; a
    column is a glimpse. A thumbnail has no map.
    """
    first = 2 if sensor.first_glimpse == "thumbnail" else 1
    counts = np.bincount(taken.cpu().numpy(), minlength=len(locations) + 1)
    numbers = sorted(np.argsort(-counts, kind="stable")[:MOST_MAPS].tolist())
    numbers = [t for t in numbers if counts[t]]
    longest = int(taken.max())
    steps = range(first, min(longest, first + MOST_MAPS - 1) + 1)
    rows = []
    for number in (None, *numbers):
        maps = []
        for step in steps:
            of_row = taken >= step if number is None else (taken == number) & (taken >= step)
            at = locations[step - 1, of_row].cpu().numpy()
            glimpses = "" if number is None else f" of {number}"
            label = f"map of the locations of glimpse {step}{glimpses}"
            maps.append(location_map(at, label) if len(at) else "")
        name = "all images"
        if number is not None:
            share = 100 * counts[number] / len(taken)
            name = f"{number} glimpse{'s' * (number > 1)}, {share:.1f} %"
        rows.append((name, maps))
    left_out = np.count_nonzero(counts) > len(numbers) or longest > steps.stop - 1
    return {"steps": steps, "rows": rows, "left_out": left_out} if steps else {}


def location_map(locations: np.ndarray, label: str) -> Markup:
    """A picture of the density of locations ``(N, 2)``, bright where there are many."""
    x, y = np.clip(((locations + 1) / 2 * BINS).astype(int), 0, BINS - 1).T
    density = np.bincount(y * BINS + x, minlength=BINS**2).reshape(BINS, BINS) ** 0.5
    levels = np.round(31 * density / density.max()).astype(np.uint8)
    colours = matplotlib.colormaps["inferno"](np.linspace(0, 1, 32), bytes=True)[:, :3]
    found = Image.fromarray(levels)
    found.putpalette(colours.tobytes())
    return image(encoded(found, "png"), "png", label)


def episode_groups(
    task: TrainingTask, images: Images, scores: Scores, taken: Tensor, answer: Tensor, stops: bool
) -> list[dict[str, Any]]:
    """The easiest, the hardest and wrong images of a pass, for ``run.html``.

    `taken` ``(N,)`` and `answer` ``(N, K)`` are numbers of glimpses and final logits; `stops`:
    whether the agent learned a probability of stopping, which is then shown.
    """
    best = answer.softmax(dim=-1).max(dim=-1)
    length, sure, right = (
        part.cpu().numpy() for part in (taken, best.values, best.indices == images.labels)
    )
    orders = {
        "Easiest": ("Right after the fewest glimpses; the surest first.", right, (-sure, length)),
        "Hardest": ("Right after the most glimpses; the least sure first.", right, (sure, -length)),
        "Wrong": ("The surest first.", ~right, (-sure,)),
    }
    return [
        {
            "title": title,
            "order": order,
            "episodes": [
                episode(task, images, scores, int(n), int(length[n]), stops)
                for n in np.lexsort((*keys, ~among))[: min(SHOWN, among.sum())]
            ],
        }
        for title, (order, among, keys) in orders.items()
    ]


def episode(
    task: TrainingTask, images: Images, scores: Scores, n: int, taken: int, stops: bool
) -> dict[str, Any]:
    """Image number `n` with its glimpses, and the beliefs after them, for ``run.html``."""
    names, label = task.class_names, int(images.labels[n])
    belief = scores.logits[:taken, n].softmax(dim=-1).cpu().numpy()
    answer = int(belief[-1].argmax())
    bars: list[tuple[str, str, np.ndarray]] = []
    for k in np.argsort(-belief.max(axis=0), kind="stable")[:BARS].tolist():
        kind = "right" if k == label else "wrong" if k == answer else ""
        bars.append((names[k], kind, belief[:, k]))
    if stops:
        stop = torch.sigmoid(scores.stop_logit[:taken, n]).cpu().numpy()
        bars.append(("p(stop)", "", stop))
    kept = np.arange(taken)
    if taken > STEPS:
        kept = np.concatenate([kept[: STEPS // 2], kept[-STEPS // 2 :]])
    pixels = images.data.image(n)
    boxes = glimpse_boxes(task.sensor, scores.locations[:taken, n], pixels.shape)
    drawn = draw_episode(pixels, boxes, size=PICTURE, path=True)
    glimpses = f"{taken} glimpse{'s' * (taken > 1)}"
    return {
        "index": n,
        "picture": picture(drawn, f"image {n}, {names[label]}, with its {glimpses}"),
        "right": answer == label,
        "label": names[label],
        "answer": names[answer],
        "taken": taken,
        "steps": (kept + 1).tolist(),
        "more": taken - len(kept),
        "bars": [(name, kind, shares[kept].tolist()) for name, kind, shares in bars],
    }
