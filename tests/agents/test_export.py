"""Exported agents: each step gives what the agent gives, for any batch, at every glimpse."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtram_env
from agents import DTRAM, DTRAMConfig
from agents.config import FirstLookOptions
from agents.cores import MapOptions
from agents.export import AgentStep, describe, export
from agents.first_look import FirstLookDTRAM
from agents.halting.act import HaltingFirstLook, HaltingRAM
from agents.resnet import ResNetOptions
from agents.spatial_map import MapDTRAM
from agents.stopping import ConfidenceStop, LearnedStop

SIGNPOST = "DTRAM-Signpost-v0"
BASE = DTRAMConfig(
    glimpse_shape=(8, 8, 1), num_classes=4, max_glimpses=4, hidden_size=16, stopper_hidden=8
)


def agent_of(config: DTRAMConfig = BASE, kind: type[DTRAM] = DTRAM, **about: Any) -> DTRAM:
    """An agent with random weights, whose stopper decides differently from image to image."""
    torch.manual_seed(0)
    agent = kind(config)
    for parameter in agent.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.3)
    agent.about = {"env_id": SIGNPOST, "env_options": {}, **about}
    return agent.eval()


def steps_of(agent: DTRAM, batch: int) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs and results of every step of a random episode; the first may have another size."""
    generator, state, made = torch.Generator().manual_seed(1), agent.initial(batch), []
    side, _, channels = agent.config.glimpse_shape
    for step in range(agent.config.max_glimpses):
        size = agent.config.thumbnail_size if step == 0 else 0
        shape = (batch, size or side, size or side, channels)
        glimpse = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        location = torch.rand(batch, 2, generator=generator) * 2 - 1
        with torch.no_grad():
            before, state = state, agent.observe(glimpse, location, state, step)
            heads = agent.heads(state, step)
        stop = agent.stopping.stops(state.time, heads.logits, heads.stop_logit)
        results = [heads.logits.softmax(-1), heads.location, heads.stop_logit.sigmoid(), stop]
        parts = [[p for p in one if p.numel()] for one in (before, state)]
        made.append(
            (
                [part.numpy() for part in (glimpse, location, *parts[0])],
                [part.numpy() for part in (*results, *parts[1])],
            )
        )
    return made


def check_onnx(agent: DTRAM, path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(export(agent, path / "agent.onnx")))
    named = {node.name: node for node in session.get_inputs()}
    state = [name for name in named if name not in ("glimpse", "first_glimpse", "location")]
    small, channels = agent.config.thumbnail_size, agent.config.glimpse_shape[2]
    shapes = {"first_glimpse": (small, small, channels), "glimpse": agent.config.glimpse_shape}
    for batch in (5, 1):
        for step, (inputs, expected) in enumerate(steps_of(agent, batch)):
            size = "first_glimpse" if step == 0 and "first_glimpse" in named else "glimpse"
            blank = {n: np.zeros((batch, *s), np.uint8) for n, s in shapes.items() if n in named}
            order = [size, "location", *(n for n in agent.initial(1)._fields if n in state)]
            found = session.run(None, blank | dict(zip(order, inputs, strict=True)))
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype and one.shape == other.shape
                largest = max(1.0, float(np.abs(other).max()))
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * largest)
    about = json.loads(session.get_modelmeta().custom_metadata_map["dtram"])
    assert about == describe(agent)


MAP = replace(
    BASE, encoder="pixels", core="map", locator_grid=7, map=MapOptions(8 / 28, 8, width=4)
)
RESNET = replace(
    BASE, glimpse_shape=(32, 32, 3), encoder="resnet10", resnet=ResNetOptions("resnet10", width=4)
)
LOOK = replace(
    RESNET, thumbnail_size=48, first_look=FirstLookOptions(0.25, 16, width=4), locator_grid=8
)
AGENTS: dict[str, Any] = {
    "cells": (replace(BASE, locator_grid=5), DTRAM),
    "hard tanh": (replace(BASE, location_squash="hard_tanh", location_bound=0.9), DTRAM),
    "conv": (replace(BASE, encoder="conv"), DTRAM),
    "cnn": (replace(RESNET, encoder="cnn", resnet=None), DTRAM),
    "two scales": (replace(BASE, glimpse_shape=(8, 8, 2)), DTRAM),
    "evidence": (replace(BASE, stopper_evidence=True, stopper_prior="confidence"), DTRAM),
    "first plus mean": (replace(BASE, answer="first_plus_mean"), DTRAM),
    "per step": (replace(BASE, per_step=True), DTRAM),
    "per step, first of another size": (
        replace(RESNET, per_step=True, thumbnail_size=48),
        DTRAM,
    ),
    "resnet": (RESNET, DTRAM),
    "bottlenecks": (
        replace(RESNET, encoder="resnet50", resnet=ResNetOptions("resnet50", width=4)),
        DTRAM,
    ),
    "locator on the first look": (LOOK, FirstLookDTRAM),
    "ACT": (BASE, HaltingRAM),
    "ACT and a locator on the first look": (LOOK, HaltingFirstLook),
    "map": (MAP, MapDTRAM),
    "map along a scan": (
        replace(MAP, locator_grid=0, scan=((0.5, 0.0), (0.0, 0.5), (-0.5, 0.0))),
        MapDTRAM,
    ),
    "window of a pooled map": (
        replace(
            MAP,
            answer="product",
            map=MapOptions(8 / 28, 8, window=12, width=4, pool="max_and_mean"),
        ),
        MapDTRAM,
    ),
}


def test_an_agent_of_the_papers_network(tmp_path: Path) -> None:
    agent = agent_of()
    agent.stopping = LearnedStop(0.6)
    assert len({tuple(r[3].tolist()) for _, r in steps_of(agent, 9)}) > 1
    check_onnx(agent, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_stop_always_or_never(threshold: float, tmp_path: Path) -> None:
    agent = agent_of()
    agent.stopping = LearnedStop(threshold)
    check_onnx(agent, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_kind(name: str, tmp_path: Path) -> None:
    config, kind = AGENTS[name]
    check_onnx(agent_of(config, kind), tmp_path)


@pytest.mark.parametrize("rule", [LearnedStop(0.6), ConfidenceStop(0.4)])
def test_the_graph_has_the_agents_own_rule(rule: Any) -> None:
    agent = agent_of()
    agent.stopping = rule
    step, stops = AgentStep(agent), []
    for inputs, expected in steps_of(agent, 50):
        found = step(*map(torch.as_tensor, inputs))
        assert np.array_equal(found[3].numpy(), expected[3])
        stops.append(expected[3])
    assert 0 < np.mean(stops) < 1


def test_the_description() -> None:
    sensor = {"glimpse_size": 8, "num_scales": 1, "first_glimpse": "choose"}
    agent = agent_of(sensor=sensor)
    about = describe(agent)
    first = agent.locate(agent.initial(1))[0]
    assert about["first_location"] == pytest.approx(first.tolist())
    assert about["state"] == {
        "h": {"shape": [16], "type": "float32"},
        "time": {"shape": [], "type": "int64"},
    }
    assert about["class_names"] == ["0", "1", "2", "3"] and about["max_glimpses"] == 4
    assert not about["begin_together"] and about["first_size"] is None
    assert describe(agent_of(replace(BASE, per_step=True)))["begin_together"]
    assert json.loads(json.dumps(about)) == about


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells", "cnn", "resnet", "map"])
def test_torchs_program(name: str, tmp_path: Path) -> None:
    agent, files = agent_of(*AGENTS[name]), {"dtram": ""}
    path = export(agent, tmp_path / "agent.pt2", "torch")
    program = torch.export.load(path, extra_files=files).module()
    for inputs, expected in [*steps_of(agent, 5), *steps_of(agent, 1)]:
        found = program(*map(torch.as_tensor, inputs))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.detach().numpy(), other, rtol=1e-4, atol=1e-5)
    assert json.loads(files["dtram"]) == describe(agent)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format='tflite': expected onnx or torch"):
        export(agent_of(), tmp_path / "agent", "tflite")
    with pytest.raises(ValueError, match=r"one network for all glimpses.*--format onnx"):
        export(agent_of(replace(BASE, per_step=True)), tmp_path / "agent.pt2", "torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("first", ["center", "choose"])
def test_the_runner_plays_as_the_agent(first: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from examples.onnx_runner import OnnxPolicy

    agent = agent_of(sensor={"first_glimpse": first}, env_options={"first_glimpse": first})
    policy = OnnxPolicy(export(agent, tmp_path / "agent.onnx"))
    ours = dtram_env.evaluate(agent, SIGNPOST, first_glimpse=first)
    theirs = dtram_env.evaluate(policy, SIGNPOST, **policy.about["env_options"])
    assert (ours.prediction == theirs.prediction).mean() > 0.999
    assert (ours.num_glimpses == theirs.num_glimpses).mean() > 0.999
    assert len(set(ours.num_glimpses.tolist())) > 1
