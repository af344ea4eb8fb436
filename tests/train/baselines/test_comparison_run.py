"""The runs of a comparison: the record of a finished one, and what is refused."""

import json
import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from train.baselines import comparison_run
from train.baselines.comparison_run import ComparisonRun, area_under, dtram_record
from train.baselines.summary import markdown
from train.common.jobs import JobOptions, run_in_order
from train.common.options import EnvOptions
from train.sb3_baselines import Options as BaselineOptions
from train.sb3_baselines import train as train_baseline

WHOLE = "DTRAM-Signpost-v0"
STEPS = 2048


def points(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"env_steps": x, "return": y} for x, y in pairs]


@pytest.mark.parametrize(
    ("curve", "steps", "area"),
    [
        (points((0, 0.0), (100, 1.0)), 100, 0.5),
        (points((0, 0.2), (40, 0.8), (100, 0.8)), 100, (40 * 0.5 + 60 * 0.8) / 100),
        (points((50, 1.0), (100, 0.0)), 100, (50 * 1.0 + 50 * 0.5) / 100),  # it starts late
        (points((0, 0.0), (50, 1.0)), 100, (50 * 0.5 + 50 * 1.0) / 100),  # and ends early
        (points((0, 0.0), (200, 1.0)), 100, 0.25),  # or goes on
        (points((30, 0.7)), 100, 0.7),
        # Of points after as many steps (a stage that takes none) the first ends the line.
        (points((0, 1.0), (100, 0.0), (100, 0.5)), 100, 0.5),
        (points((0, 1.0), (50, 0.0), (50, 0.4), (100, 0.4)), 100, (50 * 0.5 + 50 * 0.4) / 100),
        (points((0, 0.3)), 0, 0.3),  # nothing is learned
    ],
)
def test_area_under_the_learning_curve(curve: Any, steps: int, area: float) -> None:
    assert area_under(curve, steps) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ('{"env_steps": 3', "not valid JSON"),
        ({"env_steps": 10**18}, "results.json: env_steps=1000000000000000000: expected from 0 to"),
        ({"curve": [{"env_steps": 0}]}, "results.json: curve[0].error: missing"),
        ({"versions": "2.9"}, "results.json: versions='2.9': expected an object"),
        ({"command": None}, "results.json: command=None: expected a text"),
        ({"command": "python train/sb3_baselines.py --algo ppo"}, "made with --algo ppo, expected"),
        ({}, "results.json: hyperparameters: missing"),
        ({"hyperparameters": {}, "env_steps": 0}, "results.json: algo: missing"),
        (
            {"hyperparameters": {}, "algo": "random"},
            "results.json: track: missing; expected the track",
        ),
        (
            {"hyperparameters": {"stop_after": 2}},
            "made with other hyper-parameters than the table's; delete it to run anew",
        ),
    ],
)
def test_results_that_cannot_be_read_are_a_record_too(tmp_path: Path, results, said: str) -> None:
    folder = tmp_path / "seed-0"
    run = ComparisonRun("whole-task", "random", 0, 10, folder, EnvOptions(WHOLE))
    assert run.record("failed: why")["problem"] == "failed: why"
    assert run.record()["problem"] == "not run"
    if isinstance(results, dict):
        command = shlex.join(["python", *run.program_run().words()[1:]])
        results = json.dumps({"command": command, **results})
    folder.mkdir()
    (folder / "results.json").write_text(results)
    record = run.record()
    assert (record["env_id"], record["algo"], record["seed"]) == (WHOLE, "random", 0)
    assert record.keys() == {"env_id", "algo", "seed", "problem"}
    assert said in record["problem"] and "\n" not in record["problem"]


def test_a_policy_only_dtram_is_evaluated_with_its_classifier(
    tmp_path: Path, policy_id: str, in_this_process, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"m": 2, "batch_size": 180, "stop": "after epochs=1"}
    monkeypatch.setattr(comparison_run, "table_row", lambda track, algo: row)
    folder = tmp_path / policy_id / "dtram" / "seed-0"
    run = ComparisonRun("policy-only", "dtram", 0, STEPS, folder, EnvOptions(policy_id))
    run_in_order([run.program_run()], JobOptions())
    record = run.record()
    assert "problem" not in record and record["hyperparameters"] == row
    made = json.loads((folder / "results.json").read_text())
    assert record["test_error"] == pytest.approx(made["test_error"], abs=1e-4)
    baseline = BaselineOptions(algo="scan", env_id=policy_id, run_dir=tmp_path / "scan")
    other = json.loads((train_baseline(baseline) / "results.json").read_text())
    assert record["classifier"] == made["classifier"] == other["classifier"] is not None


def test_two_comparisons_evaluate_a_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def evaluate(folder: Path, data_dir: Path | None) -> dict[str, Any]:
        evaluated.append(folder)
        time.sleep(0.1)
        return {"mean_glimpses": 2.0}

    def read(_: int) -> dict[str, Any]:
        barrier.wait()
        return run._dtram({"python": "3", "classifier": None, "env_steps": 1, **spent})

    monkeypatch.setattr(comparison_run, "evaluate_agent", evaluate)
    spent = {"train_seconds": 1, "validation_seconds": 0, "flops_per_glimpse": 3}
    run = ComparisonRun("whole-task", "dtram", 0, STEPS, tmp_path, EnvOptions(WHOLE))
    (tmp_path / "metrics.jsonl").touch()
    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, range(2))
    assert first == second and first["flops_per_image"] == 6
    assert evaluated == [tmp_path]


def test_whatever_is_damaged_in_a_run_it_is_a_row(tmp_path: Path, in_this_process) -> None:
    """Each value of the results in turn is missing or of another type."""
    runs = [
        ComparisonRun("whole-task", "scan", seed, 10, tmp_path / f"{seed}", EnvOptions(WHOLE))
        for seed in (0, 1)
    ]
    run_in_order([run.program_run() for run in runs], JobOptions())
    run, other = runs[0], runs[1].record()
    assert "problem" not in run.record() and "problem" not in other
    path = run.folder / "results.json"
    whole = json.loads(path.read_text())
    shown = {"test_error", "mean_return", "curve", "versions", "hardware", "commit", "dataset"}
    for key in whole:
        damaged = [{**whole, key: value} for value in (None, {}, [], "x", -1)]
        for results in (*damaged, {k: v for k, v in whole.items() if k != key}):
            path.write_text(json.dumps(results))
            record = run.record()
            named = key in record.get("problem", "")
            assert named or key not in shown or type(results.get(key)) is type(whole[key]), record
            if "problem" not in record and key not in shown:
                assert "scan" in markdown([record, other], "command")


def test_env_steps_and_time_of_a_trunk_from_another_run_count(tmp_path: Path) -> None:
    own = {"python": "3", "classifier": None, "env_steps": 5, "flops_per_glimpse": 3}
    own |= {"train_seconds": 4.0, "validation_seconds": 1.0}
    (tmp_path / "metrics.jsonl").touch()  # its curve is that of the stopper alone
    counted = {"env_steps": 10, "train_seconds": 7.0, "validation_seconds": 0.5}
    for trunk, steps, seconds in (
        (None, 5, 3.0),
        (counted, 15, 9.5),
        ({"commit": "1"}, None, None),
    ):
        record = dtram_record(tmp_path, own | {"trunk": trunk}, {"mean_glimpses": 2.0})
        assert (record["env_steps"], record["train_seconds"]) == (steps, seconds)
        assert record["curve"] == ([] if trunk is None else None)
