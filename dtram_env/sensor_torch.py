"""The glimpse sensor on tensors: bit for bit the same as `sensor`, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


class TensorStore:
    """Equal images on a device, padded with zeros; `datasets.store.ArrayStore` on tensors.

    Args:
        images: ``(N, H, W, C)`` uint8.
        margin: zeros added on each side, in pixels (`sensor.margin`).
    """

    def __init__(self, images: Tensor, margin: int) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                f"images: expected uint8 of shape (N, H, W, C), "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        self.height, self.width, self.margin = images.shape[1], images.shape[2], margin
        self.padded = torch.nn.functional.pad(images, (0, 0, margin, margin, margin, margin))
        self._offsets: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.padded)

    @property
    def images(self) -> Tensor:
        """The unpadded images ``(N, H, W, C)``, a view."""
        m = self.margin
        return self.padded[:, m : m + self.height, m : m + self.width]

    def size(self, index: Tensor) -> tuple[int, int]:
        return self.height, self.width

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        """Windows ``(B, side, side, C)`` uint8; see `datasets.store.Store.crop`."""
        _, height, width, channels = self.padded.shape
        line = (index * height + top + self.margin) * width + left + self.margin
        offsets = (line * channels)[:, None] + self._window(side)
        taken = self.padded.view(-1).take(offsets)
        return taken.view(len(index), side, side, channels)

    def _window(self, side: int) -> Tensor:
        """Offsets ``(side * side * C,)`` of a window's pixels from its first one, in elements."""
        if side not in self._offsets:
            _, height, width, channels = self.padded.shape
            if side > min(height, width):
                raise ValueError(
                    f"side={side}: larger than the padded image, {height}x{width}; "
                    "make the store with a larger margin"
                )
            device = self.padded.device
            rows = torch.arange(side, device=device) * (width * channels)
            columns = torch.arange(side * channels, device=device)
            self._offsets[side] = (rows[:, None] + columns).view(-1)
        return self._offsets[side]


def corner(coordinate: Tensor, size: int, side: int) -> Tensor:
    """First row (or column) of a window centred at `coordinate`; see `sensor.corner`."""
    centre = (coordinate.double() + 1.0) * size / 2
    return torch.floor(centre - side / 2 + 0.5).long()


def glimpse(
    store: TensorStore, index: Tensor, location: Tensor, glimpse_size: int, num_scales: int = 1
) -> Tensor:
    """Looks at images; shapes and meaning as `sensor.glimpse`.

    A NaN counts as 0: nobody may have checked the location, as that would wait for the device.

    Returns:
        ``(B, g, g, C * num_scales)`` uint8 on the store's device.
    """
    location = location.nan_to_num(nan=0.0).clamp(-1.0, 1.0)
    height, width = store.size(index)
    scales = []
    for scale in range(num_scales):
        side = glimpse_size * 2**scale
        if height == width:  # one pass for both coordinates
            left, top = corner(location, width, side).unbind(-1)
        else:
            left = corner(location[:, 0], width, side)
            top = corner(location[:, 1], height, side)
        scales.append(area_average(store.crop(index, top, left, side), 2**scale))
    return scales[0] if num_scales == 1 else torch.cat(scales, dim=-1)


def area_average(windows: Tensor, factor: int) -> Tensor:
    """Shrinks ``(B, s, s, C)`` uint8 by an integer factor; see `sensor.area_average`."""
    if factor == 1:
        return windows
    batch, side, _, channels = windows.shape
    small = side // factor
    blocks = windows.view(batch, small, factor, small, factor, channels)
    n = factor * factor
    return ((blocks.sum(dim=(2, 4), dtype=torch.int64) + n // 2) // n).to(torch.uint8)
