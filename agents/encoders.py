"""Glimpse encoders φ: what was seen, and where, as one vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PixelScale:
    """Pixels as the networks take them: ``(pixel - mean) / std``."""

    mean: float = 0.0
    """of the training images' pixels, 0 ... 255"""
    std: float = 255.0
    """their standard deviation"""

    def __call__(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        return (pixels.to(dtype) - self.mean) / self.std


class GlimpseMLP(nn.Module):
    """The RAM paper's encoder: a what-path and a where-path, one hidden layer each, then joined.

    Mnih et al. 2014, section 3.1 ("glimpse network"); sizes as in DT-RAM's MNIST model.

    Args:
        glimpse_shape: ``(g, g, channels)``, channels counting every scale.
        out_features: width of the code.
        what_features: hidden units of the what-path.
        where_features: hidden units of the where-path.
        scale: of the pixels; to [0, 1] if not given.
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
        """Encodes a batch.

        Args:
            glimpse: ``(B, g, g, channels)`` uint8.
            location: ``(B, 2)`` in [-1, 1].

        Returns:
            ``(B, out_features)``; the core applies the non-linearity.
        """
        pixels = self.scale(glimpse.flatten(1), location.dtype)
        what = torch.relu(self.what(pixels))
        where = torch.relu(self.where(location))
        return self.out(torch.relu(self.join(torch.cat([what, where], dim=1))))


class GlimpseConv(nn.Module):
    """A small convolutional what-path (two 3x3 layers, 2x2 pooling) beside the same where-path.

    Args:
        glimpse_shape: ``(g, g, channels)``, g at least 2.
        out_features: width of the code.
        filters: channels of the first convolution; the second has twice as many.
        where_features: hidden units of the where-path.
        scale: of the pixels; to [0, 1] if not given.

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
        self.where = _where_path(where_features)
        features = 2 * filters * (side // 2) ** 2
        self.join = nn.Linear(features + where_features, out_features)
        self.out = nn.Linear(out_features, out_features)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        """Encodes a batch; shapes as `GlimpseMLP.forward`."""
        pixels = self.scale(glimpse.permute(0, 3, 1, 2), location.dtype)
        what = torch.relu(self.conv1(pixels))
        what = torch.relu(nn.functional.max_pool2d(self.conv2(what), 2)).flatten(1)
        where = torch.relu(self.where(location))
        return self.out(torch.relu(self.join(torch.cat([what, where], dim=1))))


def _where_path(features: int) -> nn.Linear:
    """First layer of the where-path, with weights three times as wide as usual.

    Two inputs within [-1, 1] would else say little beside the many of a glimpse.
    """
    layer = nn.Linear(2, features)
    with torch.no_grad():
        layer.weight.mul_(3)
    return layer


ENCODERS: dict[str, type[nn.Module]] = {"mlp": GlimpseMLP, "conv": GlimpseConv}
