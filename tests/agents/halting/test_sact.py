"""Spatially Adaptive Computation Time: algorithm 2, at some positions only, FLOPs.

What it shares with ACT is in test_act_resnet.py.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from agents.cost import count_flops
from agents.halting.sact import PositionScore, SACTResNet, convolve_at, unit_at

from .halting import SMALL, VARIANTS, flops_of, images, make, set_scores


def random_mask(share: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) < share


# -- at some positions only ------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=24, max_size=24), st.sampled_from([1, 3]))
def test_a_convolution_at_some_positions(active: list[bool], kernel: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, kernel, padding=kernel // 2, bias=False)
    x, where = torch.randn(2, 3, 4, 3), torch.tensor(active).view(2, 4, 3)
    expected = conv(x).permute(0, 2, 3, 1)[where]
    torch.testing.assert_close(convolve_at(conv, x, where), expected)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("share", [0.02, pytest.param(0.3, marks=pytest.mark.slow), 0.9])
def test_a_residual_unit_at_some_positions(name: str, share: float) -> None:
    unit = make(VARIANTS[name], SACTResNet).trunk.layer2[1]
    channels = unit.conv1.in_channels
    x, active = torch.randn(3, channels, 7, 9), random_mask(share, 3, 7, 9)
    expected = unit(x).permute(0, 2, 3, 1)[active]
    torch.testing.assert_close(unit_at(unit, x, active), expected)


def test_score_by_hand() -> None:
    score = PositionScore(2)
    with torch.no_grad():
        score.near.weight[0, 1].fill_(0.1)  # of channel 2, the 3x3 neighbourhood's sum
        score.whole.weight[0, 0] = 2.0  # of channel 1, the mean
    x = torch.zeros(1, 2, 3, 3)
    x[0, 0] = 0.5
    x[0, 1, 0, 0] = 7.0
    expected = torch.full((3, 3), 2 * 0.5 - 3.0)
    expected[:2, :2] += 0.7  # those whose neighbourhood holds the corner
    torch.testing.assert_close(score(x)[0], torch.sigmoid(expected))
    active = random_mask(0.5, 1, 3, 3)
    torch.testing.assert_close(score.at(x, active), torch.sigmoid(expected)[active[0]])


# -- blocks ----------------------------------------------------------------------------------------


def algorithm_2(
    units: nn.Sequential, scores: nn.ModuleList, x: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The paper's loop over one image ``(C, h, w)``, position by position: output and rho."""
    for level, unit in enumerate(units):
        after = unit(x[None])[0]
        if level == 0:
            places = [(i, j) for i in range(after.shape[1]) for j in range(after.shape[2])]
            active, c, r = set(places), dict.fromkeys(places, 0.0), dict.fromkeys(places, 1.0)
            output, rho = torch.zeros_like(after), torch.zeros(after.shape[1:])
            x = torch.zeros_like(after)
        for i, j in active:
            x[:, i, j] = after[:, i, j]
        last = level + 1 == len(units)
        h = torch.ones(x.shape[1:]) if last else halting_scores(scores[level], x)
        for i, j in list(active):
            c[i, j] += float(h[i, j])
            rho[i, j] += 1
            if c[i, j] < 1 - epsilon:
                output[:, i, j] += h[i, j] * x[:, i, j]
                r[i, j] -= float(h[i, j])
            else:
                output[:, i, j] += r[i, j] * x[:, i, j]
                rho[i, j] += r[i, j]
                active.remove((i, j))
    return output, rho


def halting_scores(score: nn.Module, x: Tensor) -> Tensor:
    near, whole = score.near.weight, score.whole
    pooled = x.mean(dim=(1, 2)) @ whole.weight[0] + whole.bias  # type: ignore[operator,index,union-attr]
    return torch.sigmoid(conv2d(x[None], near, padding=1)[0, 0] + pooled)  # type: ignore[arg-type]


@torch.no_grad()
def test_a_block_is_algorithm_2() -> None:
    network = make(VARIANTS["34 large stem"], SACTResNet, epsilon=0.1)
    for score in network.scores[2]:
        score.whole.bias -= 1.5  # so that some positions take all six units
    given: list[Tensor] = []
    stages = [network.trunk.layer3[0], network.trunk.layer4[0]]
    hooks = [
        unit.register_forward_pre_hook(lambda _, x: given.append(x[0].clone())) for unit in stages
    ]
    output = network(images(2, side=64))
    for hook in hooks:
        hook.remove()
    assert len(output.maps[2].ceil().unique()) >= 5
    for n in range(2):
        expected, rho = algorithm_2(network.trunk.layer3, network.scores[2], given[0][n], 0.1)
        torch.testing.assert_close(given[1][n], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.maps[2][n], rho)


def test_skipping_has_the_gradient_of_masking() -> None:
    network = make(SMALL, SACTResNet)
    found = []
    for dense in (True, False):
        network.zero_grad()
        output = network(images(), dense=dense)
        (output.logits.square().sum() + output.ponder.sum()).backward()
        found.append([parameter.grad.clone() for parameter in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["18", "34 large stem", "50 pre"])
@pytest.mark.parametrize("training", [True, False])
def test_equal_scores_at_all_positions_are_act(name: str, training: bool) -> None:
    act = make(VARIANTS[name])
    sact = SACTResNet(act.config)
    sact.epsilon = act.epsilon
    missing, unexpected = sact.load_state_dict(act.state_dict(), strict=False)  # the rest is 0
    assert all(key.endswith("near.weight") for key in missing) and not unexpected
    one, other = (network.train(training)(images()) for network in (act, sact))
    assert len(one.units.sum(dim=1).unique()) > 1
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.ponder, other.ponder)
    torch.testing.assert_close(one.units, other.units)
    for single, everywhere in zip(one.maps, other.maps, strict=True):
        torch.testing.assert_close(single.expand_as(everywhere), everywhere)


def test_ponder_cost_is_the_mean_over_positions_and_the_sum_over_blocks() -> None:
    output = make(SMALL, SACTResNet)(images())
    assert [tuple(one.shape) for one in output.maps] == [(6, s, s) for s in (32, 16, 8, 4)]
    means = torch.stack([one.mean(dim=(1, 2)) for one in output.maps])
    torch.testing.assert_close(output.ponder, means.sum(dim=0))
    for units, one in zip(output.units.T, output.maps, strict=True):  # N < rho <= N + 1
        torch.testing.assert_close(units, (one.ceil() - 1).mean(dim=(1, 2)))


# -- FLOPs ----------------------------------------------------------------------------------------


def test_flops_of_one_active_position_by_hand() -> None:
    """conv1 at the 9 positions that conv2 reads around it; each is 3x3 of 8 to 8 channels."""
    network = make(SMALL, SACTResNet)
    active = torch.zeros(1, 5, 5, dtype=torch.bool)
    active[0, 2, 2] = True

    def macs(unit: nn.Module, channels: int) -> int:
        x = torch.zeros(1, channels, 5, 5)
        return count_flops(unit, lambda: unit_at(unit, x, active)) // 2

    unit = network.trunk.layer2[1]
    assert macs(unit, 8) == (9 + 1) * 9 * 8 * 8
    active[0, 2, 2], active[0, 0, 0] = False, True  # in a corner there are 4
    assert macs(unit, 8) == (4 + 1) * 9 * 8 * 8
    bottleneck = make(VARIANTS["50"], SACTResNet).trunk.layer2[1]  # 32 -> 8 -> 8 -> 32
    assert macs(bottleneck, 32) == 4 * 32 * 8 + 1 * 9 * 8 * 8 + 1 * 8 * 32


def test_fewer_active_positions_cost_less() -> None:
    network = make(SMALL, SACTResNet)
    flops, active = [], []
    for bias in (-8.0, -2.0, 0.0, 0.0, 2.0, 8.0):
        for block in network.scores:
            nn.init.constant_(block[0].whole.bias, bias)
        output = network(images(1))
        flops.append(flops_of(network, images(1)))
        active.append(sum(float((one > 2).sum()) for one in output.maps))
    assert flops == sorted(flops, reverse=True) and active == sorted(active, reverse=True)
    assert flops[0] > flops[2] > flops[-1] and active[-1] == 0
    act = make(SMALL)
    scores = sum(2 * 9 * 4 * 2**k * (32 // 2**k) ** 2 for k in range(4))
    for bias, found in ((0.0, flops[0]), (1.0, flops[-1])):  # all units, or one a block
        set_scores(act, [bias])
        assert found == flops_of(act, images(1)) + scores


def test_distant_positions_are_not_read() -> None:
    network = make(SMALL, SACTResNet)
    unit = network.trunk.layer1[1]
    x, active = torch.randn(1, 4, 9, 9), torch.zeros(1, 9, 9, dtype=torch.bool)
    active[0, 1, 1] = True
    before = unit_at(unit, x, active)
    x[0, :, 5:] = torch.nan  # further than two 3x3 convolutions reach
    torch.testing.assert_close(unit_at(unit, x, active), before)
