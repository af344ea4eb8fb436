"""Where a policy looked: maps of its locations, and single images with its glimpses and beliefs."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from PIL import Image

from dtram_env.rendering import draw_episode
from train.common.film import Episode, bars
from train.common.page import encoded, image, picture

BINS = 16  # of a map, on each side
MOST_MAPS = 12  # numbers of glimpses, and glimpses, that have maps
SHOWN = 12  # images of a group
BARS = 5  # classes with a bar
STEPS = 12  # glimpses whose beliefs are shown: the first ones, and the last ones
PICTURE = 280  # pixels


def location_maps(locations: np.ndarray, taken: np.ndarray, whole_first: bool) -> dict[str, Any]:
    """Maps of the locations ``(N, T, 2)`` of the glimpses that images took, for ``run.html``.

    `taken` ``(N,)`` are numbers of glimpses, the first of which is a thumbnail, without a map, if
    `whole_first`. A row of maps is of the images that took a number of glimpses, the first row of
    all images; a column is a glimpse.
    """
    first = 2 if whole_first else 1
    counts = np.bincount(taken)
    numbers = sorted(np.argsort(-counts, kind="stable")[:MOST_MAPS].tolist())
    numbers = [t for t in numbers if counts[t]]
    longest = int(taken.max())
    steps = range(first, min(longest, first + MOST_MAPS - 1) + 1)
    rows = []
    for number in (None, *(numbers if len(numbers) > 1 else ())):
        maps = []
        for step in steps:
            of_row = taken >= step if number is None else (taken == number) & (taken >= step)
            at = locations[of_row, step - 1]
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
    episode: Callable[[int], Episode],
    right: np.ndarray,
    taken: np.ndarray,
    sure: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """The easiest, the hardest and wrong images of a pass, for ``run.html``.

    Right images are one group if they took equally many glimpses and `sure` is not known.

    Args:
        episode: gives the episode of an image by its number.
        right: ``(N,)`` bool, whether the answer is right.
        taken: ``(N,)`` numbers of glimpses.
        sure: ``(N,)`` probability of the answer; None if it is not known.
    """
    dynamic, known = bool(taken.min() < taken.max()), sure is not None
    few, many = (" after the fewest glimpses", " after the most glimpses") if dynamic else ("", "")
    surest, least = (" The surest first.", " The least sure first.") if known else ("", "")
    sure = np.zeros(len(taken)) if sure is None else sure
    orders = {
        "Easiest": (f"Right{few}.{surest}", right, taken, -sure),
        "Hardest": (f"Right{many}.{least}", right, -taken, sure),
        "Wrong": (surest.strip(), ~right, np.zeros(len(taken)), -sure),
    }
    if not dynamic and not known:  # nothing tells easy from hard
        orders = {"Right": ("", *orders["Easiest"][1:]), "Wrong": orders["Wrong"]}
    return [
        {
            "title": title,
            "order": order,
            "episodes": [
                shown(episode(n))
                for n in np.lexsort((then, by, ~among))[: min(SHOWN, among.sum())].tolist()
            ],
        }
        for title, (order, among, by, then) in orders.items()
    ]


def shown(episode: Episode) -> dict[str, Any]:
    """An episode with its glimpses and the beliefs after them, for ``run.html``."""
    assert episode.label is not None and episode.prediction is not None
    names, taken = episode.class_names, len(episode.looks)
    kept = np.arange(taken)
    if taken > STEPS:
        kept = np.concatenate([kept[: STEPS // 2], kept[-STEPS // 2 :]])
    label = f"{episode.title}, {names[episode.label]}"
    if taken:
        label += f", with its {taken} glimpse{'s' * (taken > 1)}"
    return {
        "title": episode.title,
        "picture": picture(
            draw_episode(episode.image, episode.boxes, size=PICTURE, path=True), label
        ),
        "right": episode.prediction == episode.label,
        "label": names[episode.label],
        "answer": names[episode.prediction],
        "taken": taken,
        "steps": (kept + 1).tolist(),
        "more": taken - len(kept),
        "bars": [(name, kind, shares[kept].tolist()) for name, kind, shares in bars(episode, BARS)],
    }
