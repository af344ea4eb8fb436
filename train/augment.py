"""Augmentation per batch, on the device that holds the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True)
class Affine:
    """Random small affine changes, drawn uniformly and independently for every image.

    ``strength`` scales all four ranges; 0 leaves the images as they are.
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

    def __call__(self, images: Tensor) -> Tensor:
        """Changes a batch ``(B, H, W, C)`` uint8; pixels from outside are 0; returns the same kind.

        Draws from torch's global generator of the images' device.
        """
        if self.strength == 0:
            return images
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
        grid = affine_grid(theta, [batch, channels, height, width], align_corners=False)
        moved = grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
        return (moved + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
