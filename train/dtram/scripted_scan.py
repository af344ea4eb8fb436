"""A path over the middle of the image, which a location policy may begin by following."""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 0.5
"""How far from the middle it goes, in image halves."""
_CORNERS = ((0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (0, 1))


def scan_path(later: int) -> Tensor:
    """Where glimpses 2, 3, ... are taken, the first one having been at the centre.

    Above the middle, at the two lower corners, at the two upper ones, below the middle, and again:
    with the first, seven windows of 8 pixels cover most of a digit of 20.

    Args:
        later: how many, at least 1.

    Returns:
        ``(later, 2)`` x and y in [-1, 1].
    """
    if later < 1:
        raise ValueError(f"later={later}: expected at least 1 glimpse after the first")
    return REACH * torch.tensor([_CORNERS[k % len(_CORNERS)] for k in range(later)]).float()
