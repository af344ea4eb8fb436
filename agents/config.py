"""The settings of a DT-RAM."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from .checks import (
    LARGEST_SIDE,
    Channels,
    Classes,
    Hidden,
    Number,
    Positive,
    Share,
    Side,
    Width,
    check_fields,
    check_square,
    require,
)
from .cores import MapOptions, cells_of_scales
from .encoders import ENCODERS, smallest_side
from .resnet import RESNETS, ResNetOptions

MAP_ENCODERS = ("pixels",)
"""Encoders for a map; pixels: normalised pixels."""

LARGEST_BUDGET = 10_000  # glimpses
LARGEST_BUDGET_PER_STEP = 32  # glimpses with weights of their own
Coordinate = Annotated[float, -1, 1]


@dataclass(frozen=True)
class FirstLookOptions:
    """Options of a locator that reads the first look, see `first_look`."""

    extent: Share
    """share of the image's shorter side that a later glimpse covers"""
    side: Side
    """pixels a side to which the first look is averaged, a multiple of 4"""
    width: Width = 12
    """channels of the first convolution that reads it"""

    def __post_init__(self) -> None:
        check_fields(self)
        require("side", self.side, self.side % 4 == 0, "a multiple of 4")


@dataclass(frozen=True)
class DTRAMConfig:
    """The settings of a DT-RAM; saved in its ``model.json``.

    Raises:
        ValueError: a setting is out of range, or two settings exclude each other.
    """

    num_classes: Classes
    """number of classes K"""
    glimpse_shape: tuple[Side, Side, Channels]
    """(g, g, channels); the scales of a glimpse are stacked as channels"""
    max_glimpses: Annotated[int, 1, LARGEST_BUDGET]
    """the environment's budget T_max"""
    thumbnail_size: Annotated[int, 0, LARGEST_SIDE] = 0
    """pixels a side of the first glimpse if it is a thumbnail of another size; 0: it has size g"""
    encoder: str = "mlp"
    """glimpse encoder: mlp (the paper's on MNIST), conv, cnn, or a name of `resnet.RESNETS`; for a
    map one of `MAP_ENCODERS`"""
    resnet: ResNetOptions | None = None
    """options of a residual encoder, whose name they repeat; None for the other encoders"""
    location_embedding: bool = True
    """whether a residual encoder also reads the glimpse's location; the other encoders always do"""
    per_step: bool = False
    """whether every glimpse has its own encoder and classifier (the original code on CUB)"""
    answer: Literal["state", "first_plus_mean", "product"] = "state"
    """logits after glimpse t: those of the classifier on h_t (state); its logits at glimpse 1 plus
    their mean over glimpses 2 ... t (first_plus_mean, the original code on CUB); or, with a map,
    the sum of the classifier's log-probabilities over glimpses 1 ... t, divided by the square root
    of t, as they are not independent (product)"""
    frozen_norms: bool = False
    """whether the batch norms of a residual encoder stay fixed"""
    core: Literal["rnn", "map"] = "rnn"
    """recurrent core: rnn (ReLU, the paper's), or map (a spatial memory, see `spatial_map`)"""
    map: MapOptions | None = None
    """options of the map; None for the other core"""
    first_look: FirstLookOptions | None = None
    """options of a locator that reads the first look; None: it reads h_t, as in the paper"""
    hidden_size: Width = 256
    """width H of the recurrent state h_t"""
    pixel_mean: Number | tuple[Number, ...] = 0.0
    """mean of the training images' pixels, 0 ... 255, or of each channel; it is subtracted"""
    pixel_std: Positive | tuple[Positive, ...] = 255.0
    """their standard deviation, or that of each channel; it divides the difference"""
    locator_input: Literal["state", "detached"] = "detached"
    """whether the location's policy gradient reaches the state: state (yes) or detached (no)"""
    locator_hidden: Hidden = 0
    """hidden units of the locator; 0 makes it linear, as in the paper"""
    location_squash: Literal["tanh", "hard_tanh"] = "tanh"
    """brings the Gaussian's mean into [-1, 1]: tanh, or hard_tanh (clips; the original code)"""
    location_bound: Share = 1.0
    """largest |x| and |y| of the Gaussian's mean, in image halves (13/14 in the original code)"""
    locator_grid: Annotated[int, 0, 1024] = 0
    """the location policy chooses one of G x G cells; 0: it is a Gaussian, as in the paper"""
    scan: tuple[tuple[Coordinate, Coordinate], ...] = ()
    """with a map: locations (x, y) of glimpses 2 ... T, the same for every image, in place of a
    locator; empty: the locator chooses"""
    stopper_input: Literal["state", "detached"] = "detached"
    """whether the gradient of the stop decisions reaches the state: state (yes) or detached (no)"""
    stopper_hidden: Hidden = 128
    """hidden units of the stopper; 0 makes it linear"""
    stopper_evidence: bool = True
    """whether the stopper also reads the class probabilities and the time"""
    stopper_prior: Literal["none", "confidence"] = "none"
    """bias of the stop logit: none, or one that grows with the classifier's confidence
    (confidence); see `DTRAM.stop_logit`"""

    def __post_init__(self) -> None:
        check_fields(self)
        few = self.max_glimpses <= LARGEST_BUDGET_PER_STEP or not self.per_step
        expected = f"at most {LARGEST_BUDGET_PER_STEP} with per_step"
        require("max_glimpses", self.max_glimpses, few, expected)
        squash = self.location_squash, self.location_bound
        plain = squash == ("tanh", 1.0) or not self.locator_grid
        expected = "tanh and 1, unless the location policy is a Gaussian"
        require("location_squash, location_bound", squash, plain, expected)
        check_encoder(self, MAP_ENCODERS if self.core == "map" else (*ENCODERS, *RESNETS))
        least, thumbnail = smallest_side(self), self.thumbnail_size
        check_square(self, "glimpse_shape", least, self.encoder)
        check_pixel_scale(self, self.glimpse_shape[2])
        self._check_map()
        self._check_first_look()
        fits, expected = not thumbnail or thumbnail >= least, f"0, or at least {least}"
        if not self.resnet:
            fits = not thumbnail
            expected = f"0, as encoder={self.encoder!r} takes one size only; make the environment "
            expected += "with thumbnail_size=None"
        require("thumbnail_size", thumbnail, fits, expected)
        value = self.location_embedding
        require("location_embedding", value, self.resnet or value, "True, unless encoder='resnet…'")

    def _check_map(self) -> None:
        expected = "MapOptions with core='map', else None"
        require("map", self.map, (self.map is not None) == (self.core == "map"), expected)
        later = self.max_glimpses - 1
        whole = not self.scan or (self.map is not None and len(self.scan) == later)
        expected = f"(), or with a map {later} locations, of glimpses 2 ... T"
        require("scan", self.scan, whole, expected)
        if self.map is None:
            require(
                "answer",
                self.answer,
                self.answer != "product",
                "'state' or 'first_plus_mean' without a map",
            )
            return
        cells, grid, quarter = self.map.cells, self.locator_grid, self.map.cells // 4
        located = bool(self.scan) or not later  # by the scan, or there is only the first glimpse
        fits = not grid if located else grid and grid % quarter == 0 and cells % grid == 0
        expected = f"a multiple of {quarter} that divides the map's {cells} cells"
        if located:
            expected = "0 with a scan, or with one glimpse"
        require("locator_grid", grid, fits, expected)
        for shown in cells_of_scales(self):
            side = self.glimpse_shape[0]
            fits = side % shown == 0 or shown % side == 0
            expected = f"a multiple or a divisor of {shown}, the cells of the map that it covers"
            require("glimpse_shape", side, fits, expected)
        fixed = {"per_step": (False,), "answer": ("state", "product")}
        fixed |= {"locator_input": ("detached",), "stopper_input": ("detached",)}
        for name, values in fixed.items():
            found = getattr(self, name)
            require(name, found, found in values, f"{' or '.join(map(repr, values))} with a map")

    def _check_first_look(self) -> None:
        if self.first_look is None:
            return
        expected = "None with a map, whose locator reads the map"
        require("first_look", self.first_look, self.map is None, expected)
        side, grid = self.first_look.side, self.locator_grid
        expected = f"a multiple of {side // 4}, a quarter of first_look's side"
        require("locator_grid", grid, grid > 0 and grid % (side // 4) == 0, expected)
        made = self.thumbnail_size or self.glimpse_shape[0]
        require("first_look side", side, made % side == 0, f"a divisor of the thumbnail's {made}")
        expected = "'detached' with first_look"
        require("locator_input", self.locator_input, self.locator_input == "detached", expected)


def check_encoder(config: Any, known: Iterable[str]) -> None:
    """Raises ValueError unless a configuration's encoder is known, and `resnet` and `frozen_norms`
    fit it."""
    require("encoder", config.encoder, config.encoder in known, f"one of {', '.join(known)}")
    residual, frozen = config.encoder in RESNETS, config.frozen_norms
    wanted = config.encoder if residual else None
    named = config.resnet.name if config.resnet else None
    require("resnet", config.resnet, named == wanted, f"options of {wanted}")
    require("frozen_norms", frozen, residual or not frozen, "False, unless encoder='resnet…'")


def check_pixel_scale(config: Any, channels: int) -> None:
    """Raises ValueError unless `pixel_mean` and `pixel_std` fit images of so many channels."""
    for name in ("pixel_mean", "pixel_std"):
        value = getattr(config, name)
        fits = not isinstance(value, tuple) or len(value) in (1, channels)
        require(name, value, fits, f"a number, or {channels}, one a channel")
