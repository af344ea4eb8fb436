"""The settings of an environment: the keywords that both classes share, checked and completed."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from . import datasets
from .backends import Backend
from .belief import Belief, Classifier
from .datasets import DATA, Dataset, ImageOptions
from .episodes import FIRST_GLIMPSES, ORDERS
from .observation_builder import FORMATS, OBSERVATIONS, SMALL_IMAGE, ObservationBuilder
from .trackers import SeenCells, SeenPixels
from .views import (
    GRID_VIEWS,
    VIEWS,
    ActionCodec,
    ContinuousActions,
    DiscreteActions,
    NativeActions,
    SingleActions,
)

_NAMES: dict[str, tuple[str | None, ...]] = {
    "first_glimpse": FIRST_GLIMPSES,
    "order": ORDERS,
    "data": DATA,
    "view": VIEWS,
    "observe": OBSERVATIONS,
    "glimpse_format": (None, *FORMATS),
}


@dataclass(kw_only=True)
class EnvSettings:
    """The keywords shared by `GlimpseEnv`, whose docstring describes them, and `GlimpseVectorEnv`.

    Making an object checks the keywords, loads the images and fills in defaults that depend on
    them (`split`, `thumbnail_size`, `grid`, `glimpse_format`).

    Attributes:
        image_options: the image options (`image_size`, `crop_to_box`, `root`, ...) as one object.
        source: the loaded images.
        image_shape: height, width and channels; None for a size that differs between images.
        codec: reads the actions of the view.
        builder: builds the observations.

    Raises:
        ValueError: a keyword has a wrong value; the message names it, the value and what was
            expected.
        DatasetNotFoundError: the images are missing and cannot be fetched.
    """

    dataset: str | Dataset = "MNIST"
    split: str | None = None
    max_glimpses: int = 7
    glimpse_size: int = 8
    num_scales: int = 1
    thumbnail_size: int | None = None
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
        self._check_names()
        for name in ("max_glimpses", "glimpse_size", "num_scales"):
            setattr(self, name, check_integer(name, getattr(self, name), 1))
        self.min_glimpses = check_integer("min_glimpses", self.min_glimpses, 1, self.max_glimpses)
        discount: Any = self.discount
        if not isinstance(discount, Real) or not 0 < float(discount) <= 1:
            raise ValueError(f"discount={discount!r}: expected a number in (0, 1]")
        self.discount = float(discount)
        self.image_options = self._read_image_options()
        self.source = self._load()
        self.split = self.source.split
        self.image_shape = self.source.image_shape
        self._check_sizes()
        self._set_format()
        self.codec = self._make_codec()
        self.builder = ObservationBuilder(self)

    @property
    def grid_cells(self) -> int:
        """Number of cells of a grid view; 0 in other views."""
        return 0 if self.grid is None else self.grid**2

    @property
    def answer_classes(self) -> int | None:
        """Number of classes that an action chooses from; None if it has no prediction."""
        return self.source.num_classes if self.classifier is None else None

    def make_trackers(
        self, b: Backend, num_envs: int
    ) -> tuple[SeenPixels | None, SeenCells | None]:
        """Trackers for the canvas and for the action masks, where these need one."""
        pixels, cells = None, None
        if self.observe == "canvas":
            height, width, _ = self.image_shape
            assert height is not None and width is not None
            pixels = SeenPixels(b, num_envs, height, width, self.glimpse_size)
        if self.mask_seen:
            assert self.grid is not None
            cells = SeenCells(b, num_envs, self.grid)
        return pixels, cells

    def make_belief(self, b: Backend, num_envs: int) -> Belief | None:
        """The state of the classifier in the loop; None without one."""
        if self.classifier is None:
            return None
        native = ObservationBuilder(self, native=True)
        return Belief(b, self.classifier, native, num_envs, self.source.num_classes)

    def _check_names(self) -> None:
        for name, allowed in _NAMES.items():
            value = getattr(self, name)
            if value not in allowed:
                expected = ", ".join(map(repr, allowed))
                raise ValueError(f"{name}={value!r}: expected one of {expected}")
        if self.thumbnail_size is not None and self.first_glimpse != "thumbnail":
            raise ValueError(
                f"thumbnail_size={self.thumbnail_size!r}: only first_glimpse='thumbnail' uses it, "
                f"and first_glimpse={self.first_glimpse!r}"
            )
        if self.view not in GRID_VIEWS:
            for name, default in (("grid", None), ("mask_seen", False), ("min_glimpses", 1)):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r}: only view='discrete' and 'single' use "
                        f"it, and view={self.view!r}"
                    )
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

    def _load(self) -> Dataset:
        if isinstance(self.dataset, str):
            source = datasets.load(
                self.dataset,
                self.split or "train",
                data_dir=self.data_dir,
                download=self.download,
                data=self.data,
                options=self.image_options,
            )
        else:
            source = self.dataset
            if self.split not in (None, source.split):
                raise ValueError(
                    f"split={self.split!r}: the dataset given is the split {source.split!r}"
                )
        if len(source) == 0:
            raise ValueError(f"dataset {source.name!r}, split {source.split!r}: it has no images")
        return source

    def _read_image_options(self) -> ImageOptions:
        values: dict[str, Any] = {}
        least = {"image_size": 1, "num_classes": 2, "num_train": 1, "num_test": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            values[name] = None if value is None else check_integer(name, value, bound)
        if not isinstance(self.crop_to_box, bool):
            raise ValueError(f"crop_to_box={self.crop_to_box!r}: expected True or False")
        root = None if self.root is None else str(self.root)
        return ImageOptions(**values, crop_to_box=self.crop_to_box, root=root)

    def _check_sizes(self) -> None:
        """Checks sizes against the images, and sets the defaults of `thumbnail_size` and `grid`."""
        height, width, _ = self.image_shape
        if height is not None and width is not None:
            shorter = min(height, width)
            if self.image_size not in (None, shorter):
                raise ValueError(
                    f"image_size={self.image_size!r}: the images of {self.source.name} are "
                    f"{height}x{width}; expected None or {shorter}"
                )
            if self.glimpse_size > shorter:
                raise ValueError(
                    f"glimpse_size={self.glimpse_size}: larger than the image, {height}x{width}"
                )
        elif self.observe == "canvas":
            raise ValueError(
                f"observe='canvas': the images of {self.source.name} differ in size; expected "
                "'glimpse', or images of one size"
            )
        if self.thumbnail_size is None:
            self.thumbnail_size = self.glimpse_size
        self.thumbnail_size = check_integer("thumbnail_size", self.thumbnail_size, 1)
        if self.first_glimpse == "thumbnail":
            self.source.prepare(self.thumbnail_size)
        if self.view in GRID_VIEWS:
            if self.grid is None:  # enough cells for their crops to cover a typical image
                self.grid = math.ceil(max(self.source.typical_size) / self.glimpse_size)
            self.grid = check_integer("grid", self.grid, 1)

    def _set_format(self) -> None:
        if self.glimpse_format is not None:
            return
        canvas = self.observe == "canvas"
        smallest = min(self.source.typical_size) if canvas else self.glimpse_size
        if self.first_glimpse == "thumbnail":
            assert self.thumbnail_size is not None
            smallest = min(smallest, self.thumbnail_size)
        flat = self.view != "native" and smallest < SMALL_IMAGE
        self.glimpse_format = "flat" if flat else "image"

    def _make_codec(self) -> ActionCodec:
        if self.view == "native":
            return NativeActions(self.answer_classes)
        if self.view == "continuous":
            return ContinuousActions(self.answer_classes)
        assert self.grid is not None
        if self.view == "single":
            return SingleActions(self.grid)
        return DiscreteActions(self.answer_classes, self.grid)


def read_settings(environment: type, keywords: dict[str, Any]) -> EnvSettings:
    """The settings of an environment, from its keywords.

    Args:
        environment: the environment's class; messages also list its own parameters.
        keywords: fields of `EnvSettings`.

    Raises:
        TypeError: an unknown keyword; the message names it and the nearest known ones, or all.
        ValueError, DatasetNotFoundError: see `EnvSettings`.
    """
    shared = [field.name for field in fields(EnvSettings)]
    own = [p for p in inspect.signature(environment).parameters if p != "settings"]
    for name in keywords:
        if name not in shared:
            known = sorted({*shared, *own})
            near = " or ".join(map(repr, difflib.get_close_matches(name, known, n=2)))
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}"
            # Python's own words come first: libraries that try keywords (TorchRL) search for them.
            raise TypeError(
                f"unexpected keyword argument {name!r}: {name!r} is no keyword of "
                f"{environment.__name__}; {hint}"
            )
    return EnvSettings(**keywords)


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The keyword `name` as an int; raises `ValueError` if it is not one, or is out of range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        expected = f"an integer of at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return number
