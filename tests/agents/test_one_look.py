"""One-look networks: their formulas, their FLOPs, their files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents.one_look import FullyConnected, OneLook, OneLookConfig, one_look_flops
from agents.resnet import ResNetOptions

FULLY = OneLookConfig(num_classes=3, image_shape=(4, 4, 1), hidden_size=5)
RESNET = ResNetOptions("resnet10", width=8, stem_stride=1, channels=3)
CONFIGS = {
    "mlp": FULLY,
    "conv": replace(FULLY, encoder="conv", image_shape=(6, 6, 1)),
    "cnn": replace(FULLY, encoder="cnn", image_shape=(20, 20, 1)),
    "resnet": replace(FULLY, encoder="resnet10", image_shape=(32, 32, 3), resnet=RESNET),
}


def images(config: OneLookConfig, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (batch, *config.image_shape), generator=generator, dtype=torch.uint8
    )


def test_fully_connected_by_hand() -> None:
    """Every weight 1 and bias 0: a product of sums."""
    network = OneLook(FULLY)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, float(parameter.dim() == 2))
    pixels = torch.full((1, 4, 4, 1), 51, dtype=torch.uint8)  # 0.2 each
    # Sums over 16 pixels, 5 hidden units and 5 units of the code.
    assert network(pixels)[0].tolist() == pytest.approx([16 * 0.2 * 5 * 5] * 3)
    assert one_look_flops(network) == 2 * (16 * 5 + 5 * 5 + 5 * 3)


def test_conv_flops_by_hand() -> None:
    """The talk's convolutional baseline: 3x3 with 16, then 32 filters, and 2x2 pooling."""
    convs = 6 * 6 * 9 * 1 * 16 + 6 * 6 * 9 * 16 * 32
    linear = 32 * 3 * 3 * 5 + 5 * 5 + 5 * 3
    assert one_look_flops(OneLook(CONFIGS["conv"])) == 2 * (convs + linear)


def test_code_goes_through_a_relu() -> None:
    network = OneLook(FULLY)
    assert isinstance(network.encoder, FullyConnected)
    torch.nn.init.constant_(network.encoder.out.bias, -1e6)
    assert torch.equal(network(images(FULLY)), network.classifier.bias.expand(3, -1))


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_and_loaded_gives_identical_outputs(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    network = OneLook(config, class_names=("a", "b", "c")).eval()
    network.save(tmp_path, env_id="X")
    loaded = OneLook.load(tmp_path)
    assert loaded.config == config
    assert loaded.class_names == ("a", "b", "c")
    assert not loaded.training
    assert torch.equal(loaded(images(config)), network(images(config)))
    header = json.loads((tmp_path / "model.json").read_text())
    assert (header["kind"], header["env_id"]) == ("one-look network", "X")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: OneLook(FULLY)(torch.zeros(1, 5, 5, 1, dtype=torch.uint8)),
            r"expected \(B, 4, 4, 1\), got \(1, 5, 5, 1\)",
        ),
        (lambda: OneLook(FULLY, ("a", "b")), "class_names: 2 names for 3 classes"),
        (lambda: replace(FULLY, encoder="cnn"), "at least 8x8 pixels for encoder='cnn'"),
        (
            lambda: replace(FULLY, encoder="conv", image_shape=(1, 1, 1)),
            "at least 2x2 pixels for encoder='conv'; encoder='mlp' takes any size",
        ),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_counting_leaves_the_mode() -> None:
    network = OneLook(CONFIGS["resnet"])
    one_look_flops(network)
    assert network.training
