"""Named sets of options for ``python train/reinforce.py --recipe NAME``.

What a recipe does not name is the program's default. The tables of the talk are made with these.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from train.common.augment import Augmentation
from train.common.one_look_networks import BIRDS_LOOK, SCENES_LOOK
from train.common.options import SGD, AdamW, Muon, PlainEncoder, ResNetEncoder
from train.dtram.options import RNN, Cells, Gaussian, Map, Scan, StopAfter, StopJoint, Values

_DIGITS: dict[str, Any] = {
    "location_reward": "mean_log_prob",
    "scan_epochs": 12,
    "epochs": 48,
    "m": 4,
    "batch_size": 192,
    "optimizer": Muon(),
    "learning_rate": 1e-3,
    "augment": Augmentation(affine=1.0),
    "bf16": True,
}

_MAP: dict[str, Any] = {
    "encoder": PlainEncoder("pixels"),
    "location_reward": "drop",
    "m": 1,
    "batch_size": 128,
    "optimizer": AdamW(weight_decay=0.02, max_grad_norm=50.0),
    "learning_rate": 4e-3,
    "bf16": True,
    "stop": StopAfter(max_mean_glimpses=2.4),
}
_ANYWHERE: dict[str, Any] = {
    "core": Map(cells=32, cell=2, window=24, pool="max_and_mean", answer="product"),
    "locator": Values(grid=16, learning_rate=4e-3),
    "epochs": 16,
    "optimizer": Muon(),
    "learning_rate": 1e-3,
    "augment": Augmentation(affine=1.0, elastic=1.0, compose=True, plain=0.2),
    "stop": StopAfter(max_mean_glimpses=4.0),
}

BIRD_STOP = StopAfter(max_mean_glimpses=None, epochs=60, batch_size=250)
"""For splits of some thousand images, where larger batches would leave too few updates."""

_BIRD_ENCODER = ResNetEncoder("resnet18", width=8, frozen_norms=True)
_BIRDS: dict[str, Any] = {
    "locator": Values(grid=16, learning_rate=4e-3),
    "location_reward": "drop",
    "m": 1,
    "batch_size": 48,
    "learning_rate": 1e-3,
    "augment": Augmentation(affine=0.0, flip=True),
    "bf16": True,
    "stop": replace(BIRD_STOP, max_mean_glimpses=2.8),
}

_PHOTOGRAPHS: dict[str, Any] = {
    "env_id": "DTRAM-CUB-v0",
    "env": ("image_size=512", "thumbnail_size=448", "glimpse_size=224"),
    "batch_size": 24,
    "epochs": 90,
    "optimizer": SGD(),
    "learning_rate": 1e-3,
    # The original's, but for its random window.
    "augment": Augmentation(affine=0.0, flip=True, colour=0.4, lighting=0.1),
    "bf16": True,
    "stop": BIRD_STOP,
}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # The slides as they stand: all modules learn jointly, by sampled decisions and their return.
    # Before that, two thirds of the epochs are without stops: later glimpses are learned, too.
    "talk": {
        "env": ("first_glimpse=choose",),
        "epochs": 36,
        "locator": Gaussian(std=0.12, gradient="state", learning_rate=1e-3),
        "stop": StopJoint(
            gradient="reinforce",
            reads="state",
            into="state",
            entropy=0.0,
            ram_share=0.66,
            learning_rate=6e-3,
        ),
        "baseline": "value",
        "supervision": "taken",
        "m": 4,
        "batch_size": 96,
        "learning_rate": 3e-3,
        "augment": Augmentation(affine=0.0),
        "bf16": True,
    },
    # MNIST after the original's code: RAM first, then the stopper and the classifier. Its momentum
    # is damped: its rate of 0.01 is 0.001 here; batches are 25 times as large, with 25 times the
    # rate. Departures: the second stage has AdamW; gradients are clipped; 300 epochs, where it has
    # 800.
    "original": {
        "env": ("first_glimpse=choose",),
        "core": RNN(init=0.1),
        "locator": Gaussian(
            std=0.22 * 13 / 14, gradient="state", squash="hard_tanh", bound=13 / 14
        ),
        "stop": StopAfter(
            gradient="reinforce",
            reads="state",
            hidden=256,
            prior="none",
            entropy=0.0,
            threshold=0.9,
            max_mean_glimpses=None,
            classifier="learns",
        ),
        "epochs": 300,
        "baseline": "scalar",
        "supervision": "last",
        "location_reward": "return",
        "m": 1,
        "augment": Augmentation(affine=0.0),
        "optimizer": SGD(weight_decay=0.0, nesterov=False, schedule="linear"),
        "learning_rate": 0.025,
        "batch_size": 500,
    },
    # The paper's network. Its locator learns slowly, or it soon forgets the scan of the warm-up.
    "mnist": {**_DIGITS, "locator": Gaussian(std=0.06, learning_rate=1e-4)},
    # Locations chosen among cells, and two layers of convolutions that read a glimpse (ours).
    "mnist-conv": {
        **_DIGITS,
        "locator": Cells(grid=7, entropy=0.02, entropy_last=0.0, gradient="state"),
        "encoder": PlainEncoder("conv"),
    },
    # A map of the pixels seen along a fixed scan, read by a small convolutional network (ours).
    "mnist-map": {
        **_MAP,
        "core": Map(cells=28, cell=1),
        "locator": Scan(),
        "epochs": 60,
        "augment": Augmentation(affine=1.0, elastic=1.0, plain=0.1),
    },
    # The RAM paper's digits at random places, alone, in clutter, and in more clutter (ours).
    "translated": {**_MAP, **_ANYWHERE, "env_id": "DTRAM-TranslatedMNIST-v0"},
    "cluttered": {**_MAP, **_ANYWHERE, "env_id": "DTRAM-ClutteredMNIST-v0"},
    "cluttered-100": {
        **_MAP,
        **_ANYWHERE,
        "env_id": "DTRAM-ClutteredMNIST100-v0",
        "core": replace(_ANYWHERE["core"], cells=52),
        "locator": Values(grid=26, learning_rate=4e-3),
        "stop": StopAfter(max_mean_glimpses=5.0),
    },
    # Small drawn birds, whose species differ in small parts, alone and in large scenes. The agent
    # begins as a network that looked once, at the small birds or at scenes of 256 pixels.
    "birds-small": {
        **_BIRDS,
        "encoder": replace(_BIRD_ENCODER, weights=BIRDS_LOOK),
        "env_id": "DTRAM-BirdsSmall-v0",
        "env": ("glimpse_size=64", "thumbnail_size=32"),
        "epochs": 24,
        "stop": replace(BIRD_STOP, max_mean_glimpses=2.4),
    },
    "scenes": {
        **_BIRDS,
        "encoder": replace(_BIRD_ENCODER, weights=SCENES_LOOK),
        "env_id": "DTRAM-Scenes-v0",
        "epochs": 80,
    },
    # CUB as the original trains it: a network for each glimpse, Nesterov, 90 epochs a stage.
    "original-cub": {
        **_PHOTOGRAPHS,
        "encoder": ResNetEncoder("resnet50", weights="DEFAULT", per_step=True),
        "locator": Gaussian(std=0.24),
        "optimizer": SGD(schedule="steps"),
        "curriculum": (1, 2, 3),
    },
    # One network for all glimpses, and a locator that reads the first look (ours, never run).
    "ours": {
        **_PHOTOGRAPHS,
        "encoder": ResNetEncoder("resnet50", weights="DEFAULT"),
        "locator": Values(grid=32, learning_rate=1e-3),
        "location_reward": "drop",
    },
}
