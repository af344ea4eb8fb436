"""Pair: a drawn dataset whose class is known only from two glimpses together. It needs no files.

Images of 28x28 pixels show five glyphs of 8x8: one at the centre, and four around it, 9 pixels
away. The glyphs ring, cross, bars and checks count 0 to 3; the class is the sum of the one at the
centre and the one on its right, modulo 4. Each of the two is as frequent with every class, so
either alone says nothing, and the other three are random. The best policy looks at the centre, then
to the right, remembers the first while it sees the second, and is always right after 2 glimpses.
"""

import numpy as np

from .glyphs import STEPS, balanced, box, choices, images_of, random_words, shapes

SIZE = 28
REACH = 9  # pixels from the image's centre to the centre of an outer glyph
COUNTS = {"train": 6400, "test": 2000}
CLASS_NAMES = ("0", "1", "2", "3")


def draw(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws "train" (6,400 images) or "test" (2,000).

    Images ``(N, 28, 28, 1)`` uint8 and labels ``(N,)`` int64; classes are equally frequent.
    """
    words, noise = random_words(COUNTS, part, SIZE, puzzle=2)
    centre, right = np.divmod(balanced(words[:, 0], 16), 4)
    around = choices(words[:, 1], 4, shift=2)
    around[:, 1] = right
    glyphs, _ = shapes()
    ink = np.zeros(noise.shape, dtype=np.uint8)
    box(ink, 0, 0)[...] = glyphs[centre]
    for k, (x, y) in enumerate(STEPS * REACH):
        box(ink, x, y)[...] = glyphs[around[:, k]]
    return images_of(ink, words[:, 1], noise), (centre + right) % 4
