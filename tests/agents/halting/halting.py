"""Small residual networks in which images and positions halt after different units."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agents.cost import count_flops
from agents.halting.act import ponder_cost_loss
from agents.halting.act_resnet import ACTResNet, ImageScore
from agents.one_look import OneLookConfig
from agents.resnet import ResNetOptions

SMALL = ResNetOptions("resnet18", width=4, stem_stride=1, zero_init=False)
VARIANTS: dict[str, ResNetOptions] = {
    "18": SMALL,
    "18 pre": replace(SMALL, order="pre"),
    "34 large stem": replace(SMALL, name="resnet34", stem_stride=4),
    "50": replace(SMALL, name="resnet50"),
    "50 pre": replace(SMALL, name="resnet50", order="pre"),
    "50 stride in 1x1": replace(SMALL, name="resnet50", stride_in="1x1"),
}


def images(batch: int = 6, side: int = 32, seed: int = 1) -> Tensor:
    """Noise ``(B, s, s, 3)`` uint8 of growing contrast, brighter on one side."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(batch, side, side, 3, generator=generator)
    contrast = torch.linspace(0.1, 1, batch)[:, None, None, None]
    return (255 * noise * contrast * torch.linspace(0, 1, side)[:, None]).to(torch.uint8)


def config_of(options: ResNetOptions = SMALL, classes: int = 3, **changes: Any) -> OneLookConfig:
    return OneLookConfig(classes, (224, 224, 3), options.name, options, **changes)


def make(
    options: ResNetOptions = SMALL, kind: Any = ACTResNet, epsilon: float = 0.3, **config: Any
) -> Any:
    """A network whose images halt at different units, in evaluation mode."""
    torch.manual_seed(0)
    network = kind(config_of(options, **config)).eval()
    network.epsilon = epsilon
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    for score in network.scores.modules():
        if isinstance(score, ImageScore):
            spread(network, score)
    return network


def flops_of(network: ACTResNet, seen: Tensor) -> int:
    """FLOPs of images: what has halted is not computed."""
    return count_flops(network, lambda: network(seen))


@torch.no_grad()
def spread(network: ACTResNet, score: ImageScore) -> None:
    """Sets random scores around 1 - epsilon, so that some are enough alone."""
    given: list[Tensor] = []
    for parameter in score.parameters():
        nn.init.normal_(parameter, std=0.1)
    with score.register_forward_pre_hook(lambda _, x: given.append(x[0])):
        network(images(), dense=True)
    logit = torch.logit(score(given[0]))
    for parameter in score.parameters():
        parameter *= 1.5 / logit.std()
    score.whole.bias += 0.8 - 1.5 * logit.mean() / logit.std()


@torch.no_grad()
def set_scores(network: ACTResNet, scores: list[float]) -> None:
    """Makes the score after each unit of every block a constant."""
    for block in network.scores:
        for score, h in zip(block, scores, strict=False):  # type: ignore[call-overload]
            for parameter in score.parameters():
                parameter.zero_()
            score.whole.bias.copy_(torch.logit(torch.tensor(h, dtype=torch.float64)))


def learn(network: ACTResNet, tau: float, updates: int = 30) -> tuple[float, float]:
    """Trains to tell which side is bright; returns an image's mean units and ponder cost."""
    torch.manual_seed(0)
    seen = images(32, side=8)
    labels = torch.arange(32) % 2
    seen[labels == 1] = seen[labels == 1].flip(2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    network.train()
    for _ in range(updates):
        output = network(seen)
        loss = ponder_cost_loss(output.logits, labels, output.ponder, tau)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert cross_entropy(output.logits, labels) < 0.3
    return output.units.sum(dim=1).mean().item(), output.ponder.mean().item()
