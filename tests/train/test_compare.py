"""The comparison: it trains what is missing, reads what is finished, and says what failed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import dtram_env
from agents.loading import load_agent
from dtram_env.files import write_json
from dtram_env.suite import SUITE
from tests.dtram_env.datasets.trees import make_folder
from train.baselines.comparison_run import area_under
from train.common import jobs
from train.common.program_run import ProgramRun
from train.common.records import read_records
from train.compare import Options, compare, plan

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "DTRAM-Signpost-v0"
STEPS = 2048


class Made(NamedTuple):
    """What one call left, and what it printed."""

    runs: Path
    records: dict[tuple[str, int], dict[str, Any]]
    said: str


def tiny(runs: Path, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "env_id": (WHOLE,),
        "algos": ("dtram", "scan"),
        "seeds": (0, 1),
        "total_timesteps": STEPS,
        "runs": runs,
    }
    return Options(**(given | changes))


def records_of(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The records of a file, by algorithm and seed."""
    return {(record["algo"], record["seed"]): record for record in read_records(path)}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, run_python: Callable[..., str]) -> Made:
    """dtram and scan with two seeds; the folder of scan's seed 1 holds a run of other options."""
    runs = tmp_path_factory.mktemp("compare")
    write_json(runs / WHOLE / "scan" / "seed-1" / "options.json", {"algo": "scan", "seed": 7})
    words = ["--env-id", WHOLE, "--algos", "dtram", "scan", "--seeds", "0", "1"]
    words += ["--total-timesteps", str(STEPS), "--runs", str(runs), "--jobs", "2"]
    said = run_python("train/compare.py", *words, timeout=300)
    return Made(runs, records_of(runs / f"{WHOLE}.jsonl"), said)


@pytest.fixture
def no_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a run was started")

    monkeypatch.setattr(jobs, "make", refuse)


def test_the_suite_is_planned_with_its_own_env_steps(tmp_path: Path) -> None:
    runs = plan(Options(suite=True, algos=("ppo", "scan"), seeds=(0,), runs=tmp_path))
    assert [run.env_id for run in runs[::2]] == [found.env_id for found in SUITE]
    assert {run.steps for run in runs} == {300_000}
    with pytest.raises(ValueError, match=r"--env .*max_glimpses=2.*expected no value with --suite"):
        Options(suite=True, env=("max_glimpses=2",))


def test_it_leaves_and_prints_everything(made: Made) -> None:
    first, *lines = made.said.splitlines()
    assert first == "4 runs, 0 finished"
    assert sum(line.endswith(": done") for line in lines) == 3
    assert lines[-1] == f"records, tables and plots: {made.runs}"
    names = {path.name.removeprefix(WHOLE) for path in made.runs.iterdir() if path.is_file()}
    assert names == {".jsonl", ".md", ".html", ".lock", "-learning_curves.png"}
    assert (made.runs / f"{WHOLE}.md").read_text() in made.said


def test_records_are_the_runs(made: Made) -> None:
    assert list(made.records) == [("dtram", 0), ("scan", 0), ("dtram", 1), ("scan", 1)]
    scan = made.records["scan", 0]
    run = json.loads((made.runs / WHOLE / "scan" / "seed-0" / "results.json").read_text())
    added = {"learns_from": "nothing", "area": run["curve"][-1]["return"], "tries": 0}
    del run["options"]
    assert scan == run | added


def test_dtrams_record_goes_through_the_environment(made: Made) -> None:
    for seed in (0, 1):
        folder = made.runs / WHOLE / "dtram" / f"seed-{seed}"
        record = made.records["dtram", seed]
        scored = dtram_env.evaluate(load_agent(folder), WHOLE, "test").to_dict()
        assert {key: record[key] for key in scored} == scored
        run = json.loads((folder / "results.json").read_text())
        assert record["test_error"] == pytest.approx(run["test_error"], abs=1e-4)
        assert record["env_steps"] == run["env_steps"] <= STEPS
        assert run["options"]["env_steps"] == STEPS and run["options"]["seed"] == seed
        flops = run["flops_per_glimpse"] * record["mean_glimpses"]
        assert record["flops_per_image"] == round(flops)
        assert (record["view"], record["learns_from"]) == ("native", "labels and reward")
        assert record["command"] == run["command"] and "reinforce.py" in run["command"]
        curve = record["curve"]
        logged = [json.loads(r) for r in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [point["return"] for point in curve] == [r["eval/mean_return"] for r in logged]
        spent = run["train_seconds"] - run["validation_seconds"]
        assert record["train_seconds"] == pytest.approx(spent, abs=0.06) and spent > 0
        assert curve[-1]["env_steps"] == record["env_steps"]
        begun = [{"env_steps": 0, "return": 0.0}, *curve]  # nothing before the first validation
        assert record["area"] == pytest.approx(area_under(begun, record["env_steps"]))


def test_a_failed_run_is_a_row_that_says_so(made: Made) -> None:
    broken = made.records["scan", 1]
    (line,) = (made.runs / WHOLE / "scan" / "seed-1.log").read_text().splitlines()
    assert "was started with other options: " in line and "--seed (7 then, 1 now)" in line
    problem = f"failed: {line[:200]}"
    assert broken == {"env_id": WHOLE, "algo": "scan", "seed": 1, "problem": problem}
    assert f"{WHOLE} scan seed 1: failed: error: " in made.said
    text = (made.runs / f"{WHOLE}.md").read_text()
    assert "\nscan: seed 1: failed: error: " in text  # seed 0 is a row all the same


def test_a_second_call_trains_nothing(made: Made, tmp_path: Path, no_run_starts, capsys) -> None:
    compare(tiny(made.runs, algos=("dtram",), out=tmp_path / "again"))
    assert capsys.readouterr().out.startswith("2 runs, 2 finished\n")
    again = records_of(tmp_path / "again" / f"{WHOLE}.jsonl")
    assert again == {key: made.records[key] for key in again} and len(again) == 2
    # Its records alone make the same tables.
    records = tmp_path / "again" / f"{WHOLE}.jsonl"
    compare(Options(records=(records,), out=tmp_path / "tables"))
    for ending in ("md", "jsonl"):
        name = f"{WHOLE}.{ending}"
        assert (tmp_path / "tables" / name).read_text() == records.with_name(name).read_text()


def test_read_only_says_what_was_not_run(made: Made, tmp_path: Path, no_run_starts, capsys) -> None:
    options = {"read_only": True, "out": tmp_path}
    compare(tiny(made.runs, algos=("dtram", "center"), **options))
    records = records_of(tmp_path / f"{WHOLE}.jsonl")
    assert records["center", 0]["problem"] == records["center", 1]["problem"] == "not run"
    assert "problem" not in records["dtram", 0]
    text = (tmp_path / f"{WHOLE}.md").read_text()
    assert "| center | seed 0: not run; seed 1: not run |" in text
    capsys.readouterr()
    with pytest.raises(ValueError, match="no run has a result; no tables are written"):
        compare(tiny(made.runs, algos=("center",), **options))
    assert "| center | seed 0: not run; seed 1: not run |" in capsys.readouterr().out
    assert (tmp_path / f"{WHOLE}.md").read_text() == text


def test_runs_of_another_length_are_not_mixed(made: Made, tmp_path: Path) -> None:
    compare(tiny(made.runs, total_timesteps=2 * STEPS, read_only=True, out=tmp_path))
    records = records_of(tmp_path / f"{WHOLE}.jsonl")
    assert f"--env-steps {STEPS} " in records["dtram", 0]["problem"]
    assert records["dtram", 0]["problem"].startswith(f"{made.runs}/{WHOLE}/dtram/seed-0: ")
    assert "problem" not in records["scan", 0]  # learns nothing, so it has no length


def test_the_commands_of_the_runs(tmp_path: Path, policy_id: str) -> None:
    planned = plan(tiny(tmp_path, env_id=(WHOLE, policy_id), algos=("ppo", "scan", "dtram")))
    assert [(run.track, run.seed, run.algo) for run in planned[:4]] == [
        ("whole-task", 0, "ppo"),
        ("whole-task", 0, "scan"),
        ("whole-task", 0, "dtram"),
        ("whole-task", 1, "ppo"),
    ]
    assert [run.track for run in planned] == ["whole-task"] * 6 + ["policy-only"] * 6
    words = {(r.env_id, r.algo): r.program_run().words()[1:] for r in planned if r.seed == 1}
    assert words[WHOLE, "ppo"] == [
        str(ROOT / "train" / "sb3_baselines.py"),
        *(
            "--env-id",
            WHOLE,
            "--seed",
            "1",
            "--device",
            "cpu",
            "--algo",
            "ppo",
            "--total-timesteps",
            str(STEPS),
        ),
        *("--run-dir", str(tmp_path / WHOLE / "ppo" / "seed-1"), "--resume"),
    ]
    assert "--total-timesteps" not in words[WHOLE, "scan"]
    dtram = " ".join(words[policy_id, "dtram"])
    assert dtram.startswith(str(ROOT / "train" / "reinforce.py"))
    assert f" --device cpu --env-steps {STEPS} " in dtram
    assert " --stop after max_mean_glimpses=none entropy=0.005 epochs=40 batch_size=200 " in dtram
    full = {"algos": ("ppo",), "seeds": (0,), "total_timesteps": None}
    planned = plan(tiny(tmp_path, env_id=(WHOLE, policy_id), **full))
    assert [run.steps for run in planned] == [1_000_000, 1_000_000]


def test_keywords_of_the_environment_reach_every_program(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", train=12, test=2)
    task = {"env_id": ("DTRAM-ImageFolder-v0",), "root": tmp_path / "photos"}
    task |= {"data_dir": tmp_path / "data", "env": ("max_glimpses=2", "image_size=32")}
    options = tiny(tmp_path / "runs", algos=("scan", "dtram"), seeds=(0,), **task)
    for run in plan(options):
        words = " ".join(run.program_run().words())
        assert f" --root {tmp_path}/photos --data-dir {tmp_path}/data " in words
        assert " --env max_glimpses=2 image_size=32 " in words
    small = ("max_glimpses=2", "image_size=32", "glimpse_size=8")
    scan = tiny(tmp_path / "runs", **{**task, "algos": ("scan",), "seeds": (0,), "env": small})
    compare(scan)
    record = records_of(tmp_path / "runs" / "DTRAM-ImageFolder-v0.jsonl")["scan", 0]
    assert "problem" not in record and record["dataset"] == "photos"
    assert record["hyperparameters"]["env"]["max_glimpses"] == 2 == len(record["histogram"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algos": ("pppo",)}, "--algos pppo: expected some of ppo, a2c, .*, dtram"),
        ({"algos": ("ppo", "ppo")}, "--algos ppo ppo: expected at least one, each once"),
        ({"seeds": ()}, "--seeds none: expected at least one, each once"),
        ({"env_id": (WHOLE, WHOLE)}, f"--env-id {WHOLE} {WHOLE}: expected at least one, each once"),
        ({"jobs": 0}, "--jobs 0: expected at least 1"),
        ({"seeds": (0, -1)}, "--seeds -1: expected 0 or more"),
        ({"total_timesteps": 0}, "--total-timesteps 0: expected at least 1"),
        ({"algos": ("ppo", "dqn")}, "--algo dqn takes one Discrete action"),
        ({"records": (Path("nowhere.jsonl"),)}, "no run has a result"),
    ],
)
def test_bad_input_is_named_before_anything_runs(tmp_path: Path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        compare(tiny(tmp_path / "runs", **changes))
    assert not (tmp_path / "runs").exists()


def test_interrupted_it_says_how_to_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.compare.run_in_order", interrupt)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--algos", "dtram"])
    with pytest.raises(SystemExit) as stopped:
        compare(tiny(tmp_path))
    assert stopped.value.code == 130 and list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert "interrupted; to continue: " in said and "train/compare.py --algos dtram\n" in said


@pytest.mark.slow
def test_its_runs_are_saved_and_continued(tmp_path: Path) -> None:
    """The second call goes on with the run that the first one left, which was killed."""
    words = ["--env-id", WHOLE, "--algos", "ppo", "--seeds", "0", "--runs", str(tmp_path)]
    words += ["--total-timesteps", "40960000"]
    command = [sys.executable, str(ROOT / "train" / "compare.py"), *words]
    folder = tmp_path / WHOLE / "ppo" / "seed-0"
    log = folder.with_name("seed-0.log")
    calls = (("validation return", signal.SIGKILL), ("continuing after", signal.SIGINT))
    for attempt, (sign, name) in enumerate(calls, start=1):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if log.exists() and sign in log.read_text() and list(folder.glob("checkpoint-[0-9]*")):
                break
            time.sleep(0.1)
        process.send_signal(name)
        said, errors = process.communicate(timeout=300)
        assert said.startswith("1 runs, 0 finished")
        if name is signal.SIGINT:
            assert process.returncode == 130, errors
            assert f"train/compare.py {' '.join(words)}\n" in errors and "Traceback" not in errors
        while log.read_text().count("SIGTERM: saved. To go on:") < attempt:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(list(folder.glob("checkpoint-*"))) == 1
        assert not (tmp_path / f"{WHOLE}.md").exists()


MANY_THREADS = str(torch.get_num_threads() + 1)
SAY_THREADS = "import os; exit('threads ' + os.environ['OMP_NUM_THREADS'])"


@pytest.mark.parametrize(
    ("code", "jobs", "problem"),
    [
        # Not the last line of what it had printed before.
        ("print('4,096 env steps', flush=True); import os; os.abort()", 1, "ended by SIGABRT"),
        # Runs side by side have one thread each.
        (SAY_THREADS, 1, f"threads {MANY_THREADS}"),
        (SAY_THREADS, 2, "threads 1"),
    ],
)
def test_the_processes_of_runs(tmp_path: Path, monkeypatch, capsys, code, jobs, problem) -> None:
    monkeypatch.setattr(ProgramRun, "words", lambda self: [sys.executable, "-c", code])
    monkeypatch.setenv("OMP_NUM_THREADS", MANY_THREADS)
    with pytest.raises(ValueError, match="no run has a result"):
        compare(tiny(tmp_path, algos=("random",), seeds=(0,), jobs=jobs))
    assert f"| random | seed 0: failed: {problem} |" in capsys.readouterr().out
