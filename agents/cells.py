"""Convolutions that score the cells of a grid, for locators that read a plane."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class FlatConv(nn.Module):
    """A convolution whose weights are one matrix ``(out, channels * kernel * kernel)``.

    Optimizers for matrices, such as Muon, take it as it is.
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        like = nn.Conv2d(channels, out, kernel)
        self.shape, self.stride = like.weight.shape, stride
        self.weight = nn.Parameter(like.weight.detach().flatten(1))

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight.view(self.shape).contiguous(memory_format=torch.channels_last)
        return conv2d(features, weight, stride=self.stride, padding=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """A norm that is the same in training and in use, in groups of about 8 channels."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


Norm = Callable[[int], nn.Module]
"""Makes the norm for a number of channels."""


def convolution(
    channels: int, out: int, kernel: int = 3, stride: int = 1, norm: Norm = nn.BatchNorm2d
) -> nn.Sequential:
    """A convolution, a norm and ReLU."""
    return nn.Sequential(FlatConv(channels, out, kernel, stride), norm(out), nn.ReLU())


def plane_reader(channels: int, width: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Turns planes ``(B, channels, S, S)`` into features ``(B, 2 * width, S / 4, S / 4)``."""
    return nn.Sequential(
        *(convolution(channels, width, 4, 2, norm), convolution(width, width, norm=norm)),
        nn.MaxPool2d(2),
        convolution(width, 2 * width, norm=norm),
    ).to(memory_format=torch.channels_last)


def position_scorer(
    channels: int, width: int, hidden: int, finer: int, norm: Norm = nn.BatchNorm2d
) -> nn.Sequential:
    """Turns features ``(B, channels, S, S)`` into scores ``(B, G * G)`` of cells, G = S * finer.

    `hidden` units score each position's `finer` x `finer` cells; 0: a linear layer does.
    """
    last = nn.Conv2d(hidden or width, finer**2, 1)
    nn.init.zeros_(last.weight)  # until something is learned, all cells score the same
    return nn.Sequential(
        convolution(channels, width, norm=norm),
        *([nn.Conv2d(width, hidden, 1), nn.ReLU()] if hidden else []),
        *(last, nn.PixelShuffle(finer), nn.Flatten()),
    ).to(memory_format=torch.channels_last)


def cell_scorer(channels: int, width: int, hidden: int, finer: int) -> nn.Sequential:
    """Turns planes ``(B, channels, S, S)`` into scores ``(B, G * G)`` of cells, G = S / 4 * finer.

    It is a `plane_reader` and a `position_scorer` of twice its width.
    """
    scorer = position_scorer(2 * width, 2 * width, hidden, finer)
    return nn.Sequential(*plane_reader(channels, width), *scorer)
