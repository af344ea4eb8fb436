"""What one-look networks say of whole splits, and what those that halt compute for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.halting.act_resnet import ACTOutput, ACTResNet
from agents.halting.sact import SACTResNet, draw_maps
from agents.one_look import OneLook
from train.common.training_task import Images
from train.dtram.report import SCORE_BATCH


@torch.no_grad()
def looks(network: OneLook | ACTResNet, images: Images) -> Iterator[Any]:
    """What a network says of a split, a batch at a time; puts it into evaluation mode."""
    network.eval()
    side, _, channels = network.config.image_shape
    batch = max(1, min(SCORE_BATCH, 8_000_000 // (side * side * channels)))
    for rows in torch.arange(len(images), device=network.device).split(batch):
        yield network(images.store.thumbnail(rows, side))


def look_at_all(network: OneLook | ACTResNet, images: Images) -> Tensor:
    """Logits ``(N, K)`` of a split; puts the network into evaluation mode."""
    said = looks(network, images)
    return torch.cat([one.logits if isinstance(one, ACTOutput) else one for one in said])


def answers_and_rate(network: OneLook | ACTResNet, images: Images) -> tuple[Tensor, float]:
    """Predictions ``(N,)`` of a split, and how many images a second they took."""
    began = time.perf_counter()
    prediction = look_at_all(network, images).argmax(-1)
    prediction.cpu()  # waits for the device
    return prediction, len(images) / (time.perf_counter() - began)


def halting_of(network: ACTResNet, images: Images) -> dict[str, Any]:
    """What a network that halts computes for a split, as means over its images.

    Returns:
        ``ponder``, rho summed over blocks; ``flops``; ``units``, residual units taken in each
        block; ``units_of_each_block``, how many there are.
    """
    ponder, flops, units = [], [], []
    for said in looks(network, images):
        ponder.append(said.ponder)
        flops.append(said.flops)
        units.append(said.units)
    mean_units = torch.cat(units).double().mean(dim=0)
    return {
        "ponder": round(float(torch.cat(ponder).double().mean()), 4),
        "flops": round(float(torch.cat(flops).double().mean())),
        "units": [round(n, 4) for n in mean_units.tolist()],
        "units_of_each_block": [len(stage) for stage in network.trunk.stages()],
    }


@torch.no_grad()
def draw_ponder(folder: Path, network: ACTResNet, images: Images, count: int = 4) -> None:
    """Writes ``ponder-K.png`` of a split's first images: where the network pondered, SACT's maps.

    Nothing for a network whose blocks halt as a whole.
    """
    if not isinstance(network, SACTResNet):
        return
    network.eval()
    rows = torch.arange(min(count, len(images)), device=network.device)
    seen = images.store.thumbnail(rows, network.config.image_size)
    maps = network(seen).maps
    for k, image in enumerate(seen.cpu().numpy()):
        draw_maps(image, [one[k] for one in maps]).savefig(folder / f"ponder-{k}.png", dpi=110)
