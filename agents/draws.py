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
    """its number"""
    processes: int
    """that share the batch"""
    images: int
    """in the whole batch"""
    rows: int | None = None
    """of a tensor for each image; None: as many as fit"""

    def own(self, images: int) -> int:
        """How many of the first images of the whole batch are here."""
        return len(range(self.process, images, self.processes))

    @property
    def part(self) -> float:
        """The share's part of the images."""
        return self.own(self.images) / self.images


_share: Share | None = None


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """The batches within are shares, or whole ones with None."""
    global _share
    before, _share = _share, share
    try:
        yield
    finally:
        _share = before


@contextmanager
def first_images(images: int, rows: int) -> Iterator[None]:
    """The tensors within have `rows` rows for each of the first `images` of the whole batch."""
    with sharing(_share and replace(_share, images=images, rows=rows)):
        yield


def whole_batch(images: int) -> int:
    """Images of the whole batch, of which `images` are here."""
    return images if _share is None else _share.images


def own_images(images: int) -> int:
    """How many of the first `images` of the whole batch are here."""
    return images if _share is None else _share.own(images)


def part_of_batch() -> float:
    """The part of the whole batch's images that is here."""
    return 1.0 if _share is None else _share.part


def rand(*shape: int, dim: int = 0, **options: Any) -> Tensor:
    """`torch.rand` of a shape whose dimension `dim` is the batch."""
    return _drawn(torch.rand, shape, dim, options)


def randn(*shape: int, dim: int = 0, **options: Any) -> Tensor:
    """`torch.randn` of a shape whose dimension `dim` is the batch."""
    return _drawn(torch.randn, shape, dim, options)


def randint(end: int, *shape: int, dim: int = 0, **options: Any) -> Tensor:
    """`torch.randint` below `end`, of a shape whose dimension `dim` is the batch."""
    return _drawn(partial(torch.randint, end), shape, dim, options)


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
