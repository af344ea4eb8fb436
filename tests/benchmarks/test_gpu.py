"""`make gpu`: every part in seconds on the CPU, time limits, and what it says is missing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import PARTS, Part
from dtram_env import datasets
from train.common.records import ORIGIN


def read(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


@pytest.mark.parametrize(
    "parts", [("environment", "mnist"), pytest.param(tuple(PARTS), marks=pytest.mark.slow)]
)
def test_a_dry_run_runs_its_parts(
    run_python: Callable[..., str], tmp_path: Path, parts: tuple[str, ...]
) -> None:
    words = ["--dry-run", "--minutes", "60", "--out", str(tmp_path), "--parts", *parts]
    printed = run_python("benchmarks/gpu.py", *words, timeout=3600)  # half a minute, if not busy
    found = read(tmp_path)
    summary = found.pop("summary")["parts"]
    assert [row["part"] for row in summary] == list(parts)
    for name, row in zip(parts, summary, strict=True):
        assert row["status"] == found[name]["status"] == "done", found[name]["output"]
        assert row["headline"] and row["headline"] in printed
        assert found[name].keys() > {*ORIGIN, "commands", "limit_seconds"}
        assert found[name]["results"] or name == "tests"
    assert len(list(tmp_path.iterdir())) == len(parts) + 1


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs parts of Python code for a share of the time each; their records and the summary."""

    def call(minutes: float, **parts: tuple[float, str]) -> dict[str, Any]:
        made = {
            name: Part(share, lambda plan, code=code: [["-c", code]], lambda _, output: output)
            for name, (share, code) in parts.items()
        }
        monkeypatch.setattr(gpu, "PARTS", made)
        monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
        words = ["gpu.py", "--dry-run", "--minutes", str(minutes), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        return read(tmp_path / "out") | {"code": ended.value.code}

    return call


def test_a_failure_is_kept_and_does_not_stop_the_others(run) -> None:
    found = run(5, bad=(0.5, "raise SystemExit('lost')"), good=(0.5, "print('won')"))
    assert [row["status"] for row in found["summary"]["parts"]] == ["failed", "done"]
    assert "lost" in found["bad"]["output"] and "headline" not in found["bad"]
    assert found["good"]["headline"] == "won\n" and found["code"] == 1


def test_a_part_that_overruns_is_ended_and_none_starts_late(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    found = run(0.02, slow=(1.0, deaf), late=(1e-9, "print('late')"))
    assert [row["status"] for row in found["summary"]["parts"]] == ["ended", "not started"]
    assert found["slow"]["limit_seconds"] == 1 and found["slow"]["seconds"] < 30
    assert "late" not in found and found["code"] == 0


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    return gpu.read_options()


def test_missing_packages_are_named_before_it_starts(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"tyro": "missing", "torch": "2.9.1"}
    monkeypatch.setattr(gpu, "found", lambda package: here.get(package, "99"))
    with pytest.raises(SystemExit, match=r"torch, tyro; pip install 'torch>=2.11' 'tyro>="):
        gpu.usable_parts(options)


def test_a_gpu_is_needed(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device; --dry-run"):
        gpu.usable_parts(options)


def test_parts_without_their_data_or_packages_are_left_out(
    options: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(datasets, "is_ready", lambda name: False)
    monkeypatch.setattr(gpu, "found", lambda name: "missing" if name == "hypothesis" else "99")
    left = ["training", "training-compiled", "birds-small", "dynamic-saving"]
    assert gpu.usable_parts(options) == left
    printed = capsys.readouterr().out
    assert "left out: tests, without hypothesis" in printed and "mnist, without MNIST" in printed


@pytest.mark.parametrize(
    ("here", "least", "enough"),
    [("2.11.0+cu130", "2.11", True), ("2.9", "2.11", False), ("missing", "1", False)],
)
def test_versions(here: str, least: str, enough: bool) -> None:
    assert gpu.is_at_least(here, least) == enough
