"""ResNets whose blocks halt by ACT: each block takes as many residual units as an image needs.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 1 and figure 3; the arithmetic is in `act`. The paper's *block* is a stage of
`resnet.ResNetBackbone`, and its *residual unit* is a block of that stage.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import require
from ..encoders import PixelScale
from ..files import SavedNetwork
from ..one_look import OneLookConfig
from ..resnet import RESNETS, ResNetBackbone
from .act import EPSILON, HALTING_BIAS, Halt


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

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.whole = nn.Linear(channels, 1)
        nn.init.zeros_(self.whole.weight)
        nn.init.constant_(self.whole.bias, HALTING_BIAS)

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
    halted leave the batch until the next block. Of the settings it does not read ``hidden_size``
    and ``frozen_norms``; another encoder than a ResNet is a ValueError.

    Attributes:
        scores: for each block the modules of its halting scores, one after each unit but the last.
        epsilon: ε; a block halts once its scores sum to 1 - ε.
    """

    KIND = "ResNet with ACT"
    CONFIG = OneLookConfig
    SCORE: ClassVar[type[ImageScore]] = ImageScore

    def __init__(self, config: OneLookConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(config, class_names)
        residual, expected = config.resnet is not None, f"one of {', '.join(RESNETS)}"
        require("encoder", config.encoder, residual, f"{expected} in a network that halts")
        assert config.resnet is not None
        self.epsilon = EPSILON
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)
        self.trunk = ResNetBackbone(config.resnet).to(memory_format=torch.channels_last)
        width = self.trunk.out_features
        self.scores = nn.ModuleList(
            nn.ModuleList(self.SCORE(width // 2 ** (3 - k)) for _ in units[1:])
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
            weight, state = state.step(score, self.epsilon)
            mixture = mixture + weight[:, None] * x
        return mixture, state

    def _advance(self, unit: Any, x: Tensor, active: Tensor) -> Tensor:
        """A unit's output where `active`, shaped as the scores, is True, and `x` elsewhere."""
        index = active[:, 0, 0].nonzero()[:, 0]
        return x.index_copy(0, index, unit(x[index]).to(x.dtype))
