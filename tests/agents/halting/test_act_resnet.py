"""ResNets that halt block by block: by hand, skipping equal to masking, FLOPs; with SACT's, where
the rule is the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agents.halting.act import ponder_cost_loss
from agents.halting.act_resnet import ACTResNet, ImageScore
from agents.halting.sact import SACTResNet
from agents.one_look import OneLookConfig

from .halting import SMALL, VARIANTS, config_of, flops_of, images, learn, make, set_scores

KINDS = pytest.mark.parametrize("kind", [ACTResNet, SACTResNet])


def test_the_figures_example_in_a_network() -> None:
    """ResNet-34 has 3, 4, 6 and 3 units: the third block of six halts after four."""
    network = make(replace(SMALL, name="resnet34"), epsilon=0.01)
    set_scores(network, [0.1, 0.1, 0.2, 0.9, 0.5])
    seen: list[Tensor] = []
    for unit in network.trunk.layer3:
        unit.register_forward_hook(lambda *call: seen.append(call[2]))
    given: list[Tensor] = []
    network.trunk.layer4[0].register_forward_pre_hook(lambda _, x: given.append(x[0]))
    output = network(images(2))
    assert output.units.tolist() == [[3.0, 4.0, 4.0, 3.0]] * 2
    assert len(seen) == 4
    mixture = 0.1 * seen[0] + 0.1 * seen[1] + 0.2 * seen[2] + 0.6 * seen[3]
    torch.testing.assert_close(given[0], mixture)
    # 3 units leave 1 - 0.1 - 0.1 to the last.
    assert output.ponder.tolist() == pytest.approx([3.8 + 4.6 + 4.6 + 3.8] * 2)
    assert [one[0].item() for one in output.maps] == pytest.approx([3.8, 4.6, 4.6, 3.8])


def test_one_unit_a_block_is_the_plain_network() -> None:
    network = make(replace(SMALL, name="resnet10"))
    output = network(images())
    plain = network.classifier(network.trunk(images().permute(0, 3, 1, 2) / 255))
    torch.testing.assert_close(output.logits, plain)
    assert output.ponder.tolist() == [8.0] * 6  # N = R = 1 in each block


def test_scores_of_0_and_1_take_all_units_or_the_first() -> None:
    network = make()
    set_scores(network, [0.0])
    output = network(images())
    plain = network.classifier(network.trunk(images().permute(0, 3, 1, 2) / 255))
    torch.testing.assert_close(output.logits, plain)
    assert output.units.tolist() == [[2.0] * 4] * 6
    set_scores(network, [1.0])
    assert network(images()).units.tolist() == [[1.0] * 4] * 6


def test_untrained_it_takes_all_units() -> None:
    network = ACTResNet(config_of(replace(SMALL, name="resnet34"))).eval()
    assert network(images()).units.tolist() == [[3.0, 4.0, 6.0, 3.0]] * 6


@KINDS
@pytest.mark.parametrize("name", VARIANTS)
def test_skipping_is_masking(name: str, kind: type[ACTResNet]) -> None:
    network, seen = make(VARIANTS[name], kind), images(side=41)
    dense, skipped = network(seen, dense=True), network(seen)
    assert 0.1 < (skipped.maps[0] > 2).float().mean() < 0.9
    near = {"atol": 1e-5, "rtol": 1e-4} if kind is SACTResNet else {}
    for part, other in zip((*dense[:-1], *dense.maps), (*skipped[:-1], *skipped.maps), strict=True):
        torch.testing.assert_close(part, other, **near)


@KINDS
@pytest.mark.parametrize("name", ["18", "50 pre", "50 stride in 1x1"])
def test_an_image_does_not_depend_on_its_batch(name: str, kind: type[ACTResNet]) -> None:
    network = make(VARIANTS[name], kind)
    together, flops = network(images()).logits, 0
    for n in range(6):
        one = images()[n : n + 1]
        torch.testing.assert_close(network(one).logits[0], together[n])
        flops += flops_of(network, one)
    assert flops == flops_of(network, images())


def test_flops_of_a_unit_by_hand() -> None:
    network = make()
    costs = []
    for score in (0.0, 1.0):
        set_scores(network, [score])
        costs.append(flops_of(network, images(1)))
    # The second unit of a block: two 3x3 convolutions of 4, 8, 16, 32 channels.
    sides = {4: 32, 8: 16, 16: 8, 32: 4}
    assert costs[0] - costs[1] == sum(2 * 2 * 9 * c * c * side**2 for c, side in sides.items())


def test_gradient_of_the_ponder_cost_by_hand() -> None:
    """With two units rho = 3 - h, h = sigmoid(b): its derivative is -h (1 - h) for each bias."""
    network = make()
    set_scores(network, [0.3])
    network.train()
    network(images()).ponder.mean().backward()
    for block in network.scores:
        assert block[0].whole.bias.grad.item() == pytest.approx(-0.21)  # type: ignore[index]
    assert network.classifier.weight.grad is None


def test_everything_learns() -> None:
    network = make().train()
    output = network(images())
    ponder_cost_loss(output.logits, torch.arange(6) % 3, output.ponder, 0.1).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_autocast_keeps_halting_in_float32() -> None:
    network = make()
    with torch.autocast("cpu", torch.bfloat16):
        dense, skipped = network(images(), dense=True), network(images())
    assert skipped.ponder.dtype == torch.float32
    assert torch.equal(dense.units, skipped.units)
    torch.testing.assert_close(dense.logits, skipped.logits, atol=0.05, rtol=0.05)


@KINDS
def test_saved_and_loaded_gives_identical_outputs(tmp_path: Path, kind: type[ACTResNet]) -> None:
    network = make(SMALL, kind, pixel_mean=(100.0, 110.0, 120.0), pixel_std=50.0)
    network.save(tmp_path, env_id="X")
    loaded = kind.load(tmp_path)
    loaded.epsilon = network.epsilon
    assert loaded.config == network.config and not loaded.training
    assert torch.equal(loaded(images()).logits, network(images()).logits)
    other = ACTResNet if kind is SACTResNet else SACTResNet
    with pytest.raises(ValueError, match=f"expected a {other.KIND}, found a {kind.KIND}"):
        other.load(tmp_path)


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: ACTResNet(OneLookConfig(3, (8, 8, 3))), "encoder='mlp': expected one of resnet10"),
        (lambda: ACTResNet(config_of(), ("a",)), "1 names for 3 classes"),
        (lambda: make()(images(side=7)), "expected at least 8x8"),
        (lambda: make(SMALL, SACTResNet)(images(side=6)), "expected at least 8x8"),
        (lambda: make().train()(images(), dense=False), "expected after eval"),
        (lambda: make(SMALL, SACTResNet).train()(images(), dense=False), "expected after eval"),
    ],
)
def test_bad_input_is_named(make_one, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_one()


@KINDS
def test_a_higher_cost_takes_fewer_units(kind: type[ACTResNet]) -> None:
    found = []
    for tau in (0.0, 1.0):
        torch.manual_seed(0)
        network = kind(config_of(classes=2))
        network.epsilon = 0.1
        for score in network.scores.modules():
            if isinstance(score, ImageScore):
                torch.nn.init.ones_(score.whole.bias)
        found.append(learn(network, tau))
    (many, more_ponder), (few, less_ponder) = found
    assert few < many - 1
    assert less_ponder < more_ponder
