"""The map: what lies where, what the locator may choose, and one agent in every way of running."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d, cross_entropy, pad, pixel_shuffle

from agents import precision
from agents.config import DTRAMConfig
from agents.cores import MapOptions
from agents.loading import load_agent
from agents.location_policy import FORBIDDEN, CellLocations
from agents.objective import Objective, hybrid_loss
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, classify, score
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.sensor_torch import glimpse

SIDE, GLIMPSE = 28, 8


def make_agent(large: bool = False, **changes: Any) -> MapDTRAM:
    """`large`: images of 60 pixels in a map of 64, in cells of 2, and glimpses in 3 scales."""
    torch.manual_seed(0)
    options = {"extent": GLIMPSE / SIDE, "glimpse_cells": GLIMPSE, "width": 4}
    shape, grid = (GLIMPSE, GLIMPSE, 1), 14
    if large:
        options |= {"extent": 12 / 60, "glimpse_cells": 6, "cells": 32}
        shape, grid = (12, 12, 3), 16
    options |= changes.pop("map", {})
    config = {"encoder": "pixels", "locator_grid": grid, "hidden_size": 16, "pixel_std": 1.0}
    config |= {"core": "map", "map": MapOptions(**options)}  # type: ignore[arg-type]
    shape = changes.pop("glimpse_shape", shape)
    return MapDTRAM(DTRAMConfig(10, shape, 4, **{**config, **changes}))


def images(count: int = 6, side: int = SIDE) -> TensorStore:
    pixels = torch.randint(1, 256, (count, side, side, 1), dtype=torch.uint8)
    return TensorStore(pixels, 2 * GLIMPSE)


def sensor_of(agent: MapDTRAM) -> GlimpseSensor:
    side, _, scales = agent.config.glimpse_shape
    return GlimpseSensor(side, scales)


def test_a_map_of_pixels_is_the_image_where_it_was_seen() -> None:
    agent, store = make_agent().eval(), images()
    index, state = torch.arange(6), make_agent().initial(6)
    whole = store.images.permute(0, 3, 1, 2).float()
    seen = torch.zeros(6, 1, SIDE, SIDE, dtype=torch.bool)
    for location in (torch.rand(4, 6, 2) * 2.4 - 1.2).clamp(-1, 1):
        state = agent.observe(glimpse(store, index, location, GLIMPSE), location, state)
        corner = torch.floor((location + 1) * SIDE / 2 - GLIMPSE / 2 + 0.5).long()
        for b, (x, y) in enumerate(corner.tolist()):
            seen[b, 0, max(y, 0) : y + GLIMPSE, max(x, 0) : x + GLIMPSE] = True
        assert torch.equal(state.map[:, 1:] > 0, seen)
        assert torch.equal(state.map[:, :1], torch.where(seen, whole, 0))


def test_what_was_seen_stays() -> None:
    agent = make_agent().eval()
    state, centre = agent.initial(1), torch.zeros(1, 2)
    for value in (200, 3):
        pixels = torch.full((1, GLIMPSE, GLIMPSE, 1), value, dtype=torch.uint8)
        state = agent.observe(pixels, centre, state)
    assert set(state.map[:, 0].unique().tolist()) == {0.0, 200.0}


def test_cells_of_several_pixels_hold_all_of_them_at_every_scale() -> None:
    """At scale 0 all 4 pixels of a cell, at scale 1 their mean, at scale 2 that of 4 cells."""
    agent, store, sensor = make_agent(large=True).eval(), images(40, 60), GlimpseSensor(12, 3)
    whole = torch.zeros(40, 1, 64, 64)
    whole[:, :, 2:62, 2:62] = store.images.permute(0, 3, 1, 2).float()
    index, places = torch.arange(40), torch.randint(256, (40,))
    location = agent.cell_centres[places]
    crops = sensor(store, index, location)
    fine, middle, coarse = agent.observe(crops, location, agent.initial(40)).map.split(
        [5, 2, 2], dim=1
    )
    for part, window in ((fine, 6), (middle, 12), (coarse, 24)):
        for b, place in enumerate(places.tolist()):
            top, left = (2 * p + 1 - window // 2 for p in divmod(place, 16))
            seen = torch.zeros(32, 32, dtype=torch.bool)
            seen[max(0, top) : max(0, top + window), max(0, left) : max(0, left + window)] = True
            assert torch.equal(part[b, -1] > 0, seen)
    shown = fine[:, 4:].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(pixel_shuffle(fine[:, :4], 2), whole * shown)
    mean = torch.floor(avg_pool2d(whole, 2) + 0.5)  # the sensor rounds halves up
    assert torch.equal(middle[:, :1], mean * middle[:, 1:])
    for b, place in enumerate(places.tolist()):
        rows, columns = (torch.arange(32) - (2 * p + 1 - 12) for p in divmod(place, 16))
        y, x = (part[(part >= 0) & (part < 24)] // 2 for part in (rows, columns))
        pixels = coarse[b, 0][coarse[b, 1] > 0]
        assert torch.equal(pixels, crops[b, y[:, None], x, 2].flatten().float())


def test_places_outside_the_image_or_just_seen_are_not_chosen() -> None:
    agent, store, sensor = make_agent(large=True).eval(), images(3, 60), GlimpseSensor(12, 3)
    first, location = sensor.first(store, torch.arange(3))
    state = agent.observe(first, location, agent.initial(3))
    centres = agent.cell_centres * 30  # pixels from the middle: -30, -26 ... 30
    assert centres[:16, 0].tolist() == pytest.approx([4 * i - 30 for i in range(16)], abs=1e-4)
    assert not (
        agent.location_params(state) == FORBIDDEN
    ).any()  # no window lies within the first one
    at = agent.cell_centres[[119] * 3]
    state = agent.observe(sensor(store, torch.arange(3), at), at, state)
    assert torch.equal(agent.location_params(state)[0] == FORBIDDEN, torch.arange(256) == 119)
    wide = make_agent(large=True, map={"cells": 48}, locator_grid=24).eval()
    state = wide.observe(first, location, wide.initial(3))
    outside = (wide.cell_centres.abs() > 1).any(dim=1)
    assert outside.sum() == 24**2 - 16**2
    assert torch.equal(wide.location_params(state)[0] == FORBIDDEN, outside)


def test_a_pooled_reading_is_the_same_at_every_place() -> None:
    """A digit and its surroundings, moved by whole cells of the last convolution."""
    torch.manual_seed(0)
    agent = make_agent(large=True, map={"pool": "max_and_mean", "cells": 64}).eval()
    memory = torch.zeros(3, 9, 64, 64)
    for b, (y, x) in enumerate(((28, 28), (32, 28), (28, 36))):
        generator = torch.Generator().manual_seed(1)
        memory[b, :, y : y + 4, x : x + 4] = torch.randn(9, 4, 4, generator=generator)
    h = agent.core.read(memory, torch.zeros(3, 2))
    torch.testing.assert_close(h[1:], h[:1].expand(2, -1))


@pytest.mark.parametrize("pool", ["none", "max_and_mean"])
def test_a_window_is_read_as_a_map_of_its_own(pool: str) -> None:
    """What lies outside the window has no effect, and past the map's edge nothing was seen."""
    agent = make_agent(large=True, map={"pool": pool, "window": 8}).eval()
    whole = make_agent(large=True, map={"pool": pool, "cells": 8}, locator_grid=8).eval()
    whole.core.load_state_dict(agent.core.state_dict())
    memory, nowhere = torch.randn(3, 9, 32, 32), torch.zeros(3, 2)
    corners = torch.tensor([(3, 20), (-4, 0), (26, 31)])  # x, y of the windows
    padded = pad(memory, (8, 8, 8, 8))
    parts = [padded[b, :, y + 8 : y + 16, x + 8 : x + 16] for b, (x, y) in enumerate(corners)]
    h = agent.core.read(memory, (corners + 4) / 16 - 1)
    torch.testing.assert_close(h, whole.core.read(torch.stack(parts), nowhere))


def test_no_location_is_chosen_where_a_glimpse_would_show_nothing_new() -> None:
    agent, store = make_agent().eval(), images()
    path = MapUnroll(agent, GlimpseSensor(GLIMPSE))(store, torch.arange(6), 4, m=50)
    cells = CellLocations(agent.cell_centres)
    for b in range(100):  # those with 3 glimpses or 4
        chosen = [tuple(location) for location in path.sampled_locations[:3, b].tolist()]
        assert len(set(chosen)) == len(chosen)
    state = agent.observe(
        glimpse(store, torch.arange(6), torch.zeros(6, 2), GLIMPSE),
        cells.centres[[90] * 6],
        agent.initial(6),
    )
    assert torch.equal(agent.location_params(state)[0] == FORBIDDEN, torch.arange(196) == 90)


def test_a_product_of_readings_by_hand() -> None:
    """After four glimpses: each class's probability is that of the four readings, multiplied, to
    the power 1/2; what is read and taught does not change."""
    agent, plain = make_agent(answer="product").eval(), make_agent().eval()
    store, index = images(), torch.arange(6)
    state, other, product = agent.initial(6), plain.initial(6), torch.ones(6, 10)
    for t in range(1, 5):
        location = torch.rand(6, 2) - 0.5
        seen = glimpse(store, index, location, GLIMPSE)
        state, other = agent.observe(seen, location, state), plain.observe(seen, location, other)
        assert torch.equal(state.h, other.h)
        product = product * plain.logits(other).softmax(-1)
        expected = product ** (1 / math.sqrt(t))
        expected = expected / expected.sum(-1, keepdim=True)
        torch.testing.assert_close(agent.logits(state).softmax(-1), expected)
    assert not torch.allclose(agent.logits(state).softmax(-1), plain.logits(other).softmax(-1))
    paths = []
    for each in (agent, plain):
        torch.manual_seed(1)
        paths.append(MapUnroll(each, GlimpseSensor(GLIMPSE))(store, index, 4))
    assert torch.equal(paths[0].logits, paths[1].logits)


@pytest.mark.parametrize("answer", ["state", "product"])
@pytest.mark.parametrize("large", [False, True])
def test_one_agent_in_every_way_of_running(large: bool, answer: str, tmp_path: Path) -> None:
    agent, index = make_agent(large, answer=answer).eval(), torch.arange(6)
    store, sensor = images(6, 60) if large else images(), sensor_of(agent)
    torch.nn.init.normal_(agent.locator[-3].weight)  # type: ignore[index, union-attr, arg-type]
    agent.stopping = agent.learned_stop(0.5)
    scores = score(agent, sensor, store, torch.zeros(6, dtype=torch.int64))
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    loaded.stopping = FixedStop(3)
    found = classify(loaded, sensor, store, index)
    assert torch.equal(found.num_glimpses, torch.full((6,), 3))
    torch.testing.assert_close(found.probability, scores.logits[2].softmax(-1))
    torch.testing.assert_close(found.locations[:, :3], scores.locations[:3].transpose(0, 1))
    state = loaded.reset(6)
    for t in range(3):
        location = scores.locations[t]
        action, state = loaded.step(
            {"glimpse": sensor(store, index, location), "location": location}, state
        )
    assert torch.equal(action["prediction"], scores.logits[2].argmax(-1))


# -- trajectories to learn from ----------


def learned(agent: MapDTRAM) -> set[str]:
    """Modules with a gradient."""
    return {n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None}


def test_the_policy_gradient_of_a_detached_locator_stays_in_the_locator() -> None:
    agent, store = make_agent(), images()
    path = MapUnroll(agent, GlimpseSensor(GLIMPSE))(store, torch.arange(6), 4, m=2)
    path.location_log_prob[:-1].sum().backward()
    assert learned(agent) == {"locator"}


def test_the_last_glimpse_of_each_trajectory_has_a_gradient() -> None:
    agent, store = make_agent(map={"dropout": 0.0}), images()
    path = MapUnroll(agent, GlimpseSensor(GLIMPSE))(store, torch.arange(6), 4, m=2)
    assert path.supervised is not None and path.supervised.sum(0).tolist() == [1] * 12
    assert path.supervised.sum(1).tolist() == [4, 4, 2, 2]  # of 6 images with 2 each
    path.logits.sum().backward()
    assert learned(agent) == {"core", "classifier"}


@pytest.mark.parametrize("large", [False, True])
def test_a_path_is_read_as_the_agent_reads_it_in_use(large: bool) -> None:
    agent = make_agent(large, map={"dropout": 0.9})
    store, sensor = images(6, 60) if large else images(), sensor_of(agent)
    for norm in (m for m in agent.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.0  # so that the reading with gradients changes no average
    unroll, index = MapUnroll(agent, sensor), torch.arange(6)
    path = unroll(store, index, 4, m=2)
    assert agent.training and path.supervised is not None
    assert path.location_score is not None
    length = path.supervised.float().argmax(dim=0) + 1
    assert length.tolist() == [4, 4, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1]
    state, index = agent.eval().initial(12), index.repeat_interleave(2)
    with torch.no_grad():
        for t in range(4):
            seen = sensor(store, index, path.locations[t])
            state = agent.observe(seen, path.locations[t], state)
            going_on = length > t + 1
            torch.testing.assert_close(path.logits[t][going_on], agent.logits(state)[going_on])
            found = path.sampled_locations[t][:, None] == agent.cell_centres
            choice, params = found.all(dim=-1).float().argmax(dim=-1), agent.location_params(state)
            own = CellLocations(agent.cell_centres).log_prob(choice, params)
            paths = path.location_log_prob[t].detach(), path.location_score[t].detach()
            torch.testing.assert_close(paths[0][going_on], own[going_on])
            torch.testing.assert_close(paths[1][going_on], params[range(12), choice][going_on])
            if t:
                went = path.locations[t] == path.sampled_locations[t - 1]
                assert went[length > t].all()


def test_after_its_end_a_trajectory_repeats_its_last_answer() -> None:
    """So no drop in cross-entropy is paid there."""
    agent, store = make_agent(map={"dropout": 0.0}).eval(), images()
    path = MapUnroll(agent, GlimpseSensor(GLIMPSE))(store, torch.arange(6), 3)
    assert path.supervised is not None
    length = path.supervised.float().argmax(dim=0) + 1
    for b, end in enumerate(length.tolist()):
        for t in range(end, 3):
            torch.testing.assert_close(path.logits[t, b], path.logits[end - 1, b])


def test_the_loss_is_that_of_the_last_glimpses() -> None:
    """Over the orders of a batch it averages to that of all glimpses, by the shares that end."""
    agent, store = make_agent(map={"dropout": 0.0}).eval(), images()
    unroll, labels = MapUnroll(agent, GlimpseSensor(GLIMPSE)), torch.arange(6) % 3
    unroll.exploration = 0.0  # so that all paths of an image are the same
    objective = Objective(baseline="none", location_reward="drop", policy_weight=0.0)
    found = []
    for turn in range(6):
        index = (torch.arange(6) + turn) % 6
        path = unroll(store, index, 3)
        losses = hybrid_loss(path, labels[index], 1, objective, agent.scalar_baseline)
        found.append(losses.cross_entropy.item())
    logits = score(agent, GlimpseSensor(GLIMPSE), store, labels).logits
    ended = {1: 3, 2: 2, 3: 1}  # of 6
    wanted = sum(n * cross_entropy(logits[t - 1], labels) for t, n in ended.items()) / 6
    assert sum(found) / 6 == pytest.approx(float(wanted), rel=1e-4)


def test_a_scan_is_the_same_for_every_image(tmp_path: Path) -> None:
    path = ((0.5, -0.5), (-0.25, 0.25), (0.0, 0.5))
    agent, store = make_agent(scan=path, locator_grid=0, map={"dropout": 0.0}).eval(), images()
    assert not list(agent.locator.parameters())
    sensor, labels = GlimpseSensor(GLIMPSE), torch.arange(6) % 3
    agent.save(tmp_path)
    found = score(load_agent(tmp_path), sensor, store, labels)
    wanted = torch.tensor([(0.0, 0.0), *path])
    assert torch.equal(found.locations, wanted[:, None].expand(4, 6, 2))
    learned = MapUnroll(agent, sensor)(store, torch.arange(6), 4)
    assert learned.supervised is not None
    length = learned.supervised.float().argmax(dim=0)
    assert length.tolist() == [3, 3, 2, 1, 0, 0]
    at_end = found.logits[length, range(6)]
    torch.testing.assert_close(learned.logits[length, range(6)], at_end)


@pytest.mark.parametrize("has_bf16", [False, True])
@pytest.mark.parametrize("locator_grid", [0, 14])
def test_without_its_instructions_bfloat16_is_float32(
    has_bf16: bool, locator_grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device_type: has_bf16)
    scan = () if locator_grid else ((0.5, -0.5),) * 3
    agent, store, found = make_agent(scan=scan, locator_grid=locator_grid), images(), []
    for bf16 in (False, True):
        torch.manual_seed(0)
        agent.zero_grad()
        unroll = MapUnroll(agent, GlimpseSensor(GLIMPSE), bf16)
        unroll(store, torch.arange(6), 4).logits.sum().backward()
        found.append(agent.classifier.weight.grad)
    assert torch.equal(found[0], found[1]) is not has_bf16
    torch.testing.assert_close(found[0], found[1], atol=0.3, rtol=0.3)


def test_a_scan_is_jittered_about_its_locations() -> None:
    agent, store = make_agent(scan=((0.5, -0.5),) * 3, locator_grid=0).eval(), images(200)
    unroll, seen = MapUnroll(agent, GlimpseSensor(GLIMPSE)), []
    unroll.jitter = 2 / SIDE  # a pixel
    encode = agent.encode

    def watched(glimpse: torch.Tensor, location: torch.Tensor, *step: int) -> torch.Tensor:
        seen.append(location)
        return encode(glimpse, location, *step)

    agent.encode = watched  # type: ignore[method-assign]
    unroll(store, torch.arange(200), 2)
    first, second = seen[:2]
    assert not first.any() and len(second) == 100  # half of them
    assert second.mean(dim=0).tolist() == pytest.approx([0.5, -0.5], abs=0.04)
    assert second.std(dim=0).tolist() == pytest.approx([2 / SIDE] * 2, rel=0.25)


def test_a_locator_of_values_finds_the_cell_that_pays() -> None:
    """A glimpse at the one bright spot of each image tells the class, and none elsewhere does."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    pixels = torch.zeros(60, SIDE, SIDE, 1, dtype=torch.uint8)
    pixels[:, 20:24, 20:24] = (100 + 100 * labels).byte()[:, None, None, None]
    store, sensor = TensorStore(pixels, 2 * GLIMPSE), GlimpseSensor(GLIMPSE)
    agent = make_agent(pixel_std=80.0)
    unroll = MapUnroll(agent, sensor)
    objective = Objective(baseline="none", location_reward="drop", location_learning="value")
    optimizer = torch.optim.Adam(agent.parameters(), 4e-3)
    for step in range(200):
        unroll.exploration = max(0.1, 1 - step / 100)
        path = unroll(store, torch.arange(60), 2)
        optimizer.zero_grad()
        hybrid_loss(path, labels, 1, objective, agent.scalar_baseline).total.backward()
        optimizer.step()
    found = score(agent.eval(), sensor, store, labels)
    assert found.error_and_glimpses(FixedStop(2))[0] == 0
    window = (found.locations[1] + 1) * SIDE / 2 - GLIMPSE / 2  # its left and top, in pixels
    assert ((window > 20 - GLIMPSE) & (window < 24)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"locator_grid": 0}, "locator_grid=0: expected a multiple of 7"),
        ({"scan": ((0.0, 0.5),) * 3}, "locator_grid=14: expected 0 with a scan"),
        ({"scan": ((0.0, 0.5),), "locator_grid": 0}, "expected .*with a map 3 locations"),
        ({"locator_grid": 10}, "locator_grid=10"),
        ({"encoder": "mlp"}, "encoder='mlp': expected one of"),
        ({"per_step": True}, "per_step=True: expected False with a map"),
        ({"answer": "first_plus_mean"}, "expected 'state' or 'product' with a map"),
        ({"locator_input": "state"}, "expected 'detached' with a map"),
        ({"thumbnail_size": 12}, "thumbnail_size=12: expected 0"),
        ({"map": {"cells": 30}}, "cells=30: expected a multiple of 4"),
        ({"map": {"dropout": 1.0}}, "dropout=1.0"),
        ({"map": {"extent": 0.0}}, "extent=0.0"),
        ({"map": {"glimpse_cells": 3}}, "glimpse_shape=8: expected a multiple or a divisor of 3"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)
