"""What ``--compile`` does with a training step."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from dtram_env.datasets.storage.tensors import send

Part = TypeVar("Part", bound=Callable[..., Any])


def compiled(part: Part, on: bool, device: torch.device) -> Part:
    """A module or function of the training step, by ``torch.compile`` if `on`.

    On a GPU its kernels are launched as CUDA graphs, and what it returns is overwritten by its next
    call; where torch can make no graph of them, it says so and launches them one by one. Other
    shapes, numbers or settings than before compile it anew, see `changing`.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    return cast(Part, torch.compile(part, mode=mode, dynamic=False)) if on else part


def changing(value: float, device: torch.device) -> Tensor:
    """A number ``()`` that changes from epoch to epoch: unlike a float it is no constant of a
    `compiled` step."""
    return send(np.asarray(value, np.float32), device)
