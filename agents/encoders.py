"""Glimpse encoders φ: a glimpse and its location become one vector.

An encoder is called with glimpses ``(B, g, g, channels)`` uint8, channels counting every scale, and
locations ``(B, 2)`` in [-1, 1]. It returns ``(B, out_features)``; the core applies the
non-linearity. Its where-path of `where_features` hidden units reads the location; 0: it has none.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .precision import autocast
from .resnet import ResNetBackbone, ResNetOptions

WHERE_FEATURES = 128  # hidden units of a where-path
WHERE_GAIN = 3.0
"""Factor of the initial weights of a where-path. Its two inputs within [-1, 1] would otherwise have
little influence beside the many pixels of a glimpse."""
FILTERS = 16  # channels of the first convolution of `GlimpseConv` and `GlimpseCNN`


class PixelScale(nn.Module):
    """Normalises pixels: ``(pixel - mean) / std``, as numbers or one for each channel."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | tuple[float, ...] = 0.0, std: float | tuple[float, ...] = 255.0
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Scales pixels ``(B, H, W, C)``; the scales of a glimpse are stacked as channels."""

        def each(values: Tensor) -> Tensor:
            count = 1 if values.ndim == 0 else pixels.shape[-1] // len(values)
            return values.to(dtype).repeat(count) if count > 1 else values.to(dtype)

        return (pixels.to(dtype) - each(self.mean)) / each(self.std)


class _GlimpseEncoder(nn.Module):
    """A what-path that reads the pixels, joined with a where-path; `scale` is to [0, 1] if None."""

    make_what: Callable[..., int]  # makes the what-path for a glimpse_shape, returns its features

    def __init__(
        self,
        glimpse_shape: tuple[int, int, int],
        out_features: int = 256,
        where_features: int = WHERE_FEATURES,
        scale: PixelScale | None = None,
        **options: int,
    ) -> None:
        super().__init__()
        self.scale = scale or PixelScale()
        features = self.make_what(glimpse_shape, **options)
        self.where = _where_path(where_features) if where_features else None
        self.join = nn.Linear(features + where_features, out_features)
        self.out = nn.Linear(out_features, out_features)

    def features(self, pixels: Tensor) -> Tensor:
        """The what-path: normalised pixels ``(B, g, g, channels)`` to ``(B, features)``."""
        raise NotImplementedError

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        joined = self.features(self.scale(glimpse, location.dtype))
        if self.where is not None:
            joined = torch.cat([joined, torch.relu(self.where(location))], dim=1)
        return self.out(torch.relu(self.join(joined)))


class GlimpseMLP(_GlimpseEncoder):
    """The RAM paper's encoder: a what-path of one hidden layer.

    Mnih et al. 2014, section 3.1 ("glimpse network"); sizes as in DT-RAM's MNIST model.
    """

    def make_what(self, shape: tuple[int, int, int], what_features: int = 128) -> int:
        self.what = nn.Linear(math.prod(shape), what_features)
        return what_features

    def features(self, pixels: Tensor) -> Tensor:
        return torch.relu(self.what(pixels.flatten(1)))


class GlimpseConv(_GlimpseEncoder):
    """Two 3x3 convolutions and 2x2 pooling of glimpses of at least 2x2 pixels."""

    def make_what(self, shape: tuple[int, int, int]) -> int:
        side, _, channels = shape
        self.conv1 = nn.Conv2d(channels, FILTERS, 3, padding=1)
        self.conv2 = nn.Conv2d(FILTERS, 2 * FILTERS, 3, padding=1)
        return 2 * FILTERS * (side // 2) ** 2

    def features(self, pixels: Tensor) -> Tensor:
        x = torch.relu(self.conv1(pixels.permute(0, 3, 1, 2)))
        return torch.relu(max_pool2d(self.conv2(x), 2)).flatten(1)


class GlimpseCNN(_GlimpseEncoder):
    """A deeper what-path for glimpses of some dozens of pixels, at least 8x8.

    3x3 convolutions, each followed by ReLU and all but the first by 2x2 max-pooling, until at most
    4 pixels a side remain. So textures of a few pixels are read at full resolution. The first layer
    has `FILTERS` channels, and each further one half of `FILTERS` more.
    """

    def make_what(self, shape: tuple[int, int, int]) -> int:
        side, _, channels = shape
        width = FILTERS
        convs = [nn.Conv2d(channels, width, 3, padding=1)]
        while side > 4:
            convs.append(nn.Conv2d(width, width + FILTERS // 2, 3, padding=1))
            side, width = side // 2, width + FILTERS // 2
        self.convs = nn.ModuleList(convs).to(memory_format=torch.channels_last)  # as glimpses are
        return width * side**2

    def features(self, pixels: Tensor) -> Tensor:
        first, *rest = self.convs
        x = torch.relu(first(pixels.permute(0, 3, 1, 2)))
        for conv in rest:
            x = max_pool2d(torch.relu(conv(x)), 2)
        return x.flatten(1)


class GlimpseResNet(nn.Module):
    """A residual network's features, with or without a where-path.

    DT-RAM's encoder for CUB: ``h = ReLU(ResNet(crop) + W h)``. It takes glimpses of any size, so a
    thumbnail may be larger than the crops. A linear layer adapts the network's width if it differs
    from `out_features`.

    Attributes:
        bf16: whether the network runs under autocast to bfloat16.
    """

    def __init__(
        self, options: ResNetOptions, out_features: int, where_features: int, scale: PixelScale
    ) -> None:
        super().__init__()
        self.scale = scale
        # `trunk` is its name in saved files.
        self.trunk = ResNetBackbone(options).to(memory_format=torch.channels_last)
        self.project: nn.Module = nn.Identity()
        if self.trunk.out_features != out_features:
            self.project = nn.Linear(self.trunk.out_features, out_features)
        self.where: nn.Module | None = None
        if where_features:
            layers = _where_path(where_features), nn.ReLU(), nn.Linear(where_features, out_features)
            self.where = nn.Sequential(*layers)
        self.bf16 = False

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        # Channels stay last in memory, as in glimpses: convolutions are faster so.
        pixels = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2)
        with autocast(pixels.device.type, self.bf16):
            features = self.trunk(pixels)
        code = self.project(features.to(location.dtype))
        return code if self.where is None else code + self.where(location)


def _where_path(features: int) -> nn.Linear:
    """The first layer of a where-path."""
    layer = nn.Linear(2, features)
    with torch.no_grad():
        layer.weight.mul_(WHERE_GAIN)
    return layer


ENCODERS: dict[str, type[nn.Module]] = {"mlp": GlimpseMLP, "conv": GlimpseConv, "cnn": GlimpseCNN}
"""Encoders of glimpses of one size, by name; the residual ones are `resnet.RESNETS`."""
SMALLEST = {"conv": 2, "cnn": 8}
"""Smallest side of a glimpse in pixels, by encoder; mlp takes any."""


def smallest_side(config: Any) -> int:
    """Smallest side, in pixels, of what the encoder of a `DTRAMConfig` or `OneLookConfig` takes."""
    return config.resnet.smallest_image if config.resnet else SMALLEST.get(config.encoder, 1)


def make_encoder(config: Any, shape: tuple[int, int, int], where_features: int) -> nn.Module:
    """The encoder that a `DTRAMConfig` or `OneLookConfig` names, for glimpses of a shape."""
    scale, width = PixelScale(config.pixel_mean, config.pixel_std), config.hidden_size
    if config.resnet:
        encoder = GlimpseResNet(config.resnet, width, where_features, scale)
        encoder.trunk.freeze_batch_norm(config.frozen_norms)
        return encoder
    made = ENCODERS[config.encoder]
    return made(shape, width, where_features=where_features, scale=scale)
