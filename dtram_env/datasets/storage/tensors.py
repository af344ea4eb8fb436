"""Image stores on tensors, for the torch sensor.

`TensorStore` holds padded images on the device, `FlatStore` images of any size on the device.
`HostStore` leaves the images in a numpy store on the host and sends the crops to the device.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...sensor_torch import TorchStore, area_average
from ..dataset import Dataset
from .mapped import MappedStore
from .store import Pictures, check_images, check_side
from .thumbnails import fits_int32

_DEVICE_SHARE = 0.4  # of the device's free memory that images may use


class TensorStore:
    """Images ``(N, H, W, C)`` uint8 on a device, with `margin` zeros on each side (`ArrayStore`).

    `sizes` ``(N, 2)`` int64 are height and width of each image, which lies at the top left of its
    H x W pixels, with zeros around it; None: all are H x W.
    """

    on_host = False

    def __init__(self, images: Tensor, margin: int, sizes: Tensor | None = None) -> None:
        check_images(images)
        _, self.height, self.width, self.channels = images.shape
        self.margin, self.sizes = margin, sizes
        self.padded = pad(images, (0, 0, margin, margin, margin, margin))
        self.images = self.padded[:, margin : margin + self.height, margin : margin + self.width]
        self._offsets: dict[int, Tensor] = {}
        self._thumbnails: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.padded)

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        if self.sizes is None:
            return self.height, self.width
        height, width = self.sizes[index].unbind(-1)
        return height, width

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        """Windows ``(B, side, side, C)`` uint8; they must lie inside the padded image."""
        _, height, width, channels = self.padded.shape
        first = (index * height + top + self.margin) * width + left + self.margin
        offsets = (first * channels)[:, None] + self._window(side)
        return self.padded.view(-1).take(offsets).view(len(index), side, side, channels)

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        """Whole images shrunk to ``(B, side, side, C)`` uint8; the first call shrinks all."""
        if self.sizes is None and self.height == self.width == side:
            return self.whole(index)
        if side not in self._thumbnails:
            self._thumbnails[side] = box_resize(self.images, side, self.sizes)
        return self._thumbnails[side][index]

    def whole(self, index: Tensor) -> Tensor:
        return self.images[index]

    def _window(self, side: int) -> Tensor:
        """Offsets ``(side * side * C,)`` of a window's elements from its first one."""
        if side not in self._offsets:
            _, height, width, channels = self.padded.shape
            check_side(side, height, width)
            device = self.padded.device
            lines = torch.arange(side, device=device) * (width * channels)
            columns = torch.arange(side * channels, device=device)
            self._offsets[side] = (lines[:, None] + columns).view(-1)
        return self._offsets[side]


class FlatStore:
    """Memory-mapped images copied to a device, one after another; never waits for the host."""

    on_host = False

    def __init__(self, store: MappedStore, device: torch.device) -> None:
        self._host = store
        self.channels = store.channels
        lengths = store.sizes.prod(axis=1) * store.channels
        starts = np.cumsum(lengths) - lengths
        self._flat = torch.empty(int(lengths.sum()), dtype=torch.uint8, device=device)
        for i, start in enumerate(starts.tolist()):
            image = store.image(i).reshape(-1)
            self._flat[start : start + len(image)] = send(image, device)
        self._starts, self._sizes = send(starts, device), send(store.sizes, device)
        self.largest = tuple(store.sizes.max(axis=0).tolist())  # height, width
        self._thumbnails: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        height, width = self._host.equal_size or self._sizes[index].unbind(-1)
        return height, width

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        height, width = (part[:, None] for part in self._sizes[index].unbind(-1))
        steps = torch.arange(side, device=index.device)
        y, x = top[:, None] + steps, left[:, None] + steps
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        pixel = (y * width)[:, :, None] + x[:, None, :]
        first = self._starts[index, None, None] + pixel * self.channels
        channels = torch.arange(self.channels, device=index.device)
        offsets = torch.where(inside, first, 0)[..., None] + channels
        return torch.where(inside[..., None], self._flat.take(offsets), 0)

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        if self._host.equal_size == (side, side):
            return self.whole(index)
        if side not in self._thumbnails:
            parts = np.array_split(np.arange(len(self)), max(1, len(self) // 512))
            made = [send(self._host.thumbnail(part, side), index.device) for part in parts]
            self._thumbnails[side] = torch.cat(made)
        return self._thumbnails[side][index]

    def whole(self, index: Tensor) -> Tensor:
        if self._host.equal_size is None:
            raise ValueError("the images differ in size: they do not fit into one batch")
        height, width = self._host.equal_size
        length = height * width * self.channels
        offsets = self._starts[index, None] + torch.arange(length, device=index.device)
        return self._flat.take(offsets).view(len(index), height, width, self.channels)


class HostStore:
    """Images on the host: a crop reads the locations from the device and sends the pixels back."""

    on_host = True

    def __init__(self, store: Pictures, device: torch.device) -> None:
        self.store, self._device = store, device
        self.channels = store.channels

    def __len__(self) -> int:
        return len(self.store)

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        if self.store.equal_size is not None:
            return self.store.equal_size
        height, width = self.store.size(index.cpu().numpy())
        return send(np.asarray(height), self._device), send(np.asarray(width), self._device)

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        i, y, x = torch.stack([index, top, left]).cpu().numpy()  # waits for the device once
        return send(self.store.crop(i, y, x, side), self._device)

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        return send(self.store.thumbnail(index.cpu().numpy(), side), self._device)

    def whole(self, index: Tensor) -> Tensor:
        images = np.stack([self.store.image(i) for i in index.cpu().numpy()])
        return send(images, self._device)


def send(values: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device, without waiting for it."""
    if not values.flags.writeable:  # torch warns about memory that it must not write to
        values = values.copy()
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def make_store(data: Dataset, margin: int, device: torch.device) -> TorchStore:
    """A dataset's store: on the device, unless the images are drawn on demand or too many."""
    if isinstance(data.images, np.ndarray):
        return TensorStore(send(data.images, device), margin)
    if device.type == "cuda" and isinstance(data.images, MappedStore):
        free, _ = torch.cuda.mem_get_info(device)
        if data.images.sizes.prod(axis=1).sum() * data.images.channels < _DEVICE_SHARE * free:
            return FlatStore(data.images, device)
    return HostStore(data.images, device)


def box_resize(images: Tensor, side: int, sizes: Tensor | None = None) -> Tensor:
    """`thumbnails.box_resize`, to the last bit; `sizes` as for `TensorStore`."""
    batch, height, width, _ = images.shape
    if sizes is None:
        if height == width and height % side == 0:
            return area_average(images.contiguous(), height // side)
        heights, widths = (torch.full((1,), n, device=images.device) for n in (height, width))
    else:
        heights, widths = sizes.unbind(-1)
    rows, row_shares = _taps(heights, side, height)
    columns, column_shares = _taps(widths, side, width)
    every = torch.arange(batch, device=images.device)[:, None]
    dtype = torch.int32 if fits_int32(height * width) else torch.int64
    tall: Any = 0
    for row, share in zip(rows.unbind(-1), row_shares.to(dtype).unbind(-1), strict=True):
        tall = tall + images[every, row.expand(batch, -1)] * share[..., None, None]
    total: Any = 0
    for column, share in zip(columns.unbind(-1), column_shares.to(dtype).unbind(-1), strict=True):
        index = column[:, None, :, None].expand(batch, side, -1, images.shape[3])
        total = total + tall.gather(2, index) * share[:, None, :, None]
    area = (heights * widths)[:, None, None, None].to(dtype)
    return torch.div(2 * total + area, 2 * area, rounding_mode="floor").to(torch.uint8)


def _taps(sizes: Tensor, side: int, largest: int) -> tuple[Tensor, Tensor]:
    """`thumbnails.box_taps` for each of the sizes ``(N,)``: two ``(N, side, K)`` int64."""
    most = largest // side + 2  # pixels that an output pixel may touch
    edges = torch.arange(side + 1, device=sizes.device) * sizes[:, None]
    first = edges[:, :-1] // side
    pixels = first[..., None] + torch.arange(most, device=sizes.device)
    begin, end = edges[:, :-1, None], edges[:, 1:, None]
    overlap = torch.minimum(end, (pixels + 1) * side) - torch.maximum(begin, pixels * side)
    return torch.minimum(pixels, sizes[:, None, None] - 1), overlap.clamp(min=0)
