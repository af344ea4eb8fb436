"""Options that the training programs share: the task, the network, the augmentation, the optimiser.

Each program's own options derive from these; tyro makes a flag of every field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.resnet import RESNETS, ResNetOptions
from train.common.augment import Affine, Augmentation

Encoder = Literal["mlp", "conv", "cnn", "resnet10", "resnet18", "resnet34", "resnet50"]


@dataclass(frozen=True)
class TaskOptions:
    """Which environment, with which keywords."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    discount: float | None = None
    """γ of the reward; the environment's own if not given"""
    max_glimpses: int | None = None
    """budget T_max; the environment's own if not given"""
    glimpse_size: int | None = None
    """side of a glimpse in pixels; the environment's own if not given"""
    num_scales: int | None = None
    """crops of a glimpse; the environment's own if not given"""
    first_glimpse: Literal["center", "random", "thumbnail"] | None = None
    """what the first glimpse is; the environment's own if not given"""
    thumbnail_size: int | None = None
    """side of a first look at the whole image; the glimpse's if not given"""
    image_size: int | None = None
    """shorter side of the images; the environment's own if not given"""
    crop_to_box: bool = False
    """cut images to their bounding boxes (CUB, Cars)"""
    num_classes: int | None = None
    """classes of a drawn dataset; its own number if not given"""
    num_train: int | None = None
    """training images of a drawn dataset, validation in it; its own number if not given"""
    num_test: int | None = None
    """test images of a drawn dataset; its own number if not given"""
    root: Path | None = None
    """folder of your own images (DTRAM-ImageFolder-v0)"""
    classifier: Path | None = None
    """folder of the classifier in the loop (policy-only ids); the id's own if not given"""
    data: Literal["real", "builtin"] = "real"
    """builtin: the drawn stand-in of CUB or Cars, under its own name"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""

    def env_options(self) -> dict[str, Any]:
        """The environment's keywords that were given."""
        taken = ("discount", "max_glimpses", "glimpse_size", "num_scales", "first_glimpse")
        drawn = ("thumbnail_size", "image_size", "num_classes", "num_train", "num_test")
        given = {n: getattr(self, n) for n in taken + drawn if getattr(self, n) is not None}
        if self.crop_to_box:
            given["crop_to_box"] = True
        if self.root is not None:
            given["root"] = str(self.root.expanduser().resolve())
        for name in ("classifier", "data_dir"):
            if getattr(self, name) is not None:
                given[name] = str(getattr(self, name))
        if self.data != "real":
            given["data"] = self.data
        return given


@dataclass(frozen=True)
class NetworkOptions:
    """What sees."""

    encoder: Encoder = "mlp"
    """glimpse encoder: mlp is the paper's on MNIST; a resnet is the paper's on CUB and Cars"""
    backbone_weights: str = "none"
    """a resnet's weights to start from: DEFAULT (torchvision's), a file, or none"""
    resnet_width: int = 64
    """channels of a resnet's stem; torchvision's is 64. Under 8, learning can end in a segmentation
    fault on processors without AVX512 (oneDNN 3.12)"""
    small_stem: bool = False
    """a resnet begins with a 3x3 convolution of stride 1, for glimpses under 64 pixels"""
    resnet_order: Literal["post", "pre"] = "post"
    """where a resnet's ReLU and batch norm sit: after each convolution, or before"""
    resnet_stride_in: Literal["3x3", "1x1"] = "3x3"
    """which convolution of a bottleneck carries the stride"""
    bn_momentum: float = 0.1
    """smoothing factor of batch norm: weight of the new batch in the running statistics"""
    frozen_norms: bool = False
    """leave a resnet's batch norms as they are in the backbone weights"""
    bf16: bool = False
    """train under autocast to bfloat16 (of a resnet: use it so, too), where the device has
    instructions for it; float32 where it has not"""

    def resnet(self, channels: int) -> ResNetOptions | None:
        """The options of a residual encoder; None for another one."""
        if self.encoder not in RESNETS:
            return None
        return ResNetOptions(
            name=self.encoder,
            order=self.resnet_order,
            stride_in=self.resnet_stride_in,
            bn_momentum=self.bn_momentum,
            width=self.resnet_width,
            small_stem=self.small_stem,
            channels=channels,
        )

    def check_network(self) -> None:
        """Raises ValueError for options that the encoder does not read."""
        if self.encoder in RESNETS:
            return
        for name in ("backbone_weights", "resnet_width", "small_stem", "resnet_order"):
            self._unread(name)
        for name in ("resnet_stride_in", "bn_momentum", "frozen_norms"):
            self._unread(name)

    def _unread(self, name: str) -> None:
        value, default = getattr(self, name), NetworkOptions.__dataclass_fields__[name].default
        check(name, value, value == default, f"{default}, unless --encoder is a resnet")


@dataclass(frozen=True)
class AugmentOptions:
    """What training images go through, a batch at a time, on the device."""

    augment: float = 0.5
    """strength of the random affine augmentation; 0 is none, 1 is 2 pixels and 12 degrees"""
    elastic: float = 0.0
    """standard deviation of a smooth random displacement, in pixels (Simard et al. 2003)"""
    scale_crop: tuple[float, float] | None = None
    """scale augmentation: range of a random window's share of the area, as in 0.25 1.0"""
    colour: float = 0.0
    """reach of random brightness, contrast and saturation; the original's is 0.4"""
    lighting: float = 0.0
    """spread of random light along ImageNet's colours; the original's is 0.1"""
    flip: bool = False
    """mirror every other image"""

    def augmentation(self) -> Augmentation:
        """What does it."""
        return Augmentation(
            Affine(self.augment, elastic=self.elastic),
            self.colour,
            self.lighting,
            self.flip,
            self.scale_crop,
        )

    @property
    def changes_images(self) -> bool:
        """Whether training images go through any augmentation."""
        some = self.augment or self.elastic or self.colour or self.lighting or self.flip
        return bool(some) or self.scale_crop is not None


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights move."""

    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """sgd has Nesterov momentum 0.9, as the original on CUB; muon turns every step of a hidden
    layer's matrix into an orthogonal one (Jordan et al. 2024), and is adamw for all else"""
    weight_decay: float = 0.01
    """the optimiser's"""
    decay_norms: bool = True
    """whether weight decay takes in norms and biases"""
    max_grad_norm: float = 5.0
    """gradients are clipped to this norm"""


def check(name: str, value: object, holds: bool, expected: str) -> None:
    """Raises ValueError with the option's flag unless `holds`."""
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def check_ranges(options: object, positive: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    """Raises ValueError unless the numbers of these names are finite and in range."""
    for name in positive:
        value = getattr(options, name)
        check(name, value, 0 < value < math.inf, "a positive number")
    for name in not_negative:
        value = getattr(options, name)
        check(name, value, 0 <= value < math.inf, "0 or more")
