"""The registered environments: one table, id -> data, glimpse, budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym

from .datasets.drawn import SMALL_BIRDS


@dataclass(frozen=True)
class Row:
    """Defaults of one id; names and numbers only, as `gym.make` copies them deeply.

    Attributes:
        dataset: name of the data.
        glimpse_size: side of a glimpse, in pixels.
        num_scales: crops in a glimpse.
        max_glimpses: the budget.
        first_glimpse: one of `episodes.FIRST_GLIMPSES`.
        discount: of the reward.
        image_size: shorter side of the images, in pixels; None where data has its own.
        num_classes, num_train, num_test: of drawn data; None for its own.
    """

    dataset: str
    glimpse_size: int = 8
    num_scales: int = 1
    max_glimpses: int = 7
    first_glimpse: str = "center"
    discount: float = 0.98
    image_size: int | None = None
    num_classes: int | None = None
    num_train: int | None = None
    num_test: int | None = None

    def keywords(self) -> dict[str, Any]:
        """What the id is registered with."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _large(dataset: str) -> Row:
    """The talk's setting for fine-grained images: a look at the whole, then crops."""
    return Row(dataset, 224, 1, 3, "thumbnail", image_size=512)


def _ram_60(dataset: str) -> Row:
    """The RAM paper's setting for 60x60 images: three scales of 12 pixels."""
    return Row(dataset, glimpse_size=12, num_scales=3)


TABLE: dict[str, Row] = {
    "DTRAM-MNIST-v0": Row("MNIST"),
    "DTRAM-FashionMNIST-v0": Row("FashionMNIST"),
    "DTRAM-TranslatedMNIST-v0": _ram_60("TranslatedMNIST"),
    "DTRAM-ClutteredMNIST-v0": _ram_60("ClutteredMNIST"),
    "DTRAM-CUB-v0": _large("CUB"),
    "DTRAM-Cars-v0": _large("Cars"),
    "DTRAM-Birds-v0": _large("Birds"),
    "DTRAM-Autos-v0": _large("Autos"),
    "DTRAM-BirdsSmall-v0": Row(
        "Birds",
        32,
        1,
        3,
        "thumbnail",
        image_size=SMALL_BIRDS.image_size,
        num_classes=SMALL_BIRDS.num_classes,
        num_train=SMALL_BIRDS.num_train,
        num_test=SMALL_BIRDS.num_test,
    ),
    "DTRAM-ImageFolder-v0": Row("ImageFolder", 96, 1, 4, "thumbnail", image_size=256),
    "DTRAM-Signpost-v0": Row("Signpost", max_glimpses=4),
}

ENV_IDS: tuple[str, ...] = tuple(TABLE)


def register_all() -> None:
    """Registers every id of the table with Gymnasium; those that are there already stay."""
    for env_id, row in TABLE.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="dtram_env.env:GlimpseEnv",
                vector_entry_point="dtram_env.vector_env:GlimpseVectorEnv",
                kwargs=row.keywords(),
            )
