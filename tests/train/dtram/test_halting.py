"""The stage in which RAM learns to halt: its loss, gradient and verdict by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agents.halting.act import ACTStop, HaltingRAM
from agents.unroll import score
from train.common.augment import Affine
from train.common.training_task import Task
from train.dtram.halting import HaltingStage

SCORE = 0.4  # after every glimpse: two leave 0.2, which the third takes


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("DTRAM-Signpost-v0", torch.device("cpu"))


def halting_stage(task: Task, ponder_cost: float) -> tuple[HaltingStage, HaltingRAM]:
    """Of an untrained network whose halting score is always `SCORE`."""
    torch.manual_seed(0)
    agent = HaltingRAM(task.new_agent(hidden_size=16).config)
    last = agent.stopper[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, math.log(SCORE / (1 - SCORE)))
    stage = HaltingStage(
        task, agent, ponder_cost=ponder_cost, name="stopper", augment=Affine(0.0), seed=0,
        epochs=1, batch_size=100, learning_rate=1e-3,
    )  # fmt: skip
    return stage, agent


def mixed(each: Tensor) -> Tensor:
    """What 0.4, 0.4 and what remains make of the logits after each glimpse."""
    return 0.4 * each[0] + 0.4 * each[1] + 0.2 * each[2]


def test_the_loss_is_cross_entropy_and_what_pondering_costs(task: Task) -> None:
    stage, _ = halting_stage(task, ponder_cost=0.5)
    rows = torch.arange(100)
    losses = stage.loss(rows)
    labels = task.images("train").labels[rows]
    answer = mixed(stage._logits[:, rows])
    told = cross_entropy(answer, labels)
    torch.testing.assert_close(losses.cross_entropy, told)
    torch.testing.assert_close(losses.total, told + 0.5 * 3.2)  # N = 3, R = 0.2
    right = (answer.argmax(-1) == labels).float().mean()
    assert losses.mean_glimpses == 3.0
    torch.testing.assert_close(losses.mean_return, right * task.discount**3)


def test_the_ponder_cost_raises_the_scores_through_the_remainder(task: Task) -> None:
    """R = 1 - h - h, so a unit of cost has a slope of -2 h (1 - h) in the bias."""
    slopes = []
    for cost in (0.0, 1.0):
        stage, agent = halting_stage(task, cost)
        stage.loss(torch.arange(100)).total.backward()
        bias = agent.stopper[-1].bias
        assert isinstance(bias, Tensor) and bias.grad is not None
        slopes.append(bias.grad.item())
    assert slopes[1] - slopes[0] == pytest.approx(-2 * SCORE * (1 - SCORE), abs=1e-5)


def test_validation_judges_by_whole_glimpses(task: Task) -> None:
    stage, agent = halting_stage(task, ponder_cost=0.5)
    verdict = stage.judge()
    images = task.images("validation")
    plain = task.new_agent(hidden_size=16)
    plain.load_state_dict(agent.state_dict())
    answer = mixed(score(plain.eval(), task.look, images.store, images.labels).logits)
    loss = cross_entropy(answer, images.labels).item() + 0.5 * 3
    assert verdict.criterion == (pytest.approx(loss, abs=1e-5), 3.0)
    assert verdict.threshold == ACTStop().threshold
    right = (answer.argmax(-1) == images.labels).double().mean().item()
    assert verdict.metrics["eval/accuracy"] == pytest.approx(right)
    assert verdict.metrics["eval/mean_return"] == pytest.approx(right * task.discount**3)
