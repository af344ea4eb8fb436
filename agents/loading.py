"""Loads a saved model of whatever kind its ``model.json`` names."""

from pathlib import Path

import torch

from .dtram import DTRAM
from .files import kind_of
from .first_look import FirstLookDTRAM
from .halting.act import HALTING
from .halting.act_resnet import ACTResNet
from .halting.sact import SACTResNet
from .one_look import OneLook
from .spatial_map import MapDTRAM


def load_agent(
    folder: str | Path, device: str | torch.device = "cpu", stop: str | None = None
) -> DTRAM:
    """Loads a DT-RAM of any kind, or a RAM that halts by ACT; see `DTRAM.load`."""
    kinds: tuple[type[DTRAM], ...] = (MapDTRAM, FirstLookDTRAM, *HALTING.values())
    kind = {one.KIND: one for one in kinds}.get(kind_of(folder), DTRAM)
    return kind.load(folder, device, stop)


def load_one_look(folder: str | Path, device: str | torch.device = "cpu") -> OneLook | ACTResNet:
    """Loads a one-look network, or a ResNet that halts by ACT or SACT; raises as `OneLook.load`."""
    kinds = {kind.KIND: kind for kind in (ACTResNet, SACTResNet)}
    return kinds.get(kind_of(folder), OneLook).load(folder, device)
