"""Glimpse encoders φ: a glimpse and its location become one vector.

An encoder is made from ``(glimpse_shape, out_features, scale=…)``, where ``glimpse_shape`` is
``(g, g, channels)``, channels counting every scale, and `scale` normalises the pixels (to [0, 1] if
not given). It is called with glimpses ``(B, g, g, channels)`` uint8 and locations ``(B, 2)`` in
[-1, 1], and returns ``(B, out_features)``; the core applies the non-linearity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .precision import autocast
from .resnet import ResNetOptions, ResNetTrunk


@dataclass(frozen=True)
class PixelScale:
    """Normalises pixels: ``(pixel - mean) / std``."""

    mean: float | tuple[float, ...] = 0.0
    """mean of the training images' pixels, 0 ... 255, or of each channel"""
    std: float | tuple[float, ...] = 255.0
    """their standard deviation, or that of each channel"""

    def __call__(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Scales pixels ``(B, H, W, C)``; of any shape if all channels share one mean."""
        mean, std = (self._read(value, pixels, dtype) for value in (self.mean, self.std))
        return (pixels.to(dtype) - mean) / std

    def _read(
        self, value: float | tuple[float, ...], pixels: Tensor, dtype: torch.dtype
    ) -> Tensor | float:
        if isinstance(value, tuple):
            # Several scales of a glimpse are stacked as channels.
            repeats = pixels.shape[-1] // len(value)
            return torch.tensor(value * repeats, dtype=dtype, device=pixels.device)
        return value


class GlimpseMLP(nn.Module):
    """The RAM paper's encoder: a what-path and a where-path of one hidden layer each, then joined.

    Mnih et al. 2014, section 3.1 ("glimpse network"); sizes as in DT-RAM's MNIST model.

    Args:
        glimpse_shape: ``(g, g, channels)``.
        out_features: width of the code.
        what_features: hidden units of the what-path.
        where_features: hidden units of the where-path.
        scale: of the pixels.
    """

    def __init__(
        self,
        glimpse_shape: tuple[int, int, int],
        out_features: int = 256,
        what_features: int = 128,
        where_features: int = 128,
        scale: PixelScale | None = None,
    ) -> None:
        super().__init__()
        side, _, channels = glimpse_shape
        self.scale = scale or PixelScale()
        self.what = nn.Linear(side * side * channels, what_features)
        self.where = _where_path(where_features)
        self.join = nn.Linear(what_features + where_features, out_features)
        self.out = nn.Linear(out_features, out_features)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        pixels = self.scale(glimpse, location.dtype).flatten(1)
        what = torch.relu(self.what(pixels))
        where = torch.relu(self.where(location))
        return self.out(torch.relu(self.join(torch.cat([what, where], dim=1))))


class _ConvEncoder(nn.Module):
    """A convolutional what-path, joined with a where-path unless that has 0 units."""

    scale: PixelScale
    where: nn.Linear | None
    join: nn.Linear
    out: nn.Linear

    def _join_paths(self, features: int, where_features: int, out_features: int) -> None:
        """Makes the layers after a what-path of `features` outputs."""
        self.where = _where_path(where_features) if where_features else None
        self.join = nn.Linear(features + where_features, out_features)
        self.out = nn.Linear(out_features, out_features)

    def what(self, pixels: Tensor) -> Tensor:
        """The what-path: normalised pixels ``(B, channels, g, g)`` to ``(B, features)``."""
        raise NotImplementedError

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        joined = self.what(self.scale(glimpse, location.dtype).permute(0, 3, 1, 2))
        if self.where is not None:
            joined = torch.cat([joined, torch.relu(self.where(location))], dim=1)
        return self.out(torch.relu(self.join(joined)))


class GlimpseConv(_ConvEncoder):
    """Two 3x3 convolutions and 2x2 pooling, joined with the same where-path.

    Args:
        glimpse_shape: ``(g, g, channels)``, g at least 2.
        out_features: width of the code.
        filters: channels of the first convolution; the second has twice as many.
        where_features: hidden units of the where-path; 0: there is none.
        scale: of the pixels.

    Raises:
        ValueError: the glimpse is too small.
    """

    def __init__(
        self,
        glimpse_shape: tuple[int, int, int],
        out_features: int = 256,
        filters: int = 16,
        where_features: int = 128,
        scale: PixelScale | None = None,
    ) -> None:
        super().__init__()
        side, _, channels = glimpse_shape
        self.scale = scale or PixelScale()
        if side < 2:
            raise ValueError(
                f"encoder='conv' with glimpses of {side}x{side} pixels: expected at least 2x2; "
                "encoder='mlp' takes any"
            )
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1)
        self.conv2 = nn.Conv2d(filters, 2 * filters, 3, padding=1)
        self._join_paths(2 * filters * (side // 2) ** 2, where_features, out_features)

    def what(self, pixels: Tensor) -> Tensor:
        what = torch.relu(self.conv1(pixels))
        return torch.relu(nn.functional.max_pool2d(self.conv2(what), 2)).flatten(1)


class GlimpseCNN(_ConvEncoder):
    """A deeper what-path for glimpses of some dozens of pixels.

    3x3 convolutions, each followed by ReLU and all but the first by 2x2 max-pooling, until at most
    4 pixels a side remain. So textures of a few pixels are read at full resolution. The first layer
    has `filters` channels, and each further one half of `filters` more.

    Args:
        glimpse_shape: ``(g, g, channels)``, g at least 8.
        out_features: width of the code.
        filters: channels of the first layer.
        where_features: hidden units of the where-path; 0: there is none.
        scale: of the pixels.
        made_for: side of other glimpses, in pixels, whose layers it has, so that weights learned on
            those fit. Its own features are averaged to their resolution. 0: its own side.

    Raises:
        ValueError: the glimpse is too small.
    """

    def __init__(
        self,
        glimpse_shape: tuple[int, int, int],
        out_features: int = 256,
        filters: int = 16,
        where_features: int = 128,
        scale: PixelScale | None = None,
        made_for: int = 0,
    ) -> None:
        super().__init__()
        side, channels = made_for or glimpse_shape[0], glimpse_shape[2]
        least = 8 if not made_for else cnn_smallest(made_for)
        if min(side, glimpse_shape[0]) < least:
            raise ValueError(
                f"encoder='cnn' with glimpses of {glimpse_shape[0]}x{glimpse_shape[0]} pixels: "
                f"expected at least {least}x{least}; encoder='conv' takes 2x2"
            )
        self.scale = scale or PixelScale()
        self.convs = nn.ModuleList()
        width = filters
        while True:
            self.convs.append(nn.Conv2d(channels, width, 3, padding=1))
            channels, width = width, width + filters // 2
            if side <= 4:
                break
            side //= 2
        self._pooled_side = side
        self._join_paths(channels * side**2, where_features, out_features)
        self.convs.to(memory_format=torch.channels_last)  # as glimpses are

    def what(self, pixels: Tensor) -> Tensor:
        what = torch.relu(self.convs[0](pixels))
        for conv in list(self.convs)[1:]:
            what = nn.functional.max_pool2d(torch.relu(conv(what)), 2)
        if what.shape[-1] != self._pooled_side:
            what = nn.functional.adaptive_avg_pool2d(what, self._pooled_side)
        return what.flatten(1)


def cnn_smallest(made_for: int) -> int:
    """Side in pixels of the smallest image that the layers for `made_for` pixels can pool."""
    least, side = 1, made_for
    while side > 4:
        least, side = 2 * least, side // 2
    return least


class GlimpseResNet(nn.Module):
    """A residual network's features, with or without a where-path.

    DT-RAM's encoder for CUB: ``h = ReLU(ResNet(crop) + W h)``. It takes glimpses of any size, so a
    thumbnail may be larger than the crops.

    Args:
        options: of the network; its channels are those of the images.
        out_features: width of the code; a linear layer adapts the network's width if it differs.
        location_embedding: whether a where-path is added to the features.
        where_features: hidden units of the where-path.
        scale: of the pixels.

    Attributes:
        bf16: whether the network runs under autocast to bfloat16.
    """

    def __init__(
        self,
        options: ResNetOptions,
        out_features: int,
        location_embedding: bool = True,
        where_features: int = 128,
        scale: PixelScale | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale or PixelScale()
        self.trunk = ResNetTrunk(options).to(memory_format=torch.channels_last)
        self.project: nn.Module = nn.Identity()
        if self.trunk.out_features != out_features:
            self.project = nn.Linear(self.trunk.out_features, out_features)
        self.where: nn.Module | None = None
        if location_embedding:
            self.where = nn.Sequential(
                _where_path(where_features), nn.ReLU(), nn.Linear(where_features, out_features)
            )
        self.bf16 = False

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        # Channels stay last in memory, as in glimpses: convolutions are faster so.
        pixels = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2)
        with autocast(pixels.device.type, self.bf16):
            features = self.trunk(pixels)
        code = self.project(features.to(location.dtype))
        return code if self.where is None else code + self.where(location)


WHERE_GAIN = 3.0
"""Factor of the initial weights of a where-path. Its two inputs within [-1, 1] would otherwise have
little influence beside the many pixels of a glimpse."""


def _where_path(features: int) -> nn.Linear:
    """The first layer of a where-path."""
    layer = nn.Linear(2, features)
    with torch.no_grad():
        layer.weight.mul_(WHERE_GAIN)
    return layer


ENCODERS: dict[str, type[nn.Module]] = {"mlp": GlimpseMLP, "conv": GlimpseConv, "cnn": GlimpseCNN}
"""Encoders of glimpses of one size, by name; the residual ones are `resnet.RESNETS`."""
