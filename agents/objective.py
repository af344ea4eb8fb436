"""The hybrid loss and its gradient estimators.

For a trajectory of T glimpses with return ``R = γ^T 1[y_T = y*]`` (slides "More Formally" and
"Discounted Reward for Early Stopping"):

    loss = Σ_t CE_t - Σ [log π(l_t) + log π(a_t)] (R - b_t) + Σ_t (b_t - R)²

The sums run over decisions that the agent made: l_t for t < T, a_t for t <= min(T, T_max - 1); an
agent that chooses its first location has l_0 and b_0, too. That loss is
``Objective(stop="learned", location_reward="return", stop_gradient="reinforce")``. By default, a
location earns the true class's later probability in place of R, and the gradient of the stops is
exact.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from dtram_env.episodes import grade

from .checks import NotNegative, Share, check_fields, require
from .dtram import DTRAM
from .stopping import glimpses_taken
from .unroll import Trajectory

LEAST_REWARD_LOG_PROB = -3.0
"""Lower bound, in nats, of log-probabilities in the location rewards mean_log_prob and drop, so
that one misclassified image can't dominate a batch."""

DROP_DISCOUNT = 0.5
"""Discount of later drops with ``location_reward="drop"`` (AdaptiveNN, Wang et al. 2025)."""


@dataclass(frozen=True)
class Objective:
    """The options of the loss. Their defaults are those with which
    ``train/reinforce.py`` trains the trunk.

    Raises:
        ValueError: an option is unknown or out of range, or two options exclude each other.
    """

    discount: Share = 0.98
    """γ of the reward"""
    stop: Literal["learned", "off"] = "off"
    """learned, or off: every trajectory takes all glimpses (RAM, and DT-RAM's trunk)"""
    baseline: Literal["value", "leave_one_out", "scalar", "none"] = "leave_one_out"
    """b_t: value (a head on h_t), leave_one_out (mean of an image's other trajectories), scalar
    (one learned number) or none"""
    stop_gradient: Literal["reinforce", "exact"] = "exact"
    """gradient of the stop decisions: reinforce (sampled) or exact (expectation over the stopping
    time); used with stop="learned" """
    supervision: Literal["taken", "last", "all"] = "all"
    """glimpses with a cross-entropy: those taken, the last one, or all up to the budget"""
    location_reward: Literal["return", "mean_prob", "mean_log_prob", "drop", "imitation"] = (
        "mean_prob"
    )
    """reward of a location: return (the trajectory's); mean_prob, the true class's mean probability
    over the glimpses after it; mean_log_prob, its mean log-probability, which still grows where the
    probability is near 1; drop, the discounted drops in cross-entropy that it and later glimpses
    bring, see `DROP_DISCOUNT`; or imitation, an advantage of 1 (see `location_policy`, scripted
    locations). With stop="learned" it must be return"""
    location_learning: Literal["policy_gradient", "value"] = "policy_gradient"
    """how locations learn from their reward: policy_gradient, or value: the score of the cell that
    was chosen regresses it"""
    policy_weight: NotNegative = 1.0
    """weight of the policy gradient"""
    stop_entropy: NotNegative = 0.0
    """weight of an entropy bonus on the stop decisions, in nats"""
    location_entropy: NotNegative | Tensor = 0.0
    """weight of an entropy bonus on the choice of a cell, in nats; 0 for a Gaussian policy. A
    tensor ``()`` is not checked"""

    def __post_init__(self) -> None:
        check_fields(self)
        learns_stop, reward = self.stop == "learned", self.location_reward
        fits = reward == "return" or not learns_stop
        require("location_reward", reward, fits, "'return' with stop='learned'")
        how = self.location_learning
        fits = how == "policy_gradient" or (reward not in ("return", "imitation"))
        require("location_learning", how, fits, "'policy_gradient' with this location_reward")
        fits = learns_stop or not self.stop_entropy
        require("stop_entropy", self.stop_entropy, fits, "0 with stop='off'")


def trained_heads(agent: DTRAM, objective: Objective) -> list[nn.Parameter]:
    """Parameters of the stopper and the baseline, as far as the loss trains them."""
    heads: list[nn.Parameter] = []
    if objective.stop == "learned":
        heads += agent.stopper.parameters()
    if objective.baseline == "value":
        heads += agent.baseline.parameters()
    elif objective.baseline == "scalar":
        heads.append(agent.scalar_baseline)
    return heads


class Losses(NamedTuple):
    """The loss, its parts (means over trajectories, before their weights), and statistics."""

    total: Tensor  # the weighted sum of the parts, and the location entropy's term
    cross_entropy: Tensor
    policy: Tensor
    baseline: Tensor
    stop_entropy: Tensor
    mean_return: Tensor  # of R, or of its expectation if the stop gradient is exact
    mean_glimpses: Tensor
    accuracy: Tensor  # at the end of the trajectory
    outside: Tensor  # of the locations, see `Trajectory.outside`


def supervised_losses(
    cross_entropy: Tensor, accuracy: Tensor, glimpses: int, discount: float
) -> Losses:
    """The `Losses` of a network that is trained by cross-entropy alone.

    `accuracy` is the share of correct predictions after the last glimpse, without gradient.
    """
    zero = torch.zeros_like(accuracy)
    mean_return, mean_glimpses = accuracy * discount**glimpses, zero + glimpses
    entropy = cross_entropy.detach()
    statistics = mean_return, mean_glimpses, accuracy, zero
    return Losses(cross_entropy, entropy, zero, zero, zero, *statistics)


class Baseline(NamedTuple):
    """What is subtracted from what a decision earned."""

    later: Tensor  # (T, B) b_t
    first: Tensor  # (B,) b_0, of a first location that the agent chooses


class Credit(NamedTuple):
    """What each decision of the trajectories earned; detached, ``(T, B)`` unless noted.

    A probability is 0 or 1 if the stopping time is sampled.
    """

    taken: Tensor  # probability s_t that glimpse t is taken
    last: Tensor  # probability s_t p_t that glimpse t is the last
    location_advantage: Tensor  # of l_t; 0 if no location was chosen
    first_advantage: Tensor  # (B,) of l_0, where the agent chooses it
    first_target: Tensor  # (B,) the value that b_0 regresses
    stop_advantage: Tensor  # of a_t; 0 if no stop was decided
    baseline_target: Tensor  # the value that b_t regresses
    expected_return: Tensor  # (B,) the sampled return, or its expectation over T, with gradient


def hybrid_loss(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, scalar_baseline: Tensor
) -> Losses:
    """The loss whose gradient is the talk's estimator, as a mean over trajectories.

    Args:
        trajectory: of B = N x m trajectories.
        labels: ``(N,)`` int64.
        m: trajectories an image.
        objective: the options.
        scalar_baseline: ``()``, the learned number of ``baseline="scalar"``.

    Raises:
        ValueError: ``leave_one_out`` with one trajectory an image; the trajectory lacks the
            location entropy that the objective needs; or the agent chose the first location, and
            the objective has no reward for it.
    """
    if trajectory.first is not None:
        fits, expected = objective.location_reward != "drop", "return, mean_prob or mean_log_prob"
        given = "first_glimpse='choose' with location_reward"
        require(given, objective.location_reward, fits, expected)
    if objective.baseline == "leave_one_out":
        require("baseline='leave_one_out' with m", m, m >= 2, "at least 2 trajectories")
    labels = labels.repeat_interleave(m)
    exact = objective.stop == "learned" and objective.stop_gradient == "exact"
    value = trajectory.value
    b = Baseline(value, trajectory.first.value if trajectory.first else torch.zeros_like(value[0]))
    if objective.baseline == "scalar":
        b = Baseline(*(scalar_baseline.expand_as(part) for part in b))
    elif objective.baseline != "value":
        b = Baseline(*map(torch.zeros_like, b))
    find_credit = _exact_credit if exact else _sampled_credit
    constant = Baseline(*(part.detach() for part in b))
    credit = find_credit(trajectory, labels, m, objective, constant)

    ce = cross_entropy(
        trajectory.logits.flatten(0, 1), labels.repeat(trajectory.steps), reduction="none"
    ).view_as(trajectory.value)
    weight = {"taken": credit.taken, "last": credit.last, "all": torch.ones_like(credit.taken)}
    supervised = weight[objective.supervision]
    if trajectory.supervised is not None:
        supervised = trajectory.supervised.to(ce.dtype)
    ce_loss = (supervised * ce).sum(dim=0).mean()

    score = trajectory.location_log_prob * credit.location_advantage
    if objective.location_learning == "value":
        assert trajectory.location_score is not None
        error = trajectory.location_score - credit.baseline_target
        # No glimpse is taken at the last location.
        policy_gain = -((credit.taken - credit.last) * error.square()).sum(dim=0)
    elif exact:
        policy_gain = score.sum(dim=0) + credit.expected_return
    else:
        log_stop = logsigmoid(torch.where(trajectory.stop, 1.0, -1.0) * trajectory.stop_logit)
        policy_gain = (score + log_stop * credit.stop_advantage).sum(dim=0)
    if trajectory.first:
        policy_gain = policy_gain + trajectory.first.log_prob * credit.first_advantage
    policy_loss = -policy_gain.mean()

    baseline_loss = stop_entropy = ce_loss.new_zeros(())
    if objective.baseline in ("value", "scalar"):
        squared_error = (credit.taken * (b.later - credit.baseline_target).square()).sum(dim=0)
        if trajectory.first:
            squared_error = squared_error + (b.first - credit.first_target).square()
        baseline_loss = squared_error.mean()
    if objective.stop == "learned":
        stop_entropy = _stop_entropy(trajectory, credit.taken)
    total = (
        ce_loss
        + objective.policy_weight * policy_loss
        + baseline_loss
        - objective.stop_entropy * stop_entropy
    )
    if isinstance(objective.location_entropy, Tensor) or objective.location_entropy > 0:
        if trajectory.location_entropy is None:
            expected = "0, or an agent whose location policy chooses among cells (locator_grid)"
            raise ValueError(f"location_entropy={objective.location_entropy}: expected {expected}")
        # No glimpse is taken at the last location.
        entropy = ((credit.taken - credit.last) * trajectory.location_entropy).sum(dim=0).mean()
        total = total - objective.location_entropy * entropy
    with torch.no_grad():
        time = torch.arange(1, trajectory.steps + 1, device=labels.device)[:, None]
        right = (trajectory.prediction == labels).to(credit.last.dtype)
        return Losses(
            total,
            ce_loss.detach(),
            policy_loss.detach(),
            baseline_loss.detach(),
            stop_entropy.detach(),
            credit.expected_return.detach().mean(),
            (credit.last * time).sum(dim=0).mean(),
            (credit.last * right).sum(dim=0).mean(),
            trajectory.outside,
        )


def rewards(trajectory: Trajectory, labels: Tensor, discount: float) -> Tensor:
    """``(T, B)`` reward ``γ^t 1[y_t = y*]`` of stopping after glimpse t; labels ``(B,)``."""
    time = torch.arange(1, trajectory.steps + 1, device=labels.device)[:, None]
    return grade(time, trajectory.prediction, labels, discount).to(trajectory.value.dtype)


def expected_returns(stop_logit: Tensor, reward: Tensor) -> Tensor:
    """Expected return V_t ``(T, B)`` on reaching glimpse t, over the random stopping time.

    ``V_t = p_t r_t + (1 - p_t) V_{t+1}``, and ``V_{T_max} = r_{T_max}`` as the last stop is forced;
    V_1 is Σ_t s_t p_t r_t. Differentiable in the stop logits ``(T, B)``. The reward ``(T, B)`` is
    paid for stopping after glimpse t.
    """
    values = [reward[-1]]
    for t in range(len(reward) - 2, -1, -1):
        p = torch.sigmoid(stop_logit[t])
        values.append(p * reward[t] + (1 - p) * values[-1])
    return torch.stack(values[::-1])


@torch.no_grad()
def _sampled_credit(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, b: Baseline
) -> Credit:
    """REINFORCE: the stopping time T is the sampled one, or the last glimpse when stop is off."""
    steps, batch = trajectory.value.shape
    time = torch.arange(1, steps + 1, device=labels.device)[:, None]
    learned = objective.stop == "learned"
    stop = trajectory.stop if learned else torch.zeros_like(trajectory.stop)
    if trajectory.supervised is not None:
        stop = trajectory.supervised
    num_glimpses = glimpses_taken(stop)
    reached, last = (
        part.to(b.later.dtype) for part in (time <= num_glimpses, time == num_glimpses)
    )
    paid = (last * rewards(trajectory, labels, objective.discount)).sum(dim=0)
    target, first_target = paid.expand(steps, batch), paid
    if objective.location_reward in ("mean_prob", "mean_log_prob"):
        log_p = _log_prob(trajectory.logits, labels)
        in_logs = objective.location_reward == "mean_log_prob"
        reward = log_p.clamp(min=LEAST_REWARD_LOG_PROB) if in_logs else log_p.exp()
        target, first_target = _mean_later(reward), reward.mean(dim=0)
    if objective.location_reward == "drop":
        target = gains_to_come(trajectory.logits, labels)
    if objective.baseline == "leave_one_out":
        b = Baseline(_others_mean(target, m), _others_mean(first_target[None], m)[0])
    advantage, first_advantage = target - b.later, first_target - b.first
    if objective.location_reward == "imitation":  # the script begins with glimpse 2
        advantage, first_advantage = torch.ones_like(advantage), torch.zeros_like(first_advantage)
    return Credit(
        taken=reached,
        last=last,
        location_advantage=(time < num_glimpses) * advantage,
        first_advantage=first_advantage,
        first_target=first_target,
        stop_advantage=reached * (time < steps) * advantage
        if learned
        else torch.zeros_like(b.later),
        baseline_target=target,
        expected_return=paid,
    )


def _exact_credit(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, b: Baseline
) -> Credit:
    """Exact expectation over stopping times; stopping changes no glimpse, so one path is enough."""
    reward = rewards(trajectory, labels, objective.discount)
    values = expected_returns(trajectory.stop_logit, reward)
    with torch.no_grad():
        p = torch.sigmoid(trajectory.stop_logit)
        p[-1] = 1.0
        survives = torch.cumprod(1 - p, dim=0)  # s_{t+1}
        reached = torch.cat([torch.ones_like(survives[:1]), survives[:-1]])
        # b_t predicts the return on reaching t; l_t matters only if the agent goes on after t.
        after = torch.cat([values[1:], torch.zeros_like(values[:1])])
        if objective.baseline == "leave_one_out":
            b = Baseline(_others_mean(after, m), _others_mean(values, m)[0])
    return Credit(
        taken=reached,
        last=reached * p,
        location_advantage=survives * (after.detach() - b.later),
        first_advantage=values[0].detach() - b.first,
        first_target=values[0].detach(),
        stop_advantage=torch.zeros_like(reached),
        baseline_target=values.detach(),
        expected_return=values[0],
    )


def gains_to_come(logits: Tensor, labels: Tensor) -> Tensor:
    """``(T, B)`` discounted sum of the drops in cross-entropy that glimpses t + 1 ... T bring, in
    nats; see `DROP_DISCOUNT`. Log-probabilities count as at least `LEAST_REWARD_LOG_PROB`. Logits
    ``(T, B, K)``, labels ``(B,)``."""
    log_p = _log_prob(logits, labels).clamp(min=LEAST_REWARD_LOG_PROB)
    gains = [torch.zeros_like(log_p[0])]  # no glimpse comes after the last
    for t in range(len(log_p) - 2, -1, -1):
        gains.append(log_p[t + 1] - log_p[t] + DROP_DISCOUNT * gains[-1])
    return torch.stack(gains[::-1])


def _log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    """``(T, B)`` log-probability of the true class; logits ``(T, B, K)``, labels ``(B,)``."""
    index = labels.expand(len(logits), -1)[..., None]
    return torch.log_softmax(logits, dim=-1).gather(-1, index)[..., 0]


def _mean_later(values: Tensor) -> Tensor:
    """``(T, B)`` means of values ``(T, B)`` over glimpses t + 1 ... T; at T, the value itself."""
    after = values.flip(0).cumsum(0).flip(0) - values
    count = torch.arange(len(values) - 1, -1, -1, device=values.device)[:, None]
    return torch.where(count > 0, after / count.clamp(min=1), values)


def _others_mean(returns: Tensor, m: int) -> Tensor:
    """``(T, B)`` mean over the other m - 1 trajectories of the same image."""
    groups = returns.unflatten(1, (-1, m))
    return ((groups.sum(dim=2, keepdim=True) - groups) / (m - 1)).flatten(1, 2)


def _stop_entropy(trajectory: Trajectory, taken: Tensor) -> Tensor:
    """Entropy of the stop decisions that are reached, in nats; mean over trajectories."""
    logit = trajectory.stop_logit[:-1]
    p = torch.sigmoid(logit)
    entropy = -(p * logsigmoid(logit) + (1 - p) * logsigmoid(-logit))
    return (taken[:-1] * entropy).sum(dim=0).mean()
