"""What a stage learns from, and how validation judges it."""

from __future__ import annotations

import math

import pytest
import torch

from agents.objective import Objective
from agents.unroll import Scores, score
from train.common.augment import Affine
from train.common.training_task import Task
from train.dtram import stages
from train.dtram.scripted_scan import scan_path
from train.dtram.stages import NEVER, StopperStage, UnrollStage, judge_stop


def scores_of(p: list[list[float]], right: list[list[int]]) -> Scores:
    """Three images with given stop probabilities ``(T, 3)``; `right` says which answers are."""
    correct = torch.tensor(right)
    logits = torch.stack([1.0 - correct, correct], dim=-1).double()  # class 1 is right
    labels = torch.ones(correct.shape[1], dtype=torch.int64)
    return Scores(labels, logits, torch.logit(torch.tensor(p)), torch.zeros(*correct.shape, 2))


P = [[0.9, 0.6, 0.2], [0.9, 0.8, 0.7], [0.5, 0.5, 0.5]]
RIGHT = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_the_lowest_error_within_the_bound_with_the_fewest_glimpses() -> None:
    verdict = judge_stop(scores_of(P, RIGHT), max_mean_glimpses=3.0, discount=0.9)
    # Stopping at 1, 2 and 3 is free of error: 0.6 <= threshold < 0.8 for image 2, >= 0.7 for 3.
    assert verdict.metrics["eval/accuracy"] == 1.0
    assert verdict.metrics["eval/mean_glimpses"] == pytest.approx(2.0)
    assert 0.699999 <= verdict.threshold < 0.8
    assert verdict.metrics["eval/bound_kept"] == 1.0


def test_a_tight_bound_costs_accuracy() -> None:
    verdict = judge_stop(scores_of(P, RIGHT), max_mean_glimpses=1.7, discount=0.9)
    # 0.6 <= threshold < 0.7 stops at 1, 2, 2 and gets one wrong.
    assert verdict.metrics["eval/mean_glimpses"] == pytest.approx(5 / 3)
    assert verdict.metrics["eval/accuracy"] == pytest.approx(2 / 3)
    assert 0.599999 <= verdict.threshold < 0.7


@pytest.mark.parametrize(("bound", "mean"), [(3.0, 3.0), (2.5, 7 / 3), (2.1, 2.0)])
def test_a_bound_can_be_spent(bound: float, mean: float) -> None:
    """From 0.8 on the first image alone stops early, from 0.9 on none does."""
    verdict = judge_stop(scores_of(P, RIGHT), bound, discount=0.9, choose="bound")
    assert verdict.metrics["eval/mean_glimpses"] == pytest.approx(mean)
    assert verdict.metrics["eval/bound_kept"] == 1.0


@pytest.mark.parametrize("p", [1e-6, 0.999])
def test_a_stopper_that_is_always_sure_is_served(p: float) -> None:
    """All probabilities tiny, or all near 1: thresholds are taken from what occurs."""
    every = [[p, 1.1 * p if p < 0.5 else p - 1e-4, p]] * 2 + [[0.5] * 3]
    verdict = judge_stop(scores_of(every, [[0, 0, 0], [1, 1, 1], [1, 1, 1]]), 2.0, 0.9)
    assert verdict.metrics["eval/bound_kept"] == 1.0
    assert verdict.metrics["eval/mean_glimpses"] <= 2.0
    late = judge_stop(scores_of(every, [[0, 0, 0], [0, 0, 0], [1, 1, 1]]), 3.0, 0.9)
    assert late.metrics["eval/mean_glimpses"] == 3.0 and late.metrics["eval/accuracy"] == 1.0


def test_a_bound_that_cannot_be_kept_is_said() -> None:
    verdict = judge_stop(scores_of([[0.0] * 3, [0.0] * 3, [0.5] * 3], RIGHT), 1.5, 0.9)
    assert verdict.metrics["eval/bound_kept"] == 0.0
    assert verdict.criterion[0] >= 1.0  # worse than any verdict within the bound


def test_the_best_return_whatever_the_bound() -> None:
    """γ = 0.9. Stopping at (1, 2, 3) pays .9, .81 and .729; at (1, 2, 2) the last one is wrong."""
    verdict = judge_stop(scores_of(P, RIGHT), 1.7, 0.9, choose="return")
    assert verdict.metrics["eval/mean_return"] == pytest.approx((0.9 + 0.81 + 0.729) / 3)
    assert verdict.metrics["eval/mean_glimpses"] == pytest.approx(2.0)
    assert 0.699999 <= verdict.threshold < 0.8
    assert verdict.metrics["eval/bound_kept"] == 0.0
    assert verdict.criterion == (-verdict.metrics["eval/mean_return"], pytest.approx(2.0))


def test_a_return_may_prefer_an_error() -> None:
    """γ = 0.5. All stop at 1, two right: 2/3 of .5; or all at 3, all right: .125."""
    p, right = [[0.5] * 3] * 3, [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    verdict = judge_stop(scores_of(p, right), 3.0, 0.5, choose="return")
    assert verdict.metrics["eval/mean_return"] == pytest.approx(1 / 3)
    assert verdict.metrics["eval/mean_glimpses"] == 1.0 and verdict.threshold < 0.5
    by_error = judge_stop(scores_of(p, right), 3.0, 0.5)
    assert by_error.metrics["eval/mean_glimpses"] == 3.0
    assert by_error.metrics["eval/mean_return"] == pytest.approx(0.125)


@pytest.mark.parametrize(("total", "epoch"), [(1, 5), (7, 5), (19, 50), (502, 1875), (3348, 168)])
def test_a_number_of_batches_in_parts(total: int, epoch: int) -> None:
    epochs, batches = stages._in_parts(total, epoch)
    least = max(math.ceil(total / epoch), 1)
    assert 1 <= batches <= epoch and min(5, total) <= epochs <= max(10, least)
    # No other number of epochs in that range would leave less of the total.
    fitting = [n for n in range(max(least, 5), max(least, 10) + 1) if n <= total] or [least]
    assert epochs * batches == max(n * (total // n) for n in fitting)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("DTRAM-Signpost-v0", torch.device("cpu"))


def stopper_stage(task: Task, agent, objective: Objective, strength: float) -> StopperStage:
    return StopperStage(
        task, agent, objective, name="stopper", m=2, augment=Affine(strength), seed=0, epochs=1,
        batch_size=100, learning_rate=1e-3, max_mean_glimpses=3.0,
    )  # fmt: skip


def test_the_stoppers_states_are_those_of_the_deterministic_pass(task: Task) -> None:
    torch.manual_seed(0)
    agent = task.new_agent(hidden_size=16)
    stage = stopper_stage(task, agent, Objective(stop_gradient="exact"), 0.0)
    train = task.images("train")
    scores = score(agent, task.look, train.store, train.labels)
    torch.testing.assert_close(stage._logits, scores.logits)
    torch.testing.assert_close(agent.classifier(stage._h), scores.logits)
    torch.testing.assert_close(
        stage.loss(torch.arange(100)).mean_return, _expected_return(scores, task.discount)
    )


def _expected_return(scores: Scores, discount: float) -> torch.Tensor:
    """Mean over the first 100 images, by the definition of survival."""
    p = torch.sigmoid(scores.stop_logit[:, :100]).clone()
    p[-1] = 1.0
    total, survive = torch.zeros(100), torch.ones(100)
    for t in range(len(p)):
        right = (scores.logits[t, :100].argmax(-1) == scores.labels[:100]).float()
        total += survive * p[t] * discount ** (t + 1) * right
        survive = survive * (1 - p[t])
    return total.mean()


@pytest.mark.parametrize("baseline", ["value", "leave_one_out", "scalar", "none"])
@pytest.mark.parametrize("kind", ["trunk", "joint", "stopper exact", "stopper reinforce"])
def test_every_parameter_of_a_stage_is_reached_by_its_loss(task: Task, kind, baseline) -> None:
    torch.manual_seed(0)
    agent = task.new_agent(hidden_size=16)
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    stage: StopperStage | UnrollStage
    if kind.startswith("stopper"):
        objective = Objective(stop_gradient=kind.split()[1], baseline=baseline)
        stage = stopper_stage(task, agent, objective, 0.5)
    else:
        stop = "off" if kind == "trunk" else "learned"
        stage = UnrollStage(
            task, agent, Objective(stop=stop, baseline=baseline), name=kind, steps=4, m=2,
            location_std=0.1, augment=Affine(0.5), epochs=1, batch_size=50, learning_rate=1e-3,
            max_mean_glimpses=3.0,
        )  # fmt: skip
    learning = {id(p) for p in stage.parameters()}
    for parameter in agent.parameters():
        parameter.requires_grad_(id(parameter) in learning)
    stage.loss(torch.arange(50)).total.backward()
    reached = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in agent.named_parameters() if id(p) in learning}
    assert any(name.startswith("stopper") for name in reached) == (kind != "trunk")


def test_without_a_stop_the_threshold_is_never(task: Task) -> None:
    agent = task.new_agent(hidden_size=16)
    stage = UnrollStage(
        task, agent, Objective(stop="off"), name="trunk", steps=4, m=2, location_std=0.1,
        augment=Affine(0.0), epochs=1, batch_size=50, learning_rate=1e-3, max_mean_glimpses=3.0,
    )  # fmt: skip
    verdict = stage.judge()
    assert verdict.threshold == NEVER
    assert verdict.metrics["eval/mean_glimpses"] == 4.0


# -- the scan at the start ------------------------------------------------------------------------


def scanning_stage(task: Task, **changes) -> UnrollStage:
    torch.manual_seed(0)
    agent = task.new_agent(hidden_size=32, locator_grid=6, locator_input="state")
    objective = Objective(stop="off", baseline="leave_one_out", location_reward="mean_log_prob",
                          location_entropy=0.04)  # fmt: skip
    how = {"epochs": 5, "scan_epochs": 2, "location_entropy_last": 0.0, **changes}
    return UnrollStage(
        task, agent, objective, name="trunk", steps=4, m=3, location_std=0.1, augment=Affine(0.0),
        batch_size=50, learning_rate=1e-2, max_mean_glimpses=3.0, **how,
    )  # fmt: skip


def test_the_scan_is_learned_and_then_left(task: Task) -> None:
    stage = scanning_stage(task)
    stage.begin_epoch(0)
    assert stage.env_steps_per_batch == 50 * 1 * 4
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-2)
    first = stage.loss(torch.arange(50)).policy.item()
    for _ in range(200):
        losses = stage.loss(torch.arange(50))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.policy.item() < 0.9 * first  # of uniform choices
    images = task.images("train")
    locations = score(stage._agent, task.look, images.store, images.labels).locations[1:]
    cells = stage._agent.cell_centres
    wanted = torch.stack(
        [cells[(cells - goal).square().sum(-1).argsort()[:2]] for goal in scan_path(3)]
    )
    near = (locations[:, :, None] == wanted[:, None]).all(-1).any(-1)  # two cells may be as near
    assert near.float().mean() > 0.9
    stage.begin_epoch(2)
    assert stage.env_steps_per_batch == 50 * 3 * 4
    assert stage._unroll.scripted_locations is None
    assert stage._objective.location_reward == "mean_log_prob"


def test_the_entropy_bonus_falls_by_equal_steps(task: Task) -> None:
    stage, found = scanning_stage(task), []
    for epoch in range(5):
        stage.begin_epoch(epoch)
        found.append(stage._objective.location_entropy)
    assert found == pytest.approx([0.0, 0.0, 0.02, 0.01, 0.0])
    constant = scanning_stage(task, location_entropy_last=None)
    constant.begin_epoch(4)
    assert constant._objective.location_entropy == 0.04


def test_a_scan_stays_within_the_image_and_may_be_long() -> None:
    path = scan_path(14)
    assert path.shape == (14, 2) and path.abs().max() == 0.5
    assert len({tuple(row) for row in path[:6].tolist()}) == 6
    with pytest.raises(ValueError, match="later=0"):
        scan_path(0)
