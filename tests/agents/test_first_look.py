"""The locator that reads the first look: what it remembers, and one agent in every use."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agents.config import DTRAMConfig, FirstLookOptions
from agents.first_look import FirstLookDTRAM
from agents.loading import load_agent
from agents.location_policy import FORBIDDEN
from agents.objective import Objective, hybrid_loss
from agents.resnet import ResNetOptions
from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, Unroll, classify, score
from dtram_env.datasets.storage.tensors import TensorStore

SIDE, LOOK = 64, 16  # pixels of an image; of a crop, and of the thumbnail
SENSOR = GlimpseSensor(LOOK, first_glimpse="thumbnail")


def make_agent(**changes: Any) -> FirstLookDTRAM:
    torch.manual_seed(0)
    config = {"encoder": "cnn", "hidden_size": 16, "locator_grid": 8, "pixel_std": 1.0}
    config |= {"first_look": FirstLookOptions(LOOK / SIDE, LOOK, width=4)}
    shape = changes.pop("glimpse_shape", (LOOK, LOOK, 3))
    return FirstLookDTRAM(DTRAMConfig(2, shape, 4, **{**config, **changes}))


def images(count: int = 5) -> TensorStore:
    pixels = torch.randint(256, (count, SIDE, SIDE, 3), dtype=torch.uint8)
    return TensorStore(pixels, LOOK)


def test_it_remembers_the_thumbnail_and_what_later_glimpses_show() -> None:
    agent, store, index = make_agent().eval(), images(), torch.arange(5)
    first, centre = SENSOR.first(store, index)
    state = agent.observe(first, centre, agent.initial(5))
    features = agent.locator.reader(first.permute(0, 3, 1, 2).float())  # type: ignore[operator, union-attr]
    assert torch.equal(state.features, features)
    assert not state.seen.any() and not state.taken.any()
    location = agent.cell_centres[torch.tensor([0, 9, 27, 36, 63])]
    state = agent.observe(SENSOR(store, index, location), location, state)
    assert torch.equal(state.features, features)
    # A crop is as large as a position of the features, of 2x2 cells: it shows those whose middle is
    # less than a position's side from its own, along both axes.
    for b, cell in enumerate((0, 9, 27, 36, 63)):
        y, x = divmod(cell, 8)
        wanted = torch.zeros(4, 4)
        for j in range(4):
            for i in range(4):
                wanted[j, i] = abs(4 * j + 2 - 2 * y - 1) < 2 and abs(4 * i + 2 - 2 * x - 1) < 2
        assert torch.equal(state.seen[b, 0], wanted)
        assert torch.equal(state.taken[b], (torch.arange(64) == cell).float())
    scores = agent.location_params(state)
    assert torch.equal(scores == FORBIDDEN, state.taken > 0)


def test_each_glimpse_marks_a_position_however_small_it_is() -> None:
    agent, index = make_agent(first_look=FirstLookOptions(0.05, LOOK, width=4)).eval(), range(64)
    state = agent.initial(64)._replace(time=torch.ones(64, dtype=torch.int64))
    glimpse = torch.zeros(64, LOOK, LOOK, 3, dtype=torch.uint8)
    state = agent.observe(glimpse, agent.cell_centres[torch.tensor(index)], state, 1)
    assert (state.seen.sum(dim=(1, 2, 3)) >= 1).all()


def test_in_use_the_thumbnail_is_read_once() -> None:
    agent, glimpse = make_agent().eval(), torch.zeros(1, LOOK, LOOK, 3, dtype=torch.uint8)
    state, flops = agent.reset(1), []
    for _ in range(3):
        with FlopCounterMode(display=False) as counter:
            _, state = agent.step({"glimpse": glimpse, "location": torch.zeros(1, 2)}, state)
        flops.append(counter.get_total_flops())
    assert flops[1] == flops[2] < flops[0]


def test_a_batch_may_mix_new_and_running_episodes() -> None:
    agent, store, index = make_agent().eval(), images(), torch.arange(5)
    first, centre = SENSOR.first(store, index)
    begun = agent.observe(first, centre, agent.initial(5))
    location = torch.rand(5, 2) - 0.5
    seen = SENSOR(store, index, location)
    later = agent.observe(seen, location, begun)
    new = torch.tensor([True, False, True, False, False])

    def mixed(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.where(new.view(-1, *[1] * (one.ndim - 1)), one, other)

    state = type(begun)(*map(mixed, agent.initial(5), begun))
    found = agent.observe(mixed(first, seen), mixed(centre, location), state)
    for part, wanted in zip(found, map(mixed, begun, later), strict=True):
        torch.testing.assert_close(part, wanted)


@pytest.mark.parametrize("thumbnail", [0, 32])
def test_one_agent_in_every_way_of_running(thumbnail: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    if thumbnail:
        resnet = ResNetOptions("resnet10", width=8, stem_stride=1)
        changes = {"encoder": "resnet10", "resnet": resnet, "thumbnail_size": thumbnail}
        changes |= {"first_look": FirstLookOptions(LOOK / SIDE, thumbnail)}
    agent, store, index = make_agent(**changes).eval(), images(), torch.arange(5)
    sensor = SENSOR._replace(thumbnail_size=thumbnail)
    torch.nn.init.normal_(agent.locator.scorer[-3].weight)  # type: ignore[index, union-attr, arg-type]
    agent.stopping = agent.learned_stop(0.5)
    scores = score(agent, sensor, store, torch.zeros(5, dtype=torch.int64))
    assert len(scores.locations[1:].flatten(0, 1).unique(dim=0)) > 2
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert isinstance(loaded, FirstLookDTRAM)
    loaded.stopping = FixedStop(3)
    found = classify(loaded, sensor, store, index)
    torch.testing.assert_close(found.probability, scores.logits[2].softmax(-1))
    torch.testing.assert_close(found.locations[:, :3], scores.locations[:3].transpose(0, 1))
    unroll = Unroll(loaded, sensor, 0.1, stop=False)
    unroll.exploration = 0.0
    path = unroll(store, index, 4)
    torch.testing.assert_close(path.locations, scores.locations)
    torch.testing.assert_close(path.logits, scores.logits)


def test_a_first_look_of_another_size_needs_the_step() -> None:
    resnet = ResNetOptions("resnet10", width=8, stem_stride=1)
    look = FirstLookOptions(LOOK / SIDE, 32)
    agent = make_agent(encoder="resnet10", resnet=resnet, thumbnail_size=32, first_look=look)
    first, centre = SENSOR._replace(thumbnail_size=32).first(images(), torch.arange(5))
    with pytest.raises(ValueError, match="step=None: expected the step"):
        agent.observe(first, centre, agent.initial(5))


def test_the_locators_loss_stays_in_the_locator() -> None:
    agent, store = make_agent(), images()
    path = Unroll(agent, SENSOR, 0.1, stop=False)(store, torch.arange(5), 3, m=2)
    assert path.location_score is not None
    path.location_score[:-1].sum().backward()
    learned = {n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None}
    assert learned == {"locator"}


def test_within_a_cell_glimpses_are_taken_anywhere() -> None:
    agent, store = make_agent().eval(), images()
    unroll = Unroll(agent, SENSOR, 0.1, stop=False)
    unroll.exploration, unroll.within_cell = 1.0, True
    path = unroll(store, torch.arange(5).repeat(40), 3)
    offset = (path.locations[1:] - path.sampled_locations[:-1]) * agent.config.locator_grid
    assert offset.abs().max() <= 1 and offset.mean().abs() < 0.1
    assert offset.std().item() == pytest.approx(3**-0.5, rel=0.1)  # uniform in [-1, 1]


def dots(count: int) -> tuple[TensorStore, torch.Tensor, torch.Tensor]:
    """Images with a striped dot, its class (the stripes' direction), and its middle (y, x).

    The thumbnail shows where it is; only a crop there shows of which kind.
    """
    labels, places = torch.arange(count) % 2, torch.randint(8, SIDE - 16, (count, 2))
    pixels = torch.zeros(count, SIDE, SIDE, 3, dtype=torch.uint8)
    stripes = (200 * (torch.arange(8) % 2)).byte()[:, None].expand(8, 8)
    for b, (y, x) in enumerate(places.tolist()):
        pixels[b, y : y + 8, x : x + 8] = (stripes if labels[b] else stripes.T)[..., None]
    return TensorStore(pixels, LOOK), labels, places + 4


def test_values_find_the_part_that_tells_the_class() -> None:
    torch.manual_seed(0)
    agent = make_agent(pixel_std=80.0)
    unroll = Unroll(agent, SENSOR, 0.1, stop=False)
    objective = Objective(baseline="none", location_reward="drop", location_learning="value")
    optimizer = torch.optim.Adam(agent.parameters(), 4e-3)
    for step in range(150):
        unroll.exploration = max(0.1, 1 - step / 75)
        store, labels, _ = dots(64)
        path = unroll(store, torch.arange(64), 2)
        losses = hybrid_loss(path, labels, 1, objective, agent.scalar_baseline)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    store, labels, middle = dots(200)
    found = score(agent.eval(), SENSOR, store, labels)
    assert found.error_and_glimpses(FixedStop(2))[0] < 0.02
    looked = (found.locations[1].flip(1) + 1) * SIDE / 2
    shown = (looked - middle).abs().amax(dim=1) < LOOK / 2 + 4  # some of the dot
    assert shown.float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"locator_grid": 6}, "locator_grid=6: expected a multiple of 4"),
        ({"locator_input": "state"}, "locator_input='state': expected 'detached' with first_look"),
        ({"first_look": FirstLookOptions(0.25, 32)}, "first_look side=32: expected a divisor"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)
