"""The networks that ``train/one_look.py`` trains: recipes, halting, and the size of the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from agents.backbone_weights import load_backbone
from agents.halting.act_resnet import ACTResNet
from agents.halting.sact import SACTResNet
from agents.one_look import OneLook, OneLookConfig
from train.common.augment import Augmentation
from train.common.backbone import load_classifier, pixel_scale, prepare_backbone, weights_of
from train.common.options import SGD, Checked, Encoder, NotNegative, ResNetEncoder, words
from train.common.training_task import TrainingTask


@dataclass(frozen=True)
class NoHalting:
    """Every image passes through the whole network."""

    name: Literal["none"] = "none"


@dataclass(frozen=True)
class HaltingBlocks(Checked):
    """Adaptive computation time in a ResNet's blocks, for each image (act) or position (sact)."""

    OPTION = "halting"
    name: Literal["act", "sact"] = "act"
    ponder_cost: NotNegative = 0.005
    """cost of a residual unit, in nats"""


HALTING = (NoHalting, HaltingBlocks)
Halting = Annotated[NoHalting | HaltingBlocks, words(*HALTING)]

BIRDS_LOOK, SCENES_LOOK = "pretrained/birds-small-look", "pretrained/scenes-look"
"""Shipped networks from whose weights others start: they look once at small birds, and, begun as
that network, at birds in scenes of 256 pixels."""
_BIRDS: dict[str, Any] = {
    "augment": Augmentation(affine=0.0, flip=True),
    "side": 0,
    "learning_rate": 2e-3,
    "batch_size": 48,
    "bf16": True,
}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # Small drawn birds, and the same birds in large scenes.
    "birds-small": {
        **_BIRDS,
        "env_id": "DTRAM-BirdsSmall-v0",
        "encoder": ResNetEncoder("resnet18", width=8),
        "epochs": 16,
    },
    "scenes": {
        **_BIRDS,
        "env_id": "DTRAM-Scenes-v0",
        "encoder": ResNetEncoder("resnet18", weights=BIRDS_LOOK, width=8),
        "epochs": 12,
    },
    # As the original trains its ResNet-50 on CUB, random crops included.
    "original-cub": {
        "env_id": "DTRAM-CUB-v0",
        "env": ("image_size=512", "thumbnail_size=448", "glimpse_size=224"),
        "encoder": ResNetEncoder("resnet50", weights="DEFAULT"),
        "side": 448,
        "augment": Augmentation(
            affine=0.0, flip=True, colour=0.4, lighting=0.1, scale_crop=(0.25, 1.0)
        ),
        "optimizer": SGD(schedule="steps"),
        "learning_rate": 1e-2,
        "epochs": 90,
        "batch_size": 24,
        "bf16": True,
    },
}
"""Named sets of options for ``python train/one_look.py --recipe NAME``."""


def new_network(
    task: TrainingTask,
    encoder: Encoder,
    halting: Halting,
    *,
    side: int | None,
    bf16: bool,
    seed: int,
) -> tuple[OneLook | ACTResNet, str]:
    """An untrained network and the source of its backbone's weights; seeds torch's generator."""
    resnet = encoder.resnet(task.channels) if isinstance(encoder, ResNetEncoder) else None
    if side is None and task.sensor.first_glimpse == "thumbnail":
        side = task.sensor.thumbnail_size or task.sensor.glimpse_size
    side = side or min(task.images("train").data.typical_size)
    config = OneLookConfig(
        len(task.class_names),
        (side, side, task.channels),
        encoder.name,
        resnet,
        hidden_size=256 if resnet is None else resnet.out_features,
        frozen_norms=isinstance(encoder, ResNetEncoder) and encoder.frozen_norms,
        **pixel_scale(encoder, task),
    )
    torch.manual_seed(seed)
    if isinstance(halting, NoHalting) or config.resnet is None:
        network = OneLook(config, task.class_names).to(task.device)
        source = prepare_backbone([network.encoder], encoder, bf16)
        load_classifier(network.classifier, encoder, network.class_names)
        return network, source
    kind = SACTResNet if halting.name == "sact" else ACTResNet
    halting_network = kind(config, task.class_names).to(task.device)
    assert isinstance(encoder, ResNetEncoder)
    return halting_network, load_backbone(halting_network.trunk, weights_of(encoder))
