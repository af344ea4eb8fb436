"""A suite of environments, one skill each, and a score from 0 to 1 on every one.

    import agents  # registers the policy-only ids; dtram_agents in the wheel
    results = dtram_env.evaluate_suite(make_policy)  # make_policy(env_id) -> dtram_env.Policy
    for result in results:
        print(f"{result.challenge.skill:30} {result.score:.2f}")

A score of 0 is the return of `RandomPolicy`, 1 that of the best policy: the best possible one where
there is one, else the best known. `gym.spec(env_id).reward_threshold` is that return, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from .checks import check_choice
from .evaluate import Evaluation, evaluate
from .policy import Policy


@dataclass(frozen=True)
class Challenge:
    """An environment of the suite, and what its scores 0 and 1 stand for."""

    env_id: str
    skill: str  # what an algorithm has to learn there
    random: float  # mean return of `RandomPolicy` on the test split
    best: float  # mean return of the best policy
    best_policy: str  # which one that is, in words
    known: bool = True  # whether no policy can earn more; else it is the best known one

    def score(self, mean_return: float) -> float:
        """The score in [0, 1] of a mean return on the test split."""
        return float(np.clip((mean_return - self.random) / (self.best - self.random), 0, 1))


@dataclass(frozen=True)
class SuiteResult:
    """What a policy earned on an environment of the suite."""

    challenge: Challenge
    evaluation: Evaluation

    @property
    def score(self) -> float:
        """In [0, 1]."""
        return self.challenge.score(self.evaluation.mean_return)


def random_return(num_classes: int, max_glimpses: int, discount: float = 0.98) -> float:
    """The expected return of `RandomPolicy` on the whole task, in closed form.

    It stops with probability 1/2 after each glimpse, at the last one surely, and guesses.
    """
    stops = 0.5 ** np.arange(1, max_glimpses + 1)
    stops[-1] *= 2
    return float(stops @ discount ** np.arange(1, max_glimpses + 1)) / num_classes


_ARROW = 0.98 * (1 + 0.98) / 2  # half of the images after one glimpse, half after two
SUITE = (
    Challenge(
        "DTRAM-Signpost-v0",
        "where to look",
        random_return(4, 4),
        _ARROW,
        "one that follows the arrow",
    ),
    Challenge(
        "DTRAM-WideSignpost-v0",
        "where to look, far away",
        random_return(4, 4),
        _ARROW,
        "one that follows the arrow",
    ),
    Challenge(
        "DTRAM-NoisySignpost-v0",
        "where to look, in noise",
        random_return(4, 4),
        0.969240,
        "one that takes the nearest shapes and follows the arrow",
        known=False,
    ),
    Challenge(
        "DTRAM-Patience-v0",
        "when to stop",
        random_return(4, 7),
        float(np.mean(0.98 ** np.arange(1, 8))),
        "one that looks at one place after the other",
    ),
    Challenge(
        "DTRAM-Pair-v0",
        "to remember what was seen",
        random_return(4, 4),
        0.98**2,
        "one that adds the two glyphs",
    ),
    Challenge(
        "DTRAM-MNIST-Policy-v0",
        "where and when, on digits",
        0.8275,
        0.942,
        "MaskablePPO, the mean of 3 seeds",
        known=False,
    ),
    Challenge(
        "DTRAM-ClutteredMNIST-Policy-v0",
        "where and when, in clutter",
        0.7424,
        0.8216,
        "MaskablePPO, the mean of 3 seeds",
        known=False,
    ),
    Challenge(
        "DTRAM-BirdsSmall-Policy-v0",
        "fine detail, on drawn birds",
        0.4352,
        0.882752,
        "one that is told which parts differ between the species, and where they are",
        known=False,
    ),
    Challenge(
        "DTRAM-MNIST-v0",
        "the whole task, on digits",
        random_return(10, 7),
        0.9495,
        "DT-RAM with a map, one seed",
        known=False,
    ),
)
"""The environments, from the simplest skill on."""
ENV_STEPS = 300_000
"""How long an algorithm learns on each, for a score to be compared with others."""


def best_return(env_id: str) -> float | None:
    """The best return of an id; None if it is not in the suite."""
    return {challenge.env_id: challenge.best for challenge in SUITE}.get(env_id)


def evaluate_suite(
    make_policy: Callable[[str], Policy[Any]],
    env_ids: Sequence[str] | None = None,
    **keywords: Any,
) -> list[SuiteResult]:
    """Runs a policy on the test split of each environment, every image exactly once.

    Args:
        make_policy: returns the trained policy of an id.
        env_ids: some of the suite's ids, all if not given.
        **keywords: of `evaluate` and of the environments, such as ``backend`` or ``view``.

    Raises:
        ValueError: an id is not in the suite, or not registered; further as `evaluate`.
    """
    known = {challenge.env_id: challenge for challenge in SUITE}
    for env_id in env_ids or ():
        check_choice("env_ids", env_id, known)
    chosen = list(env_ids or known)
    if missing := [env_id for env_id in chosen if env_id not in gym.registry]:
        way_out = "import agents first (dtram_agents, from the wheel)"
        raise ValueError(f"env_ids={missing[0]!r}: not registered; {way_out}")
    results = []
    for env_id in chosen:
        found = evaluate(make_policy(env_id), env_id, "test", **keywords)
        results.append(SuiteResult(known[env_id], found))
    return results
