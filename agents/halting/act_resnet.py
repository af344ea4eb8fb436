"""ResNets each of whose blocks halts after some of its residual units, by ACT.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 1 and figure 3; the arithmetic is in `act`. The paper's *block* is a stage of
`resnet.ResNetTrunk`, and its *residual unit* a block of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..checks import require
from ..config import check_pixel_scale, names_of_classes, settings_from_json
from ..encoders import PixelScale
from ..files import check_settings, load_weights, read_model_json, save_model
from ..resnet import ResNetOptions, ResNetTrunk
from .act import EPSILON, HALTING_BIAS, Halt, check_epsilon


@dataclass(frozen=True)
class ACTConfig:
    """What a residual network that halts is made of; saved beside its weights."""

    num_classes: int
    """number of classes K"""
    resnet: ResNetOptions
    """of the residual network"""
    image_size: int = 224
    """pixels a side of the images that it was made for; it takes others too"""
    epsilon: float = EPSILON
    """ε: halting scores that sum to 1 - ε are enough"""
    halting_bias: float = HALTING_BIAS
    """bias of the halting scores' logits before training; their weights are 0"""
    pixel_mean: float | tuple[float, ...] = 0.0
    """subtracted from the pixels, 0 ... 255: the training images' mean, or that of each channel"""
    pixel_std: float | tuple[float, ...] = 255.0
    """then divides them: the training images' standard deviation, or that of each channel"""

    def __post_init__(self) -> None:
        require("num_classes", self.num_classes, self.num_classes >= 2, "at least 2")
        check_epsilon(self.epsilon)
        check_pixel_scale(self.pixel_mean, self.pixel_std, self.resnet.channels)
        least = self.resnet.smallest_image
        require("image_size", self.image_size, self.image_size >= least, f"at least {least}")

    @property
    def encoder(self) -> str:
        """Name of the residual network."""
        return self.resnet.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(s, s, channels) of the images that it was made for."""
        return self.image_size, self.image_size, self.resnet.channels


class ACTOutput(NamedTuple):
    """What a residual network that halts says, and what it computed for that."""

    logits: Tensor  # (B, K)
    ponder: Tensor  # (B,) rho summed over blocks; has gradient
    units: Tensor  # (B, blocks) residual units taken, N, in SACT the mean over positions
    flops: Tensor  # (B,) int64 floating-point operations where what has halted is skipped
    maps: tuple[Tensor, ...]  # of each block, rho (B, h, w) at every position; (B, 1, 1) in ACT


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


class ACTResNet(nn.Module):
    """A ResNet each of whose four blocks takes as many residual units as an image needs.

    In training every unit is computed for all images, and masked: static shapes. In evaluation
    images that have halted in a block leave the batch until the next block. Batch norms' statistics
    in training are those of all images, halted ones as they were when they halted.

    Args:
        config: what it is made of.
        class_names: names of the K classes, saved with the model; numbers if not given.

    Attributes:
        trunk: the residual network; `backbone_weights.load_backbone` takes it.
        scores: halting scores of every block, after each of its units but the last.
    """

    KIND = "ResNet with ACT"

    def __init__(self, config: ACTConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = names_of_classes(class_names, config.num_classes)
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)
        self.trunk = ResNetTrunk(config.resnet).to(memory_format=torch.channels_last)
        width = self.trunk.out_features
        self.scores = nn.ModuleList(
            nn.ModuleList(self._make_score(width // 2 ** (3 - k)) for _ in range(len(units) - 1))
            for k, units in enumerate(self.trunk.stages())
        )
        self.classifier = nn.Linear(width, config.num_classes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.weight.device

    def forward(self, images: Tensor, dense: bool | None = None) -> ACTOutput:
        """Looks at whole images.

        Args:
            images: ``(B, H, W, channels)`` uint8, of any size that the ResNet takes.
            dense: whether what has halted is computed all the same, and masked; the result is the
                same. As in training, if not given: yes in training mode, no in evaluation mode.

        Raises:
            ValueError: the images are too small, or something is to be skipped in training mode.
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
        """Algorithms 1 and 2: the mixture ``(B, C, h, w)`` of the units' results, and the end."""
        x = units[0](x)  # everywhere; it changes the shape
        state, mixture = Halt.start(self._grid(x)), torch.zeros_like(x)
        for unit, score in zip(units, [*scores, None], strict=True):
            if unit is not units[0]:
                x = self._advance(unit, x, state.active, dense)
            score = None if score is None else self._score(score, x, state.active, dense)
            weight, state = state.step(score, self.config.epsilon)
            mixture = mixture + weight[:, None] * x
        return mixture, state

    # What SACT does at every position, ACT does at one, (B, 1, 1), that stands for the image.

    def _make_score(self, channels: int) -> nn.Module:
        return ImageScore(channels, self.config.halting_bias)

    def _grid(self, x: Tensor) -> Tensor:
        """Something of the shape of the positions of ``(B, C, h, w)`` that halt."""
        return x[:, 0, :1, :1]

    def _advance(self, unit: Any, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        """A unit's result where `active`, and `x` where not."""
        if dense:
            return torch.where(active[:, None], unit(x), x)
        rows = active[:, 0, 0].nonzero()[:, 0]
        return x.index_copy(0, rows, unit(x[rows]).to(x.dtype)) if len(rows) else x

    def _score(self, score: nn.Module, x: Tensor, active: Tensor, dense: bool) -> Tensor:
        """Halting scores, of the shape of `active`, where it holds; elsewhere any."""
        if dense:
            return score(x)
        rows = active[:, 0, 0].nonzero()[:, 0]
        scores = score(x[rows])
        return scores.new_zeros(active.shape).index_copy(0, rows, scores)

    @torch.no_grad()
    def _block_flops(
        self, units: Any, scores: Any, taken: Tensor, before: int, x: Tensor
    ) -> Tensor:
        """Floating-point operations ``(B,)`` of a block.

        Args:
            units: of the block.
            scores: its halting scores.
            taken: N, of the shape of the positions that halt.
            before: positions of what the block is given.
            x: what it gives.
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
        """Multiply-adds ``(B,)`` of a unit that changes no shape, with so many positions."""
        weights = sum(conv.weight.numel() for conv in convolutions(unit))
        return weights * positions * active[:, 0, 0]

    def _score_macs(self, score: Any, active: Tensor) -> Tensor:
        return score.whole.weight.numel() * active.flatten(1).any(dim=1)

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder; see `OneLook.save`."""
        header = {
            "kind": self.KIND,
            "config": asdict(self.config),
            "class_names": list(self.class_names),
            **about,
        }
        save_model(folder, self, header)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Reads a saved model back; raises as `OneLook.load`."""
        header = read_model_json(folder, cls.KIND)
        needed = {"config", "class_names", "weights_sha256"}
        check_settings(folder, header, needed, {field.name for field in fields(ACTConfig)})
        network = cls(
            ACTConfig(**settings_from_json(header["config"])), tuple(header["class_names"])
        )
        load_weights(folder, header, network)
        return network.to(device).eval()


def convolutions(unit: nn.Module) -> Iterator[nn.Conv2d]:
    """The convolutions of a residual unit, that of its shortcut included."""
    return (part for part in unit.modules() if isinstance(part, nn.Conv2d))


def _positions(conv: nn.Conv2d, x: Tensor) -> int:
    """Positions at which a convolution padded by half its kernel answers ``(B, C, H, W)``."""
    return -(-x.shape[2] // conv.stride[0]) * -(-x.shape[3] // conv.stride[1])
