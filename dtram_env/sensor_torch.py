"""The glimpse sensor on tensors of any device, equal to `sensor` bit for bit."""

from typing import Protocol

import torch
from torch import Tensor

from .sensor import edge


class TorchStore(Protocol):
    """The images as the sensor reads them: `datasets.storage.store.Store` on tensors."""

    on_host: bool  # whether the images are on the host, so that reading waits for the device

    @property
    def channels(self) -> int: ...
    def __len__(self) -> int: ...
    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]: ...
    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor: ...
    def thumbnail(self, index: Tensor, side: int) -> Tensor: ...
    def whole(self, index: Tensor) -> Tensor: ...  # ``(B, H, W, C)``; all must have one size


def corner(coordinate: Tensor, size: int | Tensor, side: int) -> Tensor:
    """First row (or column) of a window centred at `coordinate`; see `sensor.corner`."""
    return torch.floor(edge(coordinate.double(), size, side)).long()


def glimpse(
    store: TorchStore, index: Tensor, location: Tensor, glimpse_size: int, num_scales: int = 1
) -> Tensor:
    """Takes glimpses as `sensor.glimpse` does, on the store's device.

    A NaN coordinate counts as 0: checking locations would wait for the device, so they may be
    unchecked.
    """
    location = location.nan_to_num(nan=0.0).clamp(-1.0, 1.0)
    height, width = store.size(index)
    scales = []
    for scale in range(num_scales):
        side = glimpse_size * 2**scale
        if isinstance(height, int) and height == width:  # one pass for both coordinates
            left, top = corner(location, height, side).unbind(-1)
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
