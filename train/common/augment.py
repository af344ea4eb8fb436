"""Random augmentation of a batch, on the device that holds the images.

Each augmentation is called with images ``(B, H, W, C)`` uint8. If they differ in size, it also gets
``sizes`` ``(B, 2)`` int64, the height and width of each image in pixels; the image lies at the top
left, and the padding around it is 0 and stays 0. Random numbers come from torch's global generator
of the images' device. An augmentation that is switched off draws none and returns its input tensor.
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

# Weights of red, green and blue in perceived brightness (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
# Principal components of ImageNet's RGB values in [0, 1], one in each column, and the standard
# deviation along each: the colour noise of AlexNet (Krizhevsky et al. 2012, section 4.1).
PCA_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
PCA_SPREADS = (0.2175, 0.0188, 0.0045)
TRIES = 10  # windows drawn for an image; the first that fits is used

Call = TypeVar("Call", bound=Callable[..., Tensor])


def full_precision(call: Call) -> Call:
    """Makes an augmentation compute in float32 even inside autocast.

    In bfloat16 a coordinate in a large image is wrong by several pixels.
    """

    @functools.wraps(call)
    def wrapped(self: object, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return call(self, images, sizes)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Affine:
    """Shifts, rotates, scales and shears each image by small amounts.

    Each amount is uniform in its range. ``strength`` multiplies all ranges; 0 switches them off.
    """

    strength: float = 1.0
    shift: float = 2.0
    """largest shift along each axis, in pixels"""
    rotation: float = 12.0
    """largest rotation in either direction, in degrees"""
    scale: float = 0.1
    """largest relative change of size"""
    shear: float = 0.15
    """largest horizontal shear"""

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Changes a batch; pixels from outside an image are 0.

        Args:
            images: ``(B, H, W, C)`` uint8.
            sizes: if given, each image turns about its own centre and keeps its proportions;
                if not, all images are treated as squares.
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
    """Changes brightness, contrast and saturation, and adds AlexNet's colour noise.

    Each factor is uniform in 1 ± its setting. Brightness multiplies the image, contrast multiplies
    the difference from the image's mean grey, and saturation the difference from each pixel's grey.
    Without rounding in between, the order of the three does not matter. Only RGB images change in
    saturation and get noise.

    Raises:
        ValueError: a factor's setting is outside [0, 1], or the noise is negative.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    lighting: float = 0.1
    """noise along each principal component of ImageNet's colours: its standard deviation divided
    by that of the colours"""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(f"Colour.{name}", value, 0 <= value <= 1, "0 to 1")
        require("Colour.lighting", self.lighting, self.lighting >= 0, "0 or more")

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Changes a batch ``(B, H, W, C)`` uint8; values are clipped to 0 ... 255."""
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

        # All three together are one affine map of a pixel: mix @ pixel + lift.
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
    """Mirrors each image left to right, within its own width, with some probability.

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
    """Crops a random window of each image and resamples it to a square.

    The window's fraction of the image area, the logarithm of its aspect ratio and its position are
    uniform (Szegedy et al. 2015, section 6). If none of ten windows fits into the image, the
    largest central window with an allowed aspect is used. Resampling is bilinear; when it shrinks,
    it averages over all pixels in between.

    Raises:
        ValueError: a range is empty or out of bounds, or the side is less than 1.
    """

    side: int
    """side of the result, in pixels"""
    area: tuple[float, float] = (0.08, 1.0)
    """range of the window's fraction of the image area"""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """range of width divided by height"""

    def __post_init__(self) -> None:
        low, high = self.area
        require("ScaleCrop.side", self.side, self.side >= 1, "at least 1")
        require("ScaleCrop.area", self.area, 0 < low <= high <= 1, "0 < lowest <= highest <= 1")
        low, high = self.aspect
        require("ScaleCrop.aspect", self.aspect, 0 < low <= high, "0 < lowest <= highest")

    @full_precision
    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Resampled windows ``(B, side, side, C)`` uint8, without padding."""
        _check(images, sizes)
        top, left, height, width = self.windows(_sizes(images, sizes))
        rows = _resampling(top, height, images.shape[1], self.side)  # (B, side, H)
        columns = _resampling(left, width, images.shape[2], self.side)  # (B, side, W)
        half = torch.bmm(rows, images.flatten(2).float()).unflatten(2, images.shape[2:])
        return _to_bytes(torch.einsum("bjw,biwc->bijc", columns, half))

    def windows(self, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws windows inside the images: top, left, height, width, each ``(B,)`` int64 pixels.

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
        fits = (tried <= limit).all(dim=2)  # the central window always fits
        first = fits.long().argmax(dim=1)
        window = tried[torch.arange(batch, device=sizes.device), first]  # (B, 2)
        room = sizes - window
        place = (torch.rand(batch, 2, device=sizes.device) * (room + 1)).long().minimum(room)
        place = torch.where((first == TRIES)[:, None], room // 2, place)
        return place[:, 0], place[:, 1], window[:, 0], window[:, 1]

    def _central(self, sizes: Tensor) -> Tensor:
        """Height and width ``(B, 2)`` of the largest window with an allowed aspect."""
        height, width = sizes.unbind(dim=1)
        narrow = torch.minimum(height, (width / self.aspect[0]).round().long())
        wide = torch.minimum(width, (height * self.aspect[1]).round().long())
        return torch.stack([narrow, wide], dim=1).clamp(min=1)


@dataclass(frozen=True)
class Augmentation:
    """All augmentations of a training batch, in this order: crop, colour, affine, flip.

    The affine change follows the colour change because it moves black pixels into the image, and
    these must stay black, as the sensor pads images with black.

    Raises:
        ValueError: a setting is out of range.
    """

    affine: float = 0.5
    """strength of the affine change; 1 is up to 2 pixels, 12 degrees and 10 % of the size"""
    flip: bool = False
    """mirror half of the images, chosen at random"""
    colour: float = 0.0
    """largest relative change of brightness, contrast and saturation; the original's is 0.4"""
    lighting: float = 0.0
    """strength of the colour noise; the original's is 0.1"""
    scale_crop: tuple[float, float] | None = None
    """range of a random crop's fraction of the image area; none: no crop"""

    def __post_init__(self) -> None:
        require("Augmentation.affine", self.affine, self.affine >= 0, "0 or more")
        self._colour()  # checks its settings, as does the crop
        self._crop(1)

    @property
    def changes_images(self) -> bool:
        """Whether any change is switched on."""
        return self != Augmentation(affine=0.0)

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Augments a batch ``(B, H, W, C)`` uint8.

        Returns:
            Images of the same shape and sizes. With `scale_crop` they are ``(B, s, s, C)`` without
            padding, where s = min(H, W).
        """
        if self.scale_crop is not None:
            images, sizes = self._crop(min(images.shape[1:3]))(images, sizes), None
        images = self._colour()(images, sizes)
        images = Affine(self.affine)(images, sizes)
        return Flip(0.5 if self.flip else 0.0)(images, sizes)

    def _colour(self) -> Colour:
        return Colour(self.colour, self.colour, self.colour, self.lighting)

    def _crop(self, side: int) -> ScaleCrop:
        return ScaleCrop(side, self.scale_crop or (1.0, 1.0))


def _about_own_centre(theta: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Turns maps about the centre of a square into maps about each image's centre, in pixels.

    Args:
        theta: ``(B, 2, 3)`` for `affine_grid`, so shifts are in halves of a padded image's side.
        sizes: ``(B, 2)``, height and width of the images.
        height: height of the padded images.
        width: their width.
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
    """Weights ``(B, side, size)`` that resample a window of a line of pixels to `side` pixels.

    The weights of a new pixel form a triangle about its centre, cut at the window's ends. Its half
    width is one old or one new pixel, whichever is wider.

    Args:
        start: ``(B,)`` first pixel of the window.
        length: ``(B,)`` number of its pixels.
        size: number of pixels of the line.
        side: number of pixels of the result.
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
    """Sets the padding around each image to 0."""
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
    """Raises ValueError unless images and sizes have the right shapes, types and values."""
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
    # On a GPU this check would make the host wait for the device.
    limit = torch.tensor(images.shape[1:3])
    if sizes.device.type == "cpu" and not ((sizes >= 1) & (sizes <= limit)).all():
        raise ValueError(expected + f"1 to {tuple(limit.tolist())}, got {sizes.tolist()}")
