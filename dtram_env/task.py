"""The task that both environment classes offer: their arguments, checked, and what follows."""

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
from .datasets import DATA, Choices, Dataset
from .episodes import FIRST_GLIMPSES, ORDERS, Episodes
from .observation_builder import FORMATS, OBSERVATIONS, SMALL_IMAGE, Observer
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


@dataclass(kw_only=True)
class Task:
    """The arguments shared by `GlimpseEnv` and `GlimpseVectorEnv`; told in `GlimpseEnv`'s page.

    Making one loads the images.

    Raises:
        ValueError: an argument is not what it must be; the message names it, the value and what
            was expected.
        DatasetNotFoundError: the images are not there and cannot be fetched.
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
        self.max_glimpses = check_integer("max_glimpses", self.max_glimpses, 1)
        self.glimpse_size = check_integer("glimpse_size", self.glimpse_size, 1)
        self.num_scales = check_integer("num_scales", self.num_scales, 1)
        self.min_glimpses = check_integer("min_glimpses", self.min_glimpses, 1, self.max_glimpses)
        discount: Any = self.discount
        if not isinstance(discount, Real) or not 0 < float(discount) <= 1:
            raise ValueError(f"discount={discount!r}: expected a number in (0, 1]")
        self.discount = float(discount)
        self.choices = self._read_choices()
        self.source = self._load()
        self.image_shape = self.source.image_shape
        self._check_sizes()
        self.codec = self._make_codec()
        self._read_format()
        num_probs = 0 if self.classifier is None else self.source.num_classes
        self.observer = self._make_observer(self.observe, self.glimpse_format == "flat", num_probs)

    @property
    def grid_cells(self) -> int:
        """Number of cells of the discrete view."""
        return 0 if self.grid is None else self.grid**2

    def backend_arguments(self) -> tuple[Dataset, int, int]:
        """What a backend is made with."""
        return self.source, self.glimpse_size, self.num_scales

    def memories(self, b: Backend, num_envs: int) -> tuple[SeenPixels | None, SeenCells | None]:
        """What slots have to remember for observations, and for masks."""
        height, width, _ = self.image_shape
        pixels, cells = None, None
        if self.observe == "canvas":
            assert height is not None and width is not None
            pixels = SeenPixels(b, num_envs, height, width, self.glimpse_size)
        if self.mask_seen:
            assert self.grid is not None
            cells = SeenCells(b, num_envs, self.grid)
        return pixels, cells

    def belief(self, b: Backend, num_envs: int) -> Belief | None:
        """What the classifier in the loop makes of `num_envs` slots; None without one."""
        if self.classifier is None:
            return None
        native = self._make_observer("glimpse", flat=False)
        return Belief(b, self.classifier, native, num_envs, self.source.num_classes)

    @property
    def answer_classes(self) -> int | None:
        """Number of classes that an action chooses from; None if it has no prediction."""
        return self.source.num_classes if self.classifier is None else None

    def episodes(self, b: Backend, num_envs: int, trackers: list[Any]) -> Episodes:
        """The state machine of `num_envs` slots."""
        return Episodes(
            b, b.labels, num_envs, self.max_glimpses, self.discount, self.first_glimpse, trackers
        )

    def _check_names(self) -> None:
        for name, allowed in (
            ("first_glimpse", FIRST_GLIMPSES),
            ("order", ORDERS),
            ("data", DATA),
            ("view", VIEWS),
            ("observe", OBSERVATIONS),
            ("glimpse_format", (None, *FORMATS)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                expected = ", ".join(map(repr, allowed))
                raise ValueError(f"{name}={value!r}: expected one of {expected}")
        if self.thumbnail_size is not None and self.first_glimpse != "thumbnail":
            raise ValueError(
                f"thumbnail_size={self.thumbnail_size!r}: only first_glimpse='thumbnail' shows "
                f"one, and first_glimpse={self.first_glimpse!r}"
            )
        if self.view not in GRID_VIEWS:
            for name, default in (("grid", None), ("mask_seen", False), ("min_glimpses", 1)):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r}: only view='discrete' and 'single' read "
                        f"it, and view={self.view!r}"
                    )
        if self.classifier is not None and not hasattr(self.classifier, "step"):
            raise ValueError(
                f"classifier={self.classifier!r}: expected a dtram_env.Classifier, or None; "
                "agents.policy_only.FrozenClassifier.load reads a folder, as do the Policy ids"
            )
        if self.view == "single" and self.classifier is None:
            raise ValueError(
                "view='single': its actions have no room for a prediction, so it needs a "
                "classifier in the loop: make an id such as agents:DTRAM-MNIST-Policy-v0, or "
                "use view='discrete'"
            )

    def _load(self) -> Dataset:
        if isinstance(self.dataset, str):
            source = datasets.load(
                self.dataset,
                self.split or "train",
                data_dir=self.data_dir,
                download=self.download,
                data=self.data,
                choices=self.choices,
            )
        else:
            source = self.dataset
            if self.split not in (None, source.split):
                raise ValueError(
                    f"split={self.split!r}: the dataset given is the split {source.split!r}"
                )
        if len(source) == 0:
            raise ValueError(f"dataset {source.name!r}, split {source.split!r}: it has no images")
        self.split = source.split
        return source

    def _read_choices(self) -> Choices:
        values: dict[str, Any] = {}
        least = {"image_size": 1, "num_classes": 2, "num_train": 1, "num_test": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            values[name] = None if value is None else check_integer(name, value, bound)
        if not isinstance(self.crop_to_box, bool):
            raise ValueError(f"crop_to_box={self.crop_to_box!r}: expected True or False")
        root = None if self.root is None else str(self.root)
        return Choices(**values, crop_to_box=self.crop_to_box, root=root)

    def _check_sizes(self) -> None:
        height, width, _ = self.image_shape
        if height is None or width is None:
            if self.observe == "canvas":
                raise ValueError(
                    f"observe='canvas': the images of {self.source.name} differ in size; expected "
                    "'glimpse', or images of one size"
                )
        else:
            self._check_equal_sizes(height, width)
        if self.thumbnail_size is None:
            self.thumbnail_size = self.glimpse_size
        self.thumbnail_size = check_integer("thumbnail_size", self.thumbnail_size, 1)
        if self.first_glimpse == "thumbnail":
            self.source.prepare(self.thumbnail_size)
        if self.view in GRID_VIEWS:
            if self.grid is None:
                self.grid = math.ceil(max(self.source.typical_size) / self.glimpse_size)
            self.grid = check_integer("grid", self.grid, 1)

    def _check_equal_sizes(self, height: int, width: int) -> None:
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

    def _make_codec(self) -> ActionCodec:
        if self.view == "continuous":
            return ContinuousActions(self.answer_classes)
        if self.view == "native":
            return NativeActions(self.answer_classes)
        assert self.grid is not None
        if self.view == "single":
            return SingleActions(self.grid)
        return DiscreteActions(self.answer_classes, self.grid)

    def _read_format(self) -> None:
        assert self.thumbnail_size is not None
        shown = self.glimpse_size
        if self.observe == "canvas":
            shown = min(self.source.typical_size)
        if self.first_glimpse == "thumbnail":
            shown = min(shown, self.thumbnail_size)
        if self.glimpse_format is None:
            flat = self.view != "native" and shown < SMALL_IMAGE
            self.glimpse_format = "flat" if flat else "image"

    def _make_observer(self, observe: str, flat: bool, num_probs: int = 0) -> Observer:
        assert self.thumbnail_size is not None
        return Observer(
            self.image_shape,
            self.max_glimpses,
            self.glimpse_size,
            self.num_scales,
            self.first_glimpse,
            self.thumbnail_size,
            observe,
            flat,
            num_probs,
        )


def read_task(environment: type, keywords: dict[str, Any]) -> Task:
    """The task that an environment is made for, from those keywords that are not its class's own.

    Args:
        environment: the class, whose own parameters a message lists beside the task's.
        keywords: fields of `Task`.

    Raises:
        TypeError: an unknown keyword; the message names it and the nearest ones, or all.
        ValueError, DatasetNotFoundError: see `Task`.
    """
    shared = [field.name for field in fields(Task)]
    own = [p for p in inspect.signature(environment).parameters if p != "task"]
    for name in keywords:
        if name not in shared:
            known = sorted({*shared, *own})
            near = " or ".join(map(repr, difflib.get_close_matches(name, known, n=2)))
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}"
            # Python's own words first: libraries that try keywords (TorchRL) look for them.
            raise TypeError(
                f"unexpected keyword argument {name!r}: {name!r} is no keyword of "
                f"{environment.__name__}; {hint}"
            )
    return Task(**keywords)


class TaskAttributes:
    """Public attributes of both environment classes: what the task is."""

    def _adopt(self, task: Task) -> None:
        self.task = task
        self.data = task.source
        self.dataset = task.source.name
        self.split = task.source.split
        self.num_images = len(task.source)
        self.image_shape = task.image_shape
        self.image_size = task.image_size
        self.num_classes: int = task.source.num_classes
        self.class_names = task.source.class_names
        self.classifier = task.classifier
        self.max_glimpses = task.max_glimpses
        self.glimpse_size = task.glimpse_size
        self.num_scales = task.num_scales
        assert task.thumbnail_size is not None
        self.thumbnail_size: int = task.thumbnail_size
        self.discount = task.discount
        self.first_glimpse = task.first_glimpse
        self.order = task.order
        self.view = task.view
        self.grid = task.grid


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The argument `name` as an int; raises `ValueError` if it is none, or out of range."""
    expected = f"an integer of at least {least}" if most is None else f"{least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: expected {expected}") from None
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return number


def check_image_index(values: Any, num_images: int) -> None:
    """Raises `ValueError` unless every value is a row of a split of `num_images` images."""
    low, high = values.min(), values.max()
    if (low < 0) | (high >= num_images):  # one question, should a device have to answer it
        wrong = int(low) if low < 0 else int(high)
        raise ValueError(
            f"options['image_index']: {wrong} is out of range; the split has images 0 to "
            f"{num_images - 1}"
        )
