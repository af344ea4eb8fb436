"""The hybrid loss and its gradient estimators.

For a trajectory of T glimpses with return ``R = γ^T 1[y_T = y*]`` (slides "More Formally" and
"Discounted Reward for Early Stopping"):

    loss = Σ_t CE_t - Σ [log π(l_t) + log π(a_t)] (R - b_t) + Σ_t (b_t - R)²

Only decisions that were made are scored: l_t for t < T, a_t for t <= min(T, T_max - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from dtram_env.episodes import grade

from .dtram import DTRAM
from .stopping import glimpses_taken
from .unroll import Trajectory

CHOICES = {
    "stop": ("learned", "off"),
    "baseline": ("value", "leave_one_out", "scalar", "none"),
    "stop_gradient": ("reinforce", "exact"),
    "supervision": ("taken", "last", "all"),
    "location_reward": ("return", "mean_prob", "mean_log_prob", "imitation"),
}
LEAST_LOG_PROBABILITY = -3.0
"""Of ``location_reward="mean_log_prob"``, in nats: one hopeless image may not outweigh a batch."""


@dataclass(frozen=True)
class Objective:
    """The switches of the loss. The talk's are the defaults."""

    discount: float = 0.98
    """γ of the reward"""
    stop: str = "learned"
    """learned, or off: every trajectory runs to the end (RAM)"""
    baseline: str = "value"
    """b_t: value (a head on h_t), leave_one_out (of an image's M), scalar (one number), none"""
    stop_gradient: str = "reinforce"
    """of the stop decisions: reinforce (sampled) or exact (expectation over the stopping time)"""
    supervision: str = "taken"
    """cross-entropy at every glimpse taken, at the last one only, or at all up to the budget"""
    location_reward: str = "return"
    """what pays a location: the return; anytime, the true class's mean probability after it;
    information, its mean log-probability, which goes on paying where probability has but a little
    to gain; or imitation, 1 for each that was chosen: maximum likelihood of a scripted_locations's choices"""
    policy_weight: float = 1.0
    """weight of the policy gradient"""
    baseline_weight: float = 1.0
    """weight of the baseline's squared error"""
    stop_entropy: float = 0.0
    """weight of an entropy bonus on the stop decisions, in nats"""
    location_entropy: float = 0.0
    """weight of an entropy bonus on the choice of a cell, in nats; a Gaussian takes none"""
    glimpse_only_weight: float = 0.0
    """weight of the cross-entropy of glimpses 2 ... T, each answered by itself; see `needs_glimpse_only`"""
    glimpse_only_reward: float = 0.0
    """share, in [0, 1], of a location's pay that is the true class's probability in the answer of
    its glimpse by itself; with location_reward="mean_prob" """

    @property
    def needs_glimpse_only(self) -> bool:
        """Whether each glimpse is also to be answered by itself, the state empty before it.

        Where a thumbnail says most, what a crop adds to it shows late. What the crop says by itself
        shows early, whichever part of the object it holds: it leads crops to the object.
        """
        return self.glimpse_only_weight > 0 or self.glimpse_only_reward > 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {allowed}")
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount={self.discount}: expected a number in (0, 1]")
        weights = "policy_weight", "baseline_weight", "stop_entropy", "location_entropy"
        for name in (*weights, "glimpse_only_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        if self.location_reward != "return" and self.stop != "off":
            raise ValueError(
                f"location_reward={self.location_reward!r}: expected with stop='off' only"
            )
        if not 0.0 <= self.glimpse_only_reward <= 1.0:
            raise ValueError(
                f"glimpse_only_reward={self.glimpse_only_reward}: expected a number in [0, 1]"
            )
        if self.glimpse_only_reward > 0 and self.location_reward != "mean_prob":
            raise ValueError(
                f"glimpse_only_reward={self.glimpse_only_reward}: expected 0 unless location_reward='mean_prob'"
            )
        if self.stop_entropy > 0 and self.stop == "off":
            raise ValueError(f"stop_entropy={self.stop_entropy}: expected 0 with stop='off'")


def trained_heads(agent: DTRAM, objective: Objective) -> list[nn.Parameter]:
    """The parameters besides encoder, core, classifier and locator that the loss reaches."""
    heads: list[nn.Parameter] = []
    if objective.stop == "learned":
        heads += agent.stopper.parameters()
    if objective.baseline == "value":
        heads += agent.baseline.parameters()
    elif objective.baseline == "scalar":
        heads.append(agent.scalar_baseline)
    return heads


class Losses(NamedTuple):
    """The parts of the loss (means over trajectories) and what the batch did."""

    total: Tensor  # the parts below, weighted, and what glimpse_only glimpses add
    cross_entropy: Tensor
    policy: Tensor
    baseline: Tensor
    stop_entropy: Tensor
    mean_return: Tensor  # of R, or of its expectation when the stop gradient is exact
    mean_glimpses: Tensor
    accuracy: Tensor  # at the end of the trajectory


def supervised_losses(
    cross_entropy: Tensor, accuracy: Tensor, glimpses: int, discount: float
) -> Losses:
    """The parts of a loss that is cross-entropy alone, nothing being decided.

    Args:
        cross_entropy: ``()``, the loss.
        accuracy: ``()``, share of right answers after the last glimpse, detached.
        glimpses: that each image took.
        discount: γ of the reward.
    """
    nothing = torch.zeros_like(accuracy)
    return Losses(
        total=cross_entropy,
        cross_entropy=cross_entropy.detach(),
        policy=nothing,
        baseline=nothing,
        stop_entropy=nothing,
        mean_return=accuracy * discount**glimpses,
        mean_glimpses=nothing + glimpses,
        accuracy=accuracy,
    )


class Credit(NamedTuple):
    """What the trajectories earned, all detached and ``(T, B)`` unless said."""

    reach: Tensor  # probability (or 0/1) that glimpse t is taken, s_t
    last: Tensor  # probability (or 0/1) that glimpse t is the last, s_t p_t
    location_advantage: Tensor  # of l_t, 0 where no location was chosen
    stop_advantage: Tensor  # of a_t, 0 where nothing was decided
    target: Tensor  # what b_t should have said
    expected_return: Tensor  # (B,) of the sampled T, or over T; carries gradient when exact


def hybrid_loss(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, scalar_baseline: Tensor
) -> Losses:
    """The loss whose gradient is the talk's estimator, as a mean over trajectories.

    Args:
        trajectory: of B = N x m trajectories.
        labels: ``(N,)`` int64.
        m: trajectories an image.
        objective: the switches.
        scalar_baseline: ``()``, the learned number of ``baseline="scalar"``.

    Raises:
        ValueError: for ``leave_one_out`` with one trajectory an image.
    """
    if objective.baseline == "leave_one_out" and m < 2:
        raise ValueError(f"baseline='leave_one_out' with m={m}: expected at least 2 trajectories")
    labels = labels.repeat_interleave(m)
    exact = objective.stop == "learned" and objective.stop_gradient == "exact"
    value = _baseline_values(trajectory, objective, scalar_baseline)
    credit = (_exact_credit if exact else _sampled_credit)(
        trajectory, labels, m, objective, value.detach()
    )

    ce = cross_entropy(
        trajectory.logits.flatten(0, 1), labels.repeat(trajectory.steps), reduction="none"
    ).view_as(trajectory.value)
    weight = {
        "taken": credit.reach,
        "last": credit.last,
        "all": torch.ones_like(credit.reach),
    }[objective.supervision]
    ce_loss = (weight * ce).sum(dim=0).mean()

    score = trajectory.location_log_prob * credit.location_advantage
    if exact:
        policy_gain = score.sum(dim=0) + credit.expected_return
    else:
        log_stop = logsigmoid(torch.where(trajectory.stop, 1.0, -1.0) * trajectory.stop_logit)
        policy_gain = (score + log_stop * credit.stop_advantage).sum(dim=0)
    policy_loss = -policy_gain.mean()

    learned_baseline = objective.baseline in ("value", "scalar")
    squared = credit.reach * (value - credit.target).square()
    baseline_loss = squared.sum(dim=0).mean() if learned_baseline else ce_loss.new_zeros(())
    decides = objective.stop == "learned"
    entropy = _stop_entropy(trajectory, credit.reach) if decides else ce_loss.new_zeros(())
    total = (
        ce_loss
        + objective.policy_weight * policy_loss
        + objective.baseline_weight * baseline_loss
        - objective.stop_entropy * entropy
    )
    if objective.location_entropy > 0:
        if trajectory.location_entropy is None:
            raise ValueError(
                f"location_entropy={objective.location_entropy}: expected 0, or an agent whose "
                "location policy chooses among cells (locator_grid)"
            )
        # The last glimpse's choice is never looked at.
        spread = (credit.reach * trajectory.location_entropy)[:-1].sum(dim=0).mean()
        total = total - objective.location_entropy * spread
    if objective.glimpse_only_weight > 0 and trajectory.steps > 1:
        glimpse_only = _log_probability(_glimpse_only_logits(trajectory), labels)
        total = total - objective.glimpse_only_weight * glimpse_only.sum(dim=0).mean()
    with torch.no_grad():
        time = torch.arange(1, trajectory.steps + 1, device=labels.device)[:, None]
        right = (trajectory.prediction == labels).to(credit.last.dtype)
        return Losses(
            total,
            ce_loss.detach(),
            policy_loss.detach(),
            baseline_loss.detach(),
            entropy.detach(),
            credit.expected_return.detach().mean(),
            (credit.last * time).sum(dim=0).mean(),
            (credit.last * right).sum(dim=0).mean(),
        )


def rewards(trajectory: Trajectory, labels: Tensor, discount: float) -> Tensor:
    """``(T, B)``: what stopping after glimpse t would pay, ``γ^t 1[y_t = y*]``; labels ``(B,)``."""
    time = torch.arange(1, trajectory.steps + 1, device=labels.device)[:, None]
    return grade(time, trajectory.prediction, labels, discount).to(trajectory.value.dtype)


def expected_returns(stop_logit: Tensor, reward: Tensor) -> Tensor:
    """Expected return V_t on reaching glimpse t, over the random stopping time.

    ``V_t = p_t r_t + (1 - p_t) V_{t+1}``, and ``V_{T_max} = r_{T_max}`` as the last stop is forced;
    V_1 is Σ_t s_t p_t r_t. Differentiable in the stop logits.

    Args:
        stop_logit: ``(T, B)``.
        reward: ``(T, B)``, paid for stopping after glimpse t.

    Returns:
        ``(T, B)``.
    """
    values = [reward[-1]]
    for t in range(len(reward) - 2, -1, -1):
        p = torch.sigmoid(stop_logit[t])
        values.append(p * reward[t] + (1 - p) * values[-1])
    return torch.stack(values[::-1])


def _baseline_values(
    trajectory: Trajectory, objective: Objective, scalar_baseline: Tensor
) -> Tensor:
    """b_t ``(T, B)`` of the learned baselines; zeros for the others."""
    if objective.baseline == "value":
        return trajectory.value
    if objective.baseline == "scalar":
        return scalar_baseline.expand_as(trajectory.value)
    return torch.zeros_like(trajectory.value)


@torch.no_grad()
def _sampled_credit(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, value: Tensor
) -> Credit:
    """REINFORCE: the stopping time T is the sampled one, or the last glimpse when stop is off."""
    steps, batch = trajectory.value.shape
    time = torch.arange(1, steps + 1, device=labels.device)[:, None]
    learned = objective.stop == "learned"
    taken = glimpses_taken(trajectory.stop if learned else torch.zeros_like(trajectory.stop))
    reach, last = (time <= taken).to(value.dtype), (time == taken).to(value.dtype)
    paid = (last * rewards(trajectory, labels, objective.discount)).sum(dim=0)
    target = paid.expand(steps, batch)
    if objective.location_reward in ("mean_prob", "mean_log_prob"):
        log_p = _log_probability(trajectory.logits, labels)
        informs = objective.location_reward == "mean_log_prob"
        target = _mean_later(log_p.clamp(min=LEAST_LOG_PROBABILITY) if informs else log_p.exp())
        if objective.glimpse_only_reward > 0 and steps > 1:
            glimpse_only = _log_probability(_glimpse_only_logits(trajectory), labels).exp()
            share = objective.glimpse_only_reward
            # The last location is never looked at; what it is paid counts for nothing.
            target = torch.cat([(1 - share) * target[:-1] + share * glimpse_only, target[-1:]])
    b = _others_mean(target, m) if objective.baseline == "leave_one_out" else value
    advantage = target - b
    if objective.location_reward == "imitation":
        advantage = torch.ones_like(advantage)
    return Credit(
        reach=reach,
        last=last,
        location_advantage=(time < taken) * advantage,
        stop_advantage=reach * (time < steps) * advantage if learned else torch.zeros_like(b),
        target=target,
        expected_return=paid,
    )


def _exact_credit(
    trajectory: Trajectory, labels: Tensor, m: int, objective: Objective, value: Tensor
) -> Credit:
    """Expectation over the stopping time: stopping changes no earlier glimpse, so all T count."""
    values = expected_returns(
        trajectory.stop_logit, rewards(trajectory, labels, objective.discount)
    )
    with torch.no_grad():
        p = torch.sigmoid(trajectory.stop_logit)
        p[-1] = 1.0
        survives = torch.cumprod(1 - p, dim=0)  # s_{t+1}
        reach = torch.cat([torch.ones_like(survives[:1]), survives[:-1]])
        # b_t predicts the return on reaching t; l_t matters only if the agent goes on after t.
        after = torch.cat([values[1:], torch.zeros_like(values[:1])])
        b = _others_mean(after, m) if objective.baseline == "leave_one_out" else value
    return Credit(
        reach=reach,
        last=reach * p,
        location_advantage=survives * (after.detach() - b),
        stop_advantage=torch.zeros_like(reach),
        target=values.detach(),
        expected_return=values[0],
    )


def _glimpse_only_logits(trajectory: Trajectory) -> Tensor:
    """``(T - 1, B, K)`` of a trajectory whose glimpses were also answered by themselves.

    Raises:
        ValueError: they were not.
    """
    if trajectory.glimpse_only_logits is None:
        raise ValueError(
            "glimpse_only_weight or glimpse_only_reward above 0: expected an unroll with glimpse_only=True, whose "
            "trajectories hold glimpse_only_logits"
        )
    return trajectory.glimpse_only_logits


def _log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """``(T, B)``: of the true class; logits ``(T, B, K)``, labels ``(B,)``."""
    index = labels.expand(len(logits), -1)[..., None]
    return torch.log_softmax(logits, dim=-1).gather(-1, index)[..., 0]


def _mean_later(values: Tensor) -> Tensor:
    """``(T, B)``: means of ``(T, B)`` values over glimpses t + 1 ... T (at T: the value of T)."""
    after = values.flip(0).cumsum(0).flip(0) - values
    count = torch.arange(len(values) - 1, -1, -1, device=values.device)[:, None]
    return torch.where(count > 0, after / count.clamp(min=1), values)


def _others_mean(returns: Tensor, m: int) -> Tensor:
    """``(T, B)``: for each trajectory the mean over its image's other m - 1 trajectories."""
    groups = returns.unflatten(1, (-1, m))
    return ((groups.sum(dim=2, keepdim=True) - groups) / (m - 1)).flatten(1, 2)


def _stop_entropy(trajectory: Trajectory, reach: Tensor) -> Tensor:
    """Mean over trajectories of the entropy of the stop decisions that are reached, in nats."""
    logit = trajectory.stop_logit[:-1]
    p = torch.sigmoid(logit)
    entropy = -(p * logsigmoid(logit) + (1 - p) * logsigmoid(-logit))
    return (reach[:-1] * entropy).sum(dim=0).mean()
