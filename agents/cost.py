"""The cost of glimpses in FLOPs: floating-point operations, counted on the modules that run.

A multiply-add counts as two operations; only matrix products and convolutions count.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .dtram import DTRAM


@torch.no_grad()
def count_flops(module: nn.Module, run: Callable[[], object]) -> int:
    """FLOPs of `run`, with the module in evaluation mode (batch norms refuse a batch of one)."""
    training = module.training
    module.eval()
    with FlopCounterMode(display=False) as counter:
        run()
    module.train(training)
    return int(counter.get_total_flops())


def flops_per_glimpse(agent: DTRAM) -> int:
    """FLOPs of one later glimpse of one image, with every head that acts (not the baseline)."""
    return _flops(agent, agent.config.glimpse_shape[0], step=min(1, agent.config.max_glimpses - 1))


def flops_of_first_glimpse(agent: DTRAM) -> int:
    """FLOPs of glimpse 1; a thumbnail may have another size, and a first-look locator reads it."""
    return _flops(agent, agent.config.thumbnail_size or agent.config.glimpse_shape[0], step=0)


def mean_flops(agent: DTRAM, mean_glimpses: float) -> float:
    """Mean FLOPs of an image, at a mean number of glimpses."""
    return flops_of_first_glimpse(agent) + (mean_glimpses - 1) * flops_per_glimpse(agent)


def classifier_flops_per_glimpse(network: DTRAM) -> int:
    """FLOPs of a frozen classifier's step on one glimpse: no locator, no stopper."""
    return _flops(network, network.config.glimpse_shape[0], step=0, acts=False)


def _flops(agent: DTRAM, side: int, step: int, acts: bool = True) -> int:
    def run() -> None:
        state = agent.initial(1)
        glimpse = state.time.new_zeros(1, side, side, agent.config.glimpse_shape[2]).byte()
        state = agent.observe(glimpse, state.h.new_zeros(1, 2), state, step)
        logits = agent.logits(state, step)
        if acts:
            agent.locate(state)
            if not agent.updates_with_stopper:
                agent.stop_logit(state.h, logits, state.time)

    return count_flops(agent, run)
