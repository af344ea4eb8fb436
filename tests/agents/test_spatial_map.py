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
from agents.unroll import GlimpseSensor, classify, score
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.sensor_torch import glimpse

SIDE, GLIMPSE = 28, 8


def make_agent(frame: str = "image", **changes: Any) -> MapDTRAM:
    """In the gaze's frame: images of 60 pixels, glimpses of 12 in 3 scales."""
    torch.manual_seed(0)
    gaze = frame == "gaze"
    side, size, scales, grid = (60, 12, 3, 28) if gaze else (SIDE, GLIMPSE, 1, 14)
    options = MapOptions(
        **{"image_side": side, "frame": frame, "width": 4, **changes.pop("map", {})}
    )
    config = {"encoder": "pixels", "locator_grid": grid, "hidden_size": 16, "pixel_std": 1.0}
    config |= {"core": "map", "map": options}
    shape = changes.pop("glimpse_shape", (size, size, scales))
    return MapDTRAM(DTRAMConfig(10, shape, 4, **{**config, **changes}))


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
        assert torch.equal(state.map[:, 0, 1:] > 0, seen)
        assert torch.equal(state.map[:, 0, :1], torch.where(seen, whole, 0))


def test_the_last_glimpse_replaces_what_the_map_had() -> None:
    agent = make_agent().eval()
    state, centre = agent.initial(1), torch.zeros(1, 2)
    for value in (200, 3):
        pixels = torch.full((1, GLIMPSE, GLIMPSE, 1), value, dtype=torch.uint8)
        state = agent.observe(pixels, centre, state)
    assert set(state.map[:, 0, 0].unique().tolist()) == {0.0, 3.0}


def test_a_map_about_the_gaze_is_the_image_at_each_scale() -> None:
    """Each part holds all glimpses of its scale, and they lie where they were taken."""
    agent, store = make_agent("gaze").eval(), images(6, 60)
    sensor, index, state = GlimpseSensor(12, 3), torch.arange(6), agent.initial(6)
    moves = [(0, 0), (4, -4), (-4, 4), (0, 8)]  # of the gaze, in pixels from the image's middle
    for move in moves:
        location = torch.tensor([move]).expand(6, 2) / 30
        state = agent.observe(sensor(store, index, location), location, state)
    for scale in range(3):
        pixels = 2**scale
        # The image about the last gaze, in cells of this scale, as the sensor averages them.
        wanted, seen = torch.zeros(6, 28, 28), torch.zeros(28, 28, dtype=torch.bool)
        for move in moves:
            location = torch.tensor([move]).expand(6, 2) / 30
            glimpse_ = sensor(store, index, location)[..., scale].float()
            x, y = (8 + (a - b) // pixels for a, b in zip(move, moves[-1], strict=True))
            for row in range(max(0, y), min(28, y + 12)):
                for column in range(max(0, x), min(28, x + 12)):
                    wanted[:, row, column] = glimpse_[:, row - y, column - x]
                    seen[row, column] = True
        assert torch.equal(state.map[:, scale, 1] > 0, seen.expand(6, 28, 28))
        assert torch.equal(state.map[:, scale, 0], wanted)


def test_a_far_move_forgets_what_leaves_the_map() -> None:
    agent, store = make_agent("gaze").eval(), images(1, 60)
    sensor, state = GlimpseSensor(12, 3), agent.initial(1)
    for x in (-24, 24):
        location = torch.tensor([[x, 0]]) / 30
        state = agent.observe(sensor(store, torch.arange(1), location), location, state)
    # 48 pixels: out of reach at scales 0 and 1, and 12 cells at scale 2.
    assert state.map[0, :, 1].sum(dim=(1, 2)).tolist() == [144, 144, 8 * 12 + 144]


def test_moves_stay_in_the_image_and_leave_the_place_just_seen() -> None:
    agent, store = make_agent("gaze").eval(), images(1, 60)
    sensor, state = GlimpseSensor(12, 3), agent.initial(1)
    location = torch.tensor([[20.0, -28.0]]) / 30
    state = agent.observe(sensor(store, torch.arange(1), location), location, state)
    allowed = agent.locations_of(None, state.gaze)[0][state.scores[0] > FORBIDDEN] * 30
    found = {tuple(place) for place in allowed.round().long().tolist()}
    steps = range(-28, 29, 4)
    assert found == {(x, y) for x in steps for y in steps if y < 28} - {(20, -28)}


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
    assert torch.equal(state.scores[0] == FORBIDDEN, torch.arange(196) == 90)


@pytest.mark.parametrize("frame", ["image", "gaze"])
def test_one_agent_in_every_way_of_running(frame: str, tmp_path: Path) -> None:
    agent, gaze = make_agent(frame).eval(), frame == "gaze"
    store, index = images(6, 60 if gaze else SIDE), torch.arange(6)
    sensor = GlimpseSensor(12, 3) if gaze else GlimpseSensor(GLIMPSE)
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
    assert path.supervised.sum(1).tolist() == [2, 4, 2, 4]  # of 6 images with 2 each
    path.logits.sum().backward()
    assert learned(agent) == {"core", "classifier"}


@pytest.mark.parametrize("frame", ["image", "gaze"])
def test_a_path_is_read_as_the_agent_reads_it_in_use(frame: str) -> None:
    agent, gaze = make_agent(frame, map={"dropout": 0.9}), frame == "gaze"
    store, sensor = (images(6, 60), GlimpseSensor(12, 3)) if gaze else (images(), GlimpseSensor(8))
    for norm in (m for m in agent.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.0  # so that the reading with gradients changes no average
    unroll, index = MapUnroll(agent, sensor), torch.arange(6)
    path = unroll(store, index, 4, m=2)
    assert agent.training and path.supervised is not None
    assert path.location_score is not None
    length = path.supervised.float().argmax(dim=0) + 1
    assert length.tolist() == [4, 4, 4, 4, 3, 3, 2, 2, 2, 2, 1, 1]
    state, index = agent.eval().initial(12), index.repeat_interleave(2)
    with torch.no_grad():
        for t in range(4):
            seen = sensor(store, index, path.locations[t])
            state = agent.observe(seen, path.locations[t], state)
            going_on = length > t + 1
            torch.testing.assert_close(path.logits[t][going_on], agent.logits(state)[going_on])
            cells = agent.locations_of(None, path.locations[t]).expand(12, -1, 2)
            found = path.sampled_locations[t][:, None] == cells
            choice, params = found.all(dim=-1).float().argmax(dim=-1), agent.location_params(state)
            own = CellLocations(cells[0]).log_prob(choice, params)
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
        ({"locator_input": "state"}, "expected 'detached' with a map"),
        ({"glimpse_shape": (8, 8, 2)}, "glimpse_shape=2: expected 1 scale in the image's frame"),
        ({"glimpse_shape": (7, 7, 1)}, "glimpse_shape=7: expected even"),
        ({"thumbnail_size": 12}, "thumbnail_size=12: expected 0"),
        ({"map": {"cells": 30}}, "cells=30: expected a multiple of 4"),
        ({"map": {"cells": 24}}, "cells=24: expected 28 in the image's frame"),
        ({"map": {"frame": "world"}}, "frame='world'"),
        ({"map": {"dropout": 1.0}}, "dropout=1.0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)
