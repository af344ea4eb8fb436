"""The body plan of the birds."""

import numpy as np

from .figures import Plan
from .pieces import Figure
from .random_words import Draws
from .textures import cosine, sine

BILL, EYE, WING, TAIL, LEGS = range(5)


def figure(draws: Draws, shape: np.ndarray, size: float) -> Figure:
    """Birds, about 100 units long, with their middle at (0, 0); see `Plan.figure`.

    The genus sets length and roundness of the body and sizes of head and crest. The poses of head,
    bill, tail, wing and legs differ between images.
    """
    length, roundness, skull, crest = shape.T
    head_x, head_y = 21 + draws.between(-1.5, 1.5), -15 + draws.between(-2, 2)
    nod, droop, stride = (draws.between(-0.04, 0.04) for _ in range(3))
    wing_x, wing_y = -7 + draws.between(-2, 2), draws.between(-2, 1)
    body_a, body_b, skull = 22 + length, 15 + 1.5 * roundness, 12 + skull
    bird = Figure()
    # The tail, with its tip `reach` units behind the rump.
    reach = 29.5 + length
    x, y = -reach * cosine(droop), reach * sine(droop)
    bird.bar("head", (-17 + x / 2, 2 + y / 2), (reach / 2, 6 * size**0.5), angle=-droop)
    tip = 8 * size, 7.5 * size
    bird.bar("accent", (-17 + x, 2 + y), tip, angle=-droop, taper=0.85, part=TAIL)
    # Two legs with feet, below the hip.
    hip, knee, foot = 0.93 * body_b, 7 * size, 15.5 * size
    for side in (-1, 1):
        x = 6 * side * size - 1
        at, half = (x - knee * sine(stride), hip + knee), (8.5 * size, 4 * size)
        bird.bar("accent", at, half, angle=0.25 + stride, taper=0.9, part=LEGS)
        bird.bar("dark", (x + 2 * size - foot * sine(stride), hip + foot), (5 * size, 1.2))
    # Body, head, bill, eye and wing.
    bird.ellipse("body", (0, 0), (body_a, body_b))
    bird.bar("body", (0.5 * head_x + 3, 0.5 * head_y), (11, 10), angle=-0.1, taper=0.9)
    bird.ellipse("light", (4, 0.4 * body_b), (0.7 * body_a, 0.55 * body_b), angle=-0.02)
    tuft = (5 + 3 * crest, 3 + crest)
    bird.bar("head", (head_x - 5, head_y - skull), tuft, angle=0.62, taper=0.4)
    bird.ellipse("head", (head_x, head_y), (skull, skull - 1))
    reach = skull - 2 + 9 * size
    bill = head_x + reach * cosine(nod), head_y + 2 + reach * sine(nod)
    bird.bar("accent", bill, (10 * size, 6.5 * size), angle=nod, taper=0.45, part=BILL)
    ring = 8.5 * size, 8.5 * size
    bird.ellipse("accent", (head_x, head_y - 1), ring, angle=nod, part=EYE)
    bird.ellipse("dark", (head_x + 0.5, head_y - 1), (2.5 * size, 2.5 * size))
    bird.ellipse("shade", (wing_x + 1, wing_y), (17, 9.5), angle=-0.03)
    patch = 12 * size, 7.5 * size
    bird.ellipse("accent", (wing_x, wing_y), patch, angle=-0.03, part=WING)
    return bird


BIRDS = Plan(
    parts=("bill", "eye ring", "wing", "tail tip", "legs"),
    singles=(WING, BILL, LEGS, TAIL, EYE),
    pairs=((EYE, TAIL), (BILL, TAIL)),
    stems=(
        "warbler", "finch", "jay", "wren", "thrush", "tanager", "bunting", "grosbeak", "oriole",
        "vireo", "swallow", "sparrow", "kingfisher", "pipit", "nuthatch", "shrike", "starling",
        "lark", "wagtail", "waxwing", "siskin", "tit", "robin", "chat",
    ),
    figure=figure,
    units=(0.88, 1.02),
)  # fmt: skip
