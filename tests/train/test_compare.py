"""The comparison: it trains what is missing, reads what is there, and says what failed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import dtram_env
from agents.dtram import DTRAM
from train import compare as program
from train.baselines.comparison_run import RATES, SECONDS_A_RUN, Cell, estimate
from train.baselines.summary import COLUMNS, area_under
from train.common import jobs as runner
from train.common.run import write_json
from train.compare import Options, compare, plan

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "DTRAM-Signpost-v0"
STEPS = 2048


class Made(NamedTuple):
    """What one call left, and what it printed."""

    options: Options
    runs: Path
    out: Path
    said: str


def tiny(runs: Path, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "env_id": (WHOLE,),
        "algos": ("random", "dtram"),
        "seeds": (0, 1),
        "total_timesteps": STEPS,
        "runs": runs,
    }
    return Options(**(given | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """random and dtram with two seeds, and scan, of which seed 1's folder has other options."""
    runs = tmp_path_factory.mktemp("compare")
    write_json(runs / WHOLE / "scan" / "seed-1" / "options.json", {"algo": "scan", "seed": 7})
    options = tiny(runs, algos=("random", "dtram", "scan"))
    words = ["--env-id", WHOLE, "--algos", *options.algos, "--seeds", "0", "1"]
    words += ["--total-timesteps", str(STEPS), "--runs", str(runs), "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train" / "compare.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=runs,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return Made(options, runs, runs / WHOLE, done.stdout)


def rows_of(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every run of results.json, by algorithm and seed."""
    found = json.loads((out / "results.json").read_text())
    return {(run["algo"], run["seed"]): run for run in found["runs"]}


def test_it_prints_its_estimate_first_and_leaves_everything(made: Made) -> None:
    first, *lines = made.said.splitlines()
    assert first == "6 runs, 0 finished; the rest takes about 1 minutes with --jobs 2"
    assert sum(line.endswith(" s") and ": done in " in line for line in lines) == 5
    assert lines[-1] == f"tables and plots: {made.out}"
    names = {path.name for path in made.out.iterdir() if path.is_file()}
    assert names == {
        *("summary.md", "summary.csv", "runs.csv", "results.json"),
        *("learning_curves.png", "error_by_glimpses.png"),
    }
    for name in ("learning_curves.png", "error_by_glimpses.png"):
        assert (made.out / name).read_bytes().startswith(b"\x89PNG")
    found = json.loads((made.out / "results.json").read_text())
    assert {"command", "commit", "date", "versions", "hardware", "summary", "runs"} <= set(found)
    assert (made.out / "summary.md").read_text() in made.said


def test_rows_are_the_runs(made: Made) -> None:
    rows = rows_of(made.out)
    assert len(rows) == 6
    for seed in (0, 1):
        row = rows["random", seed]["result"]
        run = json.loads((made.runs / WHOLE / "random" / f"seed-{seed}/results.json").read_text())
        area = run["curve"][-1]["return"]
        assert row == run | {"learns_from": "nothing", "area": area, "tries": 0}
        assert run["seed"] == seed
    summary = json.loads((made.out / "results.json").read_text())["summary"]
    by_algo = {row["algo"]: row for row in summary}
    for algo, seeds in (("random", (0, 1)), ("dtram", (0, 1)), ("scan", (0,))):
        assert by_algo[algo]["seeds"] == len(seeds)
        for key in COLUMNS:
            mean = sum(rows[algo, seed]["result"][key] for seed in seeds) / len(seeds)
            assert by_algo[algo][key] == pytest.approx(mean)
    with (made.out / "runs.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert [(row["algo"], row["seed"]) for row in flat] == [
        (algo, str(seed)) for seed in (0, 1) for algo in ("random", "dtram", "scan")
    ]
    for row in flat:
        result = rows[row["algo"], int(row["seed"])]["result"]
        if result is not None:
            assert float(row["mean_return"]) == result["mean_return"]
    with (made.out / "summary.csv").open(newline="") as file:
        assert [row["algo"] for row in csv.DictReader(file)] == ["random", "dtram", "scan"]


def test_dtrams_row_goes_through_the_environment(made: Made) -> None:
    for seed in (0, 1):
        folder = made.runs / WHOLE / "dtram" / f"seed-{seed}"
        row = rows_of(made.out)["dtram", seed]["result"]
        scored = dtram_env.evaluate(DTRAM.load(folder), WHOLE, "test").to_dict()
        assert {key: row[key] for key in scored} == scored
        run = json.loads((folder / "results.json").read_text())
        assert row["test_error"] == pytest.approx(run["test_error"], abs=1e-4)
        assert row["env_steps"] == run["env_steps"] <= STEPS
        assert run["options"]["env_steps"] == STEPS and run["options"]["seed"] == seed
        assert row["flops_per_image"] == round(run["flops_per_glimpse"] * row["mean_glimpses"])
        assert (row["view"], row["learns_from"]) == ("native", "labels and reward")
        curve = rows_of(made.out)["dtram", seed]["curve"]
        logged = [json.loads(r) for r in (folder / "metrics.jsonl").read_text().splitlines()]
        returns = [r["eval/mean_return"] for r in logged]
        assert [point["return"] for point in curve] == returns
        spent = run["train_seconds"] - run["validation_seconds"]
        assert row["train_seconds"] == pytest.approx(spent, abs=0.06) and spent > 0
        assert curve[-1]["env_steps"] == row["env_steps"]
        begun = [{"env_steps": 0, "return": 0.0}, *curve]  # nothing before the first look
        assert row["area"] == pytest.approx(area_under(begun, row["env_steps"]))


def test_a_failed_run_is_a_row_that_says_so(made: Made) -> None:
    broken = rows_of(made.out)["scan", 1]
    assert broken["result"] is None and broken["curve"] == []
    (line,) = (made.runs / WHOLE / "scan" / "seed-1.log").read_text().splitlines()
    assert "was started with other options: " in line and "--seed (7 then, 1 now)" in line
    assert broken["problem"] == f"failed: {line[:200]}"
    assert f"{WHOLE} scan seed 1: failed: error: " in made.said
    text = (made.out / "summary.md").read_text()
    assert "\nscan: seed 1: failed: error: " in text  # seed 0 is a row all the same
    assert rows_of(made.out)["scan", 0]["result"]["algo"] == "scan"


def test_a_second_call_trains_nothing(made: Made, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        runner.subprocess, "Popen", lambda *_, **__: pytest.fail("a run was started")
    )
    monkeypatch.setattr(program, "provenance", lambda device: {"command": "again"})
    compare(tiny(made.runs, out=tmp_path))
    assert "the rest takes" not in capsys.readouterr().out
    before, after = rows_of(made.out), rows_of(tmp_path)
    assert after == {key: before[key] for key in after} and len(after) == 4
    assert "| dtram | native | labels and reward | 0 | 2 |" in (tmp_path / "summary.md").read_text()


def test_read_only_says_what_was_not_run(made: Made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        runner.subprocess, "Popen", lambda *_, **__: pytest.fail("a run was started")
    )
    monkeypatch.setattr(program, "provenance", lambda device: {"command": "read"})
    compare(tiny(made.runs, algos=("random", "center"), read_only=True, out=tmp_path))
    rows = rows_of(tmp_path)
    assert rows["center", 0]["problem"] == rows["center", 1]["problem"] == "not run"
    assert rows["random", 0]["problem"] == ""
    text = (tmp_path / "summary.md").read_text()
    assert "| center | seed 0: not run; seed 1: not run |" in text
    with pytest.raises(ValueError, match=r"no run has a result; the tables in .* are left as they"):
        compare(tiny(made.runs, algos=("center",), read_only=True, out=tmp_path))
    assert (tmp_path / "summary.md").read_text() == text
    nothing = tmp_path / "nothing"
    with pytest.raises(ValueError, match="no run has a result; the table says why"):
        compare(tiny(tmp_path / "none", read_only=True, out=nothing))
    assert all(row["problem"] == "not run" for row in rows_of(nothing).values())
    assert not (nothing / "learning_curves.png").exists()
    assert not (tmp_path / "none").exists()


def test_runs_of_another_length_are_not_mixed(made: Made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(program, "provenance", lambda device: {"command": "longer"})
    longer = tiny(made.runs, total_timesteps=2 * STEPS, read_only=True, out=tmp_path)
    compare(longer)
    rows = rows_of(tmp_path)
    said = f"made otherwise (env steps {STEPS} then, {2 * STEPS} now)"
    assert rows["dtram", 0]["result"] is None and said in rows["dtram", 0]["problem"]
    assert rows["random", 0]["problem"] == ""  # learns nothing, so it has no length


def test_the_estimate_counts_what_is_missing(made: Made, tmp_path: Path) -> None:
    options = tiny(tmp_path, algos=("ppo", "random"), seeds=(0, 1), total_timesteps=30_000)
    planned = plan(options)
    assert [(cell.algo, cell.seed) for cell in planned] == [
        ("ppo", 0), ("random", 0), ("ppo", 1), ("random", 1),
    ]  # fmt: skip
    expected = 4 * SECONDS_A_RUN + 2 * 30_000 / RATES["whole-task"]["ppo"]
    assert estimate(planned, jobs=1) == pytest.approx(expected)
    assert estimate(planned, jobs=2) == pytest.approx(expected / 2)
    # A finished run tells the rate.
    write_json(planned[0].folder / "results.json", {"env_steps": 30_000, "train_seconds": 60.0})
    assert estimate(planned, jobs=1) == pytest.approx(3 * SECONDS_A_RUN + 60.0)
    assert estimate(plan(made.options)[:2], jobs=1) == 0.0


def test_the_commands_of_the_cells(tmp_path: Path, policy_id: str) -> None:
    planned = plan(tiny(tmp_path, env_id=(WHOLE, policy_id), algos=("ppo", "scan", "dtram")))
    assert [cell.track for cell in planned] == ["whole-task"] * 6 + ["policy-only"] * 6
    words = {(c.env_id, c.algo): c.words() for c in planned if c.seed == 1}
    ppo = words[WHOLE, "ppo"]
    assert ppo[:2] == [sys.executable, str(ROOT / "train" / "sb3_baselines.py")]
    assert ppo[2:] == [
        *("--algo", "ppo", "--env-id", WHOLE, "--seed", "1"),
        *("--run-dir", str(tmp_path / WHOLE / "ppo" / "seed-1")),
        *("--total-timesteps", str(STEPS), "--resume"),
    ]
    assert "--total-timesteps" not in words[WHOLE, "scan"]
    dtram = words[policy_id, "dtram"]
    assert dtram[1] == str(ROOT / "train" / "reinforce.py")
    assert dtram[dtram.index("--env-steps") + 1] == str(STEPS)
    assert dtram[dtram.index("--choose") + 1] == "return"


def test_without_a_number_of_env_steps_the_track_decides(tmp_path: Path, policy_id: str) -> None:
    options = tiny(
        tmp_path, env_id=(WHOLE, policy_id), algos=("ppo",), seeds=(0,), total_timesteps=None
    )
    assert [cell.steps for cell in plan(options)] == [1_000_000, 300_000]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algos": ("pppo",)}, "--algos pppo: expected some of ppo, a2c, .*, dtram"),
        ({"algos": ("ppo", "ppo")}, "--algos: expected at least one, each once"),
        ({"seeds": ()}, "--seeds: expected at least one, each once"),
        ({"env_id": (WHOLE, WHOLE)}, "--env-id: expected at least one, each once"),
        ({"jobs": 0}, "--jobs 0: expected at least 1"),
        ({"seeds": (0, -1)}, "--seeds -1: expected 0 or more"),
        ({"total_timesteps": 0}, "--total-timesteps 0: expected at least 1"),
    ],
)
def test_impossible_options_are_errors(tmp_path: Path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path, **changes)


def test_an_algorithm_that_cannot_act_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--algo dqn takes one Discrete action"):
        compare(tiny(tmp_path / "runs", algos=("ppo", "dqn")))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("calls", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_it_saves_and_goes_on_later(tmp_path: Path, calls: int) -> None:
    """The second call goes on with the run that the first one left."""
    words = ["--env-id", WHOLE, "--algos", "ppo", "--seeds", "0", "--runs", str(tmp_path)]
    words += ["--total-timesteps", "40960000"]
    command = [sys.executable, str(ROOT / "train" / "compare.py"), *words]
    folder = tmp_path / WHOLE / "ppo" / "seed-0"
    log = folder.with_name("seed-0.log")
    signs = ("validation return", "continuing after")[:calls]
    for attempt, sign in enumerate(signs, start=1):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if log.exists() and sign in log.read_text() and list(folder.glob("checkpoint-[0-9]*")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=90)
        assert process.returncode == 130, errors
        assert said.startswith("1 runs, 0 finished; the rest takes about ")
        assert "interrupted; to go on: " in errors and "Traceback" not in errors
        assert f"train/compare.py {' '.join(words)}\n" in errors
        assert log.read_text().count("SIGINT: saved. To go on:") == attempt
        assert len(list(folder.glob("checkpoint-*"))) == 1
        assert not (tmp_path / WHOLE / "summary.md").exists()


def test_a_run_that_was_killed_says_by_what(tmp_path: Path, monkeypatch) -> None:
    """Not the last line of what it had printed before."""
    words = [sys.executable, "-c", "print('4,096 env steps', flush=True); import os; os.abort()"]
    monkeypatch.setattr(Cell, "words", lambda self: words)
    monkeypatch.setattr(program, "provenance", lambda device: {"command": "killed"})
    with pytest.raises(ValueError, match="no run has a result"):
        compare(tiny(tmp_path, algos=("random",), seeds=(0,)))
    assert rows_of(tmp_path / WHOLE)["random", 0]["problem"] == "failed: ended by SIGABRT"


def test_one_thread_a_run_when_they_run_side_by_side(tmp_path: Path, monkeypatch) -> None:
    code = "import os; print('threads', os.environ.get('OMP_NUM_THREADS')); raise SystemExit(3)"
    monkeypatch.setattr(Cell, "words", lambda self: [sys.executable, "-c", code])
    monkeypatch.setattr(program, "provenance", lambda device: {"command": "threads"})
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads() + 1))
    for jobs, threads in ((1, str(torch.get_num_threads() + 1)), (2, "1")):
        out = tmp_path / str(jobs)
        with pytest.raises(ValueError, match="no run has a result"):
            compare(tiny(out, algos=("random",), seeds=(0,), jobs=jobs))
        assert rows_of(out / WHOLE)["random", 0]["problem"] == f"failed: threads {threads}"
