"""The ladder from the talk's algorithm to ours: one change a rung, and its figures by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.objective import Objective
from train import reproduce
from train.common.files import read_json
from train.common.records import pack_bits, read_records
from train.paper import ladder, systems
from train.paper.systems import LADDER, PROTOCOLS, REINFORCE, RUNGS, System
from train.reinforce import Options


def options_of(name: str) -> Options:
    """The options of a rung's run, defaults included; of both runs if it has a trunk."""
    system = LADDER.systems[name]
    options = {**system.values, **system.options}
    if system.trunk:
        trunk = LADDER.systems[system.trunk]
        options = {**trunk.values, **trunk.options, **options}
    return Options(**options)


def test_each_rung_trains_otherwise_and_keeps_the_rest() -> None:
    """By the options of the program, and by the loss that they make."""
    names = [rung.name for rung in RUNGS if rung.recipe == "talk"]
    losses = {name: options_of(name).objective(0.98) for name in names}
    assert losses["talk"] == Objective(
        stop="learned",
        stop_gradient="reinforce",
        supervision="taken",
        baseline="value",
        location_reward="return",
    )
    before, *rungs = (rung for rung in RUNGS if rung.recipe == "talk")
    for rung in rungs:
        old, new = vars(options_of(before.name)), vars(options_of(rung.name))
        assert {key for key in old if old[key] != new[key]} == rung.options.keys(), rung.name
        before = rung if rung.kept else before
    assert losses["after"].location_reward == "return"
    assert losses["probability"].location_reward == "mean_prob"
    epochs = {options_of(name).epochs for name in (*names, "map")}
    assert epochs == {systems.LADDER_EPOCHS}


def test_rungs_that_only_learn_to_stop_share_a_trunk() -> None:
    shared = [rung.name for rung in RUNGS if rung.on_trunk]
    assert shared == ["after", "exact", "answer", "prior"]
    for name in shared:
        assert LADDER.needed(name) == ["trunk", name]
        # All that a stopper's training reads beside the trunk.
        both = [System(REINFORCE, "", LADDER.systems[name].options), LADDER.systems["trunk"]]
        for option in ("env", "augment", "baseline", "m"):
            assert both[0].option(option) == both[1].option(option), option
        words = " ".join(LADDER.run(Path("r"), name, 0).words())
        assert (
            "--m 4 --baseline leave_one_out" in words or "--baseline leave_one_out --m 4" in words
        )
    assert "trunk" not in {rung.name for rung in RUNGS}


def record(rung: str, seed: int, wrong: list[int], glimpses: float = 3.0) -> dict[str, Any]:
    """A run that got images `wrong` of 8, in every column."""
    mask = np.isin(np.arange(8), wrong)
    column = {
        "error": 100 * mask.mean(),
        "mean_glimpses": glimpses,
        "wrong": pack_bits(mask),
    }
    names = ("4", "7", "<= 2.4", "<= 3.6")
    about = {"protocol": "ladder", "system": rung, "seed": seed, "images": 8}
    columns = dict.fromkeys(names, column)
    return about | {
        "columns": columns,
        "train_seconds": 60.0,
        "trunk_seconds": 0.0,
        "collapsed": [],
    }


def test_rows_by_hand() -> None:
    records = [
        record("talk", 0, [0, 1, 2]) | {"collapsed": ["it never stops"]},
        record("talk", 1, [0]),
        record("ram-first", 0, [0, 1], glimpses=2.0),
        record("ram-first", 1, [0, 1, 2], glimpses=2.5),
        record("exact", 0, []),
    ]
    talk, every, exact = ladder.rows(records)
    assert talk["columns"]["7"] == {
        "error": 25.0,
        "spread": pytest.approx(12.5 * 2**0.5, abs=1e-4),
        "mean_glimpses": 3.0,
    }
    assert talk["collapsed"] == ["1 of 2: it never stops"]
    assert exact["seeds"] == 1
    for column in ("<= 2.4", "<= 3.6"):
        assert "difference" not in talk["columns"][column]
        # Seed 0 has one error fewer of 8, seed 1 two more.
        found = every["columns"][column]
        assert found["difference"] == pytest.approx((-12.5 + 25) / 2)
        assert found["low"] < found["difference"] < found["high"]
        assert found["mean_glimpses"] == 2.25
        assert "difference" not in exact["columns"][column]  # the rung before has no run
    text = ladder.markdown([talk, every, exact], "python train/reproduce.py ladder")
    assert "| the talk's algorithm, locations of std 0.2 |" in text and "it never stops" in text
    assert "+6.25 (" in text


def test_the_ladder_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    quick = {"env_steps": 6_000, "batch_size": 60, "device": "cpu", "epochs": 1}
    talk, trunk = (
        System(REINFORCE, "talk", {**LADDER.systems[name].options, **quick})
        for name in ("talk", "trunk")
    )
    made = LADDER.systems["after"]
    stop = replace(made.options["stop"], epochs=1, batch_size=900)
    after = replace(made, options={**made.options, "stop": stop, "device": "cpu"})
    of_test = {"talk": talk, "trunk": trunk, "after": after}
    small = replace(LADDER, env_id="DTRAM-Signpost-v0", max_glimpses=4, systems=of_test)
    for module in (systems, ladder):
        monkeypatch.setattr(module, "LADDER", small)
        monkeypatch.setattr(module, "RUNGS", [r for r in RUNGS if r.name in of_test])
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "ladder": small})
    options = reproduce.Options(what=("ladder",), runs=tmp_path / "runs", seeds=1, device="cpu")
    (path,) = reproduce.reproduce(options)
    assert path.name == "ladder.md"
    rows = read_json(path.with_suffix(".json"))["rows"]
    assert [row["rung"] for row in rows] == ["talk", "after"]
    assert rows[1]["columns"]["<= 3.6"]["low"] <= rows[1]["columns"]["<= 3.6"]["high"]
    records = read_records(path.with_suffix(".jsonl"))
    for one in records:
        results = read_json(small.folder(options.runs, one["system"], 0) / "results.json")
        assert one["columns"]["4"]["error"] == pytest.approx(results["fixed"]["4"]["test_error"])
        assert one["train_seconds"] == results["train_seconds"]
        assert (one["trunk_seconds"] > 0) == (one["system"] == "after")
        assert one["images"] == 2000 and one["command"] == results["command"]
    again = reproduce.reproduce(
        replace(options, read_only=True, runs=tmp_path / "none", out=path.parent)
    )
    assert read_json(again[0].with_suffix(".json"))["rows"] == rows
