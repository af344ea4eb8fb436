"""The published figures of the talk's tables.

Li, Yang, Liu, Zhou, Wen, Xu, "Dynamic Computational Time for Visual Attention" (2017), its slides.
Errors and accuracies are in percent of the official test split.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A line of one of the talk's tables."""

    label: str  # the system, in the talk's words or nearly so
    value: float | None  # error (Table 2) or accuracy, %; None where the talk has none
    glimpses: float | None = None  # their mean number, if published
    with_box: float | None = None  # accuracy, %, with the ground-truth box
    system: str = ""  # the name of our system, see `train.paper.systems`; empty: cited only
    steps: int | None = None  # number of glimpses, if it is fixed
    threshold: float | None = None  # confidence at which it stops, if it stops by confidence
    other_version: float | None = None  # error, %, in the RAM paper's other version, or of tfRAM


TITLES = {
    "table1": "Table 1. Statistics of the datasets.",
    "table2": "Table 2. Comparison to related work on MNIST, error.",
    "table3": "Table 3. Comparison to related work on CUB-200-2011, accuracy.",
    "table4": "Table 4. Comparison to related work on Stanford Cars, accuracy.",
    "table5": "Table 5. Input resolution and network depth, accuracy.",
    "table6": "Table 6. Comparison to RAM, accuracy.",
    "table7": "Table 7. Comparison to a fixed stopping policy, accuracy.",
    "table8": "Table 8. Curriculum learning, accuracy of RAM.",
    "table9": "Table 9. Intermediate supervision, accuracy of RAM.",
    "clutter": "Digits at random places, without and with clutter, error.",
    "scenes": "Drawn birds in large scenes, error.",
}

# Classes, training and test images, whether boxes are known.
TABLE_1 = {
    "MNIST": (10, 60000, 10000, False),
    "CUB-200-2011": (200, 5994, 5794, True),
    "Stanford Cars": (196, 8144, 8041, True),
}


def _fixed(count: int, value: float | None, other: float | None = None) -> Published:
    label = f"RAM, {count} glimpses"
    return Published(label, value, count, None, "ram", count, other_version=other)


# RAM from the RAM paper, which has two versions with different figures; the talk cites 2, 4, 5, 7.
TABLE_2 = (
    Published("FC, 2 layers (256 hidden units each)", 1.69, system="fc"),
    Published("Convolutional, 2 layers", 1.21, system="conv"),
    _fixed(2, 3.79, 6.27),
    _fixed(3, 1.51),
    _fixed(4, 1.54, 1.73),
    _fixed(5, 1.34),
    _fixed(6, 1.12, 1.29),
    _fixed(7, 1.07),
    Published("DT-RAM-1, the talk's algorithm", 1.46, 3.6, system="talk-1"),
    Published("DT-RAM-1, its code", 1.46, 3.6, system="original-1"),
    Published("DT-RAM-2, the talk's algorithm", 1.12, 5.2, system="talk-2"),
    Published("DT-RAM-2, its code", 1.12, 5.2, system="original-2"),
)

TABLE_3 = (
    Published("Zhang et al. [63]", 73.9, with_box=76.4),
    Published("Branson et al. [56], with the box its parts too", 75.7, with_box=85.4),
    Published("Simon et al. [64]", 81.0),
    Published("Krause et al. [48]", 82.0, with_box=82.8),
    Published("Lin et al. [54]", 84.1, with_box=85.1),
    Published("Jaderberg et al. [59]", 84.1),
    Published("Kong et al. [53]", 84.2),
    Published("Liu et al. [62]", 84.3, with_box=84.7),
    Published("Liu et al. [9]", 85.4, with_box=85.5),
    Published("ResNet-50", 84.5, system="one-look"),
    _fixed(3, 86.0),
    Published("DT-RAM", 86.0, 1.9, system="dtram"),
)
TABLE_4 = (
    Published("Chai et al. [65]", 78.0),
    Published("Gosselin et al. [66]", 82.7, with_box=87.9),
    Published("Girshick et al. [67]", 88.4),
    Published("Lin et al. [54]", 91.3),
    Published("Wang et al. [68]", None, with_box=92.5),
    Published("Liu et al. [62]", 91.5, with_box=93.1),
    Published("Krause et al. [48]", 92.6, with_box=92.8),
    Published("ResNet-50", 92.3, system="one-look"),
    _fixed(3, 93.1),
    Published("DT-RAM", 93.1, 1.9, system="dtram"),
)
# Depth of the network and resolution of the first look -> ResNet, RAM.
TABLE_5 = {
    "34, 224x224": (79.9, 81.8),
    "50, 224x224": (81.5, 82.8),
    "50, 448x448": (84.5, 86.0),
}

_CURRICULUM = (79.9, 80.7, 81.1, 81.5, 81.8, 81.8)
TABLE_6 = (
    Published("ResNet-34", 79.9, 1, system="one-look"),
    *(_fixed(t, _CURRICULUM[t - 1]) for t in range(2, 7)),
    Published("DT-RAM", 81.8, 3.6, system="dtram"),
)
TABLE_7 = (
    Published("confidence > 0", 79.9, 1, system="ram", threshold=0.0),
    Published("confidence > 0.4", 80.7, 1.4, system="ram", threshold=0.4),
    Published("confidence > 0.5", 81.0, 1.6, system="ram", threshold=0.5),
    Published("confidence > 0.6", 81.2, 1.9, system="ram", threshold=0.6),
    Published("confidence > 0.9", 81.3, 3.6, system="ram", threshold=0.9),
    Published("confidence > 1.0", 81.8, 6, system="ram", threshold=1.0),
    Published("DT-RAM", 81.8, 3.6, system="dtram"),
)
COMPARISONS = {"table3": TABLE_3, "table4": TABLE_4, "table6": TABLE_6, "table7": TABLE_7}
# By number of glimpses, 1 to 6.
TABLE_8 = {
    "without curriculum": (79.9, 80.7, 80.5, 80.9, 80.3, 80.0),
    "with curriculum": _CURRICULUM,
}
TABLE_9 = {
    "without intermediate supervision": (79.9, 78.8, 76.1, 74.8, 74.9, 74.7),
    "with intermediate supervision": _CURRICULUM,
}


def _anywhere(
    task: str, conv: tuple[float | None, float], paper: float, other: tuple[float, float, float]
) -> tuple[Published, ...]:
    """A task of the RAM paper: a convolutional network, RAM with 4, 6 and 8 glimpses, DT-RAM."""
    ram = zip((4, 6, 8), (None, None, paper), other, strict=True)
    rows = [_fixed(count, value, version) for count, value, version in ram]
    look = Published("Convolutional, 2 layers", conv[0], 1, None, "one-look-conv")
    rows = [look._replace(other_version=conv[1]), *rows, Published("DT-RAM", None, system="dtram")]
    return tuple(row._replace(label=f"{task}: {row.label}") for row in rows)


# From the RAM paper; in the other version from another implementation, tfRAM.
TRANSLATED = _anywhere("Translated, 60 pixels", (None, 1.57), 1.84, (1.54, 1.08, 0.94))
CLUTTERED = _anywhere("4 patches, 60 pixels", (7.83, 8.37), 5.23, (5.15, 3.33, 2.63))
CLUTTERED_100 = (
    *_anywhere("8 patches, 100 pixels", (16.51, 16.22), 10.83, (14.86, 8.3, 5.9)),
    Published("8 patches, 100 pixels: DRAW", 3.36),
    # The baselines of "Dynamic Capacity Networks" (2016).
    Published("8 patches, 100 pixels: Convolutional, 3 layers", 1.69),
    Published("8 patches, 100 pixels: Convolutional, 6 layers", 0.92),
)
