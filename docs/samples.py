"""What a page shows of its id's data, the same wherever the page is made.

CUB and Cars are shown by their drawn stand-ins, ImageFolder by a folder made for the purpose, and
FashionMNIST, which may not be on the machine, by images that have its shape and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from agents import POLICY_IDS
from dtram_env import GlimpseEnv, datasets
from dtram_env.datasets.catalog import DRAWINGS, drawing_of
from dtram_env.datasets.sources import cars, cluttered, cub, fashion, mnist, signpost

# The folder of ImageFolder's example, made anew whenever its lines run.
FOLDER = (
    "import tempfile",
    "from pathlib import Path",
    "from PIL import Image",
    "place = tempfile.TemporaryDirectory()",
    'photos = Path(place.name, "photos")',
    'for name, colour in {"ripe": "firebrick", "unripe": "olivedrab"}.items():\n'
    "    (photos / name).mkdir(parents=True)\n"
    "    for i in range(10):\n"
    '        image = Image.new("RGB", (400, 300 + 40 * i), colour)\n'
    '        image.save(photos / name / f"{i}.jpg")',
)
# The first of their lists, which are too long to be shown and not on every machine.
_CLASSES = {
    "cub": (cub.NUM_CLASSES, "Black footed Albatross, Laysan Albatross, Sooty Albatross"),
    "cars": (cars.NUM_CLASSES, "AM General Hummer SUV 2000, Acura RL Sedan 2012"),
}
# Bytes of all images decoded (the sum of height x width x 3) and of their thumbnails.
_SPECIES = {"birds": "species", "autos": "models"}
_PHOTOGRAPHS = {"cub": ("12.4", "1.8"), "cars": ("18 to 19", "2.4")}


class Opener(Protocol):
    """Makes the environment that a page shows, with further keywords."""

    def __call__(self, env_id: str, **keywords: Any) -> GlimpseEnv: ...


@contextmanager
def opener() -> Iterator[Opener]:
    """An `Opener`; the folder that ImageFolder needs is there meanwhile."""
    made: dict[str, Any] = {}
    exec("\n".join(FOLDER), made)

    def open_env(env_id: str, **keywords: Any) -> GlimpseEnv:
        name = dataset_of(env_id)
        if name == "fashionmnist":
            return GlimpseEnv(**{**registered(env_id), "dataset": _blank(), **keywords})
        if name == "imagefolder":
            keywords |= {"root": str(made["photos"]), "data_dir": made["place"].name}
        if stand_in(name):
            keywords["data"] = "builtin"
        keywords.setdefault("split", "test")
        env = gym.make(make_id(env_id), disable_env_checker=True, **keywords).unwrapped
        assert isinstance(env, GlimpseEnv)
        return env

    try:
        yield open_env
    finally:
        made["place"].cleanup()


def make_id(env_id: str) -> str:
    """The id with the package that registers it, as `gym.make` takes it without an import."""
    return f"{'agents' if env_id in POLICY_IDS else 'dtram_env'}:{env_id}"


def registered(env_id: str) -> dict[str, Any]:
    """The keywords that an id is registered with."""
    return dict(gym.spec(env_id).kwargs)


def dataset_of(env_id: str) -> str:
    """The name of an id's data in `datasets.DATASETS`."""
    return str(registered(env_id)["dataset"]).lower()


def stand_in(name: str) -> str | None:
    """The drawn dataset that may take a dataset's place."""
    return datasets.DATASETS[name].stand_in


def of_one_size(env: GlimpseEnv) -> bool:
    """Whether all images of an id's data have one size; those that a stand-in is for have not."""
    return env.image_shape[0] is not None and env.data.stands_in_for is None


def counts(name: str, env: GlimpseEnv) -> Mapping[str, int]:
    """Images in each split, without loading them; none for the user's own."""
    if name == "imagefolder":
        return {}
    train, test = (_official(name, env, part) for part in ("train", "test"))
    kept = datasets.DATASETS[name].validation_count(train)
    return {"train": train - kept, "validation": kept, "test": test, "train+validation": train}


def _official(name: str, env: GlimpseEnv, part: str) -> int:
    if name in DRAWINGS:
        drawing = drawing_of(name, env.task.choices)
        return drawing.num_train if part == "train" else drawing.num_test
    if name in ("cub", "cars", "signpost"):
        return {"cub": cub, "cars": cars, "signpost": signpost}[name].COUNTS[part]
    files = fashion.FILES if name == "fashionmnist" else mnist.FILES
    return files[part][1].size - 8  # a file of labels: 8 bytes, then one for each


def data_text(env_id: str, env: GlimpseEnv) -> list[str]:
    """Paragraphs on an id's data: what the images are, their classes, what else is known."""
    name = dataset_of(env_id)
    said = [_first_text(name, env), _size_text(name, env), _class_text(name, env)]
    parts = [" ".join(text for text in said if text)]
    if name == "signpost":
        parts += _story(signpost)
    elif name in ("translatedmnist", "clutteredmnist"):
        parts += _story(cluttered)
    elif name == "imagefolder":
        parts.append(
            "If `root` has folders `train` and `test`, these hold the classes' folders; in any "
            "other case a fifth of each class is drawn for the test split, always the same. A "
            "tenth of the rest is the validation split. [Bring your "
            "images](../bring_your_images.md) goes through it."
        )
    parts += [text for text in (_facts_text(name, env), _disk_text(env_id, name, env)) if text]
    return parts


def stand_in_text(name: str) -> str:
    """What has to be said first on a page whose images may be drawn."""
    info = datasets.DATASETS[name]
    drawn = datasets.DATASETS[info.stand_in or ""]
    how = (
        "Its host is gone: put the archives where the same command says."
        if name == "cars"
        else "It fetches 1.2 GB."
    )
    return (
        f"**Without the photographs the images are drawn.** If {info.title} is not on the machine, "
        f"this id shows [{drawn.env_id}]({drawn.env_id}.md)'s images, with a "
        f'`BuiltinDataWarning`; `info["dataset"]` and `render()` say so too, and results on them '
        f"are not {info.title}'s. The real images come by `python -m dtram_env.datasets download "
        f'{name}`. {how} `data="real"` makes their absence an error, `data="builtin"` asks for '
        "the drawn ones; the programs under train/ take real ones unless they are told `--data "
        "builtin`. Examples and spaces on this page are made with the drawn images, so that they "
        "are the same on every machine."
    )


def _first_text(name: str, env: GlimpseEnv) -> str:
    info = datasets.DATASETS[name]
    if name == "imagefolder":
        return "Your own images, a folder for each class in `root`."
    if name == "clutteredmnist":
        return f"{info.title}: MNIST's digits somewhere on 60x60x1, among pieces of other digits."
    if name not in DRAWINGS:
        return f"{info.title}: {info.description}."
    parts = ", ".join(_part_names(env))
    return (
        f"{info.title}: figures of {env.num_classes} {_SPECIES[name]}, drawn by the package, each "
        "image a pure function of seed, split and index. What tells classes of a genus apart is "
        f"the texture of small parts ({parts}), too fine for the thumbnail; some classes need no "
        "second look, some one, some two. [Data](../data.md#drawn-birds-and-autos) says more."
    )


def _size_text(name: str, env: GlimpseEnv) -> str:
    if of_one_size(env):
        size = "x".join(map(str, env.image_shape))
        return "" if size in _first_text(name, env) else f"Images are {size}."
    side = env.image_size
    return (
        f"Images are RGB; the shorter side is resized to {side} pixels, the aspect kept "
        "(`image_size=None` leaves them as they are)."
    )


def _class_text(name: str, env: GlimpseEnv) -> str:
    if name == "imagefolder":
        return "The classes are the names of the folders."
    if name in _CLASSES:
        count, first = _CLASSES[name]
        return f"The {count} classes are {first}, …"
    names, count = env.class_names, env.num_classes
    sign = "; " if any("," in class_name for class_name in names) else ", "
    if count > 20:  # one of a genus of its own, two of another
        told = [class_name for class_name in names if "," in class_name]
        return f"The {count} classes are {sign.join([names[0], '…', *told[:2], '…'])}"
    return f"The {count} classes are {sign.join(names)}."


def _facts_text(name: str, env: GlimpseEnv) -> str:
    boxes = (
        "`info` has one more key, `box`: `(4,)` float32, left, top, width and height of what the "
        "label names, in pixels of the image. `crop_to_box=True` cuts the images to it."
    )
    if not env.data.metadata:
        return ""
    shapes = {key: values.shape[1:] for key, values in env.data.metadata.items()}
    parts = ", ".join(_part_names(env))
    drawn = (
        f"two more keys: `part_boxes` `{shapes['part_boxes']}` int32, left, top, width and height "
        f"in pixels of the {parts}; and `discriminative` `{shapes['discriminative']}` bool, which of these parts "
        "tell the class from the others of its genus."
    )
    if stand_in(name):
        return f"{boxes} Of a drawn image it has {drawn}"
    return f"`info` has {drawn}"


def _disk_text(env_id: str, name: str, env: GlimpseEnv) -> str:
    if name in _PHOTOGRAPHS:
        images, thumbnails = _PHOTOGRAPHS[name]
        return (
            f"The first use decodes the photographs into a cache of about {images} GB, and about "
            f"{thumbnails} GB of thumbnails; later ones only open it."
        )
    if name == "imagefolder":
        return (
            "The first use decodes the images into a cache, height x width x 3 bytes for each; "
            "later ones only open it. A file that is added, removed or changed makes it anew."
        )
    if name not in DRAWINGS:
        return ""
    count = counts(name, env)["train+validation"] + counts(name, env)["test"]
    image, thumbnail = (
        _bytes_text(count * 3 * side**2) for side in (env.image_shape[0] or 0, env.glimpse_size)
    )
    return (
        "An image is drawn when it is first looked at; nothing is on disk. For training, draw them "
        f"all once, into a cache of {image} and {thumbnail} of thumbnails: "
        f"`{build_command(env_id)}`."
    )


def _bytes_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def build_command(env_id: str) -> str:
    """The command that fills the cache of a drawn id."""
    words = ["python -m dtram_env.datasets build", dataset_of(env_id)]
    values = registered(env_id)
    if "num_classes" in values:
        for key in ("image_size", "num_classes", "num_train", "num_test"):
            words.append(f"--{key.replace('_', '-')} {values[key]}")
        words.append(f"--thumbnail-size {values['glimpse_size']}")
    return " ".join(words)


def _part_names(env: GlimpseEnv) -> tuple[str, ...]:
    name = next(n for n in DRAWINGS if datasets.DATASETS[n].title == env.dataset)
    return DRAWINGS[name].part_names


def _story(module: Any) -> list[str]:
    """A module's docstring without its first line, by paragraphs."""
    return (inspect.getdoc(module) or "").split("\n\n")[1:]


def _blank() -> datasets.Dataset:
    """Images of FashionMNIST's shape and classes."""
    names = fashion.CLASS_NAMES
    images = np.zeros((len(names), 28, 28, 1), np.uint8)
    return datasets.Dataset("FashionMNIST", "test", images, np.arange(len(names)), names)
