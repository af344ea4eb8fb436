"""The map: what lies where, what the locator may choose, and one agent in every way of running."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from agents.config import DTRAMConfig
from agents.cores import MapOptions
from agents.loading import load_agent
from agents.location_policy import FORBIDDEN, CellLocations
from agents.objective import Objective, hybrid_loss
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, Unroll, classify, score
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.sensor_torch import glimpse

SIDE, GLIMPSE = 28, 8


def make_agent(**changes: Any) -> MapDTRAM:
    torch.manual_seed(0)
    options = MapOptions(
        **{"extent": GLIMPSE / SIDE, "glimpse_cells": GLIMPSE, "width": 4, **changes.pop("map", {})}
    )
    config = {"encoder": "pixels", "locator_grid": 14, "hidden_size": 16, "pixel_std": 1.0}
    size = changes.pop("glimpse", GLIMPSE)
    shape = size, size, changes.pop("channels", 1)
    return MapDTRAM(DTRAMConfig(10, shape, 4, core="map", map=options, **{**config, **changes}))


def images(count: int = 6, side: int = SIDE) -> TensorStore:
    pixels = torch.randint(1, 256, (count, side, side, 1), dtype=torch.uint8)
    return TensorStore(pixels, 2 * GLIMPSE)


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


def test_scales_and_a_thumbnail_have_parts_of_their_own() -> None:
    options = {"num_scales": 2, "cells": 16, "extent": 0.25, "glimpse_cells": 4}
    agent = make_agent(map=options, channels=2, thumbnail_size=32, locator_grid=8)
    centre = torch.zeros(1, 2)
    thumbnail = agent.encode(torch.ones(1, 32, 32, 1, dtype=torch.uint8), centre)
    crop = agent.encode(torch.ones(1, GLIMPSE, GLIMPSE, 2, dtype=torch.uint8), centre)
    # 2 x 2 pixels a cell, one pixel a cell, and 2 x 2 of the thumbnail, each with its mask
    levels = [part.split([5, 2, 5], dim=1) for part in (thumbnail, crop)]
    seen = [[level[0, -1].sum().item() for level in part] for part in levels]
    assert seen == [[0, 0, 256], [16, 64, 0]]


def test_a_cell_of_a_larger_map_holds_the_pixels_of_its_place() -> None:
    """Cells of 4 x 4 pixels in a map of 112, in whose middle lies an image of 60."""
    side, size = 60, 12
    options = {"extent": size / side, "glimpse_cells": 3}
    agent = make_agent(map=options, glimpse=size, locator_grid=28).eval()
    store = images(5, side)
    places = torch.tensor([0, 7, 14, 20, 27])  # along each axis; 7 ... 20 lie inside the image
    location = agent.cell_centres[places * 28 + places]
    inside = (location.abs() <= 1).all(dim=1)
    assert inside.tolist() == [False, True, True, True, False]
    placed = agent.encode(glimpse(store, torch.arange(5), location, size), location)
    pixels = torch.nn.functional.pixel_shuffle(placed[:, :16], 4)[:, 0]
    whole = torch.zeros(5, 112, 112)
    whole[:, 26:86, 26:86] = store.images[..., 0].float()
    for b in (1, 2, 3):
        first = 4 * (int(places[b]) - 1)
        window = slice(first, first + size)
        assert torch.equal(pixels[b, window, window], whole[b, window, window])
        assert pixels[b].count_nonzero() == whole[b, window, window].count_nonzero()
    state = agent.observe(
        glimpse(store, torch.arange(5), 0 * location, size), 0 * location, agent.initial(5)
    )
    seen = torch.arange(28 * 28) == 14 * 28 + 14
    outside = (agent.cell_centres.abs() > 1).any(dim=1)
    assert torch.equal(state.scores[0] == FORBIDDEN, outside | seen)


def test_no_location_is_chosen_where_a_glimpse_would_show_nothing_new() -> None:
    agent, store = make_agent().eval(), images()
    path = Unroll(agent, GlimpseSensor(GLIMPSE), 0.1)(store, torch.arange(6), 4, m=50)
    cells = CellLocations(agent.cell_centres)
    for b in range(300):
        chosen = [tuple(location) for location in path.sampled_locations[:, b].tolist()]
        assert len(set(chosen)) == len(chosen)
    state = agent.observe(
        glimpse(store, torch.arange(6), torch.zeros(6, 2), GLIMPSE),
        cells.centres[[90] * 6],
        agent.initial(6),
    )
    assert torch.equal(state.scores[0] == FORBIDDEN, torch.arange(196) == 90)


@pytest.mark.parametrize("encoder", ["pixels", "cnn"])
def test_one_agent_in_every_way_of_running(encoder: str, tmp_path: Path) -> None:
    agent, store = make_agent(encoder=encoder).eval(), images()
    sensor, index = GlimpseSensor(GLIMPSE), torch.arange(6)
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
        shown = {"glimpse": glimpse(store, index, location, GLIMPSE), "location": location}
        action, state = loaded.step(shown, state)
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


@pytest.mark.parametrize("encoder", ["pixels", "cnn"])
def test_one_glimpse_of_each_trajectory_has_a_gradient(encoder: str) -> None:
    agent, store = make_agent(encoder=encoder, map={"dropout": 0.0}), images()
    path = MapUnroll(agent, GlimpseSensor(GLIMPSE))(store, torch.arange(6), 4, m=2)
    assert path.supervised is not None and path.supervised.sum(0).tolist() == [1] * 12
    assert path.supervised.sum(1).tolist() == [2, 4, 2, 4]  # of 6 images with 2 each
    path.logits.sum().backward()
    trained = {"core", "classifier"} | ({"encoder"} if encoder == "cnn" else set())
    assert learned(agent) == trained


def test_a_path_is_read_as_the_agent_reads_it_in_use() -> None:
    agent, store = make_agent(map={"dropout": 0.9}), images()
    for norm in (m for m in agent.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.0  # so that the reading with gradients changes no average
    unroll, index = MapUnroll(agent, GlimpseSensor(GLIMPSE)), torch.arange(6)
    path = unroll(store, index, 4, m=2)
    assert agent.training and path.supervised is not None
    length = path.supervised.float().argmax(dim=0) + 1
    assert length.tolist() == [4, 4, 4, 4, 3, 3, 2, 2, 2, 2, 1, 1]
    state, index = agent.eval().initial(12), index.repeat_interleave(2)
    centres = agent.cell_centres
    with torch.no_grad():
        for t in range(4):
            seen = glimpse(store, index, path.locations[t], GLIMPSE)
            state = agent.observe(seen, path.locations[t], state)
            before_end = length > t + 1
            torch.testing.assert_close(path.logits[t][before_end], agent.logits(state)[before_end])
            found = path.sampled_locations[t][:, None] == centres
            choice = found.all(dim=-1).float().argmax(dim=-1)
            params = agent.location_params(state)
            own = CellLocations(centres).log_prob(choice, params), params[range(12), choice]
            for mine, theirs in zip(
                own, (path.location_log_prob, path.location_score), strict=True
            ):
                torch.testing.assert_close(theirs[t].detach()[before_end], mine[before_end])
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


def test_the_loss_of_the_last_glimpses_has_the_mean_of_all() -> None:
    """Over the orders of a batch, T times their cross-entropy averages to the sum."""
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
    logits = score(agent, GlimpseSensor(GLIMPSE), store, labels).logits[:3]
    whole = cross_entropy(logits.flatten(0, 1), labels.repeat(3)) * 3
    assert sum(found) / 6 == pytest.approx(whole.item(), rel=1e-4)


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
    assert length.tolist() == [3, 3, 2, 1, 1, 0]
    at_end = found.logits[length, range(6)]
    torch.testing.assert_close(learned.logits[length, range(6)], at_end)


def test_a_scan_is_jittered_about_its_locations() -> None:
    agent, store = make_agent(scan=((0.5, -0.5),), locator_grid=0).eval(), images(200)
    unroll, seen = MapUnroll(agent, GlimpseSensor(GLIMPSE)), []
    unroll.jitter = 2 / SIDE  # a pixel
    encode = agent.encode

    def watched(glimpse: torch.Tensor, location: torch.Tensor, *step: int) -> torch.Tensor:
        seen.append(location)
        return encode(glimpse, location, *step)

    agent.encode = watched  # type: ignore[method-assign]
    unroll(store, torch.arange(200), 2)
    first, second = seen[:2]
    assert not first.any() and len(second) == 100
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
    optimizer = torch.optim.Adam(agent.parameters(), 1e-2)
    for _ in range(150):
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
        ({"scan": ((0.0, 0.5),)}, "locator_grid=14: expected .* or 0 with a scan"),
        ({"locator_grid": 10}, "locator_grid=10"),
        ({"encoder": "mlp"}, "encoder='mlp': expected one of"),
        ({"per_step": True}, "per_step=True: expected False with a map"),
        ({"answer": "first_plus_mean"}, "expected 'state' with a map"),
        ({"map": {"num_scales": 2}}, "num_scales=2: expected a divisor of 1"),
        ({"map": {"cells": 30}}, "cells=30: expected a multiple of 4"),
        ({"map": {"extent": 0.0}}, "extent=0.0"),
        ({"map": {"glimpse_cells": 3}}, "glimpse=8: expected 3 pixels a side times or divided"),
        ({"locator_input": "state"}, "expected 'detached' with a map"),
        ({"map": {"dropout": 1.0}}, "dropout=1.0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)
