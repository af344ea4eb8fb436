"""Spatially Adaptive Computation Time (SACT): each position of a ResNet's block halts separately.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 2 and figure 4. Within a block a position that has halted is not computed any
more; it keeps its values, which its neighbours read. A block's ponder cost is the mean of the
positions' own, see `act`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, max_pool2d, pad

from ..resnet import PreActivationBasic
from .act_resnet import ACTResNet, ImageScore


class PositionScore(ImageScore):
    """SACT's halting scores, ``h = σ(w * x + W pool(x) + b)`` with a 3x3 convolution ``*``.

    They, and `active`, have the shape ``(B, h, w)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.near = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.near.weight)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean(dim=(2, 3)))[..., None]
        return torch.sigmoid((self.near(x)[:, 0] + whole).float())

    def at(self, x: Tensor, active: Tensor) -> Tensor:
        index = active.flatten(1).any(dim=1).nonzero()[:, 0]
        image = active[index].nonzero()[:, 0]
        whole = self.whole(x[index].mean(dim=(2, 3)))[image, 0]
        return torch.sigmoid((convolve_at(self.near, x, active)[:, 0] + whole).float())

    @staticmethod
    def places(x: Tensor) -> Tensor:
        return x[:, 0]


class SACTResNet(ACTResNet):
    """A ResNet in which each position takes as many residual units of a block as it needs.

    In training every position is computed and masked. In evaluation a residual unit gathers the
    inputs of the active positions, convolves them and scatters the results back, so halted
    positions cost only copies. If another 3x3 convolution follows, one is also computed at the
    neighbours of active positions, which the next reads.

    Arguments, attributes and `forward` are those of `ACTResNet`.
    """

    KIND = "ResNet with SACT"
    SCORE = PositionScore

    def _advance(self, unit: Any, x: Tensor, active: Tensor) -> Tensor:
        return _put(x, active, unit_at(unit, x, active))


def unit_at(unit: Any, x: Tensor, active: Tensor) -> Tensor:
    """Output ``(n, C)`` of a residual unit at the n True positions of `active` ``(B, h, w)``.

    The unit is in evaluation mode and keeps the shape of its input `x` ``(B, C, h, w)``.
    """
    pre = isinstance(unit, PreActivationBasic)
    convs, needed = convolutions(unit), needed_positions(unit, active)
    norms = [getattr(unit, f"bn{k}") for k in range(1, len(convs) + 1)]
    seen = torch.relu(norms[0](x)) if pre else x
    for k, (conv, where) in enumerate(zip(convs, needed, strict=True)):
        values = convolve_at(conv, seen, where)
        if not pre:
            values = _normalise(norms[k], values)
        if k + 1 == len(convs):
            break
        if pre:
            values = _normalise(norms[k + 1], values)
        # The next convolution reads no other positions, so they may be 0.
        empty = x.new_zeros(len(x), values.shape[1], *x.shape[2:])
        seen = _put(empty.to(memory_format=torch.channels_last), where, torch.relu(values))
    values = values + x.permute(0, 2, 3, 1)[active]
    return values if pre else torch.relu(values)


def convolve_at(conv: nn.Conv2d, x: Tensor, where: Tensor) -> Tensor:
    """Output ``(n, channels)`` of a convolution at the n True positions of `where` ``(B, h, w)``.

    The convolution is 1x1 or 3x3, of stride 1, without bias, and padded by half its kernel. Its
    input `x` is ``(B, C, h, w)``; it is fastest if channels are last in memory.
    """
    x = x.permute(0, 2, 3, 1)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # (out, rows x columns x C)
    if conv.kernel_size == (1, 1):
        return linear(x[where], weight)
    image, row, column = where.nonzero(as_tuple=True)
    width = x.shape[2] + 2
    x = pad(x, (0, 0, 1, 1, 1, 1))
    corner = (image * x.shape[1] + row) * width + column  # of the 3x3, upper left
    three = torch.arange(3, device=x.device)
    patch = (three[:, None] * width + three).flatten()
    return linear(x.flatten(0, 2)[corner[:, None] + patch].flatten(1), weight)


def _put(x: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """A copy of `x` ``(B, C, h, w)`` with `values` ``(n, C)`` at n positions."""
    index = where.flatten().nonzero()[:, 0]
    last = x.permute(0, 2, 3, 1)
    put = last.reshape(-1, x.shape[1]).index_copy(0, index, values.to(x.dtype))
    return put.view(last.shape).permute(0, 3, 1, 2)


def _normalise(norm: nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Batch norm of ``(n, C)`` in evaluation mode."""
    return norm(values[..., None, None])[..., 0, 0]


def needed_positions(unit: nn.Module, active: Tensor) -> list[Tensor]:
    """Positions ``(B, h, w)`` bool of each convolution that the unit's output at `active` needs."""
    needed = [active]
    for conv in convolutions(unit)[:0:-1]:
        around = needed[0]
        if conv.kernel_size != (1, 1):
            around = max_pool2d(around[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
        needed.insert(0, around)
    return needed


def convolutions(unit: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a residual unit, in order; the last is a shortcut's if it has one."""
    return [part for part in unit.modules() if isinstance(part, nn.Conv2d)]
