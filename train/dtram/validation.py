"""What validation says of DT-RAM's weights, the stop threshold that it chooses, and whether a
policy collapsed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agents.dtram import DTRAM
from agents.halting.act import ACTStop
from agents.stopping import FixedStop, LearnedStop
from agents.unroll import Scores, score
from dtram_env.episodes import grade
from train.common import distributed
from train.common.training import Selection
from train.common.training_task import TrainingTask

CANDIDATES = 100  # quantiles of the stop probabilities that are tried as thresholds
NEARLY_ALL = 0.99  # probability, mean over images, of the number of glimpses of a collapsed stop
CORNER = 0.9  # |x| and |y| beyond this share of the farthest are in a corner
ONE_PLACE = 0.01  # standard deviation of locations over images, in image halves
WORSE = 2.0  # standard errors beyond which a cross-entropy counts as higher
OVER = 1e6  # ranks thresholds beyond the bound after all others


def score_validation(task: TrainingTask, agent: DTRAM) -> Scores:
    """One deterministic pass over the validation split; puts the agent into evaluation mode.

    Several processes share the images.
    """
    agent.eval()
    images, batch = task.images("validation"), task.eval_batch_size
    own = distributed.own(torch.arange(len(images), device=task.device))
    scores = score(agent, task.sensor, images.store, images.labels[own], batch, own)
    parts = (distributed.gathered(part, len(images), dim=1) for part in scores[1:])
    return Scores(images.labels, *parts)


def select_by_error(scores: Scores, discount: float, last_only: bool = False) -> Selection:
    """Ranks a trunk's weights by the mean error after 2, 3, ... T glimpses; ties by that after T.

    A stop may come after any of them, and the first glimpse is not chosen by the location policy.
    With `last_only`, where only the answer after T was taught, that one's error ranks alone.
    """
    steps = len(scores.logits)
    errors = [scores.error_and_glimpses(FixedStop(t))[0] for t in range(1, steps + 1)]
    metrics = {f"eval/error_at_{t}": error for t, error in enumerate(errors, start=1)}
    metrics |= _metrics(1 - errors[-1], float(steps), discount**steps * (1 - errors[-1]))
    later = errors[-1:] if last_only else errors[1:] or errors
    return Selection((sum(later) / len(later), errors[-1]), metrics)


def select_threshold(
    scores: Scores,
    discount: float,
    max_mean_glimpses: float | None,
    fixed: float | None = None,
) -> Selection:
    """Chooses the learned stop's threshold: 1/2, 1 (never) or a quantile of its probabilities; or
    takes the `fixed` one.

    Of those within the bound on mean glimpses: the one with the most glimpses whose cross-entropy
    is not higher than the lowest by more than `WORSE` standard errors of the paired difference.
    Some hundred images cannot rank thresholds that answer a few images otherwise, and there more
    glimpses are safer. Weights are ranked by that lowest cross-entropy. If no threshold is within
    the bound: fewest glimpses, and ``eval/bound_kept`` is 0. Without a bound: highest mean return.
    """
    bound = float("inf") if max_mean_glimpses is None else max_mean_glimpses
    tried = stop_thresholds(scores) if fixed is None else [fixed]
    found = [_at_threshold(scores, t, discount) for t in tried]
    within = [one for one in found if one.glimpses <= bound]
    if max_mean_glimpses is None:
        chosen = min(found, key=lambda one: (-one.metrics["eval/mean_return"], one.glimpses))
        criterion = (-chosen.metrics["eval/mean_return"], chosen.glimpses)
    elif not within:
        chosen = min(found, key=lambda one: (one.glimpses, one.loss))
        criterion = (OVER + chosen.glimpses, chosen.loss)
    else:
        best = min(within, key=lambda one: (one.loss, one.glimpses))
        equal = [one for one in within if not one.is_worse(best)]
        chosen = max(equal, key=lambda one: (one.glimpses, -one.threshold))
        criterion = (best.loss, chosen.glimpses)
    metrics = {**chosen.metrics, "eval/bound_kept": float(chosen.glimpses <= bound)}
    return Selection(criterion, metrics, chosen.threshold)


class _Candidate(NamedTuple):
    """A threshold on validation."""

    threshold: float
    losses: Tensor  # (N,) cross-entropy of the answers
    glimpses: float  # mean
    metrics: dict[str, float]

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    def is_worse(self, other: "_Candidate") -> bool:
        """Whether its cross-entropy is higher by more than `WORSE` standard errors."""
        difference = self.losses - other.losses
        error = difference.std(correction=0) / len(difference) ** 0.5
        return bool(difference.mean() > WORSE * error)


def stop_thresholds(scores: Scores) -> list[float]:
    """Thresholds of a learned stop, in order: 1/2, 1 (never) and quantiles of its probabilities."""
    p = torch.sigmoid(scores.stop_logit[:-1].flatten().double())
    thresholds = {0.5, 1.0}  # no probability exceeds 1
    if len(p):
        ordered = p.sort().values
        ranks = torch.linspace(0, len(ordered) - 1, CANDIDATES, device=p.device).long()
        thresholds |= set(ordered[ranks].tolist())
        thresholds.add(float(ordered[0]) * (1 - 1e-6))  # every image stops at once
    return sorted(thresholds)


def _at_threshold(scores: Scores, threshold: float, discount: float) -> _Candidate:
    taken, answer = scores.logits_at_stop(LearnedStop(threshold))
    prediction = answer.argmax(dim=-1)
    accuracy = float((prediction == scores.labels).double().mean())
    losses = cross_entropy(answer.double(), scores.labels, reduction="none")
    glimpses = float(taken.double().mean())
    mean_return = float(grade(taken.double(), prediction, scores.labels, discount).mean())
    metrics = _metrics(accuracy, glimpses, mean_return) | {"eval/loss": float(losses.mean())}
    metrics["eval/stop_threshold"] = threshold
    return _Candidate(threshold, losses, glimpses, metrics)


def select_halting(scores: Scores, discount: float, ponder_cost: float) -> Selection:
    """Ranks ACT's weights by cross-entropy plus `ponder_cost` times the mean number of glimpses."""
    rule = ACTStop()
    taken, answer = scores.logits_at_stop(rule)
    correct = (answer.argmax(dim=-1) == scores.labels).double()
    glimpses = float(taken.double().mean())
    loss = float(cross_entropy(answer, scores.labels) + ponder_cost * glimpses)
    metrics = _metrics(float(correct.mean()), glimpses, float((correct * discount**taken).mean()))
    return Selection((loss, glimpses), metrics | {"eval/loss": loss}, rule.threshold)


def behaviour(scores: Scores, *, stops: bool, looks: bool) -> dict[str, float]:
    """What the policies do, to log; nothing of a policy that did not learn, or with one glimpse.

    ``eval/stop_probability`` is the mean of p(stop) after glimpses 1 ... T - 1, and
    ``eval/location_std`` the mean of `location_std`.
    """
    found = {}
    if stops and len(scores.logits) > 1:
        found["eval/stop_probability"] = float(torch.sigmoid(scores.stop_logit[:-1]).mean())
    if looks and len(scores.logits) > 1:
        found["eval/location_std"] = float(location_std(scores).mean())
    return found


def location_std(scores: Scores) -> Tensor:
    """Standard deviations ``(T - 1, 2)`` of the locations of glimpses 2 ... T over the images, in
    image halves."""
    return scores.locations[1:].std(dim=1, correction=0)


def collapses(scores: Scores, *, stops: bool, farthest: float | None) -> list[str]:
    """How the policies collapsed, a few words each; none if they did not.

    Args:
        scores: of the agent on a split.
        stops: whether it learned a probability of stopping. It is judged as it is, because a
            threshold that validation chose can hide that all probabilities are near 0.
        farthest: the largest |x| and |y| at which it can look, in image halves; None if it learned
            no locations.
    """
    found: list[str] = []
    if len(scores.logits) == 1:
        return found
    if stops:
        p = torch.sigmoid(scores.stop_logit[:-1].double())
        if float(p[0].mean()) >= NEARLY_ALL:
            found.append("it stops at once")
        if float((1 - p).prod(dim=0).mean()) >= NEARLY_ALL:
            found.append("it never stops")
    if farthest is not None:
        in_corner = (scores.locations[1:].abs() > CORNER * farthest).all(dim=-1)
        if float(in_corner.double().mean()) > 0.5:
            found.append("it looks into a corner")
        elif float(location_std(scores).max()) < ONE_PLACE:
            found.append("it looks at the same places in every image")
    return found


def _metrics(accuracy: float, mean_glimpses: float, mean_return: float) -> dict[str, float]:
    names = ("eval/accuracy", "eval/mean_glimpses", "eval/mean_return")
    return dict(zip(names, (accuracy, mean_glimpses, mean_return), strict=True))
