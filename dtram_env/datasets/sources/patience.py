"""Patience: a drawn dataset whose images need 1 to 7 glimpses, each number as often. No files.

Images of 40x40 pixels have seven places for a glyph of 8x8: the centre, and six of the eight places
around it, 16 pixels apart, so that no glimpse sees two. One place shows the glyph of the class, the
others are empty; all places and classes are equally frequent. Nothing but looking tells where it
is, so no order of the places is better than another: the best policy looks at one after the other,
stops when it sees the glyph, and not before. It is always right, after 4 glimpses on average, and
its return is the mean of ``discount ** t`` over t = 1 ... 7: to go on is better than to guess one
of four classes for every discount above 0.62.
"""

import numpy as np

from .glyphs import balanced, box, images_of, random_words, shapes

SIZE = 40
_FAR = 16  # pixels between places
PLACES = _FAR * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1)])
"""Centres ``(7, 2)`` of the places, (x, y) in pixels from the image's centre."""
COUNTS = {"train": 5600, "test": 2240}


def draw(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws "train" (5,600 images) or "test" (2,240).

    Images ``(N, 40, 40, 1)`` uint8 and labels ``(N,)`` int64.
    """
    words, noise = random_words(COUNTS, part, SIZE, puzzle=1)
    place, labels = np.divmod(balanced(words[:, 0], 4 * len(PLACES)), 4)
    glyphs, _ = shapes()
    ink = np.zeros(noise.shape, dtype=np.uint8)
    for k, (x, y) in enumerate(PLACES):
        box(ink, x, y)[place == k] = glyphs[labels[place == k]]
    return images_of(ink, words[:, 1], noise), labels
