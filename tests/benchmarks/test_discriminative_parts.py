"""How often glimpses touch discriminative parts: by hand, in closed form, and by the sensor."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.discriminative_parts import random_touches, touches
from dtram_env import sensor

# One image with two parts: centres (20, 10) and (100.5, 90); the first one tells.
BOXES = np.array([[[16, 8, 8, 4], [98, 88, 5, 4]]])
FIRST, BOTH = np.array([[True, False]]), np.array([[True, True]])


@pytest.mark.parametrize(
    ("left", "top", "discriminative", "held"),
    [
        (20, 10, FIRST, True),  # the crop's first pixel
        (20 - 31, 10 - 31, FIRST, True),  # its last
        (20 - 32, 10, FIRST, False),
        (20, 10 - 32, FIRST, False),
        (21, 10, FIRST, False),
        (90, 80, FIRST, False),  # it holds the other part
        (90, 80, BOTH, True),
        (90, 80, np.array([[False, False]]), False),
    ],
)
def test_touches_by_hand(left: int, top: int, discriminative: np.ndarray, held: bool) -> None:
    corner = np.array([[left]]), np.array([[top]])
    assert touches(BOXES, discriminative, *corner, 32).tolist() == [[held]]


def test_random_touches_in_closed_form() -> None:
    """Far from the edges a point is held from 32 of 128 locations along each axis."""
    boxes = np.array([[[60, 62, 8, 4], [0, 0, 0, 0]]])
    found = random_touches(boxes, FIRST, (128, 128), 32)
    assert found == pytest.approx([(32 / 128) ** 2])
    # Crops that lie within the image begin at 0 ... 96, the first and the last half as often.
    within = random_touches(boxes, FIRST, (128, 128), 32, reach=1 - 32 / 128)
    assert within == pytest.approx([(32 / 96) ** 2])
    # At an edge, only half of the places outside would hold it.
    corner = np.array([[[0, 0, 0, 0], [0, 0, 0, 0]]])
    assert random_touches(corner, FIRST, (128, 128), 32)[0] == pytest.approx((16.5 / 128) ** 2)


@pytest.mark.parametrize("reach", [1.0, 0.75])
def test_random_touches_are_those_of_the_sensor(reach: float) -> None:
    generator = np.random.default_rng(0)
    place = generator.uniform(-reach, reach, (200_000, 2))
    left, top = (sensor.corner(place[:, k], 128, 32)[None] for k in (0, 1))
    share = touches(BOXES, BOTH, left, top, 32).mean()
    exact = random_touches(BOXES, BOTH, (128, 128), 32, reach)[0]
    assert share == pytest.approx(exact, abs=4 * (exact / 200_000) ** 0.5)
