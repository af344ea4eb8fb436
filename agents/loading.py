"""Reads a saved recurrent agent of any kind back."""

from __future__ import annotations

from pathlib import Path

import torch

from .act import HaltingRAM
from .dtram import DTRAM
from .saving import kind_of


def load_agent(folder: str | Path, device: str | torch.device = "cpu") -> DTRAM:
    """Reads a DT-RAM back, or a RAM that halts by ACT; nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no model in `folder`.
        ValueError: if it is another kind of model, or its files do not fit one another.
    """
    kind = HaltingRAM if kind_of(folder) == HaltingRAM.KIND else DTRAM
    return kind.load(folder, device)
