"""What looking costs: floating-point operations, counted on the modules that run."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from .dtram import DTRAM


@torch.no_grad()
def flops_per_glimpse(agent: DTRAM) -> int:
    """Floating-point operations of one glimpse of one image, all heads that act included.

    A multiply-add counts as two; only matrix products and convolutions count. The baseline is left
    out: it is not used when the agent acts. A first look of another size is `flops_of_first_look`.
    """
    return _flops(agent, agent.config.glimpse_shape[0], step=min(1, agent.config.max_glimpses - 1))


@torch.no_grad()
def flops_of_first_look(agent: DTRAM) -> int:
    """Floating-point operations of glimpse 1 of one image, counted as `flops_per_glimpse`."""
    return _flops(agent, agent.config.thumbnail_size or agent.config.glimpse_shape[0], step=0)


def mean_flops(agent: DTRAM, mean_glimpses: float) -> float:
    """Floating-point operations an image, at a mean number of glimpses."""
    return flops_of_first_look(agent) + (mean_glimpses - 1) * flops_per_glimpse(agent)


def _flops(agent: DTRAM, side: int, step: int) -> int:
    shape = (1, side, side, agent.config.glimpse_shape[2])
    glimpse = torch.zeros(shape, dtype=torch.uint8, device=agent.device)
    location = torch.zeros(1, 2, device=agent.device)
    training = agent.training
    agent.eval()  # batch norms of a batch of one
    with FlopCounterMode(display=False) as counter:
        state = agent.look(glimpse, location, agent.initial(1), step)
        logits = agent.logits(state, step)
        agent.locator(state.h)
        if not agent.scores_in_look:
            agent.stop_logit(state.h, logits, state.time)
    agent.train(training)
    return int(counter.get_total_flops())


@torch.no_grad()
def classifier_flops_per_glimpse(network: DTRAM) -> int:
    """Floating-point operations of a frozen classifier's step on one glimpse."""
    device = network.device
    glimpse = torch.zeros(1, *network.config.glimpse_shape, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:
        state = network.look(glimpse, torch.zeros(1, 2, device=device), network.initial(1))
        network.logits(state)
    return int(counter.get_total_flops())
