"""Augmentation per batch, on the device that holds the images.

Every class here is called with a batch of images ``(B, H, W, C)`` uint8 and, where they are of
several sizes, ``sizes`` ``(B, 2)`` int64: height and width in pixels of each image's content, which
lies at the top left; the pixels beyond are 0 and stay so. Each draws from torch's global generator
of the images' device, and one that is switched off returns the very tensor that came in.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from agents.checks import require

# Brightness as the eye sees it (ITU-R BT.601), for RGB.
LUMA = (0.299, 0.587, 0.114)
# Principal components of the RGB values, in [0, 1], of ImageNet's training pixels, as published
# with AlexNet's colour noise (Krizhevsky et al. 2012, section 4.1): a column for each, and the
# spread along each.
PCA_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
PCA_SPREADS = (0.2175, 0.0188, 0.0045)
TRIES = 10  # windows drawn for an image, of which the first that lies within it is taken

Call = TypeVar("Call", bound=Callable[..., Tensor])


def full_precision(call: Call) -> Call:
    """A call on images that computes in float32, also where a training step is under autocast.

    In bfloat16 a place in a large image is known to some pixels only.
    """

    @functools.wraps(call)
    def wrapped(self: object, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return call(self, images, sizes)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Affine:
    """Random small affine changes, drawn independently for every image.

    ``strength`` scales the four ranges, whose values are uniform; with 0 images stay as they are.
    """

    strength: float = 1.0
    shift: float = 2.0
    """pixels, each way"""
    rotation: float = 12.0
    """degrees, each way"""
    scale: float = 0.1
    """relative change of size, each way"""
    shear: float = 0.15
    """horizontal shear, each way"""

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Changes a batch ``(B, H, W, C)`` uint8; pixels from outside are 0; returns the same kind.

        Draws from torch's global generator of the images' device.

        Args:
            images: the batch.
            sizes: with it, each image is changed about its own centre and in pixels, so that
                shapes keep their proportions on any aspect; without, all are taken as squares.
        """
        if self.strength == 0:
            return images
        _check(images, sizes)
        batch, height, width, channels = images.shape

        def draw(reach: float) -> Tensor:
            return (torch.rand(batch, device=images.device) * 2 - 1) * (reach * self.strength)

        angle, size, shear = (
            draw(math.radians(self.rotation)),
            1 + draw(self.scale),
            draw(self.shear),
        )
        cos, sin = size * torch.cos(angle), size * torch.sin(angle)
        x, y = draw(2 * self.shift / width), draw(2 * self.shift / height)
        theta = torch.stack(
            [torch.stack([cos, shear - sin, x], dim=1), torch.stack([sin, cos, y], dim=1)], dim=1
        )
        if sizes is not None:
            theta = _about_own_centre(theta, sizes, height, width)
        grid = affine_grid(theta, [batch, channels, height, width], align_corners=False)
        moved = grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
        return _within(_to_bytes(moved).permute(0, 2, 3, 1).contiguous(), sizes)


@dataclass(frozen=True)
class Colour:
    """Random brightness, contrast and saturation, and AlexNet's noise along ImageNet's colours.

    Each of the three factors is uniform in 1 ± its reach. Brightness multiplies the image by it,
    contrast the difference to the image's mean grey, saturation the difference to the pixel's grey.
    They need no random order: where nothing is rounded in between, all orders give the same.
    Images that are not RGB have brightness and contrast alone.

    Raises:
        ValueError: a reach outside [0, 1], or a negative noise.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    lighting: float = 0.1
    """standard deviation of the noise along each principal component, as a share of its spread"""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(f"Colour.{name}", value, 0 <= value <= 1, "0 to 1")
        require("Colour.lighting", self.lighting, self.lighting >= 0, "0 or more")

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Changes a batch ``(B, H, W, C)`` uint8; values beyond 0 ... 255 are cut off."""
        if not (self.brightness or self.contrast or self.saturation or self.lighting):
            return images
        _check(images, sizes)
        batch, height, width, channels = images.shape
        pixels = images.reshape(batch, height * width, channels).float()
        area = height * width if sizes is None else sizes.prod(dim=1)[:, None]
        rgb = channels == 3
        grey = pixels.new_tensor(LUMA if rgb else [1 / channels] * channels)
        mean_grey = (pixels.sum(dim=1) / area) @ grey  # (B,)

        def factor(reach: float) -> Tensor:
            return 1 + reach * (2 * torch.rand(batch, device=images.device) - 1)

        # All three are linear: pixel -> mix @ pixel + lift.
        brightness, contrast = factor(self.brightness), factor(self.contrast)
        saturation = factor(self.saturation if rgb else 0.0)[:, None, None]
        mix = saturation * torch.eye(channels, device=images.device) + (1 - saturation) * grey
        mix = mix * (brightness * contrast)[:, None, None]
        lift = (brightness * (1 - contrast) * mean_grey)[:, None]
        if rgb and self.lighting:
            spread = pixels.new_tensor(PCA_SPREADS) * (255 * self.lighting)
            noise = torch.randn(batch, 3, device=images.device) * spread
            lift = lift + noise @ pixels.new_tensor(PCA_AXES).T
        changed = torch.baddbmm(lift.expand(-1, channels)[:, None], pixels, mix.mT)
        return _within(_to_bytes(changed).view(images.shape), sizes)


@dataclass(frozen=True)
class Flip:
    """Mirrors images left to right, each with the same probability and within its own width.

    Raises:
        ValueError: the probability is outside [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        p = self.probability
        require("Flip.probability", p, 0 <= p <= 1, "0 to 1")

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Mirrors some images of a batch ``(B, H, W, C)`` uint8."""
        if self.probability == 0:
            return images
        _check(images, sizes)
        flipped = torch.rand(len(images), device=images.device) < self.probability
        if sizes is None:
            return torch.where(flipped[:, None, None, None], images.flip(2), images)
        column = torch.arange(images.shape[2], device=images.device)
        width = sizes[:, 1, None]
        source = torch.where(flipped[:, None] & (column < width), width - 1 - column, column)
        return images.gather(2, source[:, None, :, None].expand(images.shape))


@dataclass(frozen=True)
class ScaleCrop:
    """A random window of each image, resampled to a square: scale augmentation.

    The window's share of the image's area is uniform, the logarithm of its aspect too, its place
    uniform among those within the image (Szegedy et al. 2015, section 6). Where none of ten windows
    fits, it is the largest central one of an allowed aspect. Resampling is bilinear, and
    averages over what lies between when it shrinks.

    Raises:
        ValueError: a range that is empty or out of bounds, or no side.
    """

    side: int
    """of the outcome, in pixels"""
    area: tuple[float, float] = (0.08, 1.0)
    """range of the window's share of the image's area"""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """range of the window's width divided by its height"""

    def __post_init__(self) -> None:
        low, high = self.area
        require("ScaleCrop.side", self.side, self.side >= 1, "at least 1")
        require("ScaleCrop.area", self.area, 0 < low <= high <= 1, "0 < lowest <= highest <= 1")
        low, high = self.aspect
        require("ScaleCrop.aspect", self.aspect, 0 < low <= high, "0 < lowest <= highest")

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Windows ``(B, side, side, C)`` uint8, without padding, of a batch ``(B, H, W, C)``."""
        _check(images, sizes)
        top, left, height, width = self.windows(_sizes(images, sizes))
        rows = _resampling(top, height, images.shape[1], self.side)  # (B, side, H)
        columns = _resampling(left, width, images.shape[2], self.side)  # (B, side, W)
        half = torch.bmm(rows, images.flatten(2).float()).unflatten(2, images.shape[2:])
        return _to_bytes(torch.einsum("bjw,biwc->bijc", columns, half))

    def windows(self, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws windows: top, left, height, width, each ``(B,)`` int64 pixels, within the images.

        Args:
            sizes: ``(B, 2)`` int64, height and width of the images.
        """

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(shape, device=sizes.device)

        batch = len(sizes)
        limit = sizes[:, None]  # (B, 1, 2)
        area = uniform(*self.area, batch, TRIES) * limit.prod(dim=2)
        aspect = uniform(math.log(self.aspect[0]), math.log(self.aspect[1]), batch, TRIES).exp()
        tried = torch.stack([area / aspect, area * aspect], dim=2).sqrt().round().long()
        tried = torch.cat([tried.clamp(min=1), self._central(sizes)[:, None]], dim=1)
        fits = (tried <= limit).all(dim=2)  # the last one always does
        first = fits.long().argmax(dim=1)
        window = tried[torch.arange(batch, device=sizes.device), first]  # (B, 2)
        room = sizes - window
        place = (torch.rand(batch, 2, device=sizes.device) * (room + 1)).long().minimum(room)
        place = torch.where((first == TRIES)[:, None], room // 2, place)
        return place[:, 0], place[:, 1], window[:, 0], window[:, 1]

    def _central(self, sizes: Tensor) -> Tensor:
        """Height and width ``(B, 2)`` of the largest window of an allowed aspect."""
        height, width = sizes.unbind(dim=1)
        narrow = torch.minimum(height, (width / self.aspect[0]).round().long())
        wide = torch.minimum(width, (height * self.aspect[1]).round().long())
        return torch.stack([narrow, wide], dim=1).clamp(min=1)


@dataclass(frozen=True)
class Augmentation:
    """The changes that a batch of training images goes through: scale, colour, affine, flip.

    The affine change comes after the colours, so that the black pixels which it brings in from
    outside the image stay black, as the sensor shows them.

    Raises:
        ValueError: a setting is out of range.
    """

    affine: float = 0.5
    """strength of the affine change; 1 is up to 2 pixels, 12 degrees and 10 % of size"""
    flip: bool = False
    """mirror every other image"""
    colour: float = 0.0
    """reach of brightness, contrast and saturation, in [0, 1]; the original's is 0.4"""
    lighting: float = 0.0
    """standard deviation of the noise along ImageNet's colours; the original's is 0.1"""
    scale_crop: tuple[float, float] | None = None
    """range of a random window's share of the area; none: no scale augmentation"""

    def __post_init__(self) -> None:
        require("Augmentation.affine", self.affine, self.affine >= 0, "0 or more")
        self._colour()  # checks its settings, and so does the next
        self._window(1)

    @property
    def changes_images(self) -> bool:
        """Whether any change is switched on."""
        return self != Augmentation(affine=0.0)

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Changes a batch ``(B, H, W, C)`` uint8.

        Returns:
            The same shape and sizes; with `scale_crop` ``(B, s, s, C)`` without padding, s the
            smaller side of the batch.
        """
        if self.scale_crop is not None:
            images, sizes = self._window(min(images.shape[1:3]))(images, sizes), None
        images = self._colour()(images, sizes)
        images = Affine(self.affine)(images, sizes)
        return Flip(0.5 if self.flip else 0.0)(images, sizes)

    def _colour(self) -> Colour:
        return Colour(self.colour, self.colour, self.colour, self.lighting)

    def _window(self, side: int) -> ScaleCrop:
        return ScaleCrop(side, self.scale_crop or (1.0, 1.0))


def _about_own_centre(theta: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Moves a change of a square about its centre to each content's own centre, in pixels.

    Args:
        theta: ``(B, 2, 3)``; shifts in the padded images' own units, halves of a side.
        sizes: ``(B, 2)``, height and width of the contents.
        height: of the padded images; likewise `width`.
    """
    half = theta.new_tensor([width, height]) / 2
    # In pixels from the padded image's top left: p -> turn @ (p - centre) + centre + shift.
    centre = sizes.flip(1).to(theta.dtype) / 2
    turn, shift = theta[:, :, :2], theta[:, :, 2] * half
    shift = shift + centre - (turn @ centre[:, :, None]).squeeze(2)
    # In units of the padded image p = (n + 1) * half, so n -> (turn @ p + shift) / half - 1.
    moved = (turn @ half + shift) / half - 1
    return torch.cat([turn * (half / half[:, None]), moved[:, :, None]], dim=2)


def _resampling(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """Weights ``(B, side, size)`` that resample a window of a line of pixels to `side` of them.

    A triangle about the centre of each new pixel, one old or one new pixel wide each way, whichever
    is wider, cut at the window's ends.

    Args:
        start: ``(B,)`` first pixel of the window.
        length: ``(B,)`` its pixels.
        size: pixels of the line.
        side: pixels of the outcome.
    """
    place = torch.arange(size, device=start.device)
    start, length = start[:, None, None], length[:, None, None]
    step = length / side
    centre = start + (torch.arange(side, device=start.device)[:, None] + 0.5) * step
    weight = (1 - (place + 0.5 - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weight = weight * ((place >= start) & (place < start + length))
    return weight / weight.sum(dim=2, keepdim=True)


def _to_bytes(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).to(torch.uint8)


def _within(images: Tensor, sizes: Tensor | None) -> Tensor:
    """Sets what lies beyond each content to 0."""
    if sizes is None:
        return images
    row, column = (torch.arange(n, device=images.device) for n in images.shape[1:3])
    inside = (row[:, None] < sizes[:, 0, None, None]) & (column < sizes[:, 1, None, None])
    return images * inside[..., None]


def _sizes(images: Tensor, sizes: Tensor | None) -> Tensor:
    if sizes is not None:
        return sizes
    return torch.tensor(images.shape[1:3], device=images.device).expand(len(images), 2)


def _check(images: Tensor, sizes: Tensor | None) -> None:
    """Raises ValueError for another kind of batch."""
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(
            f"images: expected uint8 of shape (B, H, W, C), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    if sizes is None:
        return
    expected = f"sizes: expected int64 of shape ({len(images)}, 2), height and width, "
    if sizes.shape != (len(images), 2) or sizes.dtype != torch.int64:
        raise ValueError(expected + f"got {sizes.dtype} {tuple(sizes.shape)}")
    # On a GPU the question would make the host wait.
    limit = torch.tensor(images.shape[1:3])
    if sizes.device.type == "cpu" and not ((sizes >= 1) & (sizes <= limit)).all():
        raise ValueError(expected + f"1 to {tuple(limit.tolist())}, got {sizes.tolist()}")
