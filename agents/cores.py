"""Recurrent cores f_h: the paper's, and the options of the map (`spatial_map`)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from .checks import Share, check_fields, require

MOST_CELLS = 256  # along a side of a map


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

    extent: Share
    """share of the image's side that a glimpse covers, at its finest scale"""
    glimpse_cells: Annotated[int, 1, MOST_CELLS]
    """cells along a side that it covers in the map"""
    cells: Annotated[int, 4, MOST_CELLS] = 28
    """cells R along a side of the map, a multiple of 4; its middle is the image's"""
    window: Annotated[int, 0, MOST_CELLS] = 0
    """h_t is read from so many cells along a side, about the last glimpse; 0: from the whole map"""
    width: Annotated[int, 4, 2**16] = 16
    """channels of the first convolution that reads the map"""
    pool: Literal["none", "max_and_mean"] = "none"
    """pooling of what was read before h_t's linear layer: none, or the maximum and the mean of each
    feature over the map (max_and_mean), for objects at any place"""
    dropout: Annotated[float, 0, 0.999] = 0.2
    """share of the features that are left out in training before h_t is made of them"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("cells", "window"):
            require(name, getattr(self, name), getattr(self, name) % 4 == 0, "a multiple of 4")
        fits = self.window <= self.cells
        require("window", self.window, fits, f"0 to {self.cells}, the map's cells")

    @property
    def image_cells(self) -> float:
        """Cells along a side that the whole image covers; beyond them the map stays empty."""
        return self.glimpse_cells / self.extent


def cells_of_scales(config: Any) -> list[int]:
    """Cells along a side of the map that each scale of a glimpse covers."""
    return [config.map.glimpse_cells * 2**scale for scale in range(config.glimpse_shape[2])]


def features_of_scales(config: Any) -> list[int]:
    """Channels of the map for each scale: a cell's pixels, and whether it was seen."""
    side = config.glimpse_shape[0]
    return [max(1, side // cells) ** 2 + 1 for cells in cells_of_scales(config)]
