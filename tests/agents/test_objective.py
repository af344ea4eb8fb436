"""The loss against known answers: returns by hand, gradients against exact enumeration."""

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agents import objective as objective_module
from agents.dtram import DTRAM, DTRAMConfig
from agents.objective import (
    Baseline,
    Credit,
    Losses,
    Objective,
    expected_returns,
    hybrid_loss,
    supervised_losses,
)
from agents.unroll import FirstChoice, Trajectory, Unroll

FIRST = FirstChoice(torch.zeros(1), torch.zeros(1))
TALK = {
    "stop": "learned",
    "baseline": "value",
    "stop_gradient": "reinforce",
    "supervision": "taken",
    "location_reward": "return",
}
STEPS = 3
STD = 0.7
GAMMA = 0.6  # far from 1, so that a lost discount shows


def talk(**changes) -> Objective:
    """The slides' objective, but for some options."""
    return Objective(**{**TALK, **changes})


# -- a problem small enough to enumerate ----------------------------------------------------------


class CellLook(NamedTuple):
    """A sensor whose glimpse is one number: the pixel of the location's quadrant."""

    pixels: Tensor  # (N, 4) uint8
    first_glimpse: str = "center"

    def first_location(self, index: Tensor, fixed: bool = False) -> Tensor:
        return torch.full((len(index), 2), 0.5, dtype=torch.float64)

    def first(self, store: Tensor, index: Tensor, fixed: bool = False) -> tuple[Tensor, Tensor]:
        location = self.first_location(index)
        return self(store, index, location), location

    def __call__(self, store: Tensor, index: Tensor, location: Tensor) -> Tensor:
        return self.pixels[index, cell_of(location)].view(-1, 1, 1, 1)


def cell_of(location: Tensor) -> Tensor:
    return (location[:, 0] > 0).long() + 2 * (location[:, 1] > 0).long()


def probability_of_cell(mean: Tensor, cell: Tensor) -> Tensor:
    """Probability ``(P,)`` that a location with a mean ``(P, 2)`` lies in a quadrant ``(P,)``."""
    right = 0.5 * (1 + torch.erf(mean / (STD * math.sqrt(2))))  # P(coordinate > 0)
    x, y = cell % 2 == 1, cell >= 2
    return torch.where(x, right[:, 0], 1 - right[:, 0]) * torch.where(
        y, right[:, 1], 1 - right[:, 1]
    )


class PixelEncoder(nn.Module):
    """Reads the pixel and not the location, so that a path is a sequence of quadrants."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(1, hidden)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        return self.linear(glimpse.flatten(1).double() / 64)


LOOK = CellLook(torch.tensor([[10, 200, 90, 60], [120, 30, 0, 250]], dtype=torch.uint8))
LABELS = torch.tensor([1, 0])
IMAGES, M = torch.arange(2).repeat(250), 4  # of a batch, and trajectories an image


def toy_agent(gradients_reach: str) -> DTRAM:
    torch.manual_seed(1)
    config = DTRAMConfig(
        num_classes=2,
        glimpse_shape=(1, 1, 1),
        max_glimpses=STEPS,
        hidden_size=4,
        stopper_hidden=0,
        locator_input=gradients_reach,
    )
    agent = DTRAM(config)
    agent.encoder = PixelEncoder(4)
    agent = agent.double()
    for parameter in agent.parameters():
        nn.init.normal_(parameter, std=0.8)
    return agent


def flat_gradient(loss: Tensor, agent: DTRAM) -> Tensor:
    parameters = list(agent.parameters())
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def probability_gradient(agent: DTRAM, in_logs: bool, chooses: bool) -> Tensor:
    """Exact gradient if a location is paid by the mean later probability of the true class.

    If `in_logs`, it is paid by the logarithm, bounded below by -3; if `chooses`, the first location
    is chosen, too.

    Written as an expectation over paths: Σ_t E[log-probability's gradient times what is paid]
    is the gradient of Σ_t P(path up to t) times the (constant) mean of what follows.
    """
    cells = torch.tensor(list(itertools.product(range(4) if chooses else [3], *[range(4)] * 2)))
    total = torch.zeros((), dtype=torch.float64)
    for image in range(len(LABELS)):
        state, anywhere = agent.initial(len(cells)), torch.zeros(len(cells), 2)
        ce, right = 0.0, []
        choices = [probability_of_cell(agent.locate(state), cells[:, 0])]
        if not chooses:
            choices = [torch.ones(len(cells), dtype=torch.float64)]
        for t in range(STEPS):
            seen = LOOK.pixels[image][cells[:, t]].view(-1, 1, 1, 1)
            state = agent.observe(seen, anywhere, state)
            heads = agent.heads(state)
            label = LABELS[image].expand(len(cells))
            ce = ce + cross_entropy(heads.logits, label, reduction="none")
            said = heads.logits.softmax(-1)[:, LABELS[image]].detach()
            right.append(said.log().clamp(min=-3) if in_logs else said)
            if t + 1 < STEPS:
                choices.append(probability_of_cell(heads.location, cells[:, t + 1]))
        constant = torch.stack(choices).prod(0).detach()
        gain = sum(torch.log(choices[t]) * torch.stack(right[t:]).mean(0) for t in range(STEPS))
        total = total + (constant * (ce - gain)).sum()
    return flat_gradient(total / len(LABELS), agent)


def exact_gradient(agent: DTRAM, objective: Objective, first_glimpse: str = "center") -> Tensor:
    """Gradient of the expected loss, by going through every path and every stopping time.

    Written without the module under test: probabilities of quadrants from the normal distribution,
    returns and survival by their definitions.
    """
    chooses = first_glimpse == "choose"
    cells = torch.tensor(list(itertools.product(range(4) if chooses else [3], *[range(4)] * 2)))
    total = torch.zeros((), dtype=torch.float64)
    for image in range(len(LABELS)):
        label = LABELS[image].expand(len(cells))
        state, anywhere = agent.initial(len(cells)), torch.zeros(len(cells), 2)
        path_probability = torch.ones(len(cells), dtype=torch.float64)
        if chooses:
            path_probability = probability_of_cell(agent.locate(state), cells[:, 0])
        survive = torch.ones(len(cells), dtype=torch.float64)
        paid, ce, squared = 0.0, 0.0, 0.0
        reached, baselines, rewards_, stops = [], [], [], []
        first_value = {"value": agent.value(state.h)}.get(objective.baseline, agent.scalar_baseline)
        for t in range(1, STEPS + 1):
            seen = LOOK.pixels[image][cells[:, t - 1]].view(-1, 1, 1, 1)
            state = agent.observe(seen, anywhere, state)
            heads = agent.heads(state)
            p = torch.sigmoid(heads.stop_logit) if t < STEPS else torch.ones_like(survive)
            reward = GAMMA**t * (heads.logits.argmax(-1) == label).double()
            if objective.stop == "off":
                p = torch.full_like(survive, float(t == STEPS))
            paid = paid + survive * p * reward
            loss_here = cross_entropy(heads.logits, label, reduction="none")
            weight = {"taken": survive, "last": survive * p, "all": torch.ones_like(survive)}
            ce = ce + weight[objective.supervision].detach() * loss_here
            reached.append(survive.detach())
            stops.append(p.detach())
            rewards_.append(reward)
            by_value = objective.baseline == "value"
            baselines.append(agent.value(state.h) if by_value else agent.scalar_baseline)
            survive = survive * (1 - p)
            if t < STEPS:
                chosen = probability_of_cell(heads.location, cells[:, t])
                path_probability = path_probability * chosen
        if objective.baseline in ("value", "scalar"):
            for t in range(STEPS):
                for end in range(t, STEPS):  # every stopping time from t on
                    ends_there = reached[end] * stops[end]
                    squared = squared + ends_there * (baselines[t] - rewards_[end]).square()
                if chooses:
                    ends_there = reached[t] * stops[t]
                    squared = squared + ends_there * (first_value - rewards_[t]).square()
        constant = path_probability.detach()
        total = total + (-path_probability * paid + constant * (ce + squared)).sum()
    return flat_gradient(total / len(LABELS), agent)


@lru_cache(maxsize=1)
def sampled(gradients_reach: str, first_glimpse: str) -> tuple[DTRAM, list[Trajectory]]:
    """The toy agent and 60 independent batches of trajectories, which the objectives share."""
    agent = toy_agent(gradients_reach)
    torch.manual_seed(2)
    unroll = Unroll(agent, LOOK._replace(first_glimpse=first_glimpse), STD)
    return agent, [unroll(None, IMAGES, STEPS, M) for _ in range(60)]


def sampled_gradients(agent: DTRAM, trajectories: list[Trajectory], objective: Objective) -> Tensor:
    """Gradients ``(60, P)`` of the loss on each batch of trajectories."""
    scalar = agent.scalar_baseline
    losses = (hybrid_loss(t, LABELS[IMAGES], M, objective, scalar).total for t in trajectories)
    return torch.stack([flat_gradient(loss, agent) for loss in losses])


def worst_deviation(sampled: Tensor, exact: Tensor) -> float:
    """Largest distance between mean and exact gradient, in standard errors of the mean."""
    error = sampled.std(dim=0) / math.sqrt(len(sampled))
    distance = (sampled.mean(dim=0) - exact).abs()
    # Rounding only: parameters whose sampled gradient does not vary.
    return float(((distance - 1e-12).clamp(min=0) / (error + 1e-12)).max())


LIMIT = 4.5  # standard errors; about 40 parameters, so chance alone passes it once in 4,000 samples


@pytest.mark.parametrize("baseline", ["value", "leave_one_out", "scalar", "none"])
@pytest.mark.parametrize("stop_gradient", ["reinforce", "exact"])
@pytest.mark.parametrize(
    ("first", "reach"),
    [
        ("center", "state"),
        ("choose", "state"),
        pytest.param("center", "detached", marks=pytest.mark.slow),
    ],
)
def test_sampled_gradient_is_the_exact_one(
    baseline: str, stop_gradient: str, first: str, reach: str
) -> None:
    agent, trajectories = sampled(reach, first)
    objective = talk(discount=GAMMA, baseline=baseline, stop_gradient=stop_gradient)
    exact = exact_gradient(agent, objective, first)
    of_later = exact_gradient(agent, objective) if first == "choose" else 0.0
    assert (exact - of_later).abs().max() > 0.01
    assert worst_deviation(sampled_gradients(agent, trajectories, objective), exact) < LIMIT


@pytest.mark.parametrize("supervision", ["taken", "last", "all"])
@pytest.mark.parametrize("stop", ["learned", "off"])
def test_sampled_gradient_of_every_supervision(supervision: str, stop: str) -> None:
    agent, trajectories = sampled("state", "center")
    objective = talk(discount=GAMMA, supervision=supervision, stop=stop)
    exact = exact_gradient(agent, objective)
    assert worst_deviation(sampled_gradients(agent, trajectories, objective), exact) < LIMIT


@pytest.mark.parametrize("reward", ["mean_prob", "mean_log_prob"])
@pytest.mark.parametrize("baseline", ["leave_one_out", "none"])
@pytest.mark.parametrize("first_glimpse", ["center", "choose"])
def test_sampled_gradient_of_the_probability_rewards(
    first_glimpse: str, baseline: str, reward: str
) -> None:
    agent, trajectories = sampled("state", first_glimpse)
    objective = talk(stop="off", baseline=baseline, location_reward=reward)
    exact = probability_gradient(agent, reward == "mean_log_prob", first_glimpse == "choose")
    assert worst_deviation(sampled_gradients(agent, trajectories, objective), exact) < LIMIT


# -- closed forms ---------------------------------------------------------------------------------


def trajectory_by_hand(predictions: list[int], stops: list[bool], value: float = 0.0) -> Trajectory:
    """One trajectory with given answers and stop draws; p(stop) = 1/2 everywhere, 3 classes."""
    steps = len(predictions)
    logits = torch.zeros(steps, 1, 3)
    logits[torch.arange(steps), 0, torch.tensor(predictions)] = 10.0
    return Trajectory(
        locations=torch.zeros(steps, 1, 2),
        logits=logits,
        sampled_locations=torch.zeros(steps, 1, 2),
        location_log_prob=torch.full((steps, 1), -1.0, requires_grad=True),
        stop_logit=torch.zeros(steps, 1, requires_grad=True),
        stop=torch.tensor(stops)[:, None],
        value=torch.full((steps, 1), value, requires_grad=True),
    )


def losses_of(trajectory: Trajectory, objective: Objective, label: int = 2) -> Losses:
    """Losses of one trajectory; its scalar baseline is 0."""
    return hybrid_loss(trajectory, torch.tensor([label]), 1, objective, torch.zeros(()))


@pytest.mark.parametrize(
    ("predictions", "stops", "glimpses", "reward"),
    [
        ([2, 0, 1], [True, False, False], 1, 0.9),  # right at once: γ
        ([0, 2, 1], [False, True, True], 2, 0.9**2),  # the first stop counts
        ([2, 2, 0], [False, False, True], 3, 0.0),  # wrong at the end, though right before
        ([0, 1, 2], [False, False, False], 3, 0.9**3),  # the budget ends it
    ],
)
def test_return_by_hand(predictions, stops, glimpses, reward) -> None:
    losses = losses_of(trajectory_by_hand(predictions, stops), talk(discount=0.9))
    assert losses.mean_return.item() == pytest.approx(reward)
    assert losses.mean_glimpses.item() == glimpses
    assert losses.accuracy.item() == float(reward > 0)


@pytest.mark.parametrize(
    ("predictions", "stops", "advantage", "locations", "decisions"),
    [
        # Stopping at glimpse 2 of 4: l_1 was chosen; a_1 and a_2 were decided; nothing else.
        ([0, 2, 2, 2], [False, True, True, True], 0.5**2 - 0.1, [1, 0, 0, 0], [1, -1, 0, 0]),
        # The stop at the budget is forced, and the last location is not looked at.
        ([0, 0, 2], [False, False, True], 0.5**3 - 0.1, [1, 1, 0], [1, 1, 0]),
    ],
)
def test_only_decisions_that_were_made_are_scored(
    predictions, stops, advantage, locations, decisions
) -> None:
    trajectory = trajectory_by_hand(predictions, stops, value=0.1)
    total = losses_of(trajectory, talk(discount=0.5)).total
    location, stop = torch.autograd.grad(
        total, [trajectory.location_log_prob, trajectory.stop_logit]
    )
    assert location[:, 0].tolist() == pytest.approx([-advantage * made for made in locations])
    # d log σ(-x) / dx = -1/2 (went on), d log σ(x) / dx = 1/2 (stopped), at x = 0
    assert stop[:, 0].tolist() == pytest.approx([advantage / 2 * made for made in decisions])


def test_intermediate_supervision_by_hand() -> None:
    trajectory = trajectory_by_hand([0, 2, 2], [False, True, True])
    low = math.log(math.exp(10) + 2)  # of a wrong answer: the true class has logit 0
    high = low - 10
    for supervision, expected in {"taken": low + high, "last": high, "all": low + 2 * high}.items():
        losses = losses_of(trajectory, talk(supervision=supervision))
        assert losses.cross_entropy.item() == pytest.approx(expected, rel=2e-3)


def test_expected_return_by_hand() -> None:
    p = torch.tensor([[0.25], [0.5], [0.9]], dtype=torch.float64)  # the last one is forced to 1
    reward = torch.tensor([[1.0], [0.0], [0.8]], dtype=torch.float64)
    values = expected_returns(torch.logit(p), reward)
    assert values[:, 0].tolist() == pytest.approx([0.25 * 1 + 0.75 * 0.5 * 0.8, 0.5 * 0.8, 0.8])


def test_leave_one_out_by_hand() -> None:
    """Two images with three trajectories each: each is compared with the mean of the others."""
    returns = torch.tensor([[3.0, 6.0, 0.0, 1.0, 1.0, 1.0]])
    others = objective_module._others_mean(returns, 3)
    assert others[0].tolist() == [3.0, 1.5, 4.5, 1.0, 1.0, 1.0]


def test_mean_prob_by_hand() -> None:
    """A location is paid the mean probability of the true class at the glimpses after it."""
    trajectory = trajectory_by_hand([0, 2, 2, 0], [False] * 4)
    right = 1 / (1 + 2 * math.exp(-10))
    wrong = math.exp(-10) * right
    said = objective_module._log_prob(trajectory.logits, torch.tensor([2])).exp()
    paid = objective_module._mean_later(said)[:, 0].tolist()
    assert paid == pytest.approx(
        [(2 * right + wrong) / 3, (right + wrong) / 2, wrong, wrong], rel=2e-3
    )


def credit_by_hand(reward: str, baseline: str, first: float) -> Credit:
    """Of three glimpses after which the true class has the probabilities 1/2, 1/4 and 1/1000."""
    said = torch.tensor([[0.5, 0.5, 0.0], [0.75, 0.25, 0.0], [0.999, 0.001, 0.0]])
    trajectory = trajectory_by_hand([0, 0, 0], [False] * 3)
    trajectory = trajectory._replace(logits=said.clamp(min=1e-9).log()[:, None])
    objective = talk(stop="off", baseline=baseline, location_reward=reward)
    before = Baseline(torch.zeros(3, 1), torch.tensor([first]))
    return objective_module._sampled_credit(trajectory, torch.tensor([1]), 1, objective, before)


def test_mean_log_prob_by_hand() -> None:
    """p(true) = 1/2, 1/4 and 1/1000: means of later logarithms, of which none is under -3."""
    credit = credit_by_hand("mean_log_prob", "value", first=0.5)
    paid = [(math.log(0.25) - 3) / 2, -3.0, 0.0]  # the last one's location is not looked at
    assert credit.location_advantage[:, 0].tolist() == pytest.approx(paid, abs=1e-5)
    first = (math.log(0.5) + math.log(0.25) - 3) / 3  # l_0 is paid by all three
    assert credit.first_target.tolist() == pytest.approx([first], abs=1e-5)
    assert credit.first_advantage.tolist() == pytest.approx([first - 0.5], abs=1e-5)


def test_the_drops_in_cross_entropy_by_hand() -> None:
    """The same answers: the log-probability falls by log 2, then from log 1/4 to the bound, -3."""
    credit = credit_by_hand("drop", "none", first=0.0)
    last = -3 - math.log(0.25)
    paid = [-math.log(2) + 0.5 * last, last, 0.0]
    assert credit.location_advantage[:, 0].tolist() == pytest.approx(paid, abs=1e-5)


def test_values_regress_the_drops_by_hand() -> None:
    """With scores 1, 0, 5 for drops of 0.5 log 2 - log 2, log 2 and none after the last."""
    said = torch.tensor([[0.75, 0.25], [0.875, 0.125], [0.75, 0.25]]).log()[:, None]
    score = torch.tensor([[1.0], [0.0], [5.0]], requires_grad=True)
    trajectory = trajectory_by_hand([0, 0, 0], [False] * 3)
    trajectory = trajectory._replace(logits=said, location_score=score)
    objective = talk(stop="off", baseline="none", location_reward="drop", location_learning="value")
    losses = losses_of(trajectory, objective, label=1)
    errors = [1 + 0.5 * math.log(2), -math.log(2)]
    assert losses.policy.item() == pytest.approx(sum(error**2 for error in errors))
    losses.total.backward()
    assert score.grad is not None
    assert score.grad[:, 0].tolist() == pytest.approx([2 * error for error in errors] + [0])


def test_imitation_is_maximum_likelihood_of_the_choices() -> None:
    """By hand: three glimpses, so two choices, with densities 1/2 and 1/8."""
    log_prob = torch.tensor([[0.5], [0.125], [0.9]]).log().requires_grad_()
    trajectory = trajectory_by_hand([0, 1, 2], [False] * 3)._replace(location_log_prob=log_prob)
    losses = losses_of(trajectory, talk(stop="off", baseline="none", location_reward="imitation"))
    assert losses.policy.item() == pytest.approx(math.log(16), abs=1e-5)
    losses.total.backward()
    assert log_prob.grad is not None and log_prob.grad[:, 0].tolist() == [-1.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 0.0}, "discount=0.0: expected from 1e-06 to 1"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"stop": "on"}, "stop='on'"),
        ({"baseline": "mean"}, "baseline='mean'"),
        ({"stop_gradient": "pathwise"}, "stop_gradient='pathwise'"),
        ({"supervision": "none"}, "supervision='none'"),
        ({"location_reward": "error"}, "location_reward='error'"),
        ({"policy_weight": -1.0}, "policy_weight=-1.0"),
        ({"stop": "learned"}, "location_reward='mean_prob': expected 'return' with stop='learned'"),
        ({"stop_entropy": 0.1}, "stop_entropy=0.1: expected 0 with stop='off'"),
    ],
)
def test_impossible_options_are_errors(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**options)


@pytest.mark.parametrize(
    ("options", "first", "message"),
    [
        ({"baseline": "leave_one_out"}, None, "'leave_one_out' with m=1: expected at least 2"),
        ({"stop": "off", "location_entropy": 0.1}, None, "entropy=0.1: expected 0, or .*grid"),
        (
            {"stop": "off", "location_reward": "drop"},
            FIRST,
            "choose.*drop': expected return, mean_prob or mean_log_prob",
        ),
    ],
)
def test_trajectories_that_lack_what_the_objective_needs(options, first, message) -> None:
    trajectory = trajectory_by_hand([0, 0], [False] * 2)._replace(first=first)
    with pytest.raises(ValueError, match=message):
        losses_of(trajectory, talk(**options))


def test_a_script_does_not_say_where_to_look_first() -> None:
    """In the warm-up the choice of the first location has no gradient."""
    log_prob = torch.zeros(1, requires_grad=True)
    chosen = trajectory_by_hand([0, 0], [False] * 2)._replace(
        first=FIRST._replace(log_prob=log_prob)
    )
    for reward, gradient in (("return", -(0.9**2)), ("imitation", 0.0)):
        objective = talk(stop="off", baseline="none", location_reward=reward, discount=0.9)
        total = losses_of(chosen, objective, label=0).total
        (found,) = torch.autograd.grad(total, log_prob)
        assert found.item() == pytest.approx(gradient)


def test_pay_of_a_first_location_that_is_chosen_by_hand() -> None:
    """Right after both glimpses, it stops after one with probability 3/4; the baseline is 1/4."""
    log_prob = torch.zeros(1, requires_grad=True)
    chosen = trajectory_by_hand([0, 0], [False] * 2)._replace(
        first=FIRST._replace(log_prob=log_prob), stop_logit=torch.tensor([[math.log(3)], [0.0]])
    )
    objective = talk(baseline="scalar", stop_gradient="exact", discount=0.9)
    total = hybrid_loss(chosen, torch.tensor([0]), 1, objective, torch.tensor(0.25)).total
    (found,) = torch.autograd.grad(total, log_prob)
    assert found.item() == pytest.approx(-(0.75 * 0.9 + 0.25 * 0.81 - 0.25))


@pytest.mark.parametrize("stop_gradient", ["reinforce", "exact"])
def test_stop_entropy_by_hand(stop_gradient: str) -> None:
    """Two decisions, with probabilities 1/4 and 9/10; the third stop is forced."""
    first = math.log(4) / 4 + 3 * math.log(4 / 3) / 4
    second = 9 * math.log(10 / 9) / 10 + math.log(10) / 10
    # The second decision was reached, or it is with probability 3/4.
    reached = 1.0 if stop_gradient == "reinforce" else 0.75
    expected = first + reached * second
    logit = torch.tensor([[-math.log(3)], [math.log(9)], [1.0]], requires_grad=True)
    trajectory = trajectory_by_hand([0, 1, 2], [False, True, False])._replace(stop_logit=logit)
    totals = []
    for weight in (0.0, 0.5):
        losses = losses_of(trajectory, talk(stop_entropy=weight, stop_gradient=stop_gradient))
        assert losses.stop_entropy.item() == pytest.approx(expected, rel=1e-5)
        totals.append(losses.total)
    bonus = totals[0] - totals[1]
    assert bonus.item() == pytest.approx(0.5 * expected, rel=1e-4)
    # dH/dlogit = -logit p (1 - p), and how often a decision is reached is a constant.
    slope = [math.log(3) * 3 / 16, -math.log(9) * 9 / 100 * reached, 0.0]
    (gradient,) = torch.autograd.grad(bonus, logit)
    assert gradient[:, 0].tolist() == pytest.approx([0.5 * x for x in slope], abs=1e-6)


def test_losses_of_cross_entropy_alone_by_hand() -> None:
    loss = torch.tensor(1.5, requires_grad=True)
    found = supervised_losses(loss, torch.tensor(0.75), 3, 0.9)
    assert found.total is loss and not found.cross_entropy.requires_grad
    assert found.mean_return.item() == pytest.approx(0.75 * 0.729)
    assert [part.item() for part in found] == pytest.approx(
        [1.5, 1.5, 0.0, 0.0, 0.0, 0.54675, 3.0, 0.75, 0.0]
    )


def test_location_entropy_of_every_location_with_a_glimpse() -> None:
    """By hand: three glimpses, so two choices, of 4 equally probable cells each."""
    trajectory = trajectory_by_hand([0, 1, 2], [False, False, False])
    spread = torch.full((3, 1), math.log(4.0), requires_grad=True)
    trajectory = trajectory._replace(location_entropy=spread)
    plain, paid = (
        losses_of(trajectory, talk(stop="off", location_entropy=w)).total for w in (0.0, 0.5)
    )
    assert (plain - paid).item() == pytest.approx(0.5 * 2 * math.log(4.0), abs=1e-5)
    assert torch.autograd.grad(plain - paid, spread)[0][:, 0].tolist() == [0.5, 0.5, 0.0]
