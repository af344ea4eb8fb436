"""The recurrent actor: its formulas, its policy protocol, its settings."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

import dtram_env
from agents.cores import RNNCell
from agents.cost import flops_per_glimpse
from agents.dtram import DTRAM, EVEN_DOUBT, DTRAMConfig
from agents.encoders import GlimpseConv, GlimpseMLP
from agents.stopping import ConfidenceStop, LearnedStop
from agents.unroll import classify, score
from dtram_env.views import grid_centres
from train.common.training_task import TrainingTask

CONFIG = DTRAMConfig(num_classes=5, glimpse_shape=(8, 8, 2), max_glimpses=4, hidden_size=16)


def make_agent(**changes) -> DTRAM:
    torch.manual_seed(0)
    agent = DTRAM(DTRAMConfig(**{**vars(CONFIG), **changes}))
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    return agent


def observation(batch: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "glimpse": rng.integers(0, 256, (batch, 8, 8, 2), dtype=np.uint8),
        "location": rng.uniform(-1, 1, (batch, 2)).astype(np.float32),
        "time": np.full((batch, 1), 0.25, dtype=np.float32),
    }


def native_spaces(classes: int = 5, shape=(8, 8, 2)) -> tuple[spaces.Dict, spaces.Dict]:
    box = spaces.Box(-1, 1, (2,), np.float32)
    time = spaces.Box(0, 1, (1,), np.float32)
    seen = spaces.Dict(glimpse=spaces.Box(0, 255, shape, np.uint8), location=box, time=time)
    action = spaces.Dict(location=box, stop=spaces.Discrete(2), prediction=spaces.Discrete(classes))
    return seen, action


def test_relu_core_by_hand() -> None:
    core = RNNCell(2)
    with torch.no_grad():
        core.recurrent.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    h = core(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 3.0]]))
    assert h.tolist() == [[1 + 6 + 0.5, 0.0]]  # ReLU(W h + g)


def test_mlp_encoder_by_hand() -> None:
    """Every weight 1 and bias 0: the code is a product of sums."""
    encoder = GlimpseMLP((2, 2, 1), out_features=3, what_features=2, where_features=2)
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    glimpse = torch.full((1, 2, 2, 1), 51, dtype=torch.uint8)  # 0.2 each
    code = encoder(glimpse, torch.tensor([[0.75, -0.25]]))
    what, where = 2 * 0.8, 2 * 0.5
    assert code[0].tolist() == pytest.approx([3 * (what + where)] * 3)


@pytest.mark.parametrize("encoder", [GlimpseMLP, GlimpseConv])
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 7, 3)])
def test_encoders_read_glimpse_and_location(encoder, shape) -> None:
    module = encoder(shape, 16)
    glimpse = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    location = torch.rand(5, 2)
    code = module(glimpse, location)
    assert code.shape == (5, 16)
    assert not torch.equal(code, module(255 - glimpse, location))
    assert not torch.equal(code, module(glimpse, -location))


def test_untrained_stopper_is_undecided() -> None:
    agent = DTRAM(CONFIG)
    state = agent.observe(*_observed(), agent.initial(3))
    assert torch.sigmoid(agent.heads(state).stop_logit).tolist() == [0.5] * 3


def _observed() -> tuple[torch.Tensor, torch.Tensor]:
    obs = observation()
    return torch.from_numpy(obs["glimpse"]), torch.from_numpy(obs["location"])


def test_stopper_evidence_by_hand() -> None:
    """One weight at a time: log-probabilities / 4, log doubt / 4, the clock, and the state / 10."""
    agent = DTRAM(DTRAMConfig(2, (8, 8, 1), 3, hidden_size=1, stopper_hidden=0))
    h, logits = torch.tensor([[5.0]]), torch.log(torch.tensor([[0.99, 0.01]]))
    expected = [0.5, math.log(0.99) / 4, math.log(0.01) / 4, math.log(0.01) / 4, 0, 1, 0]
    layer = agent.stopper[0]
    torch.nn.init.zeros_(layer.bias)
    for position, value in enumerate(expected):
        torch.nn.init.zeros_(layer.weight)
        with torch.no_grad():
            layer.weight[0, position] = 1.0
        found = agent.stop_logit(h, logits, torch.tensor([2])).item()
        assert found == pytest.approx(value, rel=1e-4), position
    certain = agent.stop_logit(h, torch.tensor([[200.0, -200.0]]), torch.tensor([2]))
    assert torch.isfinite(certain).all()


def test_without_evidence_the_stopper_reads_the_state_alone() -> None:
    agent = make_agent(stopper_evidence=False)
    h = torch.randn(3, 16)
    time = torch.tensor([1, 2, 3])
    first = agent.stop_logit(h, torch.randn(3, 5), time)
    assert torch.equal(first, agent.stop_logit(h, torch.randn(3, 5), time.flip(0)))
    torch.testing.assert_close(first, agent.stopper(h).squeeze(-1))


@pytest.mark.parametrize("into", ["detached", "state"])
@pytest.mark.parametrize("evidence", [True, False])
def test_where_the_gradient_of_a_stop_ends(into: str, evidence: bool) -> None:
    agent = make_agent(stopper_input=into, stopper_evidence=evidence)
    h, logits = torch.randn(3, 16, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    agent.stop_logit(h, logits, torch.tensor([1, 2, 3])).sum().backward()
    assert (h.grad is not None) == (into == "state")
    assert logits.grad is None
    assert all(parameter.grad is not None for parameter in agent.stopper.parameters())


@pytest.mark.parametrize("evidence", [True, False])
def test_an_untrained_stopper_with_the_prior_is_a_confidence_threshold(evidence) -> None:
    torch.manual_seed(0)
    agent = DTRAM(replace(CONFIG, stopper_evidence=evidence, stopper_prior="confidence"))
    h, logits, time = torch.randn(200, 16), 5 * torch.randn(200, 5), torch.arange(200) % 3 + 1
    found = agent.stop_logit(h, logits, time)
    for confidence in (0.5, 0.9, 0.99):
        threshold = EVEN_DOUBT / (EVEN_DOUBT + 1 - confidence)
        learned = LearnedStop(threshold).stops(time, logits, found)
        assert torch.equal(learned, ConfidenceStop(confidence).stops(time, logits, found))
        assert 0 < learned.sum() < 200
    doubt = torch.tensor([[1 - EVEN_DOUBT, EVEN_DOUBT, 0.0, 0.0, 0.0]])  # even odds
    assert agent.stop_logit(h[:1], doubt.log(), time[:1]).item() == pytest.approx(0.0, abs=1e-4)
    with torch.no_grad():
        agent.stopper[-1].bias.fill_(0.25)  # f_a is added
    torch.testing.assert_close(agent.stop_logit(h, logits, time), found + 0.25)


@pytest.mark.parametrize(
    ("head", "reach"), [("locator", "state"), ("locator", "detached"), ("stopper", "detached")]
)
def test_only_the_locator_may_change_the_state(head: str, reach: str) -> None:
    agent = make_agent(locator_input=reach)
    heads = agent.heads(agent.observe(*_observed(), agent.initial(3)))
    loss = heads.location.sum() if head == "locator" else heads.stop_logit.sum()
    loss.backward()
    reached = agent.encoder.out.weight.grad is not None
    assert reached == (reach == "state")
    assert any(p.grad is not None and p.grad.any() for p in getattr(agent, head).parameters())


def test_the_baseline_trains_only_its_head() -> None:
    agent = make_agent(locator_input="state")
    agent.value(agent.observe(*_observed(), agent.initial(3)).h).sum().backward()
    trained = [name for name, p in agent.named_parameters() if p.grad is not None]
    assert trained == ["baseline.weight", "baseline.bias"]


def test_step_acts_by_the_heads() -> None:
    agent = make_agent()
    agent.stopping = LearnedStop(0.4)
    obs = observation()
    action, state = agent.step(obs, agent.reset(3))
    heads = agent.heads(agent.observe(*_observed(), agent.initial(3)))
    assert isinstance(action["location"], np.ndarray)
    np.testing.assert_array_equal(action["location"], heads.location.detach().numpy())
    np.testing.assert_array_equal(action["prediction"], heads.logits.argmax(-1).numpy())
    np.testing.assert_array_equal(
        action["stop"], (torch.sigmoid(heads.stop_logit) > 0.4).long().numpy()
    )
    assert state.time.tolist() == [1, 1, 1]
    tensors = {name: torch.from_numpy(value) for name, value in obs.items()}
    again, _ = agent.step(tensors, agent.reset(3))
    assert torch.equal(again["location"], heads.location)


@pytest.mark.parametrize("answer", ["state", "first_plus_mean"])
def test_episodes_of_a_batch_do_not_mix(answer: str) -> None:
    """A selection of a batch goes on exactly as it would have in the whole batch."""
    agent, obs = make_agent(answer=answer), observation(4)
    _, state = agent.step(obs, agent.reset(4))
    whole, _ = agent.step(obs, state)
    keep = np.array([False, True, False, True])
    part, _ = agent.step(
        {name: value[keep] for name, value in obs.items()}, agent.select(state, keep)
    )
    np.testing.assert_allclose(part["location"], whole["location"][keep], atol=1e-6)
    fresh, _ = agent.step(obs, agent.reset(4))
    assert np.abs(fresh["location"] - whole["location"]).max() > 1e-4  # the state matters


def test_flops_by_hand() -> None:
    """Two operations for each weight of a matrix that is used."""
    agent = DTRAM(DTRAMConfig(10, (8, 8, 1), 7))
    encoder = 64 * 128 + 2 * 128 + 256 * 256 + 256 * 256
    heads = 256 * 10 + 256 * 2 + (256 + 10 + 1 + 7) * 128 + 128
    assert flops_per_glimpse(agent) == 2 * (encoder + 256 * 256 + heads)


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_saved_and_loaded_gives_identical_outputs(tmp_path: Path, encoder) -> None:
    agent = make_agent(encoder=encoder)
    agent.stopping, agent.class_names = LearnedStop(0.37), tuple("abcde")
    agent.save(tmp_path, env_id="DTRAM-MNIST-v0")
    loaded = DTRAM.load(tmp_path)
    assert loaded.config == agent.config
    assert loaded.stopping == LearnedStop(0.37)
    assert loaded.class_names == tuple("abcde")
    state, other = agent.reset(3), loaded.reset(3)
    for _ in range(4):
        action, state = agent.step(observation(), state)
        again, other = loaded.step(observation(), other)
        for name in action:
            np.testing.assert_array_equal(action[name], again[name])
    assert json.loads((tmp_path / "model.json").read_text())["env_id"] == "DTRAM-MNIST-v0"


@pytest.mark.parametrize("changes", [{"locator_grid": 3}, {"locator_grid": 4, "locator_hidden": 6}])
def test_a_location_policy_over_cells_is_saved(tmp_path: Path, changes) -> None:
    agent = make_agent(**changes)
    agent.save(tmp_path)
    loaded = DTRAM.load(tmp_path)
    assert loaded.config == agent.config
    state = agent.initial(20)._replace(h=torch.randn(20, agent.config.hidden_size))
    assert torch.equal(loaded.location_params(state), agent.location_params(state))
    cells = agent.config.locator_grid
    centres = grid_centres(cells)
    assert agent.location_params(state).shape == (20, cells**2)
    expected = centres[agent.location_params(state).argmax(-1).numpy()]
    np.testing.assert_array_equal(loaded.locate(state).numpy(), expected)
    # The centres follow from the settings, so they are not saved.
    assert "cell_centres" not in load_file(tmp_path / "model.safetensors")
    action, _ = loaded.step(observation(), loaded.reset(3))
    assert all((row == centres).all(-1).any() for row in action["location"])


def test_a_hidden_layer_of_the_locator_by_hand() -> None:
    agent = make_agent(locator_hidden=6)
    h = torch.randn(5, agent.config.hidden_size)
    first, _, second = agent.locator
    expected = torch.relu(h @ first.weight.T + first.bias) @ second.weight.T + second.bias
    state = agent.initial(5)._replace(h=h)
    torch.testing.assert_close(agent.locate(state), torch.tanh(expected))


def test_the_bounds_of_a_mean_location_by_hand() -> None:
    """The original code's: clipped, and the centre stays a pixel from the edge."""
    agent = make_agent(hidden_size=2, location_squash="hard_tanh", location_bound=13 / 14)
    with torch.no_grad():
        agent.locator.weight.copy_(torch.eye(2))
        agent.locator.bias.zero_()
    state = agent.initial(2)._replace(h=torch.tensor([[0.5, -0.25], [3.0, -7.0]]))
    by_hand = torch.tensor([[0.5, -0.25], [1.0, -1.0]]) * 13 / 14
    torch.testing.assert_close(agent.locate(state), by_hand)
    smooth = make_agent(hidden_size=2, location_bound=0.5)
    smooth.load_state_dict(agent.state_dict())
    torch.testing.assert_close(smooth.locate(state), torch.tanh(state.h) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_glimpses": 3}, "'max_glimpses': 4.*'max_glimpses': 3"),
        ({"glimpse_size": 6}, r"\(6, 6, 1\)"),
        ({"first_glimpse": "thumbnail", "thumbnail_size": 10}, "'thumbnail_size': 10"),
        ({"view": "continuous"}, "view='native'"),
    ],
)
def test_an_agent_in_another_environment_is_one_error(changes, message) -> None:
    agent = DTRAM(DTRAMConfig(4, (8, 8, 1), 4, hidden_size=8))
    assert dtram_env.evaluate(agent, "DTRAM-Signpost-v0", split="validation").images == 600
    with pytest.raises(ValueError, match=message):
        dtram_env.evaluate(agent, "DTRAM-Signpost-v0", split="validation", **changes)


def test_other_spaces_are_one_error() -> None:
    agent = DTRAM.for_spaces(*native_spaces(), max_glimpses=4, hidden_size=16)
    assert agent.config == CONFIG
    agent.check_spaces(*native_spaces(), max_glimpses=4)
    with pytest.raises(ValueError, match=r"'num_classes': 5.*'num_classes': 9"):
        agent.check_spaces(*native_spaces(classes=9), max_glimpses=4)
    with pytest.raises(ValueError, match="max_glimpses"):
        agent.check_spaces(*native_spaces(), max_glimpses=5)
    flat = spaces.Dict(glimpse=spaces.Box(0, 1, (64,), np.float32))
    with pytest.raises(ValueError, match="view='native'"):
        DTRAM.for_spaces(flat, native_spaces()[1], max_glimpses=4)


def test_a_step_after_the_last_glimpse_is_an_error() -> None:
    agent, seen = make_agent(), observation()
    state = agent.reset(3)
    for _ in range(4):
        _, state = agent.step(seen, state)
    with pytest.raises(ValueError, match="has had all its 4 glimpses; start each episode"):
        agent.step(seen, state)


def test_pixels_are_scaled_by_the_saved_mean_and_deviation(tmp_path: Path) -> None:
    """A glimpse of m + s pixels is to (m, s) what one of 255 is to the default (0, 255)."""
    plain, scaled = make_agent(), make_agent(pixel_mean=10.0, pixel_std=50.0)
    where = torch.zeros(2, 2)
    white = torch.full((2, 8, 8, 2), 255, dtype=torch.uint8)
    torch.testing.assert_close(
        scaled.encoder(torch.full_like(white, 60), where), plain.encoder(white, where)
    )
    scaled.save(tmp_path)
    loaded = DTRAM.load(tmp_path)
    assert (loaded.config.pixel_mean, loaded.config.pixel_std) == (10.0, 50.0)
    assert torch.equal(loaded.encoder(white, where), scaled.encoder(white, where))


def test_an_agent_that_chooses_its_first_location_acts_as_it_is_scored() -> None:
    """At time 0 the environment shows nothing: the agent looks somewhere, and nothing else."""
    task = TrainingTask("DTRAM-Signpost-v0", torch.device("cpu"), first_glimpse="choose")
    torch.manual_seed(0)
    agent = task.new_agent(hidden_size=16).eval()
    torch.nn.init.constant_(agent.locator.bias, 0.1)
    torch.nn.init.normal_(agent.stopper[-1].weight)
    images = task.images("validation")
    scores = score(agent, task.sensor, images.store, images.labels)
    agent.stopping = LearnedStop(torch.sigmoid(scores.stop_logit[0]).median().item())
    taken, prediction = scores.apply(agent.stopping)
    assert len(set(taken.tolist())) > 1
    first = torch.full((600, 2), math.tanh(0.1))  # of a state that is still 0
    torch.testing.assert_close(scores.locations[0], first)
    for backend in ("numpy", "torch"):
        found = dtram_env.evaluate(
            agent,
            "DTRAM-Signpost-v0",
            "validation",
            num_envs=70,
            backend=backend,
            first_glimpse="choose",
        )
        assert found.num_glimpses.tolist() == taken.tolist()
        assert found.prediction.tolist() == prediction.tolist()
    found = classify(agent, task.sensor, images.store, torch.arange(600))
    assert found.num_glimpses.tolist() == taken.tolist()
    assert found.prediction.tolist() == prediction.tolist()
