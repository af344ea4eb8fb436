"""Residual networks that turn images into features, with the options of the talk's last slide.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015), made of torchvision's
blocks, and the pre-activation order of their "Identity Mappings in Deep Residual Networks" (2016).
The options: the order of convolution, batch norm and ReLU; which convolution of a block has the
stride; batch norm's momentum; and weight decay without norms and biases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from dtram_env import optional

from .cells import Norm
from .checks import Channels, Share, check_fields, require


class Architecture(NamedTuple):
    """Depth and kind of blocks of a named network."""

    bottleneck: bool  # blocks of 1x1, 3x3, 1x1 convolutions; else of two 3x3
    blocks: tuple[int, int, int, int]  # in each of the four stages


RESNETS: dict[str, Architecture] = {
    "resnet10": Architecture(False, (1, 1, 1, 1)),
    "resnet18": Architecture(False, (2, 2, 2, 2)),
    "resnet34": Architecture(False, (3, 4, 6, 3)),
    "resnet50": Architecture(True, (3, 4, 6, 3)),
}
"""The networks by name: torchvision's, and a shorter one for small images."""


@dataclass(frozen=True)
class ResNetOptions:
    """Options of a residual network; the defaults are torchvision's ResNet-50."""

    name: str = "resnet50"
    """one of `RESNETS`"""
    order: Literal["post", "pre"] = "post"
    """order within a block: post (conv, norm, ReLU) or pre (norm, ReLU, conv)"""
    stride_in: Literal["3x3", "1x1"] = "3x3"
    """convolution of a bottleneck that has the stride: 3x3, or 1x1 (the first)"""
    bn_momentum: Share = 0.1
    """batch norm's momentum: weight of a new batch in the running statistics, in (0, 1]"""
    width: Annotated[int, 1, 1024] = 64
    """channels of the stem; the four stages have 1, 2, 4, 8 times as many (bottlenecks 4 times)"""
    stem_stride: Annotated[int, 1, 4] = 4
    """4: a 7x7 convolution of stride 2, and max-pooling of stride 2; 2: without the pooling; 1: a
    3x3 convolution, for images under about 64 pixels"""
    zero_init: bool = True
    """each block starts as its shortcut: the weights of its last batch norm (order "pre": of its
    last convolution) are 0 at first"""
    channels: Channels = 3
    """channels of the images"""

    def __post_init__(self) -> None:
        check_fields(self)
        require("name", self.name, self.name in RESNETS, f"one of {', '.join(RESNETS)}")
        require("stem_stride", self.stem_stride, self.stem_stride != 3, "1, 2 or 4")

    @property
    def out_features(self) -> int:
        """Width of the feature vectors."""
        return 8 * self.width * (4 if RESNETS[self.name].bottleneck else 1)

    @property
    def smallest_image(self) -> int:
        """Smallest side of an image, in pixels, that the last stage still reduces."""
        return 8 * self.stem_stride


class PreActivationBasic(nn.Module):
    """Two 3x3 convolutions, each after norm and ReLU (He et al. 2016, figure 1b).

    It is made as torchvision's blocks are. The first 3x3 convolution has the stride. If the shape
    changes, the shortcut `downsample` is a convolution of the first norm's ReLU.
    """

    expansion = 1
    kernels: tuple[int, ...] = (3, 3)
    bn1: Any  # and bn2, conv2, …: names as torchvision's
    conv1: Any

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        strided = self.kernels.index(3)
        for k, kernel in enumerate(self.kernels):
            width = planes * self.expansion if k + 1 == len(self.kernels) else planes
            setattr(self, f"bn{k + 1}", norm_layer(inplanes))
            conv = _conv(inplanes, width, kernel, stride if k == strided else 1)
            setattr(self, f"conv{k + 1}", conv)
            inplanes = planes
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        for k in range(2, len(self.kernels) + 1):
            out = getattr(self, f"conv{k}")(torch.relu(getattr(self, f"bn{k}")(out)))
        return out + shortcut


class PreActivationBottleneck(PreActivationBasic):
    """Convolutions of 1x1, 3x3, 1x1, each after norm and ReLU; see `PreActivationBasic`."""

    expansion = 4
    kernels = (1, 3, 1)


class ResNetBackbone(nn.Module):
    """Turns images into feature vectors, averaged over the positions of the last stage.

    Parameters have torchvision's names, without `fc`, so its weights fit with ``order="post"``.
    With ``order="pre"`` the stem stays conv, norm, ReLU; the first block has no first norm, and a
    norm and ReLU, `bn_last`, follow the last block (He et al. 2016, appendix).
    """

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        self.options = options
        self.norms_frozen = False
        architecture, width, stride = RESNETS[options.name], options.width, options.stem_stride
        block = _block_class(options)
        norm: Norm = partial(nn.BatchNorm2d, momentum=options.bn_momentum)
        self.out_features = options.out_features

        self.conv1 = _conv(options.channels, width, *((3, 1) if stride == 1 else (7, 2)))
        self.bn1 = norm(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stride == 4 else nn.Identity()
        inplanes = [width, *(width * 2**stage * block.expansion for stage in range(4))]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(block, norm, inplanes[stage], width * 2**stage, blocks, 2 if stage else 1)
            for stage, blocks in enumerate(architecture.blocks)
        )
        self.bn_last: nn.Module = nn.Identity()
        if options.order == "pre":
            self.layer1[0].bn1 = nn.Identity()
            self.bn_last = norm(self.out_features)
        if options.stride_in == "1x1" and architecture.bottleneck:
            for one in self._blocks():
                one.conv1.stride, one.conv2.stride = one.conv2.stride, one.conv1.stride
        self._initialise()

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, out_features)``, not negative, of normalised ``(B, channels, H, W)``.

        Images have any size from 32 pixels a side, less with a smaller stem.
        """
        x = self.stem(pixels)
        for stage in self.stages():
            x = stage(x)
        return self.pool(x)

    def stem(self, pixels: Tensor) -> Tensor:
        """Output ``(B, width, h, w)`` of the layers before the stages; as for `forward`."""
        height, width = pixels.shape[-2:]
        smallest = self.options.smallest_image
        if min(height, width) < smallest:
            way_out = "" if self.options.stem_stride == 1 else "; stem_stride=1 takes 8x8"
            images = f"{self.options.name} on images of {height}x{width} pixels"
            raise ValueError(f"{images}: expected at least {smallest}x{smallest}{way_out}")
        return self.maxpool(torch.relu(self.bn1(self.conv1(pixels))))

    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages; the blocks of a stage have one resolution."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def pool(self, x: Tensor) -> Tensor:
        """Features ``(B, out_features)`` of the last stage's output."""
        if self.options.order == "pre":
            x = torch.relu(self.bn_last(x))
        return nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)

    def freeze_batch_norm(self, frozen: bool) -> None:
        """Freezes the statistics, weights and biases of batch norms, or lets them learn again.

        They stay frozen in training mode. Make the optimiser after this call.
        """
        self.norms_frozen = frozen
        for norm in self._norms():
            norm.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.norms_frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def _blocks(self) -> list[Any]:
        return [block for stage in self.stages() for block in stage]

    def _initialise(self) -> None:
        """He et al.'s random convolutions; with `zero_init` every block is its shortcut."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.options.zero_init:
            # In order "pre" a ReLU follows a norm, which at 0 would never pass a gradient.
            kind = "bn" if self.options.order == "post" else "conv"
            last = f"{kind}{3 if RESNETS[self.options.name].bottleneck else 2}"
            for block in self._blocks():
                nn.init.zeros_(getattr(block, last).weight)


def _block_class(options: ResNetOptions) -> Any:
    bottleneck = RESNETS[options.name].bottleneck
    if options.order == "pre":
        return PreActivationBottleneck if bottleneck else PreActivationBasic
    # Imported here, as it doubles the time of `import agents`.
    blocks = optional.require("torchvision.models.resnet", "train")
    return blocks.Bottleneck if bottleneck else blocks.BasicBlock


def _stage(
    block: Any,
    norm: Callable[[int], nn.Module],
    inplanes: int,
    planes: int,
    count: int,
    stride: int,
) -> nn.Sequential:
    """Blocks of one resolution; the first has the stride, and its shortcut adapts the shape."""
    outplanes = planes * block.expansion
    downsample: nn.Module | None = None
    if stride != 1 or inplanes != outplanes:
        downsample = nn.Sequential(_conv(inplanes, outplanes, 1, stride))
        if not issubclass(block, PreActivationBasic):
            downsample.append(norm(outplanes))
    first = block(inplanes, planes, stride=stride, downsample=downsample, norm_layer=norm)
    rest = (block(outplanes, planes, norm_layer=norm) for _ in range(1, count))
    return nn.Sequential(first, *rest)


NARROW = 64
"""1x1 convolutions of fewer input channels are `_Pointwise`; torchvision's networks have none."""


class _Pointwise(nn.Conv2d):
    """A strided 1x1 convolution, computed without stride on the subsampled input.

    oneDNN 3.12's strided kernel writes out of bounds for few channels on large images.
    """

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.stride
        return nn.functional.conv2d(x[:, :, ::down, ::across], self.weight)


def _conv(inplanes: int, planes: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    kind = _Pointwise if kernel == 1 and inplanes < NARROW else nn.Conv2d
    return kind(inplanes, planes, kernel, stride=stride, padding=kernel // 2, bias=False)


def learning_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A module's parameters without those of frozen batch norms, see `freeze_batch_norm`."""
    frozen = {
        parameter
        for part in module.modules()
        if isinstance(part, ResNetBackbone) and part.norms_frozen
        for norm in part._norms()
        for parameter in norm.parameters()
    }
    return [parameter for parameter in module.parameters() if parameter not in frozen]


def parameter_groups(
    module: nn.Module, weight_decay: float, decay_norms: bool = False
) -> list[dict[str, Any]]:
    """A module's trainable parameters as groups for an optimiser, none of them empty.

    Unless `decay_norms`, the weight decay of norms, biases and everything of less than two
    dimensions is 0. Raises ValueError if `weight_decay` is negative.
    """
    require("weight_decay", weight_decay, weight_decay >= 0, "at least 0")
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim < 2 or name.endswith("bias")
            (keep if small and not decay_norms else decay).append(parameter)
    groups = ((decay, weight_decay), (keep, 0.0))
    return [{"params": part, "weight_decay": each} for part, each in groups if part]
