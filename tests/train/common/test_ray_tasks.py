"""Runs on a Ray cluster of two machines, one of which is lost."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from train.baselines.summary import summarise
from train.common.files import read_json
from train.common.records import read_records

ROOT = Path(__file__).resolve().parents[3]
ENV = "DTRAM-Signpost-v0"
# A resumed DT-RAM goes on exactly; the episodes of other algorithms would start anew.
SIX_RUNS = ["--env-id", ENV, "--algos", "dtram", "--total-timesteps", "20000"]
SIX_RUNS += ["--seeds", *"012345"]


def start_compare(runs: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train/compare.py"), *SIX_RUNS, "--runs", str(runs)]
    return subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def parent(pid: int) -> int:
    """The process that started another one; 0 if that has ended."""
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True)
    return int(found.stdout or 0)


def run_with_checkpoint(runs: Path, raylet: int) -> Path | None:
    """A run that a machine computes, which is the grandchild of its raylet, and has saved."""
    for holder in runs.glob("*/*/*/.lock.json"):
        with suppress(FileNotFoundError):  # the run has just ended
            mine = parent(parent(read_json(holder)["pid"])) == raylet
            if mine and list(holder.parent.glob("checkpoint-[0-9]*")):
                return holder.parent
    return None


def figures(runs: Path) -> pd.DataFrame:
    """The table's figures, but for the time that the runs took."""
    return summarise(read_records(runs / f"{ENV}.jsonl")).drop(columns="train_seconds")


@pytest.mark.slow
def test_a_lost_machine_changes_no_figure(tmp_path: Path, cluster: Any) -> None:
    lost = cluster.add_node(num_cpus=1)
    (raylet,) = lost.all_processes["raylet"]
    comparison = start_compare(tmp_path / "ray", "--ray", cluster.address)
    try:
        while (folder := run_with_checkpoint(tmp_path / "ray", raylet.process.pid)) is None:
            assert comparison.poll() is None, comparison.communicate()[0]
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        assert not (folder / "results.json").exists(), "it ended before its machine was lost"
        said, _ = comparison.communicate()
    finally:
        comparison.kill()
    assert comparison.returncode == 0, said
    assert "Ray: 2 machines, 2 CPUs, " in said
    assert said.count(": done\n") == 6 and ": failed: " not in said
    assert "continuing after" in folder.with_name(f"{folder.name}.log").read_text(encoding="utf-8")

    alone = start_compare(tmp_path / "alone", "--jobs", "2")
    assert ": failed: " not in alone.communicate()[0]
    pd.testing.assert_frame_equal(figures(tmp_path / "ray"), figures(tmp_path / "alone"))
