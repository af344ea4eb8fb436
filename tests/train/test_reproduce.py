"""The talk's tables: what is planned, read and written, on runs of a few seconds."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtram_env
from agents.dtram import DTRAM
from agents.halting.act import HaltingRAM
from agents.stopping import FixedStop
from train import reinforce, reproduce
from train.common.jobs import Runner, run_in_order
from train.common.run import read_json, write_json
from train.common.statistics import Mixture
from train.paper import claims, systems, tables
from train.paper import write_tables as rows
from train.paper.claims import Evidence
from train.paper.figures import histogram_figure
from train.paper.read_runs import Reader
from train.paper.systems import BIRDS, MNIST, PROTOCOLS, Protocol, System
from train.reproduce import Options, plan

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
        if not name.startswith("discount-") or name in ("discount-0.9", "discount-0.98"):
            made[name] = replace(system, options=how)
    return replace(
        protocol, env_id="DTRAM-Signpost-v0", max_glimpses=4, systems=made, env_options={}
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> None:
    """Small protocols, few seeds, and runs that are made in this process."""
    monkeypatch.setattr(reproduce, "SEVERAL_SEEDS", ("ram", "dtram-1"))
    shrunk = small(MNIST)
    monkeypatch.setattr(systems, "MNIST", shrunk)
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "mnist": shrunk})


# -- plans ----------------------------------------------------------------------------------------


def test_what_is_needed_comes_first(tmp_path: Path) -> None:
    runs = plan(Options(what=("table2",), runs=tmp_path, seeds=2))
    folders = [run.folder.relative_to(tmp_path).as_posix() for run in runs]
    assert len(set(folders)) == len(folders)
    for seed in (0, 1):
        assert folders.index(f"mnist/ram/seed-{seed}") < folders.index(f"mnist/dtram-1/seed-{seed}")
    assert "mnist/fc/seed-0" in folders and "mnist/fc/seed-1" not in folders  # nothing is claimed


def test_without_the_photographs_drawn_birds_stand_under_their_own_name(tmp_path: Path) -> None:
    options = Options(what=("table6",), runs=tmp_path, data_dir=tmp_path)
    assert {run.folder.parts[-3] for run in plan(options)} == {"birds-small", "birds-small-4"}
    made = tables.table("table6", BIRDS)
    row = rows.row(made, made.lines[0], [])
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


# -- the whole ------------------------------------------------------------------------------------


def test_a_table_from_nothing(tmp_path: Path, quick: None, capsys: Any) -> None:
    torch.set_num_threads(1)
    options = Options(what=("table2",), runs=tmp_path, seeds=2, device="cpu")
    written = reproduce.reproduce(options)
    assert written == [tmp_path / "tables/table2.md"]
    found = json.loads((tmp_path / "tables/table2.json").read_text())
    assert found["data"] == "Signpost"
    by_name = {row["system"]: row for row in found["rows"]}
    ours = by_name["RAM, 4 glimpses"]
    folders = [tmp_path / f"mnist/ram/seed-{seed}" for seed in (0, 1)]
    errors = [json.loads((folder / "results.json").read_text())["test_error"] for folder in folders]
    assert ours["values"] == pytest.approx(errors, abs=1e-3)
    assert ours["ours"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert ours["spread"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)
    assert ours["difference"] == pytest.approx(ours["ours"] - 1.54, abs=1e-3)
    # Two glimpses are read off the stage that learned two, and not off the whole network.
    early = by_name["RAM, 2 glimpses"]
    assert early["glimpses"] == 2.0
    assert early["values"] == pytest.approx(
        [error_of_two(one / "stages/trunk-2") for one in folders]
    )
    assert early["values"] != pytest.approx([error_of_two(folder) for folder in folders])
    assert isinstance(HaltingRAM.load(tmp_path / "mnist/act/seed-0"), HaltingRAM)
    with (tmp_path / "tables/table2.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == list(by_name)
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
    claimed = json.loads(path.with_suffix(".json").read_text())["rows"]
    names = [*itertools.chain.from_iterable(systems.BUDGETS.values()), "dtram-2", "dtram-conv-2"]
    assert [(row["system"], row["against"], row["seeds"]) for row in claimed] == [
        (name, against, 1 + (name == "dtram-1"))
        for name in names
        for against in ("confidence threshold", "whole budget")
    ]
    for row in claimed:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["error"] - row["other_error"], abs=1e-3)
    (whole,) = (one for one in claimed[1::2] if one["system"] == "dtram-1")
    assert whole["other_error"] == pytest.approx(ours["ours"], abs=1e-3)
    assert whole["fewer_glimpses"] == pytest.approx(1 - whole["glimpses"] / 4, abs=1e-3)
    check_figures(options)
    check_what_is_gone(options, by_name)


def error_of_two(folder: Path) -> float:
    """Test error, %, of a network after two glimpses."""
    agent = DTRAM.load(folder)
    agent.stopping = FixedStop(2)
    return dtram_env.evaluate(agent, "DTRAM-Signpost-v0", split="test").to_dict()["test_error"]


def check_figures(options: Options) -> None:
    """The curves, which need further runs, and the figures of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "protocols_of", lambda options, key: [systems.MNIST])
        curves = reproduce.reproduce(replace(options, what=("curves",)))
    stem = options.folder() / "curves-mnist"
    endings = ("-discount.png", "-cost-flops.png", "-cost-time.png")
    assert curves == [stem.with_name(stem.name + ending) for ending in endings]
    made = json.loads(stem.with_name("curves-mnist-discount.json").read_text())
    learned = made["points"]["DT-RAM, by discount"]
    assert [float(point["name"]) for point in learned] == [0.9, 0.98]
    for point in learned:
        found = read_json(options.runs / f"mnist/discount-{point['name']}/seed-0/results.json")
        assert point["test_error"] == found["test_error"]
        assert f"mnist/discount-{point['name']}/seed-0" in made["runs"]
    fixed = {point["name"]: point for point in made["points"]["fixed number (RAM)"]}
    ram = read_json(options.runs / "mnist/ram/seed-0/results.json")
    assert fixed["4"]["test_error"] == pytest.approx(ram["test_error"], abs=1e-3)
    assert fixed["4"]["mean_glimpses"] == 4
    by_confidence = made["points"]["confidence threshold"]
    assert {point["mean_glimpses"] for point in by_confidence} >= {1.0}
    assert {"commit", "hardware", "versions"} <= made.keys()
    cost = json.loads(stem.with_name("curves-mnist-cost.json").read_text())
    points = {point["name"]: point for kind in cost["points"].values() for point in kind}
    # Every system of the curves that there is, each trunk with each rule, and all of them timed.
    wanted = {name for name in systems.MNIST.systems if name not in systems.TRUNKS}
    assert wanted <= points.keys()
    assert {"ram 1", "ram 4", "ram-conv 4", "ram > 0.9"} <= points.keys()
    assert all(point["milliseconds"] > 0 for point in points.values())
    assert points["ram 4"]["mflop"] == pytest.approx(4 * points["ram 1"]["mflop"], rel=0.01)
    reader = Reader(torch.device("cpu"))
    figure = options.runs / "figure.png"
    histogram_figure(reader, options.runs / "mnist/dtram-1/seed-0", figure)
    assert figure.exists() and figure.with_name("figure-histogram.png").exists()


def check_what_is_gone(options: Options, before: dict[str, Any]) -> None:
    """A table keeps what it says of runs that are gone, and nothing is made of damaged ones."""
    lost = options.runs / "mnist/ram/seed-1"
    lost.rename(options.runs / "elsewhere")
    alone = replace(options, read_only=True)
    (path,) = reproduce.reproduce(alone)
    ours = rows_of(path)["RAM, 4 glimpses"]
    assert ours["values"] == before["RAM, 4 glimpses"]["values"]
    assert [run.get("kept", False) for run in ours["runs"]] == [False, True]
    (options.runs / "elsewhere").rename(lost)
    # A trunk that was trained anew since: the stop on it is another network's.
    header = options.runs / "mnist/ram/seed-0/model.json"
    text = header.read_text()
    digest = read_json(header)["weights_sha256"]
    header.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(ValueError, match=r"dtram-0/seed-0: its trunk was not what .*delete it"):
        reproduce.reproduce(replace(alone, what=("claims",), data="drawn"))
    header.write_text(text)
    # Claims of runs that are gone are kept, whatever --seeds says, and their evidence is.
    claimed = read_json(options.folder() / "claims.json")["rows"]
    for other in (1, 3):
        lost.rename(options.runs / "elsewhere")
        reproduce.reproduce(replace(alone, what=("claims",), data="drawn", seeds=other))
        (options.runs / "elsewhere").rename(lost)
        again = read_json(options.folder() / "claims.json")["rows"]
        assert figures_of(claimed) == figures_of(again)
        assert {one["system"] for one in again if one["kept"]} >= {"dtram-1"}
    # Made otherwise: told before anything is read, whether it is to be trained or not.
    results = options.runs / "mnist/fc/seed-0/results.json"
    found = read_json(results)
    write_json(results, {**found, "options": {**found["options"], "weight_decay": 0.5}})
    for how in ({"read_only": True}, {"estimate": True}, {}):
        with pytest.raises(ValueError, match=r"fc/seed-0: made otherwise \(weight_decay 0.5 then"):
            reproduce.reproduce(replace(options, **how))
    write_json(results, found)
    (options.runs / "mnist/fc/seed-0/test_images.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"not all could be made:\n.*fc/seed-0: cannot be read"):
        reproduce.reproduce(alone)


def rows_of(path: Path) -> dict[str, Any]:
    """The rows of a written table by their system."""
    return {row["system"]: row for row in read_json(path.with_suffix(".json"))["rows"]}


@pytest.mark.parametrize("what", ["claims", "curves", "figure7"])
def test_nothing_to_make_it_from_is_an_error(what: Any, tmp_path: Path) -> None:
    options = Options(what=(what,), data="drawn", runs=tmp_path, read_only=True, device="cpu")
    with pytest.raises(ValueError, match=rf"{what}: no finished runs to make it from"):
        reproduce.reproduce(options)


def test_photographs_are_asked_for_where_they_are_shown(tmp_path: Path) -> None:
    """Table 2 is of MNIST: it needs no CUB, whatever --data says."""
    real = Options(what=("table2",), data="real", runs=tmp_path, data_dir=tmp_path)
    assert all(run.folder.parts[-3] == "mnist" for run in plan(real))
    with pytest.raises(ValueError, match="DTRAM-Cars-v0's images are not there"):
        plan(replace(real, what=("table4",)))


def test_small_birds_stand_once_for_all_photographs(tmp_path: Path, capsys: Any) -> None:
    options = Options(what=("table4", "figure8"), data="drawn", runs=tmp_path, estimate=True)
    assert options.keys == ()
    assert reproduce.reproduce(options) == []
    said = capsys.readouterr().out
    assert "table4: not made; it is of Cars" in said and "shown by table3" in said
    assert "shown by figure7" in said
    large = replace(options, data="drawn-large")
    assert {run.folder.parts[-3] for run in plan(large)} == {"autos-512"}


COMMITTED = Path(__file__).resolve().parents[2] / "benchmarks/results/tables"


def test_a_fresh_clone_keeps_what_is_committed(tmp_path: Path) -> None:
    """Read only, without runs or data, every figure of the committed tables stays."""
    for path in COMMITTED.iterdir():
        shutil.copy(path, tmp_path)
    none = tmp_path / "none"
    options = Options(what=("all",), data="drawn", runs=none, out=tmp_path, read_only=True)
    reproduce.reproduce(replace(options, device="cpu", data_dir=none))
    for path in COMMITTED.glob("*.json"):
        before, after = read_json(path), read_json(tmp_path / path.name)
        if "rows" in before:
            figures = [figures_of(found["rows"]) for found in (before, after)]
            assert figures[0] == figures[1], path.name
            assert before.get("data") == after.get("data")
        else:
            assert before == after


def test_evidence_gathers_beside_a_row_that_has_none(tmp_path: Path) -> None:
    """One seed does not replace a row of three; with the others it makes the row anew."""
    rng = np.random.default_rng(0)
    runs = [f"mnist/dtram-0/seed-{seed}" for seed in range(3)]
    evidence = {
        run: {
            against: Evidence(rng.random(50) < 0.2, Mixture(rng.random((2, 50)) < 0.2, 0.5, 7), 2)
            for against in (claims.THRESHOLD, claims.WHOLE)
        }
        for run in runs
    }
    origins = {
        run: {"run": run, "recipe": MNIST.recipe("dtram-0", seed), "data": "MNIST"}
        for seed, run in enumerate(runs)
    }
    before = [
        {
            "data": "MNIST",
            "protocol": "mnist",
            "system": "dtram-0",
            "label": tables.named_as(MNIST, "dtram-0"),
        }
        | {
            "runs": list(origins.values()),
            **claims.row(against, [evidence[r][against] for r in runs]),
        }
        for against in evidence[runs[0]]
    ]
    write_json(tmp_path / "claims.json", {"rows": before})
    path = tmp_path / "claims.safetensors"
    options = Options(what=("claims",), data="drawn", runs=tmp_path / "none", out=tmp_path)
    for known in (runs[:1], runs):
        claims.save_evidence(path, {run: evidence[run] for run in known}, origins)
        reproduce.reproduce(replace(options, read_only=True, device="cpu"))
        again = read_json(tmp_path / "claims.json")["rows"]
        assert figures_of(again) == figures_of(before)
        assert all(one["kept"] for one in again)
        assert claims.load_evidence(path)[0].keys() == set(known)


def figures_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what tells where they came from."""
    return [{k: v for k, v in one.items() if k not in ("runs", "kept")} for one in found]


def test_a_table_of_other_images_is_not_overwritten(tmp_path: Path) -> None:
    options = Options(what=("table3",), data="drawn", runs=tmp_path, read_only=True, device="cpu")
    reproduce.reproduce(options)
    before = (tmp_path / "tables/table3.json").read_text()
    with pytest.raises(ValueError, match=r"table3.json: has .* small drawn birds.* another --out"):
        reproduce.reproduce(replace(options, data="drawn-large"))
    assert (tmp_path / "tables/table3.json").read_text() == before


def test_how_many_seeds_a_line_has() -> None:
    options = Options(seeds=3)
    lines = {line.name: line for line in tables.table("table2").lines}
    for name, count in (("RAM, 4 glimpses", 3), ("DT-RAM-1", 3), ("RAM with ACT", 3)):
        assert list(reproduce.seeds_of(options, lines[name])) == list(range(count))
    assert list(reproduce.seeds_of(options, lines["Convolutional, 2 layers"])) == [0]
    for line in tables.table("table9", BIRDS).lines:
        assert list(reproduce.seeds_of(options, line)) == [0]
    cited = tables.table("table3").lines[0]
    assert not list(reproduce.seeds_of(options, cited))
    # What is drawn is of one seed.
    for key in ("curves", "figure7"):
        runs = plan(Options(what=(key,), data="drawn"))  # type: ignore[arg-type]
        assert {run.folder.name for run in runs} == {"seed-0"}


def test_a_run_of_before_an_option_changed_what_is_done(tmp_path: Path) -> None:
    """Options that came later are their defaults, but for those that are not as it was before."""
    run = MNIST.run(tmp_path, "dtram-0", 0)
    made = reinforce.Options(stop="after", discount=0.98, max_mean_glimpses=2.4).to_json()
    made["seed"] = 0
    write_json(run.folder / "results.json", {"options": made})
    run.check_options()
    del made["elastic"]  # came later, and by default changes nothing
    write_json(run.folder / "results.json", {"options": made})
    run.check_options()
    with pytest.raises(ValueError, match=r"discount None then, 0.98 now"):
        write_json(run.folder / "results.json", {})
        run.check_options()
    del made["stopper_prior"]
    write_json(run.folder / "results.json", {"options": made})
    with pytest.raises(ValueError, match="--stopper-prior came later"):
        run.check_options()


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
        assert reproduce.minutes(replace(options, jobs=99), runs) == (2.0, [])  # two cores


def test_an_estimate_waits_for_what_a_run_reads(tmp_path: Path) -> None:
    runs = [MNIST.run(tmp_path, name, 0) for name in ("ram-conv", "dtram-conv-0", "dtram-conv-1")]
    assert reproduce.minutes(Options(runs=tmp_path, jobs=2), runs) == (41.0, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"what": ("table10",)}, "table10: expected some of table1"),
        ({"seeds": 0}, "--seeds 0"),
        ({"jobs": 0}, "--jobs 0"),
        ({"out": Path(__file__)}, "--out .*expected a folder"),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options(**changes)
