"""The environment and the text on data of each id's page, equal on every machine.

Pages must not depend on which datasets a machine has. So CUB and Cars are opened with their drawn
stand-ins, ImageFolder with a temporary folder, and FashionMNIST with blank images.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from agents import POLICY_IDS
from dtram_env import GlimpseEnv, datasets
from dtram_env.datasets.drawn import AUTOS, BIRDS, SCENES
from dtram_env.datasets.sources import cluttered, fashion, pair, patience, signpost

# The example of ImageFolder runs these lines to make a folder of images.
FOLDER = (
    "import tempfile",
    "from pathlib import Path",
    "from PIL import Image",
    "folder = tempfile.TemporaryDirectory()",
    'photos = Path(folder.name, "photos")',
    'for name, colour in {"ripe": "firebrick", "unripe": "olivedrab"}.items():\n'
    "    (photos / name).mkdir(parents=True)\n"
    "    for i in range(10):\n"
    '        image = Image.new("RGB", (400, 300 + 40 * i), colour)\n'
    '        image.save(photos / name / f"{i}.jpg")',
)
OF_MNIST = ("translatedmnist", "clutteredmnist", "clutteredmnist100")  # made from its files
_IMAGES = {
    "mnist": "Handwritten digits, downloaded when first used (55 MB).",
    "fashionmnist": "Pieces of clothing, downloaded when first used (55 MB).",
    "translatedmnist": "Each MNIST digit at a random place of a larger black image.",
    "clutteredmnist": "TranslatedMNIST with pieces of other digits as clutter.",
    "clutteredmnist100": "ClutteredMNIST on a larger image with twice as many pieces.",
    "cub": (
        "Photographs of 200 bird species: Black footed Albatross, Laysan Albatross, Sooty "
        "Albatross, …"
    ),
    "cars": "Photographs of 196 car models: AM General Hummer SUV 2000, Acura RL Sedan 2012, …",
    "birds": "Drawn birds. Species of one genus differ only in the texture of one or two parts.",
    "autos": "Drawn vehicles. Models of one genus differ only in the texture of one or two parts.",
    "scenes": (
        "Drawn birds, each at a random place of a large scene with clutter and vehicles. The bird "
        "has the same size in pixels at every `image_size`, 256 to 2048. Species of one genus "
        "differ only in the texture of one or two parts."
    ),
    "signpost": "Drawn glyphs and arrows; no download.",
    "noisysignpost": "Drawn glyphs and arrows, with noise; no download.",
    "widesignpost": "Drawn glyphs and arrows on larger images; no download.",
    "patience": "A drawn glyph at one of seven places; no download.",
    "pair": "Drawn glyphs of which two are to be added; no download.",
    "imagefolder": (
        "Your own images: `root` has one folder a class, or folders `train` and `test` that have "
        "one folder a class each. [Bring your images](../bring_your_images.md) explains the splits."
    ),
}
_STORIES = {  # modules whose docstring tells what the images show
    **dict.fromkeys(("signpost", "noisysignpost", "widesignpost"), signpost),
    **dict.fromkeys(OF_MNIST, cluttered),
    "patience": patience,
    "pair": pair,
}
_PARTS = {"cub": BIRDS, "birds": BIRDS, "cars": AUTOS, "autos": AUTOS, "scenes": SCENES}


class Opener(Protocol):
    """Makes an id's environment with further keywords."""

    def __call__(self, env_id: str, **keywords: Any) -> GlimpseEnv: ...


@contextmanager
def opener() -> Iterator[Opener]:
    """An `Opener`, and ImageFolder's folder for as long as the context lasts."""
    made: dict[str, Any] = {}
    exec("\n".join(FOLDER), made)

    def open_env(env_id: str, **keywords: Any) -> GlimpseEnv:
        name = dataset_of(env_id)
        keywords = {"split": "test"} | keywords
        if name == "fashionmnist":
            return GlimpseEnv(**{**registered(env_id), "dataset": _blank(), **keywords})
        if name == "imagefolder":
            keywords |= {"root": str(made["photos"]), "data_dir": made["folder"].name}
        if has_stand_in(env_id):
            keywords["data"] = "builtin"
        env = gym.make(make_id(env_id), disable_env_checker=True, **keywords).unwrapped
        assert isinstance(env, GlimpseEnv)
        return env

    try:
        yield open_env
    finally:
        made["folder"].cleanup()


def make_id(env_id: str) -> str:
    """The id with the package that registers it, as in ``dtram_env:DTRAM-MNIST-v0``."""
    return f"{'agents' if env_id in POLICY_IDS else 'dtram_env'}:{env_id}"


def registered(env_id: str) -> dict[str, Any]:
    """The keywords that an id is registered with."""
    return dict(gym.spec(env_id).kwargs)


def dataset_of(env_id: str) -> str:
    """The name of an id's dataset in `datasets.DATASETS`."""
    return str(registered(env_id)["dataset"]).lower()


def has_stand_in(env_id: str) -> bool:
    """Whether drawn images replace an id's photographs where these are missing."""
    return datasets.DATASETS[dataset_of(env_id)].stand_in is not None


def counts(env_id: str, opened: Opener) -> dict[str, int]:
    """Number of images in each split; empty for the user's own images.

    A stand-in has as many images as the photographs that it replaces.
    """
    name = dataset_of(env_id)
    if name == "imagefolder":
        return {}
    if name == "fashionmnist":
        return {"train": 54_000, "validation": 6_000, "test": 10_000, "train+validation": 60_000}
    if name in OF_MNIST:
        env_id = "DTRAM-MNIST-v0"  # they have its splits, and loading them takes seconds
    return {split: opened(env_id, split=split).num_images for split in datasets.SPLITS}


def data_text(env_id: str, env: GlimpseEnv) -> list[str]:
    """Paragraphs on an id's images, classes, metadata and place on disk."""
    name = dataset_of(env_id)
    parts = [" ".join([_IMAGES[name], _size(env), *_classes(name, env)])]
    if name in _STORIES:
        parts += _story(_STORIES[name])
    elif name in _PARTS:
        parts.append(_metadata(env_id))
        parts.append(f"{_cache(env_id)} [Data](../data.md) gives the sizes.")
    return parts


def stand_in_text(env_id: str) -> str:
    """What a page says first if its images may be drawn."""
    name = dataset_of(env_id)
    title = datasets.DATASETS[name].title
    drawn = datasets.DATASETS[datasets.DATASETS[name].stand_in or ""].env_id
    return (
        f"**Drawn images replace missing photographs.** If {title} is not on the machine, this id "
        f"shows the images of [{drawn}]({drawn}.md) and gives a `BuiltinDataWarning`. Results on "
        f"them are not results on {title}. [Data](../data.md#the-stand-ins) explains `data=` and "
        "how to get the photographs. The example and the spaces below use the drawn images."
    )


def build_command(env_id: str) -> str:
    """The command that draws all images of a drawn id into the cache."""
    words = ["python -m dtram_env.datasets build", dataset_of(env_id)]
    values = registered(env_id)
    if "num_classes" in values:
        for key in ("image_size", "num_classes", "num_train", "num_test"):
            words.append(f"--{key.replace('_', '-')} {values[key]}")
        words.append(f"--thumbnail-size {values['glimpse_size']}")
    return " ".join(words)


def _size(env: GlimpseEnv) -> str:
    if env.image_shape[0] is not None and env.data.stands_in_for is None:
        return f"Images are {'x'.join(map(str, env.image_shape))}."
    return (
        f"Images are RGB, resized so that the shorter side has {env.image_size} pixels "
        "(`image_size=None` keeps their own size)."
    )


def _classes(name: str, env: GlimpseEnv) -> list[str]:
    """A sentence on the classes; none where the images' own sentence names them."""
    if name in ("cub", "cars"):
        return []
    if name == "imagefolder":
        return ["The classes are the names of the folders."]
    names = env.class_names
    separator = "; " if any("," in name for name in names) else ", "
    if len(names) > 20:
        names = (names[0], *[name for name in names if "," in name][:2], "…")
    return [f"The {env.num_classes} classes are {separator.join(names)}."]


def _metadata(env_id: str) -> str:
    parts = _PARTS[dataset_of(env_id)].part_names
    drawn = (
        f"`part_boxes`, an int32 array `({len(parts)}, 4)` of the left, top, width and height in "
        f"pixels of the {', '.join(parts)}; and `discriminative`, a bool array `({len(parts)},)`, "
        "which is true for the parts that distinguish the class from the others of its genus."
    )
    if not has_stand_in(env_id):
        return f"`info` also has {drawn}"
    return (
        "`info` also has `box`, a float32 array `(4,)`: left, top, width and height of the object "
        "in pixels of the image. `crop_to_box=True` crops the images to it. Drawn images have no "
        f"`box`. They have {drawn}"
    )


def _cache(env_id: str) -> str:
    if has_stand_in(env_id):
        return "The photographs are decoded into a cache when first used."
    return (
        "Images are drawn when needed. Before training, draw them all into a cache: "
        f"`{build_command(env_id)}`."
    )


def _story(module: Any) -> list[str]:
    """The paragraphs of a module's docstring after its first line."""
    return (inspect.getdoc(module) or "").split("\n\n")[1:]


def _blank() -> datasets.Dataset:
    """Blank images with the shape and classes of FashionMNIST."""
    names = fashion.CLASS_NAMES
    images = np.zeros((len(names), 28, 28, 1), np.uint8)
    return datasets.Dataset("FashionMNIST", "test", images, np.arange(len(names)), names)
