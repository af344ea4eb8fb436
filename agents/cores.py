"""Recurrent cores f_h: the paper's, and the options of the map (`spatial_map`)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import require, require_at_least, require_one_of

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
    """Options of the core that is a map of what was seen, see `spatial_map`."""

    image_side: int
    """side of the images, in pixels"""
    frame: str = "image"
    """what the map moves with: image (it is as large) or gaze (it lies about the last glimpse)"""
    cells: int = 28
    """cells R along a side of the map, a multiple of 4; a cell is a pixel"""
    width: int = 16
    """channels of the first convolution that reads the map"""
    dropout: float = 0.2
    """share of the features that are left out in training before h_t is made of them"""

    def __post_init__(self) -> None:
        require_one_of(self, frame=("image", "gaze"))
        require_at_least(self, 4, "cells", "width")
        require("cells", self.cells, self.cells % 4 == 0, "a multiple of 4")
        fits = self.frame == "gaze" or self.cells == self.image_side
        require("cells", self.cells, fits, f"{self.image_side} in the image's frame, its side")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "a number in [0, 1)")
