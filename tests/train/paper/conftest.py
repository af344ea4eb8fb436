"""Runs of the paper's systems that take a second, in this process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from train import reproduce
from train.dtram.options import ACT, StopAfter, StopOff
from train.paper import curves, systems, tables
from train.paper.systems import MNIST, ONE_LOOK, PROTOCOLS, REINFORCE, System

QUICK: dict[str, Any] = {"epochs": 1, "learning_rate": 5e-3, "device": "cpu"}
TRUNK = {**QUICK, "stop": StopOff(), "curriculum": (2, 4), "batch_size": 180, "env_steps": 20_000}
STOP = {"stop": StopAfter(max_mean_glimpses=3.6, epochs=1, batch_size=900), "device": "cpu"}

SMALL = replace(
    MNIST,
    env_id="DTRAM-Signpost-v0",
    max_glimpses=4,
    systems={
        "fc": System(ONE_LOOK, options=QUICK),
        "ram": System(REINFORCE, options=TRUNK),
        "dtram-1": System(REINFORCE, options={**STOP, "discount": 0.98}, trunk="ram"),
        "act-0.01": System(
            REINFORCE,
            options={"stop": ACT(epochs=1, batch_size=900), "device": "cpu"},
            trunk="ram",
        ),
    },
)
"""MNIST's protocol with few systems, which learn for a moment on drawn glyphs."""


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> None:
    """`SMALL` in place of MNIST, with two seeds of RAM and of DT-RAM-1."""

    def small_table(make: Callable[..., tables.Table]) -> Callable[..., tables.Table]:
        def small(*args: Any) -> tables.Table:
            made = make(*args)
            lines = (line for line in made.lines if line.system in ("", *SMALL.systems))
            return made._replace(lines=tuple(lines))

        return small

    monkeypatch.setattr(reproduce, "SEVERAL_SEEDS", ("ram", "dtram-1"))
    monkeypatch.setattr(curves, "TABLES", ("table2",))
    monkeypatch.setattr(systems, "MNIST", SMALL)
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "mnist": SMALL})
    monkeypatch.setattr(tables, "table", small_table(tables.table))
