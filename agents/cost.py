"""What looking costs: floating-point operations, counted on the modules that run."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from .dtram import DTRAM


@torch.no_grad()
def flops_per_glimpse(agent: DTRAM) -> int:
    """Floating-point operations of one glimpse of one image, all heads that act included.

    A multiply-add counts as two; only matrix products and convolutions count. The baseline is left
    out: it is not used when the agent acts.
    """
    device = agent.classifier.weight.device
    glimpse = torch.zeros(1, *agent.config.glimpse_shape, dtype=torch.uint8, device=device)
    location = torch.zeros(1, 2, device=device)
    with FlopCounterMode(display=False) as counter:
        state = agent.look(glimpse, location, agent.initial(1))
        logits = agent.classifier(state.h)
        agent.locator(state.h)
        agent.stop_logit(state.h, logits, state.time)
    return int(counter.get_total_flops())


@torch.no_grad()
def classifier_flops_per_glimpse(network: DTRAM) -> int:
    """Floating-point operations of a frozen classifier's step on one glimpse."""
    device = network.classifier.weight.device
    glimpse = torch.zeros(1, *network.config.glimpse_shape, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:
        state = network.look(glimpse, torch.zeros(1, 2, device=device), network.initial(1))
        network.classifier(state.h)
    return int(counter.get_total_flops())
