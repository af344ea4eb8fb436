"""The settings of an environment: the keywords that both classes share, checked and completed."""

import difflib
import inspect
import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from . import datasets
from .belief import Classifier
from .checks import check_choice, check_integer
from .datasets import DATA, Dataset, ImageOptions
from .episodes import FIRST_GLIMPSES, ORDERS
from .observation_builder import FORMATS, OBSERVATIONS, SMALL_IMAGE, ObservationBuilder
from .views import GRID_VIEWS, VIEWS, make_codec

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "first_glimpse": FIRST_GLIMPSES,
    "order": ORDERS,
    "data": DATA,
    "view": VIEWS,
    "observe": OBSERVATIONS,
    "glimpse_format": (None, *FORMATS),
}
# Keywords that have an effect only with some values of another.
_ONLY_WITH = {
    "thumbnail_size": ("first_glimpse", ("thumbnail",)),
    "grid": ("view", GRID_VIEWS),
    "mask_seen": ("view", GRID_VIEWS),
    "min_glimpses": ("view", GRID_VIEWS),
}


@dataclass(kw_only=True)
class EnvSettings:
    """The keywords shared by `GlimpseEnv`, whose docstring describes them, and `GlimpseVectorEnv`.

    Making an object checks the keywords, loads the images (`source`) and fills in defaults that
    depend on them (`split`, `thumbnail_size`, `grid`, `glimpse_format`).

    Raises:
        ValueError: a keyword has a wrong value; the message says what was expected.
        DatasetNotFoundError: the images are missing and cannot be fetched.
    """

    dataset: str | Dataset = "MNIST"
    split: str | None = None
    max_glimpses: int = 7
    glimpse_size: int = 8
    num_scales: int = 1
    thumbnail_size: int = None  # type: ignore[assignment]  # None: filled in
    discount: float = 0.98
    first_glimpse: str = "center"
    order: str = "random"
    image_size: int | None = None
    crop_to_box: bool = False
    root: str | None = None
    num_classes: int | None = None
    num_train: int | None = None
    num_test: int | None = None
    data_dir: str | None = None
    data: str = "auto"
    download: bool = True
    view: str = "native"
    grid: int | None = None
    observe: str = "glimpse"
    glimpse_format: str | None = None
    mask_seen: bool = False
    min_glimpses: int = 1
    classifier: Classifier | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("max_glimpses", "glimpse_size", "num_scales"):
            setattr(self, name, check_integer(name, getattr(self, name), 1))
        self.min_glimpses = check_integer("min_glimpses", self.min_glimpses, 1, self.max_glimpses)
        discount: Any = self.discount
        if not isinstance(discount, Real) or not 0 < float(discount) <= 1:
            raise ValueError(f"discount={discount!r}: expected a number in (0, 1]")
        self.discount = float(discount)
        self._check_combinations()
        self.image_options = self._read_image_options()
        self.source = self._load()
        self.split = self.source.split
        self.image_shape = self.source.image_shape
        self._fit_to_images()
        classes = self.source.num_classes if self.classifier is None else None
        self.codec = make_codec(self.view, classes, self.grid)
        self.builder = ObservationBuilder(self)

    def _check_combinations(self) -> None:
        for name, (other, needed) in _ONLY_WITH.items():
            value = getattr(self, name)
            if value != getattr(type(self), name) and getattr(self, other) not in needed:
                only = " or ".join(map(repr, needed))
                raise ValueError(f"{name}={value!r}: only {other}={only} uses it")
        if self.classifier is not None and not hasattr(self.classifier, "step"):
            raise ValueError(
                f"classifier={self.classifier!r}: expected a dtram_env.Classifier, or None; "
                "agents.policy_only.FrozenClassifier.load reads a folder, and the Policy ids "
                "accept one"
            )
        if self.view == "single" and self.classifier is None:
            raise ValueError(
                "view='single': its actions hold no prediction, so it needs a classifier in the "
                "loop; make an id such as agents:DTRAM-MNIST-Policy-v0, or use view='discrete'"
            )

    def _read_image_options(self) -> ImageOptions:
        least = {"image_size": 1, "num_classes": 2, "num_train": 1, "num_test": 1}
        given = {name: getattr(self, name) for name in least if getattr(self, name) is not None}
        values = {name: check_integer(name, value, least[name]) for name, value in given.items()}
        if not isinstance(self.crop_to_box, bool):
            raise ValueError(f"crop_to_box={self.crop_to_box!r}: expected True or False")
        root = None if self.root is None else str(self.root)
        return ImageOptions(**values, crop_to_box=self.crop_to_box, root=root)

    def _load(self) -> Dataset:
        source = self.dataset
        if isinstance(source, str):
            source = datasets.load(
                source,
                self.split or "train",
                data_dir=self.data_dir,
                download=self.download,
                data=self.data,
                options=self.image_options,
            )
        elif self.split not in (None, source.split):
            raise ValueError(
                f"split={self.split!r}: the dataset given is the split {source.split!r}"
            )
        elif unused := sorted(self.image_options.given() - {"image_size"}):
            raise ValueError(
                f"{unused[0]}={getattr(self, unused[0])!r}: the dataset given is made already; "
                "only the name of a dataset uses it"
            )
        if len(source) == 0:
            hint = ""
            if source.split == "validation":
                hint = "; it is a tenth of the training images, so add some until there are 10"
            raise ValueError(
                f"dataset {source.name!r}, split {source.split!r}: it has no images{hint}"
            )
        return source

    def _fit_to_images(self) -> None:
        """Checks sizes against the images, and fills in the defaults that depend on them."""
        height, width, _ = self.image_shape
        if height is not None and width is not None:
            shorter, size = min(height, width), f"{height}x{width}"
            if self.image_size not in (None, shorter):
                raise ValueError(
                    f"image_size={self.image_size!r}: the images of {self.source.name} are {size}; "
                    f"expected None or {shorter}"
                )
            if self.glimpse_size > shorter:
                raise ValueError(f"glimpse_size={self.glimpse_size}: larger than the image, {size}")
        elif self.observe == "canvas":
            raise ValueError(
                f"observe='canvas': the images of {self.source.name} differ in size; expected "
                "'glimpse', or images of one size"
            )
        if self.thumbnail_size is None:
            self.thumbnail_size = self.glimpse_size
        self.thumbnail_size = check_integer("thumbnail_size", self.thumbnail_size, 1)
        typical = self.source.typical_size
        observed = min(typical) if self.observe == "canvas" else self.glimpse_size
        if self.first_glimpse == "thumbnail":
            self.source.prepare(self.thumbnail_size)
            observed = min(observed, self.thumbnail_size)
        if self.view in GRID_VIEWS:
            if self.grid is None:  # enough cells for their crops to cover a typical image
                self.grid = math.ceil(max(typical) / self.glimpse_size)
            self.grid = check_integer("grid", self.grid, 1)
        if self.glimpse_format is None:
            flat = self.view != "native" and observed < SMALL_IMAGE
            self.glimpse_format = "flat" if flat else "image"


def read_settings(environment: type, keywords: dict[str, Any]) -> EnvSettings:
    """The settings of a class of environments; `TypeError` names an unknown keyword."""
    shared = {field.name for field in fields(EnvSettings)}
    known = sorted(shared.union(inspect.signature(environment).parameters) - {"settings"})
    unknown = [name for name in keywords if name not in shared]
    for name in unknown:
        near = " or ".join(map(repr, difflib.get_close_matches(name, known, n=2)))
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}"
        # Python's own words come first: libraries that try keywords (TorchRL) search for them.
        raise TypeError(
            f"unexpected keyword argument {name!r}: {name!r} is no keyword of "
            f"{environment.__name__}; {hint}"
        )
    return EnvSettings(**keywords)


def read_words(words: Iterable[str], flags: Collection[str]) -> dict[str, Any]:
    """The keywords that a program's ``--env KEY=VALUE ...`` gives.

    Raises ValueError for another word, and for a keyword that has a flag of its own.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--env {word}: expected KEY=VALUE")
        if key in flags:
            raise ValueError(f"--env {word}: use --{key.replace('_', '-')} {text}")
        found[key] = json_or_text(text)
    return found


def json_or_text(text: str) -> Any:
    """The JSON value that a word spells, None for "none"; else the word itself."""
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
