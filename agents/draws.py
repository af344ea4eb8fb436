"""Random numbers for the images of a batch, the same however many processes share the batch.

Process r of n holds the images r, r + n, r + 2n, ... of each batch. It draws the numbers of the
whole batch and takes those of its own images, so that all generators stay in the same state, and an
image gets the numbers that one process would give it. Where nothing is shared, the functions are
torch's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


@dataclass(frozen=True)
class Share:
    """A process's share of a batch."""

    process: int
    """number of this process"""
    processes: int
    """number of processes that share the batch"""
    images: int
    """number of images in the whole batch"""
    rows: int | None = None
    """number of rows that a tensor has for each image, M for trajectories; None: its rows divided
    by the images of this process"""

    def own(self, images: int) -> int:
        """How many of the first `images` images of the whole batch this process holds."""
        return len(range(self.process, images, self.processes))

    @property
    def part(self) -> float:
        """Fraction of the whole batch's images that this process holds, in [0, 1]."""
        return self.own(self.images) / self.images


_share: Share | None = None


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Inside, each batch is this process's share of one, or with None a whole batch."""
    global _share
    before, _share = _share, share
    try:
        yield
    finally:
        _share = before


@contextmanager
def first_images(images: int, rows: int) -> Iterator[None]:
    """Inside, tensors have `rows` rows for each of the first `images` images of the whole batch."""
    with sharing(_share and replace(_share, images=images, rows=rows)):
        yield


def whole_batch(images: int) -> int:
    """Number of images in the whole batch, of which this process holds `images`."""
    return images if _share is None else _share.images


def own_images(images: int) -> int:
    """How many of the first `images` images of the whole batch this process holds."""
    return images if _share is None else _share.own(images)


def part_of_batch() -> float:
    """Fraction of the whole batch's images that this process holds, in [0, 1]."""
    return 1.0 if _share is None else _share.part


def rand(*shape: int, dim: int = 0, **options: Any) -> Tensor:
    """`torch.rand` of a shape whose dimension `dim` is the batch."""
    return _drawn(torch.rand, shape, dim, options)


def randn(*shape: int, dim: int = 0, **options: Any) -> Tensor:
    """`torch.randn` of a shape whose dimension `dim` is the batch."""
    return _drawn(torch.randn, shape, dim, options)


def randint(end: int, *shape: int, **options: Any) -> Tensor:
    """`torch.randint` below `end`, of a shape whose first dimension is the batch."""
    return _drawn(partial(torch.randint, end), shape, 0, options)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` of features ``(B, ...)``."""

    def forward(self, features: Tensor) -> Tensor:
        if _share is None or not self.training:
            return super().forward(features)

        def kept(shape: tuple[int, ...], **options: Any) -> Tensor:
            return dropout(torch.ones(shape, **options), self.p)

        like = {"device": features.device, "dtype": features.dtype}
        return features * _drawn(kept, features.shape, 0, like)


def _drawn(
    draw: Callable[..., Tensor], shape: tuple[int, ...], dim: int, options: dict[str, Any]
) -> Tensor:
    share = _share
    if share is None:
        return draw(shape, **options)
    rows = share.rows or shape[dim] // share.own(share.images)
    whole = draw((*shape[:dim], share.images * rows, *shape[dim + 1 :]), **options)
    by_image = whole.unflatten(dim, (share.images, rows))
    own = (slice(None),) * dim + (slice(share.process, None, share.processes),)
    return by_image[own].flatten(dim, dim + 1)
