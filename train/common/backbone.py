"""Prepares residual encoders for training: pretrained weights, pixel scale, precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from agents.backbone_weights import load_backbone
from agents.encoders import GlimpseResNet
from agents.one_look import OneLook
from train.common.options import Encoder, ResNetEncoder
from train.common.training_task import TrainingTask

ROOT = Path(__file__).resolve().parents[2]
# Mean and standard deviation of ImageNet's channels, which torchvision's weights expect.
IMAGENET_MEAN = tuple(255 * share for share in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * share for share in (0.229, 0.224, 0.225))


def weights_of(encoder: Encoder) -> str:
    """DEFAULT, none, or the path of an encoder's weights; shipped ones are found anywhere."""
    weights = encoder.weights if isinstance(encoder, ResNetEncoder) else "none"
    shipped = ROOT / weights
    return str(shipped) if shipped.exists() and not Path(weights).exists() else weights


def one_look_folder(encoder: Encoder) -> Path | None:
    """Folder of the one-look run that an encoder's weights are from; None if they are not."""
    weights = weights_of(encoder)
    named = weights not in ("none", "DEFAULT") and Path(weights).is_dir()
    return Path(weights) if named else None


def load_classifier(classifier: nn.Module, encoder: Encoder, class_names: Sequence[str]) -> bool:
    """Loads the classifier of the one-look run that an encoder's weights are from.

    Returns whether it was loaded: not if the weights are from elsewhere, or of other classes.
    """
    folder = one_look_folder(encoder)
    if folder is None or tuple(OneLook.read_header(folder)["class_names"]) != tuple(class_names):
        return False
    classifier.load_state_dict(OneLook.load(folder).classifier.state_dict())
    return True


def pixel_scale(encoder: Encoder, task: TrainingTask) -> dict[str, Any]:
    """Pixel mean and std for a network: those of the one-look run that its weights are from,
    ImageNet's with other weights for RGB, else the data's."""
    if folder := one_look_folder(encoder):
        config = OneLook.config_from(OneLook.read_header(folder))
        return {"pixel_mean": config.pixel_mean, "pixel_std": config.pixel_std}
    if weights_of(encoder) != "none" and task.channels == 3:
        return {"pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD}
    return dict(zip(("pixel_mean", "pixel_std"), task.pixel_scale(), strict=True))


def prepare_backbone(networks: Sequence[nn.Module], encoder: Encoder, bf16: bool) -> str:
    """Loads weights into residual encoders, sets their precision; returns the weights' source."""
    source = "none"
    for network in networks:
        if isinstance(network, GlimpseResNet):
            network.bf16 = bf16
            if isinstance(encoder, ResNetEncoder):  # else it has a frozen classifier's weights
                source = load_backbone(network.trunk, weights_of(encoder))
    return source
