"""Images as tensors, for the torch sensor: on the device, or on the host and sent when asked for.

Three stores hold the images: `TensorStore` equal ones, padded (or a batch of different ones);
`FlatStore` images of any size on the device; `HostStore` leaves them on the host, in the store that
numpy uses, and sends what is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...sensor_torch import TorchStore, area_average
from .mapped import MappedStore
from .thumbnails import box_taps, fits_int32

if TYPE_CHECKING:
    from ..dataset import Dataset
    from .store import Pictures

_SHARE_OF_DEVICE = 0.4  # of the free memory, that images may take


class TensorStore:
    """Images on a device, padded with zeros; `datasets.store.ArrayStore` on tensors.

    Args:
        images: ``(N, H, W, C)`` uint8.
        margin: zeros added on each side, in pixels (`sensor.margin`).
        sizes: ``(N, 2)`` int64, height and width of each image, which then is at the top left of
            its H x W pixels, and zeros are the rest; None if all are H x W.
    """

    on_host = False

    def __init__(self, images: Tensor, margin: int, sizes: Tensor | None = None) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                f"images: expected uint8 of shape (N, H, W, C), "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        self.height, self.width, self.margin = images.shape[1], images.shape[2], margin
        self.sizes = sizes
        self.padded = pad(images, (0, 0, margin, margin, margin, margin))
        self._offsets: dict[int, Tensor] = {}
        self._thumbnails: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.padded)

    @property
    def channels(self) -> int:
        return self.padded.shape[3]

    @property
    def images(self) -> Tensor:
        """The unpadded images ``(N, H, W, C)``, a view."""
        m = self.margin
        return self.padded[:, m : m + self.height, m : m + self.width]

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        if self.sizes is None:
            return self.height, self.width
        height, width = self.sizes[index].unbind(-1)
        return height, width

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        """Windows ``(B, side, side, C)`` uint8; see `datasets.store.Store.crop`."""
        _, height, width, channels = self.padded.shape
        line = (index * height + top + self.margin) * width + left + self.margin
        offsets = (line * channels)[:, None] + self._window(side)
        taken = self.padded.view(-1).take(offsets)
        return taken.view(len(index), side, side, channels)

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        """Whole images shrunk to ``(B, side, side, C)`` uint8; all are made at the first call."""
        if side not in self._thumbnails:
            self._thumbnails[side] = box_resize(self.images, side, self.sizes)
        return self._thumbnails[side][index]

    def whole(self, index: Tensor) -> Tensor:
        return self.images[index]

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


class FlatStore:
    """Images of any size on a device, one after another, unpadded: nothing waits for the host.

    Args:
        store: the mapped images; all are copied to the device.
        device: where they go.
    """

    on_host = False

    def __init__(self, store: MappedStore, device: torch.device) -> None:
        self._host = store
        self.channels = store.channels
        lengths = store.sizes.prod(axis=1) * store.channels
        starts = np.cumsum(lengths) - lengths
        self._flat = torch.empty(int(lengths.sum()), dtype=torch.uint8, device=device)
        for i, start in enumerate(starts.tolist()):
            image = torch.from_numpy(store.image(i).reshape(-1).copy())
            self._flat[start : start + len(image)] = image.to(device)
        self._starts = torch.from_numpy(starts).to(device)
        self._sizes = torch.from_numpy(store.sizes.copy()).to(device)
        self._thumbnails: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        if self._host.equal_size is not None:
            return self._host.equal_size
        height, width = self._sizes[index].unbind(-1)
        return height, width

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        height, width = (part[:, None] for part in self._sizes[index].unbind(-1))
        steps = torch.arange(side, device=index.device)
        rows, columns = top[:, None] + steps, left[:, None] + steps
        inside = ((rows >= 0) & (rows < height))[:, :, None]
        inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
        pixel = (rows * width)[:, :, None] + columns[:, None, :]
        first = self._starts[index, None, None] + pixel * self.channels
        channels = torch.arange(self.channels, device=index.device)
        place = torch.where(inside, first, 0)[..., None] + channels
        return torch.where(inside[..., None], self._flat.take(place), 0)

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        if side not in self._thumbnails:
            made = [
                torch.from_numpy(self._host.thumbnail(rows, side).copy())
                for rows in np.array_split(np.arange(len(self)), max(1, len(self) // 512))
            ]
            self._thumbnails[side] = torch.cat(made).to(index.device)
        return self._thumbnails[side][index]

    def whole(self, index: Tensor) -> Tensor:
        if self._host.equal_size is None:
            raise ValueError("the images differ in size: no batch of whole ones can be made")
        height, width = self._host.equal_size
        length = height * width * self.channels
        place = self._starts[index, None] + torch.arange(length, device=index.device)
        return self._flat.take(place).view(len(index), height, width, self.channels)


class HostStore:
    """Images that stay on the host: looking asks the device where, and sends what is seen there.

    Args:
        store: the images.
        device: where windows go.
    """

    on_host = True

    def __init__(self, store: Pictures, device: torch.device) -> None:
        self.store, self._device = store, device

    def __len__(self) -> int:
        return len(self.store)

    @property
    def channels(self) -> int:
        return self.store.channels

    def size(self, index: Tensor) -> tuple[Tensor | int, Tensor | int]:
        if self.store.equal_size is not None:
            return self.store.equal_size
        height, width = self.store.size(index.cpu().numpy())
        return self._send(np.asarray(height)), self._send(np.asarray(width))

    def crop(self, index: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        i, y, x = torch.stack([index, top, left]).cpu().numpy()  # one wait, not three
        return self._send(self.store.crop(i, y, x, side))

    def thumbnail(self, index: Tensor, side: int) -> Tensor:
        return self._send(self.store.thumbnail(index.cpu().numpy(), side))

    def whole(self, index: Tensor) -> Tensor:
        return self._send(np.stack([self.store.image(i) for i in index.cpu().numpy()]))

    def _send(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def make_store(data: Dataset, margin: int, device: torch.device) -> TorchStore:
    """The store of a dataset: on the device, unless its images are too many or drawn."""
    if isinstance(data.images, np.ndarray):
        images = torch.from_numpy(data.images.copy())  # torch warns of read-only memory
        if device.type == "cuda":
            images = images.pin_memory()
        return TensorStore(images.to(device, non_blocking=True), margin)
    if device.type == "cuda" and isinstance(data.images, MappedStore):
        free, _ = torch.cuda.mem_get_info(device)
        if data.images.sizes.prod(axis=1).sum() * data.images.channels < _SHARE_OF_DEVICE * free:
            return FlatStore(data.images, device)
    return HostStore(data.images, device)


def box_resize(images: Tensor, side: int, sizes: Tensor | None = None) -> Tensor:
    """The exact box filter of `datasets.thumbnails.box_resize`, bit for bit.

    Args:
        images: ``(N, H, W, C)`` uint8.
        side: output side in pixels.
        sizes: ``(N, 2)`` int64, what of each image counts, from its top left; None: all of it.

    Returns:
        ``(N, side, side, C)`` uint8.
    """
    batch, height, width, _ = images.shape
    if sizes is None:
        if height == width and height % side == 0:
            return area_average(images.contiguous(), height // side)
        heights, widths = (torch.tensor([n], device=images.device) for n in (height, width))
    else:
        heights, widths = sizes.unbind(-1)
    rows, row_shares = _taps(heights, side, height)
    columns, column_shares = _taps(widths, side, width)
    everyone = torch.arange(batch, device=images.device)[:, None]
    dtype = torch.int32 if fits_int32(height * width) else torch.int64
    tall: Any = 0
    for k in range(rows.shape[2]):
        share = row_shares[..., k, None, None].to(dtype)
        tall = tall + images[everyone, rows[..., k].expand(batch, -1)] * share
    total: Any = 0
    for k in range(columns.shape[2]):
        share = column_shares[:, None, :, k, None].to(dtype)
        columns_k = columns[..., k].expand(batch, -1)
        index = columns_k[:, None, :, None].expand(-1, side, -1, images.shape[3])
        total = total + tall.gather(2, index) * share
    area = (heights * widths)[:, None, None, None].to(dtype)
    return torch.div(2 * total + area, 2 * area, rounding_mode="floor").to(torch.uint8)


def _taps(sizes: Tensor, side: int, largest: int) -> tuple[Tensor, Tensor]:
    """`box_taps` for each size ``(N,)``: pixels and shares ``(N, side, K)`` int64."""
    most = box_taps(largest, side)[0].shape[1] + 1  # a smaller size may straddle one pixel more
    edges = torch.arange(side + 1, device=sizes.device) * sizes[:, None]
    first = edges[:, :-1] // side
    pixels = first[..., None] + torch.arange(most, device=sizes.device)
    begin, end = edges[:, :-1, None], edges[:, 1:, None]
    overlap = torch.minimum(end, (pixels + 1) * side) - torch.maximum(begin, pixels * side)
    return torch.minimum(pixels, sizes[:, None, None] - 1), overlap.clamp(min=0)
