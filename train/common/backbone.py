"""Prepares residual encoders for training: pretrained weights, pixel scale, precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from agents.backbone_weights import load_backbone
from agents.encoders import GlimpseResNet
from train.common.options import PlainEncoder, ResNetEncoder
from train.common.training_task import TrainingTask

# Mean and standard deviation of ImageNet's channels, which torchvision's weights expect.
IMAGENET_MEAN = tuple(255 * share for share in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * share for share in (0.229, 0.224, 0.225))


def pixel_scale(encoder: PlainEncoder | ResNetEncoder, task: TrainingTask) -> dict[str, Any]:
    """Pixel mean and std for a network: ImageNet's with pretrained weights, else the data's."""
    if isinstance(encoder, ResNetEncoder) and encoder.weights != "none" and task.channels == 3:
        return {"pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD}
    return dict(zip(("pixel_mean", "pixel_std"), task.pixel_scale(), strict=True))


def prepare_backbone(
    networks: Sequence[nn.Module], encoder: PlainEncoder | ResNetEncoder, bf16: bool
) -> str:
    """Loads pretrained weights into every residual encoder and sets its precision.

    Args:
        networks: the encoders; plain ones are left as they are.
        encoder: the options of them all.
        bf16: whether they run under autocast to bfloat16.

    Returns:
        The source of the weights; "none" if they are random.

    Raises:
        ValueError, FileNotFoundError: see `load_backbone`.
    """
    source = "none"
    for network in networks:
        if isinstance(network, GlimpseResNet):
            assert isinstance(encoder, ResNetEncoder)
            source = load_backbone(network.trunk, encoder.weights)
            network.bf16 = bf16
    return source
