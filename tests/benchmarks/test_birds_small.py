"""The comparison on small drawn birds: its runs, its figures, and crops that touch parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtram_env
from agents.cost import mean_flops
from agents.dtram import DTRAM
from agents.one_look import one_look_flops
from agents.stopping import FixedStop, LearnedStop
from agents.unroll import score
from benchmarks import birds_small
from benchmarks.birds_small import (
    Options,
    by_discriminative_parts,
    compare,
    in_words,
    main,
    paired_difference,
    random_touches,
    runs,
    touches,
)
from dtram_env import sensor
from train import one_look, reinforce
from train.common.evaluate_one_look import report
from train.common.one_look import NoHalting, check_like, new_network
from train.common.options import PlainEncoder, command_line
from train.common.statistics import Outcome
from train.common.training_task import TrainingTask
from train.paper.systems import BIRDS, RECIPES

ENV: dict[str, Any] = {"num_train": 100, "num_test": 24}


# -- what is run ----------------------------------------------------------------------------------


def test_commands_are_options_of_their_programs() -> None:
    made = runs(Options(runs=Path("r"), seed=3, num_train=600))
    assert list(made) == ["ram", "dtram", "one-look-like", "one-look-full"]
    kinds = {"reinforce.py": reinforce.Options, "one_look.py": one_look.Options}
    parsed: dict[str, Any] = {
        name: command_line(kinds[run.program], None, RECIPES[run.program], run.words()[2:])
        for name, run in made.items()
    }
    for run in parsed.values():
        assert (run.env_id, run.augment.flip) == ("DTRAM-BirdsSmall-v0", True)
        assert (run.seed, run.env, run.resume) == (3, ("num_train=600",), True)
    ram, dtram, small, full = parsed.values()
    assert (ram.curriculum, ram.stop.name, dtram.stop.name) == ((2, 3), "off", "after")
    assert dtram.trunk == ram.run_dir == Path("r/birds-small/ram/seed-3")
    assert small.like == full.like == dtram.run_dir
    assert (small.side, full.side) == (None, 0)
    assert len({run.run_dir for run in parsed.values()}) == 4


def test_a_small_trial_writes_beside_its_runs() -> None:
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


def test_by_discriminative_parts_by_hand() -> None:
    discriminative = np.array([[False, False], [True, False], [False, True], [True, True]])
    dtram = Outcome(np.array([True, True, False, True]), np.array([1, 2, 3, 3]))
    found = by_discriminative_parts(discriminative, dtram, np.array([True, False, False, False]))
    assert [row["images"] for row in found.values()] == [1, 2, 1]
    assert [row["mean_glimpses"] for row in found.values()] == [1.0, 2.5, 3.0]
    assert [row["test_accuracy"] for row in found.values()] == [100.0, 50.0, 100.0]
    assert [row["one_look_test_accuracy"] for row in found.values()] == [100.0, 0.0, 0.0]


# -- discriminative parts --------------------------------------------------------------------------

# One image with two parts: centres (20, 10) and (100.5, 90); the first one tells.
BOXES = np.array([[[16, 8, 8, 4], [98, 88, 5, 4]]])
FIRST, BOTH = np.array([[True, False]]), np.array([[True, True]])


@pytest.mark.parametrize(
    ("left", "top", "discriminative", "held"),
    [
        (20, 10, FIRST, True),  # the crop's first pixel
        (20 - 31, 10 - 31, FIRST, True),  # its last
        (20 - 32, 10, FIRST, False),
        (20, 10 - 32, FIRST, False),
        (21, 10, FIRST, False),
        (90, 80, FIRST, False),  # it holds the other part
        (90, 80, BOTH, True),
        (90, 80, np.array([[False, False]]), False),
    ],
)
def test_touches_by_hand(left: int, top: int, discriminative: np.ndarray, held: bool) -> None:
    corner = np.array([[left]]), np.array([[top]])
    assert touches(BOXES, discriminative, *corner, 32).tolist() == [[held]]


def test_random_touches_in_closed_form() -> None:
    """Far from the edges a point is held from 32 of 128 locations along each axis."""
    boxes = np.array([[[60, 62, 8, 4], [0, 0, 0, 0]]])
    found = random_touches(boxes, FIRST, (128, 128), 32)
    assert found == pytest.approx([(32 / 128) ** 2])
    # Crops that lie within the image begin at 0 ... 96, the first and the last half as often.
    within = random_touches(boxes, FIRST, (128, 128), 32, reach=1 - 32 / 128)
    assert within == pytest.approx([(32 / 96) ** 2])
    # At an edge, only half of the places outside would hold it.
    corner = np.array([[[0, 0, 0, 0], [0, 0, 0, 0]]])
    assert random_touches(corner, FIRST, (128, 128), 32)[0] == pytest.approx((16.5 / 128) ** 2)


@pytest.mark.parametrize("reach", [1.0, 0.75])
def test_random_touches_are_those_of_the_sensor(reach: float) -> None:
    generator = np.random.default_rng(0)
    place = generator.uniform(-reach, reach, (200_000, 2))
    left, top = (sensor.corner(place[:, k], 128, 32)[None] for k in (0, 1))
    share = touches(BOXES, BOTH, left, top, 32).mean()
    exact = random_touches(BOXES, BOTH, (128, 128), 32, reach)[0]
    assert share == pytest.approx(exact, abs=4 * (exact / 200_000) ** 0.5)


# -- the whole -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, dict[str, Any]]:
    """Runs of networks that never learned, and their comparison."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("birds")
    options = Options(runs=folder, epochs=1, data_dir=folder / "data", **ENV)
    task = TrainingTask(
        "DTRAM-BirdsSmall-v0", torch.device("cpu"), **ENV, data_dir=str(folder / "data")
    )
    torch.manual_seed(0)
    agent = task.new_agent(encoder="cnn", hidden_size=16).eval()
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    test = task.images("test")
    stops = score(agent, task.sensor, test.store, test.labels).stop_logit[:-1].sigmoid()
    agent.stopping = LearnedStop(float(stops.median()))  # so that some stop, and some go on
    folders = {name: run.folder for name, run in runs(options).items()}
    agent.save(folders["dtram"], **task.metadata)
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
        network, _ = new_network(
            task,
            PlainEncoder(),
            NoHalting(),
            side=side,
            flops=None,
            like=check_like(folders["dtram"], task, PlainEncoder()),
            bf16=False,
            seed=0,
        )
        network.save(folders[name], **task.metadata)
        results = report(folders[name], task, network, "cnn", about_text())
        write(folders[name], {**results, **about, "train_seconds": 1000.0})
        assert results["flops"] == one_look_flops(network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(birds_small, "REPEATS", 1)
        return options, compare(options)


def about_text() -> dict[str, Any]:
    """Further values of a one-look network's results, which its text names."""
    hardware = {"device": "cpu", "processor": "none", "cpu_threads": 1}
    return {"train_seconds": 0.0, "hardware": hardware}


def write(folder: Path, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


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
    assert sum(row["images"] for row in result["by_discriminative_parts"].values()) == 24
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
