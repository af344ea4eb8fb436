"""What a stage learns, and how long."""

import math

import pytest
import torch

from agents.objective import Objective, hybrid_loss
from agents.resnet import ResNetOptions
from agents.unroll import Unroll
from train.common.training import learn_only
from train.common.training_task import TrainingTask
from train.dtram.curriculum import begin_stage, epochs_of_budget, stage_parameters


@pytest.mark.parametrize(("total", "epoch"), [(1, 5), (7, 5), (19, 50), (502, 1875), (3348, 168)])
def test_a_number_of_batches_as_equal_epochs(total: int, epoch: int) -> None:
    epochs, batches = epochs_of_budget(total, epoch)
    least = max(math.ceil(total / epoch), 1)
    assert 1 <= batches <= epoch and min(5, total) <= epochs <= max(10, least)
    # No other number of epochs in that range would leave less of the total.
    fitting = [n for n in range(max(least, 5), max(least, 10) + 1) if n <= total] or [least]
    assert epochs * batches == max(n * (total // n) for n in fitting)


@pytest.mark.parametrize("baseline", ["value", "leave_one_out", "scalar", "none"])
@pytest.mark.parametrize("kind", ["trunk", "joint"])
def test_every_parameter_of_a_stage_is_reached_by_its_loss(
    signpost: TrainingTask, kind: str, baseline: str
) -> None:
    torch.manual_seed(0)
    agent = signpost.new_agent(hidden_size=16)
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    objective = Objective(baseline=baseline)
    if kind == "joint":
        objective = Objective(stop="learned", location_reward="return", baseline=baseline)
    learned = stage_parameters(agent, objective, 4, 0, answers=True)
    learn_only(agent, learned)
    images, index = signpost.images("train"), torch.arange(50)
    unroll = Unroll(agent, signpost.sensor, 0.1, stop=kind == "joint")
    trajectory = unroll(images.store, index, 4, 2)
    losses = hybrid_loss(trajectory, images.labels[:50], 2, objective, agent.scalar_baseline)
    losses.total.backward()
    reached = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in agent.named_parameters() if p.requires_grad}
    assert any(name.startswith("stopper") for name in reached) == (kind == "joint")


def test_networks_of_new_glimpses_begin_as_the_last_and_earlier_ones_stay(
    signpost: TrainingTask,
) -> None:
    resnet = ResNetOptions("resnet10", width=8, stem_stride=1, channels=1)
    agent = signpost.new_agent(
        encoder="resnet10", resnet=resnet, hidden_size=resnet.out_features, per_step=True
    )
    begin_stage(agent, 2)
    encoders, classifiers = agent.encoders(), agent.classifiers()
    for networks in (encoders, classifiers):
        first, second, third, fourth = (list(network.parameters()) for network in networks)
        assert all(torch.equal(a, b) for a, b in zip(second, third, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(second, fourth, strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    learned = set(stage_parameters(agent, Objective(baseline="none"), 3, 2, answers=True))
    for network in (encoders[2], classifiers[2]):
        assert learned >= set(network.parameters())
    for network in (encoders[0], encoders[1], encoders[3], classifiers[1], classifiers[3]):
        assert not learned & set(network.parameters())
    agent.train()  # batch statistics of fixed networks stay, too
    before = {name: value.clone() for name, value in encoders[1].trunk.state_dict().items()}
    encoders[1](torch.zeros(2, 8, 8, 1, dtype=torch.uint8), torch.zeros(2, 2))
    after = encoders[1].trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
