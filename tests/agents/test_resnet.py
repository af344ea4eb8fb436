"""Residual networks: torchvision's own features, strides, orders and costs worked by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet as torchvision_resnet

from agents.resnet import (
    NARROW,
    PreActivationBasic,
    PreActivationBottleneck,
    ResNetBackbone,
    ResNetOptions,
    _conv,
    learning_parameters,
    parameter_groups,
)


def trunk(**options: Any) -> ResNetBackbone:
    """A network with narrow layers and without zeros, so that every layer shows in its output."""
    torch.manual_seed(0)
    made = ResNetBackbone(ResNetOptions(**{"width": 8, "zero_init": False, **options}))
    return stir(made).eval()


def stir(module: Any) -> Any:
    """Gives every batch norm statistics, weights and biases of its own."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module


def macs(options: ResNetOptions, side: int) -> int:
    """Multiply-adds of an image, counted on tensors without data."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        ResNetBackbone(options).eval()(torch.zeros(1, options.channels, side, side))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_post_order_is_torchvisions_network(name: str) -> None:
    torch.manual_seed(1)
    theirs = stir(getattr(torchvision_resnet, name)(weights=None)).eval()
    theirs.fc = nn.Identity()
    ours = ResNetBackbone(ResNetOptions(name)).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        features = ours(pixels)
        assert torch.equal(features, theirs(pixels))
    assert features.shape == (2, ours.out_features)


def test_the_initial_weights_follow_torchvisions_rule() -> None:
    network = ResNetBackbone(ResNetOptions("resnet18"))
    weight = network.layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert network.layer4[1].bn1.weight.eq(1).all() and network.layer4[1].bn2.weight.eq(0).all()


# -- strides and sizes --------------------------------------------------------------------------


def strides(network: ResNetBackbone) -> list[int]:
    return [network.get_submodule(f"layer3.0.conv{k}").stride[0] for k in (1, 2)]


@pytest.mark.parametrize("order", ["post", "pre"])
def test_the_stride_moves_within_bottlenecks_alone(order: str) -> None:
    last, first = (trunk(name="resnet50", order=order, stride_in=s) for s in ("3x3", "1x1"))
    assert strides(last) == [1, 2] and strides(first) == [2, 1]
    assert first.layer1[0].conv1.stride == first.layer3[1].conv1.stride == (1, 1)
    assert list(first.state_dict()) == list(last.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        sizes = [
            n.layer4(n.layer3(n.layer2(torch.randn(1, 32, 16, 16)))).shape for n in (last, first)
        ]
        assert sizes[0] == sizes[1] == (1, 256, 2, 2)
        assert not torch.allclose(last(pixels), first(pixels))
        small = [trunk(name="resnet18", order=order, stride_in=s)(pixels) for s in ("3x3", "1x1")]
    assert torch.equal(*small)


def test_a_smaller_stem_keeps_more_resolution() -> None:
    half = trunk(name="resnet10", stem_stride=2, channels=1)
    assert half.stem(torch.zeros(1, 1, 16, 18)).shape == (1, 8, 8, 9)
    network = trunk(name="resnet10", stem_stride=1, channels=1)
    assert network.maxpool(network.conv1(torch.zeros(1, 1, 9, 11))).shape == (1, 8, 9, 11)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, network.out_features) == (2, 64)
    assert trunk(name="resnet50", width=4)(torch.randn(1, 3, 32, 32)).shape == (1, 128)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="28x40 pixels: expected at least 32x32; stem_stride=1"):
        trunk(name="resnet10")(torch.zeros(1, 3, 28, 40))
    with pytest.raises(ValueError, match=r"8x7 pixels: expected at least 8x8$"):
        trunk(name="resnet10", stem_stride=1)(torch.zeros(1, 3, 8, 7))


def resnet50_macs(stride_in: str) -> int:
    """Multiply-adds of ResNet-50's convolutions on 224x224 pixels, worked by hand."""
    total = 112 * 112 * 64 * 3 * 7 * 7
    inplanes, before = 64, 56
    for planes, side, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        first = before if stride_in == "3x3" else side  # where the first 1x1 works
        total += first**2 * inplanes * planes + side**2 * inplanes * 4 * planes  # and the shortcut
        total += (blocks - 1) * side**2 * 4 * planes * planes
        total += blocks * side**2 * (9 * planes * planes + planes * 4 * planes)
        inplanes, before = 4 * planes, side
    return total


def test_flops_equal_the_hand_worked_number() -> None:
    assert macs(ResNetOptions(), 224) == resnet50_macs("3x3") == pytest.approx(4.09e9, rel=0.01)
    options = ResNetOptions(stride_in="1x1", order="pre")
    assert macs(options, 224) == resnet50_macs("1x1") == pytest.approx(3.86e9, rel=0.01)


# -- pre-activation -----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [PreActivationBasic(6, 6), PreActivationBottleneck(8, 2)])
def test_a_pre_activation_block_without_residual_is_the_identity(block: nn.Module) -> None:
    x = torch.randn(2, 8 if isinstance(block, PreActivationBottleneck) else 6, 5, 5)
    last = "conv3" if isinstance(block, PreActivationBottleneck) else "conv2"
    nn.init.zeros_(block.get_submodule(last).weight)
    assert torch.equal(block(x), x)  # the negative ones too: no ReLU after the sum


def test_a_pre_activation_block_by_hand() -> None:
    block = PreActivationBasic(1, 1, norm_layer=lambda n: nn.BatchNorm2d(n, eps=0)).eval()
    with torch.no_grad():
        block.bn1.bias.fill_(-1)
        block.bn2.bias.fill_(-2.5)
        for conv, weight in ((block.conv1, 2.0), (block.conv2, 0.5)):
            conv.weight.zero_()[..., 1, 1] = weight
        # 3 -> relu(3 - 1) * 2 = 4 -> relu(4 - 2.5) / 2 = 0.75, and the shortcut's 3;
        # 2 -> 2 -> relu(2 - 2.5) = 0; -1 -> 0 -> 0.
        out = block(torch.tensor([3.0, 2.0, -1.0]).reshape(3, 1, 1, 1))
    assert out.flatten().tolist() == [3.75, 2.0, -1.0]


def test_a_shortcut_that_changes_the_shape_reads_the_first_activation() -> None:
    block = PreActivationBottleneck(3, 2, stride=2, downsample=nn.Conv2d(3, 8, 1, 2)).eval()
    nn.init.zeros_(block.conv3.weight)
    x = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        assert block.downsample is not None
        assert torch.equal(block(x), block.downsample(torch.relu(block.bn1(x))))


def test_pre_order_has_one_norm_before_each_convolution_and_one_at_the_end() -> None:
    network = trunk(name="resnet18", order="pre")
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 16 - 1 + 1  # stem, two a block but one in the first block, the last
    assert "bn1" in norms and "layer1.0.bn1" not in norms and norms[-1] == "bn_last"
    with torch.no_grad():
        network.bn_last.weight.zero_()
        network.bn_last.bias.copy_(torch.arange(64) - 32.0)
        features = network(torch.randn(2, 3, 32, 32))
    assert torch.equal(features, (torch.arange(64) - 32.0).clamp(min=0).expand(2, -1))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_every_parameter_learns_from_zero_init(name: str, order: str, stem_stride: int) -> None:
    torch.manual_seed(0)
    options = ResNetOptions(name, order=order, width=4, stem_stride=stem_stride)
    network = ResNetBackbone(options)
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    pixels, target = torch.randn(4, 3, 40, 40), torch.randn(4, network.out_features)
    for _ in range(3):
        loss = (network(pixels) * target).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_zero_init_starts_blocks_as_their_shortcuts(name: str, order: str) -> None:
    network = ResNetBackbone(ResNetOptions(name, order=order, width=4)).eval()
    first, second = network.layer3[0], network.layer3[1]
    x = torch.randn(2, second.conv1.in_channels, 6, 6)
    other = ResNetBackbone(ResNetOptions(name, order, width=4, zero_init=False)).eval().layer3[1]
    with torch.no_grad():
        if order == "post":  # a ReLU follows the sum
            x = x.relu()
        assert torch.equal(second(x), x) and not torch.equal(other(x), x)
        x = torch.randn(2, first.conv1.in_channels, 6, 6)
        before = x if order == "post" else torch.relu(first.bn1(x))
        shortcut = first.downsample(before)
        assert torch.equal(first(x), shortcut.relu() if order == "post" else shortcut)


# -- batch norm ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["post", "pre"])
def test_the_smoothing_factor_reaches_every_batch_norm(order: str) -> None:
    network = trunk(name="resnet50", order=order, bn_momentum=0.25)
    factors = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert factors == {0.25}
    mean = network.bn1.running_mean.clone()
    pixels = torch.randn(4, 3, 32, 32)
    network.train()(pixels)
    new = network.conv1(pixels).mean((0, 2, 3))
    torch.testing.assert_close(network.bn1.running_mean, 0.75 * mean + 0.25 * new)


def norm_state(network: nn.Module) -> list[Tensor]:
    return [
        value.detach().clone()
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        for value in module.state_dict().values()
    ]


def test_frozen_batch_norm_stays_through_training_and_thaws() -> None:
    network = trunk(name="resnet18")
    whole = nn.Sequential(network, nn.Linear(network.out_features, 2)).train()
    network.freeze_batch_norm(True)
    whole.train()
    assert network.training and not network.bn1.training
    pixels = torch.randn(4, 3, 32, 32)
    before, conv = norm_state(network), network.conv1.weight.detach().clone()
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.1)
    features = network(pixels)
    whole[1](features).sum().backward()
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(before, norm_state(network), strict=True))
    assert not torch.equal(conv, network.conv1.weight)
    network.conv1.weight.data.copy_(conv)
    assert network.layer1[0].bn1.weight.grad is None

    network.freeze_batch_norm(False)
    assert network.bn1.training and network.bn1.weight.requires_grad
    network(pixels)
    assert not torch.equal(before[2], network.bn1.running_mean)


# -- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["post", "pre"])
def test_channels_last_and_bf16_give_close_features(order: str) -> None:
    network, pixels = trunk(name="resnet50", order=order), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = network(pixels)
        last = network.to(memory_format=torch.channels_last)(
            pixels.to(memory_format=torch.channels_last)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(pixels)
    torch.testing.assert_close(last, features, rtol=1e-3, atol=1e-4)
    assert half.dtype == torch.bfloat16
    assert (half - features).norm() < 0.03 * features.norm()


# -- options ------------------------------------------------------------------------------------


def test_options_need_no_torchvision(run_python: Callable[..., str]) -> None:
    # Loading it would double the time that `import agents` takes.
    code = "import agents.resnet as r, sys; r.ResNetOptions(); print('torchvision' in sys.modules)"
    assert run_python("-c", code) == "False\n"


# -- parameter groups ---------------------------------------------------------------------------


class Mixed(nn.Module):
    """A norm, a shared layer, something frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.frozen = nn.Linear(4, 2)
        self.frozen.requires_grad_(False)
        self.scalar = nn.Parameter(torch.zeros(()))
        self.step_bias = nn.Parameter(torch.zeros(3, 4))


def names(module: nn.Module, group: dict[str, Any]) -> set[str]:
    of = {parameter: name for name, parameter in module.named_parameters()}
    return {of[parameter] for parameter in group["params"]}


def test_norms_and_biases_do_not_decay() -> None:
    module = Mixed()
    decay, keep = parameter_groups(module, 1e-4)
    assert decay["weight_decay"] == 1e-4 and keep["weight_decay"] == 0.0
    assert names(module, decay) == {"conv.weight", "first.weight"}
    norm, small = {"norm.weight", "norm.bias"}, {"conv.bias", "first.bias", "scalar", "step_bias"}
    assert names(module, keep) == norm | small
    assert len(decay["params"]) + len(keep["params"]) == 8


def test_all_decay_if_asked_for() -> None:
    module = Mixed()
    (group,) = parameter_groups(module, 0.1, decay_norms=True)
    assert group["weight_decay"] == 0.1 and len(group["params"]) == 8
    assert "frozen.weight" not in names(module, group)


def test_a_negative_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay=-1: expected at least 0"):
        parameter_groups(Mixed(), -1)


def test_frozen_norms_do_not_learn_and_all_else_does() -> None:
    trunk = ResNetBackbone(ResNetOptions("resnet10", width=4, stem_stride=1))
    everything = {id(p) for p in trunk.parameters()}
    assert {id(p) for p in learning_parameters(trunk)} == everything
    trunk.freeze_batch_norm(True)
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    fixed = {id(p) for norm in norms for p in norm.parameters()}
    assert fixed and {id(p) for p in learning_parameters(nn.Sequential(trunk))} == (
        everything - fixed
    )


@pytest.mark.parametrize("channels", [8, NARROW])
def test_narrow_convolutions_of_one_pixel_are_strided_ones(channels: int) -> None:
    for stride in (1, 2):
        conv = _conv(channels, 16, 1, stride)
        x = torch.randn(2, channels, 7, 6, requires_grad=True)
        expected = nn.functional.conv2d(x, conv.weight, stride=stride)
        wanted = torch.autograd.grad(expected.square().sum(), (x, conv.weight))
        found = conv(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found.square().sum(), (x, conv.weight)), wanted
        )
