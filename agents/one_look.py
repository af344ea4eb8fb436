"""One-look networks, DT-RAM's baselines: they see the whole image, shrunk, once.

The talk's Table 2 has a fully connected and a convolutional one for MNIST; its Tables 3 to 6 have
ResNets. A 1-step RAM whose glimpse is the whole image is the same network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import Channels, Classes, Number, Positive, Side, Width, check_fields, check_square
from .config import check_encoder, check_pixel_scale
from .cost import count_flops
from .encoders import ENCODERS, PixelScale, make_encoder, smallest_side
from .files import SavedNetwork
from .resnet import RESNETS, ResNetOptions


@dataclass(frozen=True)
class OneLookConfig:
    """The settings of a one-look network; saved in its ``model.json``.

    Raises:
        ValueError: a setting is out of range, or two settings exclude each other.
    """

    num_classes: Classes
    """number of classes K"""
    image_shape: tuple[Side, Side, Channels]
    """(s, s, channels) of the shrunk image"""
    encoder: str = "mlp"
    """mlp: two fully connected layers; conv, cnn: the glimpse encoders of these names without a
    where-path; or a name of `resnet.RESNETS`"""
    resnet: ResNetOptions | None = None
    """options of a residual encoder, whose name they repeat; None for the other encoders"""
    hidden_size: Width = 256
    """width of the code that the classifier reads, and of the layer before it"""
    frozen_norms: bool = False
    """whether the batch norms of a residual encoder stay fixed"""
    pixel_mean: Number | tuple[Number, ...] = 0.0
    """mean of the training images' pixels, 0 ... 255, or of each channel; it is subtracted"""
    pixel_std: Positive | tuple[Positive, ...] = 255.0
    """their standard deviation, or that of each channel; it divides the difference"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_encoder(self, (*ENCODERS, *RESNETS))
        check_square(self, "image_shape", smallest_side(self), self.encoder)
        check_pixel_scale(self, self.image_shape[2])


class FullyConnected(nn.Module):
    """Two layers over all pixels; `OneLook` applies the second one's ReLU."""

    def __init__(
        self, image_shape: tuple[int, int, int], out_features: int, scale: PixelScale
    ) -> None:
        super().__init__()
        side, _, channels = image_shape
        self.scale = scale
        self.hidden = nn.Linear(side * side * channels, out_features)
        self.out = nn.Linear(out_features, out_features)

    def forward(self, image: Tensor, location: Tensor) -> Tensor:
        """Encodes ``(B, s, s, channels)`` uint8 as ``(B, out_features)``."""
        pixels = self.scale(image, location.dtype).flatten(1)
        return self.out(torch.relu(self.hidden(pixels)))


class OneLook(SavedNetwork):
    """A network that sees the image once: ``y = argmax f_c(ReLU(φ(x)))``."""

    KIND = "one-look network"
    CONFIG = OneLookConfig

    def __init__(self, config: OneLookConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(config, class_names)
        self.encoder = _make_encoder(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits ``(B, K)`` of whole images ``(B, s, s, channels)`` uint8.

        A residual encoder takes other sides too. Another shape is a ValueError.
        """
        shape = self.config.image_shape
        if self.config.resnet is None and images.shape[1:] != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"images: expected (B, {expected}), got {tuple(images.shape)}")
        # The whole image's location, which encoders take, is the centre.
        centre = self.classifier.weight.new_zeros(len(images), 2)
        return self.classifier(torch.relu(self.encoder(images, centre)))


def _make_encoder(config: OneLookConfig) -> nn.Module:
    if config.encoder == "mlp":
        scale = PixelScale(config.pixel_mean, config.pixel_std)
        return FullyConnected(config.image_shape, config.hidden_size, scale)
    return make_encoder(config, config.image_shape, where_features=0)


def one_look_flops(network: OneLook) -> int:
    """FLOPs of one image, counted as in `cost`."""
    shape = 1, *network.config.image_shape
    image = torch.zeros(shape, dtype=torch.uint8, device=network.device)
    return count_flops(network, lambda: network(image))
