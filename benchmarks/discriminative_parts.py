"""How often glimpses touch the parts that tell a drawn species apart, against random glimpses."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.unroll import Scores
from dtram_env import sensor
from train.common.training_task import Task


def touches(
    boxes: np.ndarray, discriminative: np.ndarray, lefts: np.ndarray, tops: np.ndarray, side: int
) -> np.ndarray:
    """Whether crops hold the centre of a discriminative part's box.

    Args:
        boxes: ``(N, P, 4)``, left, top, width, height of every part, in pixels.
        discriminative: ``(N, P)`` bool.
        lefts: ``(N, ...)`` integers, the crops' first columns; every image has as many.
        tops: ``(N, ...)``, their first rows.
        side: of a crop, in pixels.

    Returns:
        bool ``(N, ...)``.
    """
    found = np.zeros(np.broadcast_shapes(lefts.shape, tops.shape), dtype=bool)
    shape = (-1,) + (1,) * (found.ndim - 1)
    for p in range(boxes.shape[1]):
        x, y = ((boxes[:, p, k] + boxes[:, p, 2 + k] / 2).reshape(shape) for k in (0, 1))
        inside = (lefts <= x) & (x < lefts + side) & (tops <= y) & (y < tops + side)
        found |= inside & discriminative[:, p].reshape(shape)
    return found


def random_touches(
    boxes: np.ndarray,
    discriminative: np.ndarray,
    size: tuple[int, int],
    side: int,
    reach: float = 1.0,
) -> np.ndarray:
    """Probability ``(N,)`` that a crop at a uniformly random location touches a discriminative part.

    Exact: a sum over all pixels at which a crop can begin.

    Args:
        boxes: as for `touches`; likewise `discriminative`.
        size: height and width of the images, in pixels.
        side: of a crop, in pixels.
        reach: locations are uniform in [-reach, reach]².
    """
    (top, p_top), (left, p_left) = (_corners(n, side, reach) for n in size)
    shares = []
    for n in range(len(boxes)):
        grid = touches(
            boxes[n : n + 1], discriminative[n : n + 1], left[None, None], top[None, :, None], side
        )
        shares.append(p_top @ grid[0] @ p_left)
    return np.array(shares)


def _corners(size: int, side: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Where crops can begin along an axis, and with what probability, for a uniform location."""
    low, high = (float(sensor.edge(end, size, side)) for end in (-reach, reach))
    begin = np.arange(int(np.floor(low)), int(np.floor(high)) + 1)
    share = np.minimum(begin + 1, high) - np.maximum(begin, low)
    return begin, share / share.sum()


def touch_shares(task: Task, scores: Scores, glimpses: np.ndarray) -> dict[str, Any]:
    """How often crops touch a discriminative part: DT-RAM's, and as many at random locations.

    Over the test images that have discriminative parts; the first look is at the whole and is no crop.
    Random locations are anywhere in the image; and, as a stricter measure, where crops lie within
    it, on square images.

    Args:
        task: with its test split.
        scores: of the test split.
        glimpses: ``(N,)``, after how many each image stopped.
    """
    data = task.images("test").data
    height, width, _ = data.image_shape
    assert height is not None and width is not None
    boxes, discriminative, side = (
        data.metadata["part_boxes"],
        data.metadata["discriminative"],
        task.sensor.glimpse_size,
    )
    place = scores.locations[1:].cpu().numpy().astype(np.float64)  # (T - 1, N, 2)
    lefts, tops = (
        sensor.corner(place[..., k], n, side).T for k, n in enumerate((width, height))
    )  # (N, T - 1)
    some = np.asarray(discriminative.any(axis=1))
    taken = (np.arange(2, len(place) + 2) <= glimpses[:, None]) & some[:, None]
    crops = int(taken.sum())
    if not crops:
        return {"crops": 0, "of_dtram": None, "of_random": None, "ratio": None}
    ours = float(touches(boxes, discriminative, lefts, tops, side)[taken].mean())

    def by_chance(reach: float) -> float:
        each = random_touches(boxes, discriminative, (height, width), side, reach)
        return float((each * taken.sum(axis=1)).sum() / crops)

    anywhere = by_chance(1.0)
    within = by_chance(1 - side / min(height, width))
    return {
        "crops": crops,
        "of_dtram": round(ours, 4),
        "of_random": round(anywhere, 4),
        "ratio": round(ours / anywhere, 2),
        "of_random_within": round(within, 4),
        "ratio_within": round(ours / within, 2),
    }
