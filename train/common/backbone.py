"""A residual encoder made ready to train: weights to start from, precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from agents.backbone_weights import load_backbone
from agents.encoders import GlimpseResNet
from train.common.options import NetworkOptions
from train.common.training_task import Task

# Mean and standard deviation of ImageNet's channels, which torchvision's weights expect.
IMAGENET_MEAN = tuple(255 * share for share in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * share for share in (0.229, 0.224, 0.225))


def backbone_scale(weights: str, task: Task) -> dict[str, Any]:
    """Pixel scale of an agent whose backbone starts from `weights`; empty for the data's own."""
    if weights == "none" or task.channels != 3:
        return {}
    return {"pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD}


def prepare_backbone(encoders: Sequence[nn.Module], options: NetworkOptions) -> str:
    """Loads the weights that training starts from into every encoder, and sets how it runs.

    Returns:
        Where the weights come from; "none" if they are random.

    Raises:
        ValueError, FileNotFoundError: see `load_backbone`.
    """
    source = "none"
    for encoder in encoders:
        if isinstance(encoder, GlimpseResNet):
            source = load_backbone(encoder.trunk, options.backbone_weights)
            encoder.bf16 = options.bf16
    return source
