"""Signpost: a drawn dataset with a known best location for every image. It needs no files.

Four glyphs, one for each class, and four arrows, all 8x8 pixels, on images of 28x28. The centre of
an *easy* image (exactly half of them) shows the glyph of its class, so one glimpse there is enough.
The centre of a *hard* image shows an arrow, which points to the glyph of its class, 9 pixels from
the centre. The other places around the centre show glyphs of random classes. An agent that sees
only the centre is right on at most 50 % + 50 % / 4 of the images; an agent that follows the arrow
is right on all, after 1.5 glimpses on average.

*NoisySignpost* is the same, but each pixel is turned from dark to ink or back with a probability of
3/16, so that a glyph is known only from its whole shape, and not always. *WideSignpost* is the same
on images of 100x100, where the arrow points to a glyph 40 pixels from the centre and a glimpse sees
0.6 % of the image.
"""

from dataclasses import dataclass

import numpy as np

from .glyphs import STEPS, balanced, box, choices, images_of, random_words, shapes

COUNTS = {"train": 6000, "test": 2000}


@dataclass(frozen=True)
class Version:
    """What differs between the datasets."""

    puzzle: int  # of `random_words`
    side: int = 28  # of an image, in pixels
    reach: int = 9  # pixels from the image's centre to the centre of an outer glyph
    turned: int = 0  # sixteenths: the probability that a pixel is turned from dark to ink or back


PLAIN = Version(0)
NOISY = Version(3, turned=3)
WIDE = Version(4, side=100, reach=40)


def draw(part: str, version: Version = PLAIN) -> tuple[np.ndarray, np.ndarray]:
    """Draws "train" (6,000 images) or "test" (2,000).

    Images ``(N, side, side, 1)`` uint8 and labels ``(N,)`` int64; classes are equally frequent.
    """
    words, noise = random_words(COUNTS, part, version.side, version.puzzle)
    kind = balanced(words[:, 0], 8)  # of the pairs (class, easy)
    labels, easy, direction = kind % 4, kind < 4, choices(words[:, 1], 1)[:, 0]
    glyphs, arrows = shapes()
    ink = np.zeros(noise.shape, dtype=np.uint8)
    around = choices(words[:, 1], 4, shift=2)
    hard = np.flatnonzero(~easy)
    around[hard, direction[hard]] = labels[hard]
    for k, (x, y) in enumerate(STEPS * version.reach):
        box(ink, x, y)[...] = glyphs[around[:, k]]
    box(ink, 0, 0)[...] = np.where(easy[:, None, None], glyphs[labels], arrows[direction])
    if version.turned:
        ink ^= noise % 16 < version.turned
        noise = noise // 16  # the bits that decided nothing
    return images_of(ink, words[:, 1], noise), labels
