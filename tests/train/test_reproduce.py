"""The talk's tables: what is planned, read and written, on runs of a few seconds."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro

from agents.act import HaltingRAM
from agents.dtram import DTRAM
from train import one_look, reinforce, reproduce, systems, tables, talk
from train.reproduce import KEYS, Options, plan
from train.run import write_json
from train.runner import ProgramRun, Runner, run_in_order
from train.systems import BIRDS, MNIST, PROTOCOLS, Protocol, System

QUICK: dict[str, Any] = {"epochs": 1, "learning_rate": 5e-3, "device": "cpu"}
STOP: dict[str, Any] = {**QUICK, "stop_epochs": 1, "stop_batch_size": 900}
TRUNK: dict[str, Any] = {
    **QUICK,
    "stop": "off",
    "curriculum": (2, 4),
    "hidden_size": 24,
    "batch_size": 180,
}


def small(protocol: Protocol) -> Protocol:
    """The same systems, learned for a moment on drawn glyphs with a budget of 4."""
    made = {}
    for name, system in protocol.systems.items():
        if system.trunk is not None:
            how = {k: v for k, v in STOP.items() if k not in ("epochs", "learning_rate")}
            how["stop"] = system.options["stop"]
            if "discount" in system.options:
                how["discount"] = system.options["discount"]
        elif system.program == "reinforce.py":
            how = TRUNK
        else:
            how = {**QUICK, "hidden_size": 24}
        made[name] = replace(system, options=how)
    return replace(
        protocol, env_id="DTRAM-Signpost-v0", max_glimpses=4, systems=made, env_options={}
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small protocols, and runs that are made in this process."""
    shrunk = small(MNIST)
    monkeypatch.setattr(systems, "MNIST", shrunk)
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "mnist": shrunk})

    def here(self: Runner, jobs: list[ProgramRun]) -> None:
        for job in jobs:
            if not job.finished:
                program: Any = {"reinforce.py": reinforce, "one_look.py": one_look}[job.program]
                program.train(tyro.cli(program.Options, args=job.words()[2:]))

    monkeypatch.setattr(Runner, "run", here)


# -- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_every_line_names_a_system_that_is_there(key: str) -> None:
    for drawn in (None, systems.BIRDS, systems.BIRDS_LARGE):
        if key.startswith("table") and key != "table1":
            lines = tables.table(key, drawn).lines
            assert lines
            for line in lines:
                assert not line.system or line.system in line.protocol.systems
                steps = line.published.steps
                assert steps is None or 1 <= steps <= line.protocol.max_glimpses


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_every_system_is_options_of_its_program(protocol: Protocol) -> None:
    for name, system in protocol.systems.items():
        words = protocol.run(Path("r"), name, 3).words()
        kind = {"reinforce.py": reinforce, "one_look.py": one_look}[system.program]
        options = tyro.cli(kind.Options, args=words[2:])
        assert (options.env_id, options.seed, options.resume) == (protocol.env_id, 3, True)
        assert options.run_dir == Path("r") / protocol.name / name / "seed-3"
        assert PROTOCOLS[protocol.name] is protocol
        if system.trunk is not None:
            assert options.trunk == protocol.folder(Path("r"), system.trunk, 3)


def test_what_is_needed_comes_first(tmp_path: Path) -> None:
    runs = plan(Options(what=("table2",), runs=tmp_path, seeds=2))
    folders = [run.folder.relative_to(tmp_path).as_posix() for run in runs]
    assert len(set(folders)) == len(folders)
    for seed in (0, 1):
        assert folders.index(f"mnist/ram/seed-{seed}") < folders.index(f"mnist/dtram-1/seed-{seed}")
    assert "mnist/fc/seed-0" in folders and "mnist/fc/seed-1" not in folders  # nothing is claimed


def test_without_the_photographs_drawn_birds_stand_under_their_own_name(tmp_path: Path) -> None:
    options = Options(what=("table6",), runs=tmp_path, data_dir=tmp_path)
    assert {run.folder.parts[-3] for run in plan(options)} == {"birds-small-4"}
    made = tables.table("table6", BIRDS)
    assert not made.comparable
    assert "CUB" not in made.title and "drawn" in made.title
    row = tables.row(made, made.lines[0], [])
    assert not any(name.startswith("published") for name in row)
    with pytest.raises(ValueError, match=r"datasets download cub"):
        plan(replace(options, data="real"))


def test_a_run_that_reads_another_waits_for_it(tmp_path: Path, quick: None) -> None:
    """A one-look network of DT-RAM's cost needs the DT-RAM, which needs its trunk."""
    torch.set_num_threads(1)
    how = {**QUICK, "hidden_size": 24}
    like = {**MNIST.systems, "like": System("one_look.py", how, like="dtram-1")}
    protocol = small(replace(MNIST, systems=like))
    names = ["like", "dtram-1", "ram"]  # in the wrong order
    assert protocol.needed("like") == names[::-1]
    jobs = [protocol.run(tmp_path, name, 0) for name in names]
    runner = Runner(jobs=1)
    run_in_order(jobs, runner)
    assert all(job.finished for job in jobs) and not runner.problems
    # Made with other options, it is not read as if it were the same.
    with pytest.raises(ValueError, match=r"epochs 1 then, 2 now.*delete it to run anew"):
        run_in_order([replace(jobs[0], options={**jobs[0].options, "epochs": 2})], runner)


def test_what_cannot_be_made_is_told_with_what_needs_it(tmp_path: Path) -> None:
    class Failing(Runner):
        def run(self, jobs: Any) -> None:
            self.problems |= {job.folder: "failed: no room" for job in jobs}

    jobs = [MNIST.run(tmp_path, name, 0) for name in ("ram", "dtram-1")]
    runner = Failing(jobs=1)
    run_in_order(jobs, runner)
    assert runner.problems[jobs[0].folder] == "failed: no room"
    assert "mnist/ram/seed-0 is not finished" in runner.problems[jobs[1].folder]


def test_published_figures_are_the_talks() -> None:
    by_label = {row.label: row.value for row in talk.TABLE_2}
    assert by_label["RAM, 7 glimpses"] == 1.07 and by_label["DT-RAM-1"] == 1.46
    cub = tables.table("table6")
    assert [line.published.value for line in cub.lines if line.system == "ram"] == [
        80.7,
        81.1,
        81.5,
        81.8,
        81.8,
    ]
    assert len(tables.table("table8").lines) == 12
    assert {line.protocol.name for line in tables.table("table5").lines} == {
        "cub-256",
        "cub-256-deep",
        "cub-512",
    }


# -- the whole ------------------------------------------------------------------------------------


def test_a_table_from_nothing(tmp_path: Path, quick: None, capsys: Any) -> None:
    torch.set_num_threads(1)
    options = Options(what=("table2",), runs=tmp_path, seeds=2, device="cpu")
    written = reproduce.reproduce(options)
    assert written == [tmp_path / "tables/table2.md"]
    found = json.loads((tmp_path / "tables/table2.json").read_text())
    assert found["data"] == "Signpost"
    rows = {row["system"]: row for row in found["rows"]}
    ours = rows["RAM, 4 glimpses"]
    folders = [tmp_path / f"mnist/ram/seed-{seed}" for seed in (0, 1)]
    errors = [json.loads((folder / "results.json").read_text())["test_error"] for folder in folders]
    assert ours["values"] == pytest.approx(errors, abs=1e-3)
    assert ours["ours"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert ours["spread"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)
    assert ours["difference"] == pytest.approx(ours["ours"] - 1.54, abs=1e-3)
    # Two glimpses are read off the stage that learned two.
    early = rows["RAM, 2 glimpses"]
    assert early["glimpses"] == 2.0
    assert DTRAM.load(folders[0] / "stages/trunk-2").config.max_glimpses == 4
    assert isinstance(HaltingRAM.load(tmp_path / "mnist/act/seed-0"), HaltingRAM)
    with (tmp_path / "tables/table2.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == list(rows)
    text = written[0].read_text()
    assert "| FC, 2 layers (256 hidden units each) | 1.69 |" in text
    assert "Made by `" in text and "Signpost" in text
    # Again: everything is read, and nothing is made.
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert reproduce.reproduce(options) == written
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert "the rest takes about 0 minutes" in capsys.readouterr().out
    # What is claimed of the learned stop, on what is there.
    (path,) = reproduce.reproduce(replace(options, what=("claims",), data="drawn", read_only=True))
    rows = json.loads(path.with_suffix(".json").read_text())["rows"]
    assert [(row["system"], row["against"], row["seeds"]) for row in rows] == [
        (name, against, 2)
        for name in itertools.chain.from_iterable(systems.BUDGETS.values())
        for against in ("confidence threshold", "whole budget")
    ]
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["error"] - row["other_error"], abs=1e-3)
    assert rows[1]["other_error"] == pytest.approx(ours["ours"], abs=1e-3)
    assert rows[1]["fewer_glimpses"] == pytest.approx(1 - rows[1]["glimpses"] / 4, abs=1e-3)
    # The curves' further runs, and the figures.
    curves = reproduce.reproduce(replace(options, what=("curves",), data="drawn", read_only=True))
    names = {path.name for path in curves}
    assert {"curves-mnist-cost-flops.png", "curves-mnist-cost-time.png"} <= names


def test_an_estimate_makes_nothing(tmp_path: Path, capsys: Any) -> None:
    assert reproduce.reproduce(Options(what=("all",), runs=tmp_path, estimate=True)) == []
    assert "0 finished" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_finished_runs_tell_how_long_others_take(tmp_path: Path) -> None:
    protocol = Protocol("mnist", "DTRAM-MNIST-v0", 7, {"fc": System("one_look.py", minutes=7.0)})
    runs = [protocol.run(tmp_path, "fc", seed) for seed in range(3)]
    options = Options(runs=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "PROTOCOLS", {"mnist": protocol})
        assert reproduce.minutes(options, runs) == (21.0, [])
        write_json(runs[0].folder / "results.json", {"train_seconds": 120.0})
        assert reproduce.minutes(options, runs) == (4.0, [])
        assert reproduce.minutes(replace(options, jobs=2), runs) == (2.0, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"what": ("table10",)}, "table10: expected some of table1"),
        ({"seeds": 0}, "--seeds 0"),
        ({"jobs": 0}, "--jobs 0"),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options(**changes)


def test_statistics_of_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    rows = {row["system"]: row for row in tables.statistics(tmp_path)}
    assert rows["CUB-200-2011"]["published_train"] == 5994
    assert "train" not in rows["CUB-200-2011"]


def test_birds_recipe_is_the_benchmarks() -> None:
    assert BIRDS.systems["dtram"].trunk == "ram"
    assert BIRDS.systems["one-look-like"].like == "dtram"
