"""What a stage of the trunk learns: the networks of its glimpses, and how long."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from agents.dtram import DTRAM
from agents.encoders import GlimpseResNet
from agents.objective import Objective, trained_heads
from agents.resnet import learning_parameters


def begin_stage(agent: DTRAM, before: int) -> None:
    """Prepares a per-step network, with an encoder and a classifier for each glimpse, for a stage.

    New ones begin as copies of the last learned one; earlier ones stay fixed, batch statistics
    included. `before` is the number of glimpses of the stage before, 0 if none.
    """
    if not agent.config.per_step or before == 0:
        return
    for networks in (agent.encoders(), agent.classifiers()):
        for network in networks[before:]:
            network.load_state_dict(networks[before - 1].state_dict())
    for encoder in agent.encoders()[:before]:
        if isinstance(encoder, GlimpseResNet):
            encoder.trunk.freeze_batch_norm(True)


def stage_parameters(
    agent: DTRAM, objective: Objective, glimpses: int, before: int, answers: bool
) -> list[nn.Parameter]:
    """The parameters that the loss reaches in a stage of `glimpses`, after one of `before`.

    Without `answers` (a policy-only id) encoder, core and classifier do not learn.
    """
    networks = [agent.encoder, agent.classifier]
    if agent.config.per_step:
        new = slice(before, glimpses)
        networks = agent.encoders()[new] + agent.classifiers()[new]
    modules = [*networks, agent.core, agent.locator] if answers else [agent.locator]
    learned = [p for module in modules for p in learning_parameters(module)]
    return learned + trained_heads(agent, objective)


def epochs_of_budget(batches: int, batches_in_split: int) -> tuple[int, int]:
    """A number of batches as equal epochs, five to ten of them where that is possible.

    Returns the number of epochs and the batches in each, at most `batches_in_split`; their product
    may be a little less than `batches`.
    """
    least = max(-(-batches // batches_in_split), 1)
    fitting = [n for n in range(max(least, 5), max(least, 10) + 1) if n <= batches] or [least]
    epochs = max(fitting, key=lambda n: (n * (batches // n), n))
    return epochs, batches // epochs


def check_stages(curriculum: Sequence[int], budget: int) -> None:
    """Raises ValueError unless the stages' glimpses rise to the budget."""
    rising = all(a < b for a, b in pairwise(curriculum))
    if not rising or min(curriculum) < 1 or curriculum[-1] != budget:
        given = " ".join(map(str, curriculum))
        raise ValueError(
            f"--curriculum {given}: expected rising numbers of glimpses from 1 that end with the "
            f"budget, {budget}; --env max_glimpses=... sets another budget"
        )
