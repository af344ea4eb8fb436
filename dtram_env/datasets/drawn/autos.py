"""The body plan of the cars, seen from the side."""

import numpy as np

from .figures import Plan
from .pieces import Figure
from .random_words import Draws

HEADLIGHT, FRONT, REAR, DOOR, TAILLIGHT = range(5)


def figure(draws: Draws, shape: np.ndarray, size: float) -> Figure:
    """Cars, about 100 units long, with their middle at (0, 0); see `Plan.figure`.

    The genus sets length and height, height of the roof and position of the cabin. The angle and
    height of the body on the wheels and the place of the door differ between images.
    """
    length, height, roof, back = shape.T
    lean, bounce = draws.between(-0.01, 0.01), draws.between(-1, 1)
    door = draws.between(-2, 2)
    half, belt, cabin = 45 + 2 * length, 11 + height, 9 + 1.5 * roof
    car = Figure()
    # Roof, windows and the pillar between them: bars that point up, so they taper upwards.
    x, y, up = -4 - 4 * back, bounce - belt - 0.6 * cabin, lean - 0.25
    car.bar("head", (x, y), (cabin, 30), angle=up, taper=0.62)
    car.bar("light", (x, y + 0.1 * cabin), (0.65 * cabin, 25), angle=up, taper=0.66)
    car.bar("head", (x, y), (0.9 * cabin, 1.5), angle=up)
    car.bar("body", (0, bounce), (half, belt), angle=lean, taper=0.9)
    car.bar("shade", (0, bounce + 0.75 * belt), (half, 0.28 * belt), angle=lean)
    hub, tyre = 8.5 * size, 8.5 * size + 4
    for axle, part in ((29, FRONT), (-29, REAR)):
        car.ellipse("dark", (axle, 11), (tyre, tyre))
        car.ellipse("accent", (axle, 11), (hub, hub), part=part)
    at = half - 6.5 * size, bounce - 0.15 * belt
    car.ellipse("accent", at, (8.5 * size, 5.5 * size), angle=lean + 0.04, part=HEADLIGHT)
    at = -half + 5 * size, bounce - 0.25 * belt
    car.bar("accent", at, (5 * size, 7 * size), angle=lean, part=TAILLIGHT)
    at = door - 1, bounce - 0.05 * belt
    car.bar("accent", at, (10 * size, 6 * size), angle=lean, part=DOOR)
    return car


AUTOS = Plan(
    parts=("headlight", "front wheel", "rear wheel", "door", "tail light"),
    singles=(DOOR, FRONT, TAILLIGHT, REAR, HEADLIGHT),
    pairs=((HEADLIGHT, TAILLIGHT), (HEADLIGHT, REAR), (FRONT, TAILLIGHT)),
    stems=(
        "sedan", "coupe", "estate", "hatchback", "roadster", "saloon", "van", "pickup", "tourer",
        "limousine", "fastback", "minivan", "convertible", "crossover", "compact", "runabout",
        "speedster", "wagon", "landau", "cabriolet", "spider", "phaeton", "buggy", "shuttle",
    ),
    figure=figure,
    units=(0.86, 1.02),
)  # fmt: skip
