"""Toy images with known answers: where to look, and how many glimpses are enough."""

import pytest
import torch
from torch import Tensor

from agents.dtram import DTRAM, DTRAMConfig
from agents.objective import Objective, hybrid_loss
from agents.stopping import FixedStop, LearnedStop
from agents.unroll import GlimpseSensor, Unroll, score
from dtram_env.datasets.storage.tensors import TensorStore

SIDE, GLIMPSE = 16, 4


def slow(value: str):
    return pytest.param(value, marks=pytest.mark.slow)


def paint(images: Tensor, top: int, left: int, classes: Tensor) -> None:
    """Draws a class's 4x4 mark: its upper (0) or lower (1) half bright."""
    for k in (0, 1):
        rows = slice(top + 2 * k, top + 2 * k + 2)
        images[classes == k, rows, left : left + 4] = 255


def marked_images(count: int, easy_share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images with the class's mark in the centre (easy) or in the upper left quarter (hard).

    Returns:
        Images ``(N, 16, 16, 1)`` uint8, labels ``(N,)`` and whether each is easy ``(N,)`` bool.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    easy = torch.rand(count, generator=generator) < easy_share
    images = torch.randint(0, 60, (count, SIDE, SIDE, 1), generator=generator, dtype=torch.uint8)
    paint(images, 6, 6, torch.where(easy, labels, -1))
    paint(images, 2, 2, torch.where(easy, -1, labels))
    return images, labels, easy


def learn(agent: DTRAM, objective: Objective, easy_share: float, updates: int, steps: int) -> None:
    images, labels, _ = marked_images(2000, easy_share, seed=1)
    store, unroll = TensorStore(images, 2), Unroll(agent, GlimpseSensor(GLIMPSE), 0.25)
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3)
    for update in range(updates):
        index = torch.arange(update * 50, update * 50 + 50) % 2000
        trajectory = unroll(store, index, steps, 8)
        losses = hybrid_loss(trajectory, labels[index], 8, objective, agent.scalar_baseline)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()


def make_agent(budget: int, **settings) -> DTRAM:
    torch.manual_seed(0)
    return DTRAM(DTRAMConfig(2, (GLIMPSE, GLIMPSE, 1), budget, hidden_size=32, **settings))


@pytest.mark.parametrize("baseline", ["leave_one_out", slow("value"), slow("scalar")])
def test_the_locator_finds_the_only_informative_crop(baseline: str) -> None:
    agent = make_agent(2)
    learn(
        agent,
        Objective(baseline=baseline, supervision="taken", location_reward="return"),
        easy_share=0.0,
        updates=250,
        steps=2,
    )
    images, labels, _ = marked_images(500, 0.0, seed=2)
    scores = score(agent, GlimpseSensor(GLIMPSE), TensorStore(images, 2), labels)
    assert scores.error_and_glimpses(FixedStop(1))[0] > 0.35  # the centre shows no mark
    assert scores.error_and_glimpses(FixedStop(2))[0] < 0.02
    # The mark covers pixels 2 to 5: its centre is at 4 / 16 of the image.
    assert (scores.locations[1].mean(0) - (2 * 4 / 16 - 1)).abs().max() < 0.2


@pytest.mark.parametrize("stop_gradient", ["exact", slow("reinforce")])
def test_easy_images_get_fewer_glimpses(stop_gradient: str) -> None:
    agent = make_agent(3)
    objective = Objective(
        discount=0.9,
        stop="learned",
        stop_gradient=stop_gradient,
        location_reward="return",
        stop_entropy=0.02,
    )
    learn(agent, objective, easy_share=0.5, updates=400, steps=3)
    images, labels, easy = marked_images(1000, 0.5, seed=2)
    scores = score(agent, GlimpseSensor(GLIMPSE), TensorStore(images, 2), labels)
    taken, _ = scores.apply(LearnedStop(0.5))
    assert scores.error_and_glimpses(LearnedStop(0.5))[0] < 0.03
    assert taken[easy].double().mean() < 1.1  # the best: 1
    assert 1.9 < taken[~easy].double().mean() < 2.1  # the best: 2
