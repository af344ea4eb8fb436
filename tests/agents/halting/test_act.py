"""Adaptive Computation Time: the figure's example, gradients by hand, RAM that halts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import dtram_env
from agents.config import FirstLookOptions
from agents.dtram import DTRAM, DTRAMConfig
from agents.first_look import FirstLookDTRAM
from agents.halting.act import (
    ACTStop,
    HaltingFirstLook,
    HaltingRAM,
    halt,
    halted_answer,
    ponder_cost_loss,
)
from agents.unroll import GlimpseSensor, Scores, Unroll, classify, score
from dtram_env import sensor
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.tensors import TensorStore

FIGURE = [0.1, 0.1, 0.2, 0.9]  # R = 1 - 0.1 - 0.1 - 0.2
T_MAX = 5


def algorithm_1(scores: list[float], epsilon: float) -> tuple[list[float], int, float]:
    """The paper's loop over one position: weights, N and R."""
    weights, c, remainder = [0.0] * len(scores), 0.0, 1.0
    for n, h in enumerate(scores):
        c += 1.0 if n + 1 == len(scores) else h
        if c >= 1 - epsilon:
            weights[n] = remainder
            return weights, n + 1, remainder
        weights[n] = h
        remainder -= h
    raise AssertionError("the last step halts")


# -- the arithmetic --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "weights", "taken", "ponder"),
    [
        ([0.995, 0.5, 0.5], [1.0, 0.0, 0.0], 1, 2.0),  # the first is enough
        ([0.98, 0.5, 0.5], [0.98, 0.02, 0.0], 2, 2.02),  # not quite
        ([0.0, 0.0, 0.0], [0.0, 0.0, 1.0], 3, 4.0),  # never: the last takes what remains
        ([0.3, 0.2, 0.1], [0.3, 0.2, 0.5], 3, 3.5),  # the last score does not matter
        ([0.3], [1.0], 1, 2.0),  # nothing to decide
        (FIGURE, [0.1, 0.1, 0.2, 0.6], 4, 4.6),
        ([*FIGURE, 0.7, 0.3], [0.1, 0.1, 0.2, 0.6, 0.0, 0.0], 4, 4.6),  # what follows is nothing
    ],
)
def test_halting_by_hand(
    scores: list[float], weights: list[float], taken: int, ponder: float
) -> None:
    found, end = halt(torch.tensor(scores))
    assert found.tolist() == pytest.approx(weights)
    assert (end.taken.item(), end.ponder.item()) == (taken, pytest.approx(ponder))


def test_scores_that_sum_to_one_minus_epsilon_halt() -> None:
    """Numbers that float32 has: 1/2 + 1/4 = 1 - 1/4."""
    weights, end = halt(torch.tensor([0.5, 0.25, 0.125, 0.5]), epsilon=0.25)
    assert weights.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert (end.taken.item(), end.remainder.item(), end.ponder.item()) == (2, 0.5, 2.5)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=7),
    st.sampled_from([0.01, 0.1, 0.5]),
)
def test_halting_is_algorithm_1_at_every_position(
    scores: list[list[float]], epsilon: float
) -> None:
    # In 64ths, whose sums are exact, so that both meet the same ties.
    scores = [[round(64 * h) / 64 for h in row] for row in scores]
    weights, end = halt(torch.tensor(scores), epsilon)
    for position, column in enumerate(zip(*scores, strict=True)):
        expected = algorithm_1(list(column), epsilon)
        assert weights[:, position].tolist() == pytest.approx(expected[0])
        assert end.taken[position].item() == expected[1]
        assert end.remainder[position].item() == pytest.approx(expected[2])
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(3))
    assert (weights >= 0).all() and not end.active.any()


def test_gradient_of_the_ponder_cost_goes_through_the_remainder_alone() -> None:
    scores = torch.tensor([*FIGURE, 0.5], requires_grad=True)
    halt(scores)[1].ponder.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [-1, -1, -1, 0, 0]


def test_gradient_of_the_output_by_hand() -> None:
    """output = sum of h_n x_n + (1 - sum of h_n) x_4: each h_n moves it by x_n - x_4."""
    scores = torch.tensor([*FIGURE, 0.5], requires_grad=True)
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], requires_grad=True)
    output = (halt(scores)[0] * x).sum()
    output.backward()
    assert output.item() == pytest.approx(0.1 + 0.2 + 0.8 + 0.6 * 8)
    assert scores.grad is not None and x.grad is not None
    assert scores.grad.tolist() == pytest.approx([1 - 8, 2 - 8, 4 - 8, 0, 0])
    assert x.grad.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.6, 0])


def test_loss_by_hand() -> None:
    logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    loss = ponder_cost_loss(logits, labels, torch.tensor([4.6, 2.0]), tau=0.1)
    assert loss.item() == pytest.approx(np.log(4) + 0.1 * 3.3)


# -- the recurrence --------------------------------------------------------------------------------


def test_answer_is_the_weighted_mean_of_the_answers() -> None:
    stop_logit = torch.logit(torch.tensor([[0.1, 0.995], [0.1, 0.5], [0.2, 0.5], [0.9, 0.5]]))
    logits = torch.arange(24.0).view(4, 2, 3)
    mixed, answer = halted_answer(stop_logit, logits)
    said = 0.1 * logits[0, 0] + 0.1 * logits[1, 0] + 0.2 * logits[2, 0] + 0.6 * logits[3, 0]
    torch.testing.assert_close(mixed, torch.stack([said, logits[0, 1]]))
    assert answer.taken.tolist() == [4, 1]
    assert answer.remainder.tolist() == pytest.approx([0.6, 1.0])
    assert answer.ponder.tolist() == pytest.approx([4.6, 2.0])


def test_stop_crosses_one_minus_epsilon() -> None:
    total = torch.logit(torch.tensor([0.5, 0.989, 0.991, 0.9999999]))
    time, logits = torch.tensor(1), torch.zeros(4, 3)
    assert ACTStop().stops(time, logits, total).tolist() == [False, False, True, True]
    assert ACTStop(1 - 0.6).stops(time, logits, total).tolist() == [True] * 4


LABELS = torch.arange(40) % 3


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 256, (40, 20, 20, 1))
    return (noise * np.linspace(0.1, 1.0, 40)[:, None, None, None]).astype(np.uint8)


@pytest.fixture
def store(pixels: np.ndarray) -> TensorStore:
    return TensorStore(torch.from_numpy(pixels), sensor.margin(8, 1))


def halting_ram(**settings) -> HaltingRAM:
    """A network in which small differences between images change when it halts."""
    torch.manual_seed(0)
    shape = settings.pop("glimpse_shape", (6, 6, 1))
    config = DTRAMConfig(3, shape, T_MAX, hidden_size=24, **settings)
    agent = (HaltingFirstLook if config.first_look else HaltingRAM)(config).eval()
    for parameter in agent.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
            parameter.data -= parameter.data.mean(1, keepdim=True)  # what all share cancels
    torch.nn.init.constant_(agent.stopper[-1].bias, -2.0)  # type: ignore[arg-type]
    return agent


def half_stop(scores: Scores) -> float:
    """A threshold that half of the images cross at glimpse 2, the others later."""
    return float(torch.sigmoid(scores.stop_logit[1]).quantile(0.5))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"answer": "first_plus_mean"},
        {"per_step": True},
        {"first_look": FirstLookOptions(0.4, 8), "locator_grid": 4, "glimpse_shape": (8, 8, 1)},
    ],
    ids=["state", "first_plus_mean", "per_step", "first_look"],
)
def test_acting_step_by_step_is_the_dense_arithmetic(store: TensorStore, settings: dict) -> None:
    """A DT-RAM of the same weights gives each glimpse's scores; mixed by `halted_answer`."""
    agent = halting_ram(**settings)
    first_look = agent.config.first_look is not None
    plain = (FirstLookDTRAM if first_look else DTRAM)(agent.config).eval()
    plain.load_state_dict(agent.state_dict())
    side, first = agent.config.glimpse_shape[0], "thumbnail" if first_look else "center"
    each, mixed = (
        score(one, GlimpseSensor(side, first_glimpse=first), store, LABELS)
        for one in (plain, agent)
    )
    torch.testing.assert_close(each.locations, mixed.locations)
    for epsilon in (0.01, 1 - half_stop(mixed)):
        dense_logits, dense = halted_answer(each.stop_logit, each.logits, epsilon)
        taken, prediction = mixed.apply(ACTStop(1 - epsilon))
        assert torch.equal(taken, dense.taken)
        assert torch.equal(prediction, dense_logits.argmax(dim=-1))
        torch.testing.assert_close(mixed.logits[taken - 1, torch.arange(40)], dense_logits)
    assert len(taken.unique()) > 1


def test_unroll_gives_each_glimpse_alone(store: TensorStore) -> None:
    agent = halting_ram()
    trajectory = Unroll(agent, GlimpseSensor(6), 0.1)(store, torch.arange(4), T_MAX, 2)
    state = agent.initial(8)
    for t in range(T_MAX):
        location = trajectory.locations[t]
        state = agent.observe(
            GlimpseSensor(6)(store, torch.arange(4).repeat_interleave(2), location), location, state
        )
        torch.testing.assert_close(trajectory.logits[t], agent.classifier(state.h))
        torch.testing.assert_close(trajectory.logits[t], agent.logits(state))
    mixed, answer = halted_answer(trajectory.stop_logit, trajectory.logits)
    ponder_cost_loss(mixed, LABELS[:4].repeat_interleave(2), answer.ponder, 0.1).backward()
    gradient = agent.stopper[-1].weight.grad
    assert isinstance(gradient, Tensor) and gradient.abs().sum() > 0


def test_three_evaluations_agree(pixels: np.ndarray, store: TensorStore) -> None:
    agent = halting_ram()
    scores = score(agent, GlimpseSensor(6), store, LABELS)
    agent.stopping = ACTStop(half_stop(scores))
    taken, prediction = scores.apply(agent.stopping)
    answers = classify(agent, GlimpseSensor(6), store, torch.arange(40))
    assert len(taken.unique()) > 1
    assert torch.equal(answers.num_glimpses, taken)
    assert torch.equal(answers.prediction, prediction)
    found = dtram_env.evaluate(
        agent,
        "DTRAM-Signpost-v0",
        dataset=Dataset("Noise", "test", pixels, LABELS.numpy(), ("a", "b", "c")),
        num_envs=8,
        glimpse_size=6,
        max_glimpses=T_MAX,
    )
    assert found.num_glimpses.tolist() == taken.tolist()
    assert found.prediction.tolist() == prediction.tolist()


def test_before_training_all_glimpses_are_taken(store: TensorStore) -> None:
    agent = HaltingRAM(DTRAMConfig(3, (6, 6, 1), T_MAX, hidden_size=24))
    taken, _ = score(agent, GlimpseSensor(6), store, LABELS).apply(agent.stopping)
    assert (taken == T_MAX).all()


def test_saved_and_loaded_gives_identical_outputs(store: TensorStore, tmp_path: Path) -> None:
    agent = halting_ram()
    agent.stopping = ACTStop(0.8)
    agent.save(tmp_path, env_id="X")
    loaded = HaltingRAM.load(tmp_path)
    assert (loaded.stopping, loaded.about) == (ACTStop(0.8), {"env_id": "X"})
    before, after = (score(one, GlimpseSensor(6), store, LABELS) for one in (agent, loaded))
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.stop_logit, after.stop_logit)


def test_a_higher_cost_takes_fewer_glimpses() -> None:
    """Easy images are recognised at glimpse 1, hard ones at 3; the stopper sees which is which."""
    easy = torch.arange(64) % 2 == 0
    sure = torch.tensor([4.0, 0.0])
    logits = torch.where(easy[:, None], sure, 0 * sure).repeat(4, 1, 1)
    logits[2:] = sure
    told = easy.float() * 2 - 1
    taken = {}
    for tau in (0.0, 0.02, 2.0):
        weight = torch.zeros(4, 2, requires_grad=True)  # of each glimpse: bias, easiness
        with torch.no_grad():
            weight[:, 0] = -1.0
        optimizer = torch.optim.Adam([weight], lr=0.1)
        for _ in range(150):
            mixed, answer = halted_answer(weight[:, :1] + weight[:, 1:] * told, logits)
            loss = ponder_cost_loss(mixed, torch.zeros(64, dtype=torch.int64), answer.ponder, tau)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taken[tau] = [float(answer.taken[rows].float().mean()) for rows in (easy, ~easy)]
    assert taken[0.02][0] < taken[0.02][1]  # the hard ones get more
    assert taken[2.0] == [1.0, 1.0]
    assert sum(taken[2.0]) < sum(taken[0.02]) < sum(taken[0.0])
