"""The registered environments: one table, id -> data, glimpse, budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import gymnasium as gym


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
    """

    dataset: str
    glimpse_size: int = 8
    num_scales: int = 1
    max_glimpses: int = 7
    first_glimpse: str = "center"
    discount: float = 0.98


TABLE: dict[str, Row] = {
    "DTRAM-MNIST-v0": Row("MNIST"),
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
                kwargs=asdict(row),
            )
