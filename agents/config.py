"""What a DT-RAM is made of, and the JSON that keeps it beside its weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .checks import require
from .encoders import ENCODERS
from .files import DTRAM_KIND, check_settings, read_model_json
from .resnet import RESNETS, ResNetOptions

CORES = ("rnn", "gru", "lstm")
ANSWERS = ("state", "first_plus_mean")
PRIORS = ("none", "confidence")
EVEN_DOUBT = math.exp(-5)  # 0.7 %, between what is worth a glimpse and what is not
# Settings that came after the format: models of before are made with their defaults.
LATER = {
    "answer",
    "frozen_norms",
    "location_embedding",
    "locator_grid",
    "locator_hidden",
    "per_step",
    "resnet",
    "stopper_prior",
    "thumbnail_size",
}


@dataclass(frozen=True)
class DTRAMConfig:
    """What a DT-RAM is made of; saved beside its weights."""

    num_classes: int
    """number of classes K"""
    glimpse_shape: tuple[int, int, int]
    """(g, g, channels), channels counting every scale"""
    max_glimpses: int
    """the environment's budget T_max"""
    thumbnail_size: int = 0
    """side of a first look at the whole image that has a size of its own; 0: it has none"""
    encoder: str = "mlp"
    """glimpse encoder: mlp (the paper's on MNIST), conv, cnn, or a name of `resnet.RESNETS`"""
    resnet: ResNetOptions | None = None
    """of a residual encoder; its name is the encoder's"""
    location_embedding: bool = True
    """whether a residual encoder is told where a glimpse was taken; the others always are"""
    per_step: bool = False
    """whether every glimpse has an encoder and a classifier of its own (the original on CUB)"""
    answer: str = "state"
    """what answers after glimpse t: the classifier on h_t (state), or its logits of glimpse 1 plus
    the mean of those of glimpses 2 ... t (first_plus_mean, the original on CUB)"""
    frozen_norms: bool = False
    """whether the batch norms of a residual encoder are left as they are"""
    core: str = "rnn"
    """recurrent cell: rnn (ReLU, the paper's), gru or lstm"""
    hidden_size: int = 256
    """width of the recurrent state h_t"""
    pixel_mean: float | tuple[float, ...] = 0.0
    """subtracted from the pixels, 0 ... 255: the training images' mean, or that of each channel"""
    pixel_std: float | tuple[float, ...] = 255.0
    """then divides them: the training images' standard deviation, or that of each channel"""
    locator_input: str = "detached"
    """whether the location's policy gradient flows into the state: state or detached"""
    locator_hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    locator_grid: int = 0
    """the location policy chooses among the centres of G x G cells; 0: a Gaussian, the paper's"""
    stopper_input: str = "detached"
    """whether the stop's policy gradient flows into the state: state or detached"""
    stopper_hidden: int = 128
    """hidden units of the stopper; 0 makes it linear"""
    stopper_evidence: bool = True
    """the stopper also reads, detached, how sure the classifier is, and the time"""
    stopper_prior: str = "none"
    """what f_a is added to: nothing (none), or a stop by the classifier's confidence (confidence),
    with even odds at a doubt 1 - max p of `EVEN_DOUBT`"""

    def __post_init__(self) -> None:
        side, width, channels = self.glimpse_shape
        require("num_classes", self.num_classes, self.num_classes >= 2, "at least 2")
        require(
            "glimpse_shape",
            self.glimpse_shape,
            side == width and side > 0 and channels > 0,
            "(g, g, channels), all positive",
        )
        require("max_glimpses", self.max_glimpses, self.max_glimpses >= 1, "at least 1")
        known = (*ENCODERS, *RESNETS)
        require("encoder", self.encoder, self.encoder in known, f"one of {known}")
        self._check_encoder()
        require("answer", self.answer, self.answer in ANSWERS, f"one of {ANSWERS}")
        require("core", self.core, self.core in CORES, f"one of {CORES}")
        require("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        for name in ("locator_input", "stopper_input"):
            value = getattr(self, name)
            require(name, value, value in ("state", "detached"), "'state' or 'detached'")
        require(
            "stopper_prior", self.stopper_prior, self.stopper_prior in PRIORS, f"one of {PRIORS}"
        )
        check_pixel_scale(self.pixel_mean, self.pixel_std, channels)
        for name in ("locator_hidden", "locator_grid", "stopper_hidden"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")

    def _check_encoder(self) -> None:
        residual = self.encoder in RESNETS
        wanted = self.encoder if residual else None
        named = None if self.resnet is None else self.resnet.name
        require("resnet", self.resnet, named == wanted, f"options of {wanted}")
        least = 0 if not residual or self.resnet is None else self.resnet.smallest_image
        require(
            "glimpse_shape",
            self.glimpse_shape,
            self.glimpse_shape[0] >= least,
            f"at least {least}x{least} pixels for encoder={self.encoder!r}",
        )
        require(
            "thumbnail_size",
            self.thumbnail_size,
            self.thumbnail_size == 0 or (residual and self.thumbnail_size >= least),
            f"0, as encoder={self.encoder!r} takes one size only; make the environment with "
            "thumbnail_size=None"
            if not residual
            else f"0, or at least {least}",
        )
        for name, plain in (("location_embedding", True), ("frozen_norms", False)):
            value = getattr(self, name)
            require(name, value, residual or value == plain, f"{plain}, unless encoder='resnet…'")


def config_to_json(config: DTRAMConfig) -> dict[str, Any]:
    """The settings as JSON values."""
    return asdict(config)


def config_from_json(values: dict[str, Any]) -> DTRAMConfig:
    """The settings back from JSON values.

    Raises:
        ValueError, TypeError: they are none.
    """
    return DTRAMConfig(**settings_from_json(values))


def settings_from_json(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a network with JSON's lists as tuples, and options of a ResNet as such."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    if values.get("resnet") is not None:
        values["resnet"] = ResNetOptions(**values["resnet"])
    return values


def check_pixel_scale(
    mean: float | tuple[float, ...], std: float | tuple[float, ...], channels: int
) -> None:
    """Raises ValueError unless these can be the pixels' mean and standard deviation."""
    for name, value, least in (("pixel_mean", mean, -float("inf")), ("pixel_std", std, 0.0)):
        each = value if isinstance(value, tuple) else (value,)
        require(
            name,
            value,
            all(v > least for v in each) and len(each) in (1, channels),
            f"a {'positive ' * (least == 0)}number, or {channels}, one a channel",
        )


def names_of_classes(names: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    """The names of K classes: those given, or numbers.

    Raises:
        ValueError: there are not as many as classes.
    """
    names = names or tuple(str(k) for k in range(num_classes))
    if len(names) != num_classes:
        raise ValueError(f"class_names: {len(names)} names for {num_classes} classes")
    return names


def read_header(folder: Path, kind: str = DTRAM_KIND) -> dict[str, Any]:
    """The JSON part of a saved DT-RAM, or of another kind of model with a DT-RAM's settings.

    Raises:
        FileNotFoundError: if there is no model in `folder`.
        ValueError: if it is not of that kind, or another version's.
    """
    header = read_model_json(folder, kind)
    needed = {"config", "stop_threshold", "class_names", "weights_sha256"}
    settings = {field.name for field in fields(DTRAMConfig)}
    check_settings(folder, header, needed, settings, LATER)
    return header
