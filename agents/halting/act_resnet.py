"""ResNets whose blocks halt by ACT: each block takes as many residual units as an image needs.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 1 and figure 3; the arithmetic is in `act`. The paper's *block* is a stage of
`resnet.ResNetTrunk`, and its *residual unit* is a block of that stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import require_at_least
from ..config import check_pixel_scale
from ..encoders import PixelScale
from ..files import SavedNetwork
from ..resnet import ResNetOptions, ResNetTrunk
from .act import EPSILON, HALTING_BIAS, Halt, check_epsilon


@dataclass(frozen=True)
class ACTConfig:
    """The settings of a residual network that halts; saved in its ``model.json``."""

    num_classes: int
    """number of classes K"""
    resnet: ResNetOptions
    """options of the residual network"""
    image_size: int = 224
    """side of the training images, in pixels; it takes others too"""
    epsilon: float = EPSILON
    """ε: it halts once the halting scores sum to 1 - ε"""
    halting_bias: float = HALTING_BIAS
    """initial bias of the halting scores' logits; their initial weights are 0"""
    pixel_mean: float | tuple[float, ...] = 0.0
    """mean of the training images' pixels, 0 ... 255, or of each channel; it is subtracted"""
    pixel_std: float | tuple[float, ...] = 255.0
    """their standard deviation, or that of each channel; it divides the difference"""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "num_classes")
        check_epsilon(self.epsilon)
        check_pixel_scale(self.pixel_mean, self.pixel_std, self.resnet.channels)
        require_at_least(self, self.resnet.smallest_image, "image_size")

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
    flops: Tensor  # (B,) int64 FLOPs if nothing is computed after halting
    maps: tuple[Tensor, ...]  # for each block, rho (B, h, w) at every position; (B, 1, 1) in ACT


class ImageScore(nn.Module):
    """ACT's halting scores, ``h = σ(W pool(x) + b)``, pool the mean over positions."""

    def __init__(self, channels: int, bias: float = HALTING_BIAS) -> None:
        super().__init__()
        self.whole = nn.Linear(channels, 1)
        nn.init.zeros_(self.whole.weight)
        nn.init.constant_(self.whole.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, 1, 1)`` float32 of ``(B, channels, h, w)``."""
        return torch.sigmoid(self.whole(x.mean(dim=(2, 3))).float())[..., None]


class ACTResNet(SavedNetwork):
    """A ResNet in which each of four blocks takes as many residual units as an image needs.

    In training every unit is computed for all images and masked, so shapes are static; batch norms
    see halted images too, with the values at which they halted. In evaluation images that have
    halted leave the batch until the next block.

    Args:
        config: its settings.
        class_names: names of the K classes, saved with the model; numbers if not given.

    Attributes:
        trunk: the residual network; `backbone_weights.load_backbone` takes it.
        scores: for each block, the modules of its halting scores: one after each unit but the last.
    """

    KIND = "ResNet with ACT"
    CONFIG = ACTConfig

    def __init__(self, config: ACTConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(config, class_names)
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)
        self.trunk = ResNetTrunk(config.resnet).to(memory_format=torch.channels_last)
        width = self.trunk.out_features
        self.scores = nn.ModuleList(
            nn.ModuleList(self._make_score(width // 2 ** (3 - k)) for _ in range(len(units) - 1))
            for k, units in enumerate(self.trunk.stages())
        )
        self.classifier = nn.Linear(width, config.num_classes)

    def forward(self, images: Tensor, dense: bool | None = None) -> ACTOutput:
        """Classifies whole images.

        Args:
            images: ``(B, H, W, channels)`` uint8, of any size that the ResNet takes.
            dense: whether halted parts are computed too, and masked; results are equal. If None:
                in training mode they are, in evaluation mode not.

        Raises:
            ValueError: the images are too small, or `dense` is False in training mode.
        """
        dense = self.training if dense is None else dense
        if self.training and not dense:
            raise ValueError("dense=False in training mode: expected after eval()")
        x = self.scale(images, self.classifier.weight.dtype).permute(0, 3, 1, 2)
        positions = _positions(self.trunk.conv1, x)
        x = self.trunk.stem(x)
        flops = 2 * self.trunk.conv1.weight.numel() * positions
        total = torch.full(x.shape[:1], flops, device=x.device)
        ends = []
        for units, scores in zip(self.trunk.stages(), self.scores, strict=True):
            before, (x, end) = x[0, 0].numel(), self._block(units, scores, x, dense)
            total += self._block_flops(units, scores, end.taken, before, x)
            ends.append(end)
        return ACTOutput(
            logits=self.classifier(self.trunk.pool(x)),
            ponder=torch.stack([end.ponder.mean(dim=(1, 2)) for end in ends]).sum(dim=0),
            units=torch.stack([end.taken.float().mean(dim=(1, 2)) for end in ends], dim=1),
            flops=total + 2 * self.classifier.weight.numel(),
            maps=tuple(end.ponder.detach() for end in ends),
        )

    def _block(self, units: Any, scores: Any, x: Tensor, dense: bool) -> tuple[Tensor, Halt]:
        """Algorithms 1 and 2: the weighted outputs ``(B, C, h, w)`` and the final `Halt`."""
        x = units[0](x)  # at all positions, as it changes the shape
        state, mixture = Halt.start(self._grid(x)), torch.zeros_like(x)
        for unit, score in zip(units, [*scores, None], strict=True):
            if unit is not units[0]:
                x = self._advance(unit, x, state.active, dense)
            score = None if score is None else self._score(score, x, state.active, dense)
            weight, state = state.step(score, self.config.epsilon)
            mixture = mixture + weight[:, None] * x
        return mixture, state

    # SACT has halting scores (B, h, w); ACT has one for the image, (B, 1, 1).

    def _make_score(self, channels: int) -> nn.Module:
        return ImageScore(channels, self.config.halting_bias)

    def _grid(self, x: Tensor) -> Tensor:
        """A tensor of the shape of the halting scores of ``(B, C, h, w)``."""
        return x[:, 0, :1, :1]

    def _advance(self, unit: Any, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        """A unit's output where `active`, and `x` elsewhere."""
        if dense:
            return torch.where(active[:, None], unit(x), x)
        index = active[:, 0, 0].nonzero()[:, 0]
        return x.index_copy(0, index, unit(x[index]).to(x.dtype)) if len(index) else x

    def _score(self, score: nn.Module, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        """Halting scores, shaped as `active`; where that is False, of any value."""
        if dense:
            return score(x)
        index = active[:, 0, 0].nonzero()[:, 0]
        scores = score(x[index])
        return scores.new_zeros(active.shape).index_copy(0, index, scores)

    @torch.no_grad()
    def _block_flops(
        self, units: Any, scores: Any, taken: Tensor, before: int, x: Tensor
    ) -> Tensor:
        """FLOPs ``(B,)`` of a block.

        Args:
            units: of the block.
            scores: modules of its halting scores.
            taken: N, shaped as the halting scores.
            before: number of positions of the block's input.
            x: the block's output.
        """
        after, first = x[0, 0].numel(), units[0]
        macs = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for conv in convolutions(first):
            early = conv is first.conv1 and conv.stride == (1, 1)
            macs += conv.weight.numel() * (before if early else after)
        for n, unit in enumerate(units[1:], start=1):
            macs += self._unit_macs(unit, taken > n, after)
        for n, score in enumerate(scores):
            macs += self._score_macs(score, taken > n)
        return 2 * macs

    def _unit_macs(self, unit: Any, active: Tensor, positions: int) -> Tensor:
        """Multiply-adds ``(B,)`` of a unit that keeps the shape, which has so many positions."""
        weights = sum(conv.weight.numel() for conv in convolutions(unit))
        return weights * positions * active[:, 0, 0]

    def _score_macs(self, score: Any, active: Tensor) -> Tensor:
        return score.whole.weight.numel() * active.flatten(1).any(dim=1)


def convolutions(unit: nn.Module) -> Iterator[nn.Conv2d]:
    """The convolutions of a residual unit, including its shortcut's."""
    return (part for part in unit.modules() if isinstance(part, nn.Conv2d))


def _positions(conv: nn.Conv2d, x: Tensor) -> int:
    """Output positions of a convolution of ``(B, C, H, W)``, padded by half its kernel."""
    return -(-x.shape[2] // conv.stride[0]) * -(-x.shape[3] // conv.stride[1])
