"""The registered environments: one table, id -> the keywords that it is registered with."""

from typing import Any

import gymnasium as gym

from .datasets.drawn import SCENES, SMALL_BIRDS
from .suite import best_return

# Values are names and numbers only, because `gym.make` copies them deeply.
_COMMON: dict[str, Any] = {
    "glimpse_size": 8,
    "num_scales": 1,
    "max_glimpses": 7,
    "first_glimpse": "center",
    "discount": 0.98,
}
# Larger images of digits as in the RAM paper ("Recurrent Models of Visual Attention").
_RAM = _COMMON | {"glimpse_size": 12, "num_scales": 3, "max_glimpses": 8}
_WHOLE_FIRST = _COMMON | {"max_glimpses": 3, "first_glimpse": "thumbnail"}
# Fine-grained images as in the talk.
_LARGE = _WHOLE_FIRST | {"glimpse_size": 224, "image_size": 512}
_SMALL_BIRDS = _WHOLE_FIRST | {
    "glimpse_size": 32,
    "image_size": SMALL_BIRDS.image_size,
    "num_classes": SMALL_BIRDS.num_classes,
    "num_train": SMALL_BIRDS.num_train,
    "num_test": SMALL_BIRDS.num_test,
}
# Figures have the size that they have in SMALL_BIRDS, whatever the image size, 256 to 2048.
_SCENES = _WHOLE_FIRST | {
    "glimpse_size": 64,
    "max_glimpses": 6,
    "image_size": SCENES.image_size,
}
_PHOTOGRAPHS = _WHOLE_FIRST | {"glimpse_size": 96, "max_glimpses": 4, "image_size": 256}

TABLE: dict[str, dict[str, Any]] = {
    "DTRAM-MNIST-v0": {"dataset": "MNIST", **_COMMON},
    "DTRAM-FashionMNIST-v0": {"dataset": "FashionMNIST", **_COMMON},
    "DTRAM-TranslatedMNIST-v0": {"dataset": "TranslatedMNIST", **_RAM},
    "DTRAM-ClutteredMNIST-v0": {"dataset": "ClutteredMNIST", **_RAM},
    "DTRAM-ClutteredMNIST100-v0": {"dataset": "ClutteredMNIST100", **_RAM, "num_scales": 4},
    "DTRAM-CUB-v0": {"dataset": "CUB", **_LARGE},
    "DTRAM-Cars-v0": {"dataset": "Cars", **_LARGE},
    "DTRAM-Birds-v0": {"dataset": "Birds", **_LARGE},
    "DTRAM-Autos-v0": {"dataset": "Autos", **_LARGE},
    "DTRAM-BirdsSmall-v0": {"dataset": "Birds", **_SMALL_BIRDS},
    "DTRAM-Scenes-v0": {"dataset": "Scenes", **_SCENES},
    "DTRAM-ImageFolder-v0": {"dataset": "ImageFolder", **_PHOTOGRAPHS},
    "DTRAM-Signpost-v0": {"dataset": "Signpost", **_COMMON, "max_glimpses": 4},
    "DTRAM-NoisySignpost-v0": {"dataset": "NoisySignpost", **_COMMON, "max_glimpses": 4},
    "DTRAM-WideSignpost-v0": {"dataset": "WideSignpost", **_COMMON, "max_glimpses": 4},
    "DTRAM-Patience-v0": {"dataset": "Patience", **_COMMON},
    "DTRAM-Pair-v0": {"dataset": "Pair", **_COMMON, "max_glimpses": 4},
}

ENV_IDS: tuple[str, ...] = tuple(TABLE)


def register_all() -> None:
    """Registers every id of the table with Gymnasium, unless it is registered already."""
    for env_id, keywords in TABLE.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="dtram_env.env:GlimpseEnv",
                vector_entry_point="dtram_env.vector_env:GlimpseVectorEnv",
                reward_threshold=best_return(env_id),
                kwargs=dict(keywords),
            )
