"""Adaptive Computation Time (ACT): the number of steps depends on the input.

Graves, "Adaptive Computation Time for Recurrent Neural Networks" (2016, arXiv 1603.08983), and
Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks" (2017, arXiv
1612.02297), algorithm 1 and figure 3. Each step (a glimpse, a residual unit) has an output x_n and
a halting score h_n in [0, 1]. Then

    N = first n with h_1 + ... + h_n >= 1 - ε, at most the last     number of steps taken
    R = 1 - (h_1 + ... + h_{N-1})                                   remainder
    output = h_1 x_1 + ... + h_{N-1} x_{N-1} + R x_N
    rho = N + R                                                     ponder cost

and tau rho is added to the loss. N is a constant for the gradient, so rho has gradient -1 to each
of h_1 ... h_{N-1}, and 0 to the others. This module has the arithmetic, and RAM that halts;
`act_resnet` and `sact` have the residual networks.
"""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..dtram import DTRAM, Heads
from ..first_look import FirstLookDTRAM, FirstLookState
from ..stopping import LearnedStop

EPSILON = 0.01  # both papers' ε: it lets one step be enough, though a sigmoid never reaches 1
HALTING_BIAS = -3.0  # initial bias of the scores' logits, Figurnov et al.: all steps are taken


class Halt(NamedTuple):
    """Algorithm 1's variables after n steps, at positions of any shape."""

    cumulative: Tensor  # h_1 + ... + h_n
    remainder: Tensor  # 1 minus the scores before halting; R once halted
    taken: Tensor  # steps so far, int64; N once halted
    active: Tensor  # bool, False once halted

    @classmethod
    def start(cls, like: Tensor) -> "Halt":
        """The variables before the first step, at positions of the shape of `like`."""
        one = torch.ones_like(like, dtype=torch.float32)
        return cls(torch.zeros_like(one), one, torch.zeros_like(one, dtype=torch.int64), one > 0)

    def step(self, score: Tensor, epsilon: float) -> tuple[Tensor, "Halt"]:
        """Takes a step with halting scores in [0, 1]; the last step's are 1, so that it halts.

        Returns the step's weight in the output, 0 where it had halted, and the variables after it.
        """
        cumulative = self.cumulative + score
        goes_on = self.active & (cumulative < 1 - epsilon)
        weight = torch.where(goes_on, score, self.remainder)
        remainder = torch.where(goes_on, self.remainder - weight, self.remainder)
        taken = self.taken + self.active
        return torch.where(self.active, weight, 0), Halt(cumulative, remainder, taken, goes_on)

    @property
    def ponder(self) -> Tensor:
        """Ponder cost rho = N + R, once all have halted; its gradient goes through R."""
        return self.taken + self.remainder


def halt(scores: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Halt]:
    """ACT over T steps whose scores ``(T, ...)`` are known; the last has no effect.

    Returns the weights ``(T, ...)``, which sum to 1 over the steps, and the final `Halt`, whose
    `taken` is N, `remainder` R and `ponder` rho, each ``(...)``.
    """
    state, weights = Halt.start(scores[0]), []
    for score in [*scores[:-1], torch.ones_like(scores[-1])]:
        weight, state = state.step(score, epsilon)
        weights.append(weight)
    return torch.stack(weights), state


def ponder_cost_loss(logits: Tensor, labels: Tensor, ponder: Tensor, tau: float) -> Tensor:
    """Cross-entropy plus tau rho, both as means over images.

    Logits are ``(B, K)``, labels ``(B,)`` int64. `ponder` ``(B,)`` is rho, of a ResNet the sum over
    its blocks, and `tau` the cost of a step in nats, 0 or more.
    """
    return cross_entropy(logits, labels) + tau * ponder.mean()


# -- the recurrence --------------------------------------------------------------------------------


def halted_answer(
    stop_logit: Tensor, logits: Tensor, epsilon: float = EPSILON
) -> tuple[Tensor, Halt]:
    """ACT over the glimpses of dense trajectories, as `unroll.Unroll` returns them.

    As the classifier is linear, mixing its logits ``(T, B, K)`` equals classifying the mixed
    states. `stop_logit` ``(T, B)`` are the logits of the halting scores. Returns the mixed logits
    ``(B, K)`` and the final `Halt` ``(B,)``.
    """
    weights, end = halt(torch.sigmoid(stop_logit), epsilon)
    return (weights[..., None] * logits).sum(dim=0), end


@dataclass(frozen=True)
class ACTStop(LearnedStop):
    """Stops once the sum of the halting scores exceeds `threshold`, 1 - ε.

    It compares as `LearnedStop` does, with `stop_logit` the logit of that sum, which
    `HaltingRAM.heads` returns.
    """

    threshold: float = 1 - EPSILON


class HaltingState(NamedTuple):
    """Recurrent state of a batch: the fields of `dtram.State`, and what ACT has summed up."""

    h: Tensor  # (B, H)
    time: Tensor  # (B,) int64
    first_logits: Tensor  # as in `dtram.State`
    later_logits: Tensor
    logits: Tensor  # (B, K) y_t, of the last glimpse alone
    score_sum: Tensor  # (B, 1) h_1 + ... + h_t
    weighted_logits: Tensor  # (B, K) h_1 y_1 + ... + h_t y_t


class HaltingRAM(DTRAM):
    """RAM that stops by ACT: a `DTRAM` whose stopper gives the halting scores.

    After glimpse t, `heads` returns ACT's mixed answer, assuming glimpse t is the last:
    h_1 y_1 + ... + h_{t-1} y_{t-1} + R y_t. Its `stop_logit` is the logit of h_1 + ... + h_t, so a
    rule that reads it may use any ε. The policy, `unroll.score` and `unroll.classify` read `heads`.
    The methods `logits` and `stop_logit`, and so the trajectories of `unroll.Unroll`, are of each
    glimpse alone, as `halted_answer` needs them. Arguments are DT-RAM's.
    """

    KIND = "RAM with ACT"
    STATE: Any = HaltingState
    learned_stop = ACTStop
    STOPPER_BIAS = HALTING_BIAS  # at 0 two scores sum to 1: later glimpses would have weight 0
    updates_with_stopper = True

    def initial(self, batch: int) -> Any:
        """The state before the first glimpse: DT-RAM's, and what ACT sums up."""
        state = super().initial(batch)
        logits = state.h.new_zeros(batch, self.config.num_classes)
        return self.STATE(*state, logits, state.h.new_zeros(batch, 1), logits.clone())

    def update(self, code: Tensor, state: Any, step: int | None = None) -> Any:
        state = super().update(code, state, step)
        logits = super().logits(state, step)
        score = torch.sigmoid(self.stop_logit(state.h, logits, state.time))[:, None]
        return state._replace(
            logits=logits,
            score_sum=state.score_sum + score,
            weighted_logits=state.weighted_logits + score * logits,
        )

    def logits(self, state: Any, step: int | None = None) -> Tensor:
        """Class logits ``(B, K)`` of the last glimpse, unmixed."""
        return state.logits

    def heads(self, state: Any, step: int | None = None) -> Heads:
        """ACT's mixed answer ``(B, K)`` if this glimpse is the last, and the scores' sum."""
        # The weighted logits have h_t y_t already, and y_t's weight is 1 - (h_1 + ... + h_{t-1}).
        answer = state.weighted_logits + (1 - state.score_sum) * state.logits
        stop_logit = torch.logit(state.score_sum[:, 0], eps=1e-7)  # the sum may exceed 1
        return Heads(answer, self.locate(state), stop_logit)


class HaltingFirstLook(HaltingRAM, FirstLookDTRAM):
    """The same with a locator on its first look, see `FirstLookDTRAM`."""

    KIND = "RAM with ACT and a locator on its first look"
    STATE = namedtuple(  # type: ignore[misc]  # the fields of both
        "HaltingFirstLookState", (*FirstLookState._fields, *HaltingState._fields[-3:])
    )


HALTING: dict[type[DTRAM], type[HaltingRAM]] = {
    DTRAM: HaltingRAM,
    FirstLookDTRAM: HaltingFirstLook,
}
"""The kinds that can halt by ACT, and what they are then."""
