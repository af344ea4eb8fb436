"""Spatially Adaptive Computation Time: every position of a ResNet's block halts by itself.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 2 and figure 4. Within a block a position that has halted is computed no more
and keeps what it had, for its neighbours to read. Its ponder cost is that of `act` at each
position; a block's is the mean over positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate, linear, max_pool2d, pad

from ..resnet import PreActivationBasic, PreActivationBottleneck
from .act import HALTING_BIAS
from .act_resnet import ACTResNet, ImageScore, convolutions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PositionScore(ImageScore):
    """SACT's halting scores, ``h = σ(w * x + W pool(x) + b)``, ``*`` a 3x3 convolution."""

    def __init__(self, channels: int, bias: float = HALTING_BIAS) -> None:
        super().__init__(channels, bias)
        self.near = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.near.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, h, w)`` float32 of ``(B, channels, h, w)``."""
        whole = self.whole(x.mean(dim=(2, 3)))[..., None]
        return torch.sigmoid((self.near(x)[:, 0] + whole).float())

    def at(self, x: Tensor, active: Tensor) -> Tensor:
        """The same ``(n,)`` at the n positions of ``(B, h, w)`` bool, and only there."""
        rows = active.flatten(1).any(dim=1).nonzero()[:, 0]
        image = active[rows].nonzero()[:, 0]
        whole = self.whole(x[rows].mean(dim=(2, 3)))[image, 0]
        return torch.sigmoid((convolve_at(self.near, x, active)[:, 0] + whole).float())


class SACTResNet(ACTResNet):
    """A ResNet each of whose four blocks takes as many residual units as each position needs.

    In training every position is computed, and masked. In evaluation a residual unit gathers what
    the active positions read, convolves that, and scatters it back: what has halted costs nothing
    but copies. A 3x3 convolution before another one is also computed around the active positions,
    as the second reads it there.

    Arguments, attributes and `forward` are those of `ACTResNet`.
    """

    KIND = "ResNet with SACT"

    def _make_score(self, channels: int) -> nn.Module:
        return PositionScore(channels, self.config.halting_bias)

    def _grid(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def _advance(self, unit: Any, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        if dense:
            return torch.where(active[:, None], unit(x), x)
        if active.all():
            return unit(x)  # as much, in one go
        return _put(x, active, unit_at(unit, x, active)) if active.any() else x

    def _score(self, score: Any, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        if dense or active.all():
            return score(x)
        scores = score.at(x, active)
        return scores.new_zeros(active.shape).masked_scatter(active, scores)

    def _unit_macs(self, unit: Any, active: Tensor, positions: int) -> Tensor:
        steps = zip(_main_path(unit), _needed(unit, active), strict=True)
        return sum(  # type: ignore[return-value]
            conv.weight.numel() * where.flatten(1).sum(dim=1) for conv, where in steps
        )

    def _score_macs(self, score: Any, active: Tensor) -> Tensor:
        near = score.near.weight.numel() * active.flatten(1).sum(dim=1)
        return near + super()._score_macs(score, active)


def unit_at(unit: Any, x: Tensor, active: Tensor) -> Tensor:
    """A residual unit at some positions, computing only what they need.

    Args:
        unit: of torchvision's kinds or of `resnet`'s, in evaluation mode, that changes no shape.
        x: ``(B, C, h, w)``, what it is given.
        active: ``(B, h, w)`` bool, of n positions.

    Returns:
        ``(n, C)``, in the order of ``active.nonzero()``.
    """
    pre = isinstance(unit, PreActivationBasic | PreActivationBottleneck)
    convs, needed = _main_path(unit), _needed(unit, active)
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
        # Zeros around the image are the convolution's padding; others the next one does not read.
        empty = x.new_zeros(len(x), values.shape[1], *x.shape[2:])
        seen = _put(empty.to(memory_format=torch.channels_last), where, torch.relu(values))
    values = values + x.permute(0, 2, 3, 1)[active]
    return values if pre else torch.relu(values)


def convolve_at(conv: nn.Conv2d, x: Tensor, where: Tensor) -> Tensor:
    """A 1x1 or 3x3 convolution of stride 1 and without bias, at n positions only.

    Args:
        conv: padded by half its kernel.
        x: ``(B, C, h, w)``; fastest if channels are last in memory.
        where: ``(B, h, w)`` bool.

    Returns:
        ``(n, channels)``, in the order of ``where.nonzero()``.
    """
    x = x.permute(0, 2, 3, 1)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # (out, rows x columns x C)
    if conv.kernel_size == (1, 1):
        return linear(x[where], weight)
    image, row, column = where.nonzero(as_tuple=True)
    width = x.shape[2] + 2
    x = pad(x, (0, 0, 1, 1, 1, 1))
    corner = (image * x.shape[1] + row) * width + column  # upper left of the 3x3, once padded
    three = torch.arange(3, device=x.device)
    patch = (three[:, None] * width + three).flatten()
    return linear(x.flatten(0, 2)[corner[:, None] + patch].flatten(1), weight)


def _main_path(unit: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a unit whose shortcut is the identity, in order."""
    return list(convolutions(unit))


def _needed(unit: nn.Module, active: Tensor) -> list[Tensor]:
    """Where each convolution has to be computed, ``(B, h, w)`` bool, for the last's at `active`."""
    needed = [active]
    for conv in _main_path(unit)[:0:-1]:
        around = needed[0]
        if conv.kernel_size != (1, 1):
            around = max_pool2d(around[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
        needed.insert(0, around)
    return needed


def _put(x: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """``(B, C, h, w)`` with `values` ``(n, C)`` at n positions, the rest as it was."""
    index = where.flatten().nonzero()[:, 0]
    last = x.permute(0, 2, 3, 1)
    put = last.reshape(-1, x.shape[1]).index_copy(0, index, values.to(x.dtype))
    return put.view(last.shape).permute(0, 3, 1, 2)


def _normalise(norm: nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Batch norm in evaluation mode of ``(n, C)``."""
    return batch_norm(
        values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )


# -- pictures --------------------------------------------------------------------------------------


def whole_map(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Ponder cost summed over blocks, at every pixel ``(B, H, W)``.

    Args:
        maps: of each block ``(B, h, w)``, `ACTOutput.maps`; a pixel takes the nearest position's.
        size: height and width in pixels.
    """
    return torch.stack([interpolate(one[:, None], size)[:, 0] for one in maps]).sum(dim=0)


def draw_maps(image: np.ndarray, maps: Sequence[Tensor]) -> Figure:
    """Draws an image, its ponder cost map of each block, and their sum.

    Args:
        image: ``(H, W, C)`` uint8, C = 1 (grey) or 3 (RGB).
        maps: of each block ``(h, w)``.

    Returns:
        A figure of matplotlib; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    summed = whole_map([one[None] for one in maps], (height, width))[0]
    names = [f"block {k}" for k in range(1, len(maps) + 1)] + ["all blocks"]
    figure = Figure(figsize=(2.2 * (len(maps) + 2), 2.6), layout="constrained")
    axes = figure.subplots(1, len(maps) + 2)
    axes[0].imshow(image.squeeze(), cmap="gray", extent=(0, width, height, 0))
    axes[0].set_title("image")
    for axis, name, one in zip(axes[1:], names, [*maps, summed], strict=True):
        low, high = float(one.min()), float(one.max())
        shown = axis.imshow(
            one.cpu().numpy(),
            cmap="viridis",
            extent=(0, width, height, 0),
            vmin=low,
            vmax=max(
                high, low + 0.1
            ),  # where all ponder alike, rounding is not drawn as a contrast
        )
        axis.set_title(f"{name}: {float(one.mean()):.2f}")
        figure.colorbar(shown, ax=axis, shrink=0.7)
    for axis in axes:
        axis.set_axis_off()
    return figure
