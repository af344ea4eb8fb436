"""What a new network begins as."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.one_look import OneLook, OneLookConfig
from agents.resnet import ResNetOptions
from train.common.one_look_networks import NoHalting, new_network
from train.common.options import PlainEncoder, ResNetEncoder
from train.common.training_task import TrainingTask
from train.dtram.networks import new_agent
from train.dtram.options import RNN, Cells, Gaussian, Map, StopOff, Values


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    few = {"num_train": 40, "num_test": 20, "data_dir": tmp_path_factory.mktemp("birds")}
    return TrainingTask("DTRAM-BirdsSmall-v0", torch.device("cpu"), **few)


def look(folder: Path, task: TrainingTask, names: tuple[str, ...]) -> OneLook:
    torch.manual_seed(1)
    resnet = ResNetOptions("resnet10", width=8)
    config = OneLookConfig(
        len(names), (128, 128, 3), "resnet10", resnet, hidden_size=64, pixel_std=60.0
    )
    network = OneLook(config, names).eval()
    torch.nn.init.normal_(network.classifier.bias)
    network.save(folder, **task.metadata)
    return network


def test_an_agent_begins_as_the_one_look_network_that_its_weights_are_from(
    tmp_path: Path, birds: TrainingTask
) -> None:
    begun = look(tmp_path / "look", birds, birds.class_names)
    encoder = ResNetEncoder("resnet10", width=8, weights=str(tmp_path / "look"))
    agent, source = new_agent(birds, encoder, RNN(), Values(grid=16), StopOff(), False, seed=0)
    agent.eval()
    assert source.startswith("look, sha256")
    state = agent.initial(5)
    for step in range(3):  # each glimpse by itself, wherever it was taken
        glimpse = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8)
        state = agent.observe(glimpse, torch.rand(5, 2), state, step)
        torch.testing.assert_close(agent.logits(state, step), begun(glimpse))

    keywords = {"side": 64, "bf16": False, "seed": 0}
    again, _ = new_network(birds, encoder, NoHalting(), **keywords)  # type: ignore[arg-type]
    images = torch.randint(256, (5, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(again.eval()(images), begun(images))


def test_of_other_classes_only_the_encoder_is_taken(tmp_path: Path, birds: TrainingTask) -> None:
    begun = look(tmp_path / "look", birds, birds.class_names[::-1])
    encoder = ResNetEncoder("resnet10", width=8, weights=str(tmp_path / "look"))
    agent, _ = new_agent(birds, encoder, RNN(), Values(grid=16), StopOff(), False, seed=0)
    assert torch.equal(agent.encoders()[0].trunk.conv1.weight, begun.encoder.trunk.conv1.weight)
    assert not torch.equal(agent.classifier.bias, begun.classifier.bias)
    assert agent.core.recurrent.weight.any()


def test_values_have_half_of_the_thumbnails_cells(birds: TrainingTask) -> None:
    agent, _ = new_agent(birds, PlainEncoder("cnn"), RNN(), Values(), StopOff(), False, seed=0)
    assert agent.config.first_look is not None
    assert 2 * agent.config.locator_grid == agent.config.first_look.side == 32


@pytest.mark.parametrize("sizes", [{"cell": 0}, {"cells": 0}, {"cell": -1}])
def test_a_map_has_cells(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"--core cells? -?\d: expected at least 1"):
        Map(**sizes)


@pytest.mark.parametrize("locator", [Values(), Cells()])
def test_a_map_covers_the_image_if_it_has_no_size_of_its_own(locator: Any) -> None:
    for env_id, cells, cell in [("DTRAM-Patience-v0", 40, 1), ("DTRAM-WideSignpost-v0", 52, 2)]:
        task = TrainingTask(env_id, torch.device("cpu"))
        network = (task, PlainEncoder("pixels"), Map(answer="product"), locator, StopOff())
        config = new_agent(*network, False, seed=0)[0].config
        assert config.answer == "product"
        assert config.map is not None
        assert (config.map.cells, config.map.glimpse_cells) == (cells, 8 // cell)
        assert config.locator_grid == cells // 2


def test_the_originals_weights_begin_within_a_tenth(signpost: TrainingTask) -> None:
    def made(core: RNN) -> dict[str, torch.Tensor]:
        network = (signpost, PlainEncoder("mlp"), core, Gaussian(), StopOff())
        agent, _ = new_agent(*network, False, seed=0)
        return dict(agent.named_parameters())

    plain, original = made(RNN()), made(RNN(init=0.1))
    for name, weights in original.items():
        if name.startswith(("stopper", "baseline", "scalar_baseline")):
            torch.testing.assert_close(weights, plain[name])
        else:
            assert weights.abs().max() <= 0.1
            if weights.numel() > 200:
                assert weights.abs().max() > 0.09 and weights.abs().mean().sub(0.05).abs() < 0.01
