"""The comparison on small drawn birds: what it runs, and how it reads glimpses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro

import dtram_env
from agents.cost import mean_flops
from agents.dtram import DTRAM
from agents.one_look import one_look_flops
from agents.stopping import FixedStop, LearnedStop
from agents.unroll import score
from benchmarks import birds_small
from benchmarks.birds_small import (
    Options,
    by_telling_parts,
    compare,
    in_words,
    main,
    paired_difference,
    runs,
)
from train import one_look, reinforce
from train.common.statistics import Answered
from train.common.training_task import Task
from train.paper.systems import BIRDS

ENV: dict[str, Any] = {"num_train": 100, "num_test": 24}


# -- what is run ----------------------------------------------------------------------------------


def test_commands_are_options_of_their_programs() -> None:
    made = runs(Options(runs=Path("r"), seed=3, num_train=600))
    words = {name: run.words()[1:] for name, run in made.items()}
    assert list(words) == ["ram", "dtram", "one-look-like", "one-look-full"]
    programs = [reinforce.Options, reinforce.Options, one_look.Options, one_look.Options]
    parsed: dict[str, Any] = {
        name: tyro.cli(kind, args=rest)
        for kind, (name, (_, *rest)) in zip(programs, words.items(), strict=True)
    }
    for run in parsed.values():
        assert (run.env_id, run.augment, run.flip) == ("DTRAM-BirdsSmall-v0", 0.0, True)
        assert (run.seed, run.num_train, run.num_test, run.resume) == (3, 600, None, True)
    ram, dtram, small, full = parsed.values()
    assert (ram.curriculum, ram.stop, dtram.stop) == ((2, 3), "off", "after")
    assert dtram.trunk == ram.run_dir == Path("r/birds-small/ram/seed-3")
    assert small.like == full.like == dtram.run_dir
    assert (small.side, full.side) == (None, 0)
    assert len({run.run_dir for run in parsed.values()}) == 4


def test_a_try_writes_beside_its_runs() -> None:
    assert Options().out.name == "birds_small.json"
    assert Options(runs=Path("r"), epochs=1).out == Path("r/results.json")
    assert Options(epochs=1).folder != Options().folder == Path("runs/reproduce")
    assert Options(epochs=1, json=Path("x.json")).out == Path("x.json")


def test_a_run_that_failed_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = replace(BIRDS.systems["ram"], options={"m": 1})
    monkeypatch.setattr(
        birds_small, "BIRDS", replace(BIRDS, systems={**BIRDS.systems, "ram": trunk})
    )
    with pytest.raises(ValueError, match=r"ram/seed-0: failed: .*--m 1: expected at least 2"):
        main(Options(runs=tmp_path, epochs=1, num_train=100, num_test=24))


# -- closed forms ---------------------------------------------------------------------------------


def test_paired_difference_by_hand() -> None:
    ours = np.array([True, True, True, False])
    theirs = np.array([False, True, True, False])
    found = paired_difference(ours, theirs)  # each: 100, 0, 0, 0
    # Of four images drawn anew, none to three show the difference: p = 0.32, 0.42, 0.21, 0.05.
    assert found == {"points": 25.0, "low": 0.0, "high": 75.0}


def test_by_telling_parts_by_hand() -> None:
    discriminative = np.array([[False, False], [True, False], [False, True], [True, True]])
    dtram = Answered(np.array([True, True, False, True]), np.array([1, 2, 3, 3]))
    found = by_telling_parts(discriminative, dtram, np.array([True, False, False, False]))
    assert [row["images"] for row in found.values()] == [1, 2, 1]
    assert [row["mean_glimpses"] for row in found.values()] == [1.0, 2.5, 3.0]
    assert [row["test_accuracy"] for row in found.values()] == [100.0, 50.0, 100.0]
    assert [row["one_look_test_accuracy"] for row in found.values()] == [100.0, 0.0, 0.0]


# -- the whole -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, dict[str, Any]]:
    """Three runs of networks that never learned, and what is read off them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("birds")
    options = Options(runs=folder, epochs=1, data_dir=folder / "data", **ENV)
    task = Task("DTRAM-BirdsSmall-v0", torch.device("cpu"), **ENV, data_dir=str(folder / "data"))
    torch.manual_seed(0)
    agent = task.new_agent(encoder="cnn", hidden_size=16).eval()
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    test = task.images("test")
    stops = score(agent, task.sensor, test.store, test.labels).stop_logit[:-1].sigmoid()
    agent.stopping = LearnedStop(float(stops.median()))  # so that some stop, and some go on
    folders = {name: run.folder for name, run in runs(options).items()}
    agent.save(folders["dtram"], **task.about)
    about = {
        "env_id": task.env_id,
        "env_options": task.env_options,
        "dataset": task.dataset,
        "images": ENV["num_test"],
        "mean_flops": mean_flops(agent, 2.0),
        **{key: {} for key in ("command", "commit", "date", "versions", "options")},
        "hardware": {"device": "cpu"},
    }
    write(folders["ram"], {**about, "train_seconds": 1100.0})
    write(folders["dtram"], {**about, "train_seconds": 101.0})
    for name, side in (("one-look-like", None), ("one-look-full", 0)):
        given = one_look.Options(like=folders["dtram"], side=side, device="cpu")
        network, _ = one_look.new_network(given, task)
        network.save(folders[name], **task.about)
        results = one_look.report(folders[name], task, network, about_text())
        write(folders[name], {**results, **about, "train_seconds": 1000.0})
        assert results["flops"] == one_look_flops(network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(birds_small, "REPEATS", 1)
        return options, compare(options)


def about_text() -> dict[str, Any]:
    """What the text of a one-look's results asks for."""
    hardware = {"device": "cpu", "processor": "none", "cpu_threads": 1}
    return {"train_seconds": 0.0, "hardware": hardware}


def write(folder: Path, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))


def test_rows_are_what_the_environment_says(made: tuple[Options, dict[str, Any]]) -> None:
    options, result = made
    agent = DTRAM.load(runs(options)["dtram"].folder)
    data = {"data_dir": str(options.data_dir), **ENV}
    own = agent.stopping
    for name, rule in (("DT-RAM, learned stop", own), ("RAM, 2 glimpses", FixedStop(2))):
        agent.stopping = rule
        found = dtram_env.evaluate(agent, "DTRAM-BirdsSmall-v0", split="test", **data)
        row = result["rows"][name]
        assert row["test_accuracy"] == pytest.approx(100 * (1 - found.error), abs=1e-3)
        assert row["mean_glimpses"] == pytest.approx(found.mean_glimpses, abs=1e-3)
        assert row["flops"] == round(mean_flops(agent, found.mean_glimpses))


def test_figures_are_json_and_words(made: tuple[Options, dict[str, Any]]) -> None:
    _, result = made
    assert json.loads(json.dumps(result)) == result
    rows, text = result["rows"], in_words(result)
    assert sum(row["images"] for row in result["by_telling_parts"].values()) == 24
    for name in rows:
        assert name in text
    ours = rows["DT-RAM, learned stop"]["test_accuracy"]
    theirs = rows[next(name for name in rows if name.startswith("one look"))]["test_accuracy"]
    difference = result["over_one_look_of_the_same_compute"]["points"]
    assert difference == pytest.approx(ours - theirs)
    *_, minutes = result["claims"].values()
    assert minutes is False  # 1,201 seconds of trunk and stopper
    assert rows["RAM, 2 glimpses"]["train_seconds"] == 1100.0
    touched = result["touches"]
    assert touched["ratio"] == pytest.approx(touched["of_dtram"] / touched["of_random"], abs=0.02)
    # Whole crops hold more than those that hang over the edge.
    assert touched["of_random"] < touched["of_random_within"] < 2 * touched["of_random"]


@pytest.mark.slow
def test_the_command_from_nothing_to_the_table(tmp_path: Path, run_python: Any) -> None:
    words = ["--runs", tmp_path / "runs", "--data-dir", tmp_path / "data", "--epochs", 1]
    words += ["--num-train", 400, "--num-test", 40]
    first = run_python("benchmarks/birds_small.py", *map(str, words))
    assert "one look at 128x128" in first
    again = run_python("benchmarks/birds_small.py", *map(str, words))
    assert (first.count(": done in"), again.count(": done in")) == (4, 0)  # it is read
    assert (tmp_path / "runs" / "results.json").exists()
