"""Random augmentation of a batch, on the device that holds the images.

Each function takes images ``(B, H, W, C)`` uint8. If they differ in size, it also takes ``sizes``
``(B, 2)`` int64, the height and width of each image in pixels; the image lies at the top left, and
the padding around it is 0 and stays 0. Random numbers come from torch's global generator of the
images' device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from agents import draws
from agents.checks import NotNegative, check_fields, require
from dtram_env.datasets.storage.tensors import send
from dtram_env.sensor_torch import TorchStore

# Weights of red, green and blue in perceived brightness (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
# Principal components of ImageNet's RGB values in [0, 1], one in each column, and the standard
# deviation along each: the colour noise of AlexNet (Krizhevsky et al. 2012, section 4.1).
PCA_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
PCA_SPREADS = (0.2175, 0.0188, 0.0045)
KNOT_DISTANCE = 4.0  # pixels between the knots of an elastic change, and their Gaussians' width
ASPECT = 4 / 3  # a window's sides differ by at most this factor, unless the image cuts it


@dataclass(frozen=True)
class Augmentation:
    """All augmentations of a training batch, in this order: crop, colour, affine, flip.

    Affine follows colour so that the pixels that it moves in stay black, as the sensor's padding.
    """

    affine: NotNegative = 0.5
    """strength of the affine change; 1 is up to 2 pixels, 12 degrees and 10 % of the size"""
    elastic: NotNegative = 0.0
    """standard deviation of the elastic change, in pixels along each axis"""
    flip: bool = False
    """mirror half of the images, chosen at random"""
    colour: Annotated[float, 0, 1] = 0.0
    """largest relative change of brightness, contrast and saturation; the original's is 0.4"""
    lighting: NotNegative = 0.0
    """strength of the colour noise; the original's is 0.1"""
    scale_crop: tuple[float, float] | None = None
    """range of a random crop's fraction of the image area; none: no crop"""
    compose: bool = False
    """compose translated or cluttered digits anew, see `clutter`; the digit is changed before"""
    plain: Annotated[float, 0, 1] = 0.0
    """share of a stage's epochs, the last ones, whose images are only flipped and composed; the
    stopper learns on changed ones"""

    def __post_init__(self) -> None:
        check_fields(self)
        low, high = self.scale_crop or (1.0, 1.0)
        expected = "0 < lowest <= highest <= 1"
        require("scale_crop", self.scale_crop, 0 < low <= high <= 1, expected)

    def at(self, epoch: int, epochs: int) -> "Augmentation":
        """The augmentation of an epoch 0, 1 ... of some `epochs`; plain ones are rounded up."""
        if epoch < math.floor((1 - self.plain) * epochs + 1e-9):
            return replace(self, plain=0.0)
        return Augmentation(affine=0.0, flip=self.flip, compose=self.compose)

    @property
    def copies_images(self) -> bool:
        """Whether whole images are copied and changed: more is on than flip, colour, lighting."""
        others = replace(self, flip=False, colour=0.0, lighting=0.0, plain=0.0)
        return others != Augmentation(affine=0.0)

    def change_store(self, store: TorchStore, indices: Tensor, side: int) -> "ChangedStore":
        """Images at `indices` ``(B,)`` of a store, changed as they are read; nothing is copied.

        Of the settings flip, colour and lighting are read. Brightness, contrast and saturation
        change by factors that are uniform in 1 ± `colour`: brightness multiplies the image,
        contrast the difference from the image's mean grey, and saturation the difference from each
        pixel's grey; their order does not matter. Colour noise has `lighting` standard deviations
        of ImageNet's colours along each of their principal components. Only RGB images change in
        saturation and get noise. An image's mean is that of its thumbnail of `side` pixels.
        """
        flipped = colours = None
        if self.colour or self.lighting:
            with torch.autocast(indices.device.type, enabled=False):
                mean = store.thumbnail(indices, side).float().mean(dim=(1, 2))
                colours = draw_colours(mean, self.colour, self.lighting)
        if self.flip:
            flipped = draws.rand(len(indices), device=indices.device) < 0.5
        return ChangedStore(store, indices, flipped, colours)

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Crops a batch, changes its colours, and moves and bends it: all but flip.

        It draws no random numbers for what is switched off.
        The result has the same shape and sizes, and is the input itself if nothing is switched on.
        With `scale_crop` it is ``(B, s, s, C)`` without padding, where s = min(H, W).
        """
        # Not in bfloat16, in which a coordinate in a large image is wrong by several pixels.
        with torch.autocast(images.device.type, enabled=False):
            if self.scale_crop is not None:
                side = min(images.shape[1:3])
                images, sizes = random_crop(images, sizes, side, self.scale_crop), None
            if self.colour or self.lighting:
                area = math.prod(images.shape[1:3]) if sizes is None else sizes.prod(dim=1)[:, None]
                mean = images.flatten(1, 2).float().sum(dim=1) / area
                colours = draw_colours(mean, self.colour, self.lighting)
                images = _within(colours.change(images), sizes)
            if self.affine or self.elastic:
                images = random_affine(images, sizes, self.affine, elastic=self.elastic)
        return images


def random_affine(
    images: Tensor,
    sizes: Tensor | None = None,
    strength: float = 1.0,
    *,
    shift: float = 2.0,
    rotation: float = 12.0,
    scale: float = 0.1,
    shear: float = 0.15,
    elastic: float = 0.0,
) -> Tensor:
    """Shifts, rotates, scales and shears each image by uniform random amounts, and bends it.

    Pixels from outside an image are 0. With `sizes` each image turns about its own centre and keeps
    its proportions; without, all images are treated as squares. The largest shift is in pixels,
    rotation in degrees, scale relative, shear horizontal; `strength` multiplies all four. `elastic`
    is the standard deviation, in pixels, of a smooth random displacement of each pixel (Simard et
    al. 2003, section 2.1).
    """
    batch, height, width, channels = images.shape

    def draw(largest: float) -> Tensor:
        return (draws.rand(batch, device=images.device) * 2 - 1) * (largest * strength)

    angle, size, shears = draw(math.radians(rotation)), 1 + draw(scale), draw(shear)
    cos, sin = size * torch.cos(angle), size * torch.sin(angle)
    x, y = draw(2 * shift / width), draw(2 * shift / height)
    theta = torch.stack([cos, shears - sin, x, sin, cos, y], dim=1).unflatten(1, (2, 3))
    if sizes is not None:
        theta = _about_own_centre(theta, sizes, height, width)
    grid = affine_grid(theta, [batch, channels, height, width], align_corners=False)
    if elastic:
        grid += elastic * _smooth_noise(batch, height, width, images.device)
    return _within(_sampled(images, grid), sizes)


def _smooth_noise(batch: int, height: int, width: int, device: torch.device) -> Tensor:
    """Displacements ``(B, H, W, 2)`` in image halves, whose standard deviation is one pixel.

    Normal displacements of knots, spread to the pixels about them by Gaussians.
    """
    down, across = (_knot_weights(side, device) for side in (height, width))
    knots = draws.randn(batch, 2, down.shape[1], across.shape[1], device=device)
    pixels = down @ knots @ across.T
    return torch.stack([pixels[:, 0] * (2 / width), pixels[:, 1] * (2 / height)], dim=-1)


def _knot_weights(side: int, device: torch.device) -> Tensor:
    """Weights ``(side, K)`` of the knots at each pixel; their squares sum to 1."""
    pixel = torch.arange(side, device=device) + 0.5
    knot = torch.arange(-1, math.ceil(side / KNOT_DISTANCE) + 2, device=device) * KNOT_DISTANCE
    weight = torch.exp(-(((pixel[:, None] - knot) / KNOT_DISTANCE) ** 2) / 2)
    return weight / weight.norm(dim=1, keepdim=True)


class Colours(NamedTuple):
    """Affine changes of the colours of B images: a pixel p becomes mix @ p + lift."""

    mix: Tensor  # (B, C, C)
    lift: Tensor  # (B, C)

    def change(self, images: Tensor) -> Tensor:
        """The same images ``(B, H, W, C)`` uint8 in other colours."""
        pixels = images.flatten(1, 2).float()
        changed = torch.baddbmm(self.lift[:, None], pixels, self.mix.mT)
        return _to_bytes(changed).view(images.shape)


def draw_colours(mean: Tensor, colour: float, lighting: float) -> Colours:
    """Draws the changes of `Augmentation.change_store`; `mean` ``(B, C)``, 0 ... 255, is the mean
    colour of each image."""
    batch, channels = mean.shape
    rgb = channels == 3
    grey = _sent(LUMA if rgb else [1 / channels] * channels, mean.device)

    def factor() -> Tensor:
        return 1 + colour * (2 * draws.rand(batch, device=mean.device) - 1)

    by_brightness, by_contrast, by_saturation = factor(), factor(), factor()[:, None, None]
    eye = torch.eye(channels, device=mean.device)
    mix = by_saturation * eye + (1 - by_saturation) * grey if rgb else eye
    lift = (by_brightness * (1 - by_contrast) * (mean @ grey))[:, None].expand(-1, channels)
    if rgb and lighting:
        spread = _sent(PCA_SPREADS, mean.device) * (255 * lighting)
        noise = draws.randn(batch, 3, device=mean.device) * spread
        lift = lift + noise @ _sent(PCA_AXES, mean.device).T
    return Colours(mix * (by_brightness * by_contrast)[:, None, None], lift)


class ChangedStore:
    """A store whose images ``(N,)`` are changed as they are read; it copies nothing.

    `indices` ``(N,)`` int64 are the images' places in `store`, `flipped` ``(N,)`` bool says which
    are mirrored left to right, `colours` how their colours change; None: none is. A thumbnail's
    pixels change after it was shrunk.
    """

    def __init__(
        self,
        store: TorchStore,
        indices: Tensor,
        flipped: Tensor | None = None,
        colours: Colours | None = None,
    ) -> None:
        self.store, self.indices, self.flipped, self.colours = store, indices, flipped, colours
        self.on_host, self.channels = store.on_host, store.channels

    def __len__(self) -> int:
        return len(self.indices)

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        return self.store.size(self.indices[index])

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        height, width = self.size(index)
        source = left
        if self.flipped is not None:
            source = torch.where(self.flipped[index], width - side - left, left)
        pixels = self._changed(index, self.store.crop(self.indices[index], top, source, side))
        if self.colours is None:
            return pixels
        # What lies outside the image stays black.
        down, across = _inside(top, height, side), _inside(left, width, side)
        return pixels * (down[:, :, None] & across[:, None, :])[..., None]

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        return self._changed(index, self.store.thumbnail(self.indices[index], side))

    def whole(self, index: Tensor) -> Tensor:
        """Whole images, which must have one size."""
        return self._changed(index, self.store.whole(self.indices[index]))

    def _changed(self, index: Tensor, pixels: Tensor) -> Tensor:
        if self.flipped is not None:
            pixels = torch.where(self.flipped[index, None, None, None], pixels.flip(2), pixels)
        if self.colours is None:
            return pixels
        with torch.autocast(pixels.device.type, enabled=False):
            return Colours(*(part[index] for part in self.colours)).change(pixels)


def _inside(first: Tensor, size: Tensor | int, side: int) -> Tensor:
    """Which of `side` lines from `first` ``(B,)`` are in images of `size`, ``(B, side)`` bool."""
    line = first[:, None] + torch.arange(side, device=first.device)
    return (line >= 0) & (line < (size[:, None] if isinstance(size, Tensor) else size))


def random_crop(
    images: Tensor, sizes: Tensor | None, side: int, area: tuple[float, float]
) -> Tensor:
    """Resamples a window of each image (`crop_windows`) bilinearly to ``(B, side, side, C)``.

    Between pixels only: a window longer than `side` loses some.
    """
    full = _sent(images.shape[1:3], images.device)
    corner, window = crop_windows(
        full.long().expand(len(images), 2) if sizes is None else sizes, area
    )
    step = (torch.arange(side, device=images.device) + 0.5) / side
    within = (window[..., None] * step).clamp(min=0.5).minimum(window[..., None] - 0.5)
    y, x = (2 * (corner[..., None] + within) / full[:, None] - 1).unbind(dim=1)  # (B, side)
    return _sampled(images, torch.stack(torch.broadcast_tensors(x[:, None], y[:, :, None]), -1))


def crop_windows(sizes: Tensor, area: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Draws a window inside each image: its top left and its height and width, ``(B, 2)`` pixels.

    Its fraction of the image area, the logarithm of its aspect ratio and its position are uniform
    (Szegedy et al. 2015, section 6), except that a side longer than the image's is cut to it.
    """
    batch, device = len(sizes), sizes.device
    low, high = area
    areas = (low + (high - low) * draws.rand(batch, device=device)) * sizes.prod(dim=1)
    aspects = ASPECT ** (2 * draws.rand(batch, device=device) - 1)
    window = torch.stack([areas / aspects, areas * aspects], dim=1).sqrt().round().long()
    window = window.clamp(min=1).minimum(sizes)
    room = sizes - window
    corner = (draws.rand(batch, 2, device=device) * (room + 1)).long().minimum(room)
    return corner, window


def _about_own_centre(theta: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Turns maps ``(B, 2, 3)`` of `affine_grid` into maps about each image's centre, in pixels."""
    half = _sent([width, height], theta.device) / 2
    # In pixels from the padded image's top left: p -> turn @ (p - centre) + centre + shift.
    centre = sizes.flip(1).to(theta.dtype) / 2
    turn, shift = theta[:, :, :2], theta[:, :, 2] * half
    shift = shift + centre - (turn @ centre[:, :, None]).squeeze(2)
    # In units of the padded image p = (n + 1) * half, so n -> (turn @ p + shift) / half - 1.
    moved = (turn @ half + shift) / half - 1
    return torch.cat([turn * (half / half[:, None]), moved[:, :, None]], dim=2)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Images ``(B, H, W, C)`` at the places ``(B, h, w, 2)`` of `grid_sample`, as bytes."""
    found = grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
    return _to_bytes(found).permute(0, 2, 3, 1).contiguous()


def _sent(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Numbers as float32 on a device, which the host does not wait for."""
    return send(np.asarray(numbers, np.float32), device)


def _to_bytes(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).to(torch.uint8)


def _within(images: Tensor, sizes: Tensor | None) -> Tensor:
    """Sets the padding around each image to 0."""
    if sizes is None:
        return images
    row, column = (torch.arange(n, device=images.device) for n in images.shape[1:3])
    inside = (row[:, None] < sizes[:, 0, None, None]) & (column < sizes[:, 1, None, None])
    return images * inside[..., None]
