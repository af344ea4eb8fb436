"""The dense unroll: its glimpses, its log-probabilities, and that score and classify agree."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from agents import precision
from agents.dtram import DTRAM, DTRAMConfig, State
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop, StoppingRule
from agents.unroll import GlimpseSensor, Unroll, classify, score
from dtram_env import sensor
from dtram_env.datasets.storage.store import ArrayStore
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.views import grid_centres

T_MAX = 5


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 20, 20, 1), dtype=np.uint8)


@pytest.fixture
def agent(pixels: np.ndarray) -> DTRAM:
    """An agent whose answer to an image changes from glimpse to glimpse."""
    torch.manual_seed(0)
    agent = DTRAM(DTRAMConfig(3, (6, 6, 1), T_MAX, hidden_size=24))
    for head in (agent.locator, agent.classifier, *agent.stopper):
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    # With mean logits of 0 the classes are about as frequent.
    logits = score(agent, GlimpseSensor(6), tensor_store(pixels), torch.zeros(40).long()).logits
    with torch.no_grad():
        agent.classifier.bias -= logits.mean(dim=(0, 1))
    return agent


def tensor_store(pixels: np.ndarray) -> TensorStore:
    return TensorStore(torch.from_numpy(pixels), sensor.margin(6, 1))


def states(
    agent: DTRAM, store: TensorStore, index: torch.Tensor, locations: torch.Tensor
) -> Iterator[State]:
    """The state after each glimpse, one glimpse after another."""
    state = agent.initial(len(index))
    for location in locations:
        state = agent.observe(GlimpseSensor(6)(store, index, location), location, state)
        yield state


def test_glimpses_are_those_of_the_recorded_locations(pixels, agent) -> None:
    """Feeding the agent numpy glimpses of the recorded locations gives the recorded logits."""
    index, m = torch.tensor([3, 11, 25]), 4
    trajectory = Unroll(agent, GlimpseSensor(6), 1.0)(tensor_store(pixels), index, T_MAX, m)
    assert (trajectory.sampled_locations.amin() < -1) and (trajectory.sampled_locations.amax() > 1)
    numpy_store = ArrayStore(pixels, sensor.margin(6, 1))
    state = agent.initial(len(index) * m)
    for t in range(T_MAX):
        seen = sensor.glimpse(
            numpy_store, index.repeat_interleave(m).numpy(), trajectory.locations[t].numpy(), 6
        )
        state = agent.observe(torch.from_numpy(seen), trajectory.locations[t], state)
        torch.testing.assert_close(agent.heads(state).logits, trajectory.logits[t])
    assert torch.equal(trajectory.locations[0], torch.zeros(12, 2))
    assert torch.equal(trajectory.locations[1:], trajectory.sampled_locations[:-1].clamp(-1, 1))
    at_an_edge = (trajectory.locations[1:].abs() == 1).any(dim=-1).float().mean()
    assert 0 < trajectory.outside < 1 and torch.equal(trajectory.outside, at_an_edge)


def test_all_heads_read_the_same_states(pixels, agent) -> None:
    """The unroll evaluates most heads once for all steps; step by step the results are equal."""
    store, index = tensor_store(pixels), torch.arange(6)
    trajectory = Unroll(agent, GlimpseSensor(6), 0.3)(store, index, T_MAX, 1)
    for t, state in enumerate(states(agent, store, index, trajectory.locations)):
        heads = agent.heads(state)
        torch.testing.assert_close(heads.stop_logit, trajectory.stop_logit[t])
        torch.testing.assert_close(agent.value(state.h), trajectory.value[t])


def test_the_stopper_can_be_left_out(pixels, agent) -> None:
    unroll = Unroll(agent, GlimpseSensor(6), 0.3, stop=False)
    trajectory = unroll(tensor_store(pixels), torch.arange(6), T_MAX, 2)
    assert trajectory.stop_logit.shape == (T_MAX, 12)
    assert not trajectory.stop_logit.any() and not trajectory.stop_logit.requires_grad


def test_location_log_density_by_hand(pixels, agent) -> None:
    store, index = tensor_store(pixels), torch.arange(4)
    trajectory = Unroll(agent, GlimpseSensor(6), 0.3)(store, index, 3, 2)
    path = states(agent, store, index.repeat_interleave(2), trajectory.locations)
    normal = torch.distributions.Normal(torch.stack(list(map(agent.locate, path))), 0.3)
    expected = normal.log_prob(trajectory.sampled_locations).sum(-1)
    torch.testing.assert_close(trajectory.location_log_prob, expected)


@pytest.fixture
def grid_agent() -> DTRAM:
    """An agent whose location policy chooses among 3 x 3 cells."""
    torch.manual_seed(0)
    agent = DTRAM(DTRAMConfig(3, (6, 6, 1), T_MAX, hidden_size=24, locator_grid=3))
    torch.nn.init.normal_(agent.locator.weight, std=0.7)  # type: ignore[arg-type]
    return agent


def cells_of(location: torch.Tensor, grid: int) -> torch.Tensor:
    """The number of the cell whose centre a location is; fails if it is none."""
    centres = torch.from_numpy(grid_centres(grid))
    here = (location[..., None, :] == centres).all(-1)
    assert (here.sum(-1) == 1).all()
    return here.float().argmax(-1)


def test_log_probabilities_of_cells_are_those_of_torch(pixels, grid_agent) -> None:
    store, index = tensor_store(pixels), torch.arange(8)
    trajectory = Unroll(grid_agent, GlimpseSensor(6), 0.3)(store, index, T_MAX, 4)
    path = states(grid_agent, store, index.repeat_interleave(4), trajectory.locations)
    for t, state in enumerate(path):
        location_params = grid_agent.location_params(state)
        assert location_params.shape == (32, 9)
        cell = cells_of(trajectory.sampled_locations[t], 3)
        expected = torch.distributions.Categorical(logits=location_params).log_prob(cell)
        torch.testing.assert_close(trajectory.location_log_prob[t], expected)
        entropy = torch.distributions.Categorical(logits=location_params).entropy()
        torch.testing.assert_close(trajectory.location_entropy[t], entropy)
    assert torch.equal(trajectory.locations[1:], trajectory.sampled_locations[:-1])
    assert len(cells_of(trajectory.sampled_locations, 3).unique()) == 9
    assert (
        trajectory.location_log_prob.requires_grad
        and not trajectory.sampled_locations.requires_grad
    )


@pytest.mark.parametrize("what", ["location_log_prob", "location_entropy"])
def test_the_choice_of_a_cell_has_a_gradient_by_hand(pixels, grid_agent, what: str) -> None:
    """d log softmax_k / d logit_j = [j = k] - p_j, and d H / d logit_j = -p_j (log p_j + H), both
    summed into the locator's bias."""
    store, index = tensor_store(pixels), torch.arange(5)
    trajectory = Unroll(grid_agent, GlimpseSensor(6), 0.3)(store, index, 1, 1)
    getattr(trajectory, what).sum().backward()
    with torch.no_grad():
        (state,) = states(grid_agent, store, index, torch.zeros(1, 5, 2))
        p = grid_agent.location_params(state).softmax(-1)
        chosen = torch.nn.functional.one_hot(cells_of(trajectory.sampled_locations[0], 3), 9)
        entropy = -(p * p.log()).sum(-1, keepdim=True)
    by_hand = chosen - p if what == "location_log_prob" else -p * (p.log() + entropy)
    assert by_hand.sum(0).abs().max() > 0.01
    torch.testing.assert_close(grid_agent.locator.bias.grad, by_hand.sum(0))


def test_score_takes_glimpses_at_the_most_probable_cell(pixels, grid_agent) -> None:
    store = tensor_store(pixels)
    scores = score(grid_agent, GlimpseSensor(6), store, torch.zeros(40, dtype=torch.int64))
    state, location = grid_agent.initial(40), torch.zeros(40, 2)
    for t in range(T_MAX):
        assert torch.equal(scores.locations[t], location)
        state = grid_agent.observe(
            GlimpseSensor(6)(store, torch.arange(40), location), location, state
        )
        cell = grid_agent.location_params(state).argmax(-1)
        location = torch.from_numpy(grid_centres(3))[cell]
        assert torch.equal(grid_agent.locate(state), location)


def test_fixed_random_first_locations_by_hand() -> None:
    """Multiples of two irrational numbers, modulo 1, from [0, 1) to [-1, 1)."""
    sensor = GlimpseSensor(6, first_glimpse="random")
    found = sensor.first_location(torch.tensor([0, 1, 3]), fixed=True)
    expected = [[0.509755, 0.139681], [0.019511, -0.720639], [-0.960978, -0.441278]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_samples_follow_their_distributions(pixels, agent) -> None:
    torch.manual_seed(3)
    store, index = tensor_store(pixels), torch.tensor([7])
    trajectory = Unroll(agent, GlimpseSensor(6), 0.3)(store, index, 1, 20_000)
    (state,) = states(agent, store, index, torch.zeros(1, 1, 2))
    error = trajectory.sampled_locations[0] - agent.locate(state)
    assert error.mean(0).abs().max() < 4 * 0.3 / math.sqrt(20_000)
    assert error.std(0).tolist() == pytest.approx([0.3, 0.3], rel=0.03)
    p = torch.sigmoid(trajectory.stop_logit[0, 0]).item()
    share = trajectory.stop[0].double().mean().item()
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))


@pytest.mark.parametrize("kind", ["learned", "fixed", "confidence"])
def test_classify_agrees_with_score(pixels, agent, kind) -> None:
    store, labels = tensor_store(pixels), torch.arange(40) % 3
    scores = score(agent, GlimpseSensor(6), store, labels, batch_size=16)
    # Thresholds at the median of glimpse 1: half of the images stop there, the others later.
    rule: StoppingRule = {
        "learned": LearnedStop(torch.sigmoid(scores.stop_logit[0]).median().item()),
        "fixed": FixedStop(2),
        "confidence": ConfidenceStop(scores.logits[0].softmax(-1).amax(-1).median().item()),
    }[kind]
    agent.stopping = rule
    taken, prediction = scores.apply(rule)
    answer, probability, glimpses, locations = classify(
        agent, GlimpseSensor(6), store, torch.arange(40)
    )
    said = scores.logits.argmax(-1)  # (T, 40)
    for n, count in enumerate(glimpses.tolist()):
        torch.testing.assert_close(locations[n, :count], scores.locations[:count, n])
        assert (locations[n, count:] == 0).all()
        assert answer[n] == said[count - 1, n]
    at_stop = said[glimpses - 1, torch.arange(40)]
    for other in (0, T_MAX - 1):  # another glimpse's answers would be others
        assert (at_stop != said[other]).sum() > 3 or (glimpses == other + 1).all()
    assert glimpses.tolist() == taken.tolist()
    assert answer.tolist() == prediction.tolist()
    assert probability.sum(1).tolist() == pytest.approx([1.0] * 40)
    if kind != "fixed":
        assert len(set(glimpses.tolist())) > 1  # images did leave the batch


def test_score_counts_errors(pixels, agent) -> None:
    scores = score(agent, GlimpseSensor(6), tensor_store(pixels), torch.zeros(40).long())
    taken, prediction = scores.apply(FixedStop(3))
    said = scores.logits.argmax(-1)
    assert prediction.tolist() == said[2].tolist()
    assert all((said[2] != said[t]).sum() > 3 for t in (0, 1, 4))
    error, glimpses = scores.error_and_glimpses(FixedStop(3))
    assert error == (prediction != 0).double().mean().item()
    assert glimpses == 3.0
    assert taken.tolist() == [3] * 40
    taken, prediction = scores.limit(2).apply(FixedStop(5))  # a pass that is forced to stop earlier
    assert taken.tolist() == [2] * 40
    assert prediction.tolist() == said[1].tolist()


def test_first_glimpse_may_be_random_but_not_unknown(pixels, agent) -> None:
    store, sensor = tensor_store(pixels), GlimpseSensor(6, first_glimpse="random")
    locations = Unroll(agent, sensor, 0.1)(store, torch.arange(40), 1, 2).locations[0]
    assert locations.abs().max() <= 1
    assert len(locations.unique(dim=0)) == 40  # one for each image, shared by its trajectories
    with pytest.raises(ValueError, match="first_glimpse='nowhere'"):
        score(agent, GlimpseSensor(6, first_glimpse="nowhere"), store, torch.zeros(40).long())


# -- scripted locations in place of sampled ones ------------------------------------------------

SCRIPT = torch.tensor([[-0.6, 0.6], [0.7, 0.0], [0.0, -0.7], [0.1, 0.5]])


def test_a_script_samples_cells_near_its_targets(pixels, grid_agent) -> None:
    torch.manual_seed(3)
    unroll = Unroll(grid_agent, GlimpseSensor(6), 0.3)
    unroll.scripted_locations = SCRIPT
    store, index = tensor_store(pixels), torch.tensor([0])
    trajectory = unroll(store, index, T_MAX, 20_000)
    for t in range(T_MAX - 1):
        cell = cells_of(trajectory.sampled_locations[t], 3)
        far = (torch.from_numpy(grid_centres(3)) - SCRIPT[t]).square().sum(-1)
        expected = torch.softmax(-far / (2 * 0.2**2), dim=0)
        found = cell.bincount(minlength=9) / len(cell)
        torch.testing.assert_close(found, expected.to(found.dtype), atol=0.015, rtol=0)
    # The score is the agent's own log-probability, averaged over the script's choices.
    (state,) = states(grid_agent, store, index, trajectory.locations[:1, :1])
    first = grid_agent.location_params(state)[0]
    far = (torch.from_numpy(grid_centres(3)) - SCRIPT[0]).square().sum(-1)
    own = torch.softmax(-far / (2 * 0.2**2), dim=0) @ torch.log_softmax(first, dim=-1)
    torch.testing.assert_close(trajectory.location_log_prob[0], own.expand(20_000))


def test_a_script_is_the_mean_of_a_gaussian_policy(pixels, agent) -> None:
    torch.manual_seed(3)
    unroll = Unroll(agent, GlimpseSensor(6), 0.1)
    unroll.scripted_locations = SCRIPT
    store, index = tensor_store(pixels), torch.arange(8)
    trajectory = unroll(store, index, T_MAX, 2_000)
    path = states(agent, store, index.repeat_interleave(2_000), trajectory.locations)
    location, mean = trajectory.sampled_locations, torch.stack(list(map(agent.locate, path)))
    location, mean = location[: T_MAX - 1], mean[: T_MAX - 1]
    normal = torch.distributions.Normal(mean, 0.1)
    scored = normal.log_prob(SCRIPT[:, None].expand_as(mean)).sum(-1)
    torch.testing.assert_close(trajectory.location_log_prob[: T_MAX - 1], scored)
    torch.testing.assert_close(location.mean(1), SCRIPT[: T_MAX - 1], atol=0.005, rtol=0)
    torch.testing.assert_close(location.std(1), torch.full((T_MAX - 1, 2), 0.1), atol=0.005, rtol=0)


def test_bfloat16_is_near_and_leaves_states_in_float32(pixels, grid_agent, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device_type: True)
    store, index, found = tensor_store(pixels), torch.arange(8), []
    for bf16 in (False, True):
        torch.manual_seed(0)
        unroll = Unroll(grid_agent, GlimpseSensor(6), 0.3, bf16=bf16)
        unroll.scripted_locations = torch.zeros(T_MAX - 1, 2)
        found.append(unroll(store, index, T_MAX, 4))
    assert found[1].logits.dtype == torch.float32
    assert torch.equal(found[0].locations, found[1].locations)
    assert not torch.equal(found[0].logits, found[1].logits)
    torch.testing.assert_close(found[0].logits, found[1].logits, atol=0.05, rtol=0.05)
