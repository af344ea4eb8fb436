"""ResNets whose blocks halt by ACT: each block takes as many residual units as an image needs.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 1 and figure 3; the arithmetic is in `act`. The paper's *block* is a stage of
`resnet.ResNetBackbone`, and its *residual unit* is a block of that stage.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import Classes, Number, Positive, Side, check_fields, check_square
from ..config import check_pixel_scale
from ..encoders import PixelScale
from ..files import SavedNetwork
from ..resnet import ResNetBackbone, ResNetOptions
from .act import EPSILON, HALTING_BIAS, Halt


@dataclass(frozen=True)
class ACTConfig:
    """The settings of a residual network that halts; saved in its ``model.json``."""

    num_classes: Classes
    """number of classes K"""
    resnet: ResNetOptions
    """options of the residual network"""
    image_size: Side = 224
    """side of the training images, in pixels; it takes others too"""
    epsilon: Annotated[float, 1e-6, 1 - 1e-6] = EPSILON
    """ε: it halts once the halting scores sum to 1 - ε"""
    halting_bias: Number = HALTING_BIAS
    """initial bias of the halting scores' logits; their initial weights are 0"""
    pixel_mean: Number | tuple[Number, ...] = 0.0
    """mean of the training images' pixels, 0 ... 255, or of each channel; it is subtracted"""
    pixel_std: Positive | tuple[Positive, ...] = 255.0
    """their standard deviation, or that of each channel; it divides the difference"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_pixel_scale(self, self.resnet.channels)
        check_square(self, "image_shape", self.resnet.smallest_image, self.encoder)

    @property
    def encoder(self) -> str:
        """Name of the residual network."""
        return self.resnet.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(s, s, channels) of the training images."""
        return self.image_size, self.image_size, self.resnet.channels


class ACTOutput(NamedTuple):
    """Answer and cost of a residual network that halts."""

    logits: Tensor  # (B, K)
    ponder: Tensor  # (B,) rho summed over blocks, with gradient
    units: Tensor  # (B, blocks) residual units taken, N; in SACT the mean over positions
    maps: tuple[Tensor, ...]  # for each block, rho (B, h, w) at every position; (B, 1, 1) in ACT


class ImageScore(nn.Module):
    """ACT's halting scores, ``h = σ(W pool(x) + b)``, pool the mean over positions.

    `active`, ``(B, 1, 1)`` bool here, tells for which of the scores images still compute.
    """

    def __init__(self, channels: int, bias: float = HALTING_BIAS) -> None:
        super().__init__()
        self.whole = nn.Linear(channels, 1)
        nn.init.zeros_(self.whole.weight)
        nn.init.constant_(self.whole.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, 1, 1)`` float32 of ``(B, channels, h, w)``."""
        return torch.sigmoid(self.whole(x.mean(dim=(2, 3))).float())[..., None]

    def at(self, x: Tensor, active: Tensor) -> Tensor:
        """Scores ``(n,)``, computed only where `active` is True."""
        return self(x[active[:, 0, 0]]).flatten()

    @staticmethod
    def places(x: Tensor) -> Tensor:
        """A tensor of the shape of the scores of ``(B, channels, h, w)``."""
        return x[:, 0, :1, :1]


class ACTResNet(SavedNetwork):
    """A ResNet in which each of four blocks takes as many residual units as an image needs.

    In training every unit is computed for all images and masked, so shapes are static; batch norms
    see halted images too, with the values at which they halted. In evaluation images that have
    halted leave the batch until the next block. `scores` has for each block the modules of its
    halting scores, one after each unit but the last.
    """

    KIND = "ResNet with ACT"
    CONFIG = ACTConfig
    SCORE: ClassVar[type[ImageScore]] = ImageScore

    def __init__(self, config: ACTConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(config, class_names)
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)
        self.trunk = ResNetBackbone(config.resnet).to(memory_format=torch.channels_last)
        width, bias = self.trunk.out_features, config.halting_bias
        self.scores = nn.ModuleList(
            nn.ModuleList(self.SCORE(width // 2 ** (3 - k), bias) for _ in units[1:])
            for k, units in enumerate(self.trunk.stages())
        )
        self.classifier = nn.Linear(width, config.num_classes)

    def forward(self, images: Tensor, dense: bool | None = None) -> ACTOutput:
        """Classifies whole images ``(B, H, W, channels)`` uint8, of any size that the ResNet takes.

        `dense`: halted parts are computed too, and masked; results are equal. If None: in training
        mode, where False is a ValueError.
        """
        dense = self.training if dense is None else dense
        if self.training and not dense:
            raise ValueError("dense=False in training mode: expected after eval()")
        x = self.trunk.stem(self.scale(images, self.classifier.weight.dtype).permute(0, 3, 1, 2))
        ends = []
        for units, scores in zip(self.trunk.stages(), self.scores, strict=True):
            x, end = self._block(units, scores, x, dense)
            ends.append(end)
        return ACTOutput(
            logits=self.classifier(self.trunk.pool(x)),
            ponder=torch.stack([end.ponder.mean(dim=(1, 2)) for end in ends]).sum(dim=0),
            units=torch.stack([end.taken.float().mean(dim=(1, 2)) for end in ends], dim=1),
            maps=tuple(end.ponder.detach() for end in ends),
        )

    def _block(self, units: Any, scores: Any, x: Tensor, dense: bool) -> tuple[Tensor, Halt]:
        """Algorithms 1 and 2: the weighted outputs ``(B, C, h, w)`` and the final `Halt`."""
        x = units[0](x)  # at all positions, as it changes the shape
        state, mixture = Halt.start(self.SCORE.places(x)), torch.zeros_like(x)
        for n, unit in enumerate(units):
            active = state.active
            everywhere = dense or bool(active.all())  # else gathering saves computation
            if n and everywhere:
                x = torch.where(active[:, None], unit(x), x)
            elif n and active.any():
                x = self._advance(unit, x, active)
            if n == len(scores):
                score = torch.ones_like(state.remainder)
            elif everywhere:
                score = scores[n](x)
            else:
                found = scores[n].at(x, active)
                score = found.new_zeros(active.shape).masked_scatter(active, found)
            weight, state = state.step(score, self.config.epsilon)
            mixture = mixture + weight[:, None] * x
        return mixture, state

    def _advance(self, unit: Any, x: Tensor, active: Tensor) -> Tensor:
        """A unit's output where `active`, shaped as the scores, is True, and `x` elsewhere."""
        index = active[:, 0, 0].nonzero()[:, 0]
        return x.index_copy(0, index, unit(x[index]).to(x.dtype))
