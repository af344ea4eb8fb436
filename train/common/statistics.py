"""Outcomes of trained networks, image by image, and intervals for comparing two of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from agents.stopping import StoppingRule
from agents.unroll import Scores

RESAMPLES = 2000


class Outcome(NamedTuple):
    """What a network with a stopping rule did on a split of N images; both arrays ``(N,)``."""

    right: np.ndarray  # bool, whether the answer was right
    glimpses: np.ndarray  # int64, glimpses taken


def outcome(scores: Scores, rule: StoppingRule) -> Outcome:
    """The outcome of a scored split under a stopping rule."""
    taken, prediction = scores.apply(rule)
    return Outcome((prediction == scores.labels).cpu().numpy(), taken.cpu().numpy())


def confidences(scores: Scores, candidates: int = 200) -> list[float]:
    """Confidence thresholds: 0, and quantiles of the confidences before the last glimpse."""
    occurring = torch.softmax(scores.logits[:-1], dim=-1).amax(dim=-1).flatten().sort().values
    if not len(occurring):
        return [0.0]
    ranks = torch.linspace(0, len(occurring) - 1, candidates, device=occurring.device).long()
    return [0.0, *(min(p, 1.0) for p in occurring[ranks].tolist())]


class Mixture(NamedTuple):
    """Two stopping rules on a split; a random share of the images gets the second rule."""

    wrong: np.ndarray  # (2, N) bool, errors of each
    share: float  # of images that get the second rule, in [0, 1]
    mean_glimpses: float  # of the mixture

    @property
    def error(self) -> np.ndarray:
        """Expected errors ``(N,)`` in [0, 1]."""
        return (1 - self.share) * self.wrong[0] + self.share * self.wrong[1]


def mixture_at(scores: Scores, rules: Sequence[StoppingRule], mean_glimpses: float) -> Mixture:
    """Mixes the two rules with the nearest means below and above so that the mean is met.

    Outside the range of the rules' means, the rule at that end is taken alone.
    """
    found = [outcome(scores, rule) for rule in rules]
    means = np.array([each.glimpses.mean() for each in found])
    low, high, share = nearest(means, mean_glimpses)
    met = float((1 - share) * means[low] + share * means[high])
    return Mixture(np.stack([~found[k].right for k in (low, high)]), share, met)


def nearest(means: np.ndarray, wanted: float) -> tuple[int, int, float]:
    """Indices of the nearest of `means` ``(R,)`` below and above `wanted`, and the share of the
    second in [0, 1] with which they mix to it. Outside their range both are the one at that end."""
    below, above = means <= wanted, means >= wanted
    low = np.where(below, means, -np.inf).argmax() if below.any() else means.argmin()
    high = np.where(above, means, np.inf).argmin() if above.any() else means.argmax()
    between = means[high] - means[low]
    return int(low), int(high), float((wanted - means[low]) / between) if between > 0 else 0.0


def paired_bootstrap(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean of differences ``(seeds, N)`` between two systems, and its 95 % percentile interval.

    Each resample draws images, the same for every seed, and seeds.
    """
    rng = np.random.default_rng(0)
    seeds, images = differences.shape
    means = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        drawn = differences[:, rng.integers(images, size=images)].mean(axis=1)
        means[k] = drawn[rng.integers(seeds, size=seeds)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def paired_difference(
    errors: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray]
) -> dict[str, float]:
    """Errors ``(N,)`` in [0, 1] by seed minus others, in points: mean ("difference"), and the ends
    of its interval ("low", "high"); empty if no seed has both."""
    seeds = sorted(errors.keys() & others.keys())
    if not seeds:
        return {}
    differences = np.stack([100.0 * (errors[s].astype(float) - others[s]) for s in seeds])
    values = (round(value, 4) for value in paired_bootstrap(differences))
    return dict(zip(("difference", "low", "high"), values, strict=True))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """Mean over seeds, and half the width of Student's t interval (None for a single seed)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, error * float(stats.t.ppf(0.5 + level / 2, len(values) - 1))


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of all values (Agarwal et al. 2021, section 4.3)."""
    return float(stats.trim_mean(values, 0.25, axis=None))


def stratified_bootstrap(strata: Sequence[np.ndarray], level: float = 0.95) -> tuple[float, float]:
    """Interval of the interquartile mean; `strata`: each task's values, resampled within it."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(values, (RESAMPLES, len(values))) for values in strata]
    means = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
