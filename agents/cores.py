"""Recurrent cores f_h: the paper's, and the options of the map (`spatial_map`)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import require, require_at_least

CORES = ("rnn", "map")
"""Names of the cores."""


class RNNCell(nn.Module):
    """The paper's core, ``h_t = ReLU(W h_{t-1} + g_t)``, all ``(B, H)``."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, code: Tensor, h: Tensor) -> Tensor:
        return torch.relu(self.recurrent(h) + code)


@dataclass(frozen=True)
class MapOptions:
    """Options of the core that is a map of the image, see `spatial_map`."""

    extent: float
    """share of the image's side that a glimpse covers, at its finest scale"""
    glimpse_cells: int
    """cells along a side that it covers in the map"""
    cells: int = 28
    """cells R along a side of the map, a multiple of 4; its middle is the image's"""
    num_scales: int = 1
    """scales of a glimpse"""
    width: int = 16
    """channels of the first convolution that reads the map"""
    dropout: float = 0.2
    """share of the features that are left out in training before h_t is made of them"""

    def __post_init__(self) -> None:
        require_at_least(self, 4, "cells", "width")
        require_at_least(self, 1, "glimpse_cells", "num_scales")
        require("cells", self.cells, self.cells % 4 == 0, "a multiple of 4")
        require("width", self.width, self.width % 4 == 0, "a multiple of 4")
        require("extent", self.extent, 0 < self.extent <= 1, "a number in (0, 1]")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "a number in [0, 1)")

    @property
    def image_cells(self) -> float:
        """Cells along a side that the whole image covers; beyond them the map stays empty."""
        return self.glimpse_cells / self.extent

    def cells_of_scales(self) -> list[int]:
        """Cells along a side that each scale of a glimpse covers."""
        return [self.glimpse_cells * 2**scale for scale in range(self.num_scales)]
