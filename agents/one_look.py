"""One-look networks: what DT-RAM is compared with. They see the whole image, shrunk, once.

The talk's Table 2 has two for MNIST, fully connected and convolutional, its Tables 3 to 6 have
ResNets. A 1-step RAM whose glimpse is the whole image is the same network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checks import require
from .config import check_pixel_scale, names_of_classes, settings_from_json
from .cost import count_flops
from .encoders import GlimpseCNN, GlimpseConv, GlimpseResNet, PixelScale, cnn_smallest
from .files import ONE_LOOK_KIND, check_settings, load_weights, read_model_json, save_model
from .resnet import RESNETS, ResNetOptions

SMALLEST = {"mlp": 1, "conv": 2, "cnn": 8}
"""Pixels a side that an encoder needs at least; a residual one's are `smallest_image`."""
LARGEST_SIDE = 2048  # that `side_of_flops` tries


@dataclass(frozen=True)
class OneLookConfig:
    """What a one-look network is made of; saved beside its weights."""

    num_classes: int
    """number of classes K"""
    image_shape: tuple[int, int, int]
    """(s, s, channels) of the image as it is seen"""
    encoder: str = "mlp"
    """mlp: fully connected, 2 layers; conv: 2 convolutions; cnn: more of them; both are the glimpse
    encoders of these names without a where-path; or a name of `resnet.RESNETS`"""
    resnet: ResNetOptions | None = None
    """of a residual encoder; its name is the encoder's"""
    made_for: int = 0
    """with encoder="cnn": pixels a side of the glimpses whose layers it has, whatever its images'
    side, see `encoders.GlimpseCNN`; 0: as many layers as its images ask for"""
    hidden_size: int = 256
    """width of the code that the classifier reads, and of the layer before it"""
    frozen_norms: bool = False
    """whether the batch norms of a residual encoder are left as they are"""
    pixel_mean: float | tuple[float, ...] = 0.0
    """subtracted from the pixels, 0 ... 255: the training images' mean, or that of each channel"""
    pixel_std: float | tuple[float, ...] = 255.0
    """then divides them: the training images' standard deviation, or that of each channel"""

    def __post_init__(self) -> None:
        known = (*SMALLEST, *RESNETS)
        require("num_classes", self.num_classes, self.num_classes >= 2, "at least 2")
        require("encoder", self.encoder, self.encoder in known, f"one of {known}")
        wanted = self.encoder if self.encoder in RESNETS else None
        named = None if self.resnet is None else self.resnet.name
        require("resnet", self.resnet, named == wanted, f"options of {wanted}")
        require(
            "made_for",
            self.made_for,
            self.made_for == 0 or (self.encoder == "cnn" and self.made_for >= SMALLEST["cnn"]),
            f"0, or with encoder='cnn' at least {SMALLEST['cnn']}",
        )
        side, width, channels = self.image_shape
        least = self.smallest_side
        require(
            "image_shape",
            self.image_shape,
            side == width >= least and channels > 0,
            f"(s, s, channels), at least {least}x{least} pixels for encoder={self.encoder!r}",
        )
        require("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        check_pixel_scale(self.pixel_mean, self.pixel_std, channels)
        frozen = self.frozen_norms
        require("frozen_norms", frozen, wanted or not frozen, "False, unless encoder='resnet…'")

    @property
    def smallest_side(self) -> int:
        """Pixels a side that the encoder needs at least."""
        if self.resnet is not None:
            return self.resnet.smallest_image
        return cnn_smallest(self.made_for) if self.made_for else SMALLEST[self.encoder]

    def at(self, side: int) -> OneLookConfig:
        """The same network for images of another side, in pixels."""
        return replace(self, image_shape=(side, side, self.image_shape[2]))


class FullyConnected(nn.Module):
    """Two layers over all pixels; the second's ReLU is the network's own.

    Args:
        image_shape: ``(s, s, channels)``.
        out_features: width of both layers.
        scale: of the pixels; to [0, 1] if not given.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int = 256,
        scale: PixelScale | None = None,
    ) -> None:
        super().__init__()
        side, _, channels = image_shape
        self.scale = scale or PixelScale()
        self.hidden = nn.Linear(side * side * channels, out_features)
        self.out = nn.Linear(out_features, out_features)

    def forward(self, image: Tensor, location: Tensor) -> Tensor:
        """Encodes ``(B, s, s, channels)`` uint8 as ``(B, out_features)``."""
        pixels = self.scale(image, location.dtype).flatten(1)
        return self.out(torch.relu(self.hidden(pixels)))


class OneLook(nn.Module):
    """A network that sees the image once: ``y = argmax f_c(ReLU(φ(x)))``.

    Args:
        config: what it is made of.
        class_names: names of the K classes, saved with the model; numbers if not given.
    """

    def __init__(self, config: OneLookConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = names_of_classes(class_names, config.num_classes)
        self.encoder = _make_encoder(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_classes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.weight.device

    def forward(self, images: Tensor) -> Tensor:
        """Looks at whole images.

        Args:
            images: ``(B, s, s, channels)`` uint8. A residual encoder takes other sides too.

        Returns:
            Logits ``(B, K)``.

        Raises:
            ValueError: images of another shape.
        """
        shape = self.config.image_shape
        if self.config.resnet is None and images.shape[1:] != shape:
            raise ValueError(
                f"images: expected (B, {', '.join(map(str, shape))}), got {tuple(images.shape)}"
            )
        # Where the encoder asks for it: the whole image's location is the centre.
        centre = self.classifier.weight.new_zeros(len(images), 2)
        return self.classifier(torch.relu(self.encoder(images, centre)))

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder, each by one rename.

        Args:
            folder: made if missing.
            **about: further JSON values to keep (the environment's id, its options, ...).
        """
        header = {
            "kind": ONE_LOOK_KIND,
            "config": asdict(self.config),
            "class_names": list(self.class_names),
            **about,
        }
        save_model(folder, self, header)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> OneLook:
        """Reads a saved model back; nothing is unpickled.

        Raises:
            FileNotFoundError: if there is no model in `folder`.
            ValueError: if the files are not a one-look network's or do not fit one another.
        """
        header = read_model_json(folder, ONE_LOOK_KIND)
        needed = {"config", "class_names", "weights_sha256"}
        check_settings(folder, header, needed, {field.name for field in fields(OneLookConfig)})
        config = OneLookConfig(**settings_from_json(header["config"]))
        network = cls(config, class_names=tuple(header["class_names"]))
        load_weights(folder, header, network)
        return network.to(device).eval()


def _make_encoder(config: OneLookConfig) -> nn.Module:
    scale, width = PixelScale(config.pixel_mean, config.pixel_std), config.hidden_size
    if config.resnet is not None:
        encoder = GlimpseResNet(config.resnet, width, location_embedding=False, scale=scale)
        encoder.trunk.freeze_batch_norm(config.frozen_norms)
        return encoder
    if config.encoder == "mlp":
        return FullyConnected(config.image_shape, width, scale)
    if config.encoder == "conv":
        return GlimpseConv(config.image_shape, width, where_features=0, scale=scale)
    made_for = config.made_for
    return GlimpseCNN(config.image_shape, width, where_features=0, scale=scale, made_for=made_for)


def one_look_flops(network: OneLook) -> int:
    """Floating-point operations of one image, counted as `cost.flops_per_glimpse`."""
    return _flops(network, network.config.image_shape[0])


def side_of_flops(config: OneLookConfig, flops: float) -> int:
    """The side at which a network has the fewest FLOPs that are not below a number.

    FLOPs never fall when the side grows, as another pixel adds products to every convolution. Of
    sides of equal FLOPs, where strides round up, it is the largest.

    Args:
        config: of the network; its own side does not matter.
        flops: of one image.

    Raises:
        ValueError: even `LARGEST_SIDE` pixels have fewer.
    """
    counts: dict[int, int] = {}
    with torch.random.fork_rng(devices=[]):  # a run's generator must not move
        residual = None if config.resnet is None else OneLook(config)  # the same at every side

    def count(side: int) -> int:
        if side not in counts:
            if residual is not None:
                counts[side] = _flops(residual, side)
            else:
                with torch.device("meta"):  # shapes alone: weights may be large
                    counts[side] = _flops(OneLook(config.at(side)), side)
        return counts[side]

    low, high = config.smallest_side - 1, config.smallest_side
    while count(high) < flops:
        low, high = high, 2 * high
        if high > LARGEST_SIDE:
            raise ValueError(
                f"flops={flops:g}: expected at most what {config.encoder!r} has on {low}x{low} "
                f"pixels, {count(low):,}"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= flops else (middle, high)
    while count(high + 1) == count(high):
        high += 1
    return high


def _flops(network: OneLook, side: int) -> int:
    shape = (1, side, side, network.config.image_shape[2])
    image = torch.zeros(shape, dtype=torch.uint8, device=network.device)
    return count_flops(network, lambda: network(image))
