"""The lock of a run's folder: one writer, who is named, until it ends or dies."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from train.common.lock import RunLock, wait_until_free
from train.common.run import RunFolder


def open_run(path: Path, seed: int = 0) -> RunFolder:
    return RunFolder(path, {"seed": seed}, True, torch.device("cpu"), "train/reinforce.py")


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reinforce.py", "--m", "3"])
    first = open_run(tmp_path)
    first.log(1, {"eval/accuracy": 0.5})
    first.writer.flush()  # another thread writes
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = json.loads(before[".lock.json"])
    assert (found["pid"], found["host"]) == (os.getpid(), platform.node())
    with pytest.raises(ValueError) as refused:
        open_run(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}: in use by process {os.getpid()} on {platform.node()} ")
    assert f"since {found['since']}; wait for it, end it with `kill {os.getpid()}`" in said
    assert "or choose another --run-dir" in said and said.endswith("train/reinforce.py --m 3")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", [None, "", "[]", '{"pid": 1}'])
def test_a_holder_without_a_name(tmp_path: Path, content: str | None) -> None:
    """It has just begun, or the disk was full."""
    first = open_run(tmp_path)
    (tmp_path / ".lock.json").unlink()
    if content is not None:
        (tmp_path / ".lock.json").write_text(content)
    with pytest.raises(ValueError, match="in use by another process; wait for it"):
        open_run(tmp_path)
    first.close()


def leave(run: RunFolder) -> None:
    with pytest.raises(SystemExit):
        run.leave(signal.SIGHUP)


@pytest.mark.parametrize("end", [RunFolder.close, leave, lambda run: run.finish({})])
def test_a_run_that_ended_can_be_opened(tmp_path: Path, end: Callable[[RunFolder], None]) -> None:
    first = open_run(tmp_path)
    end(first)
    again = open_run(tmp_path)
    first.close()  # the second time it frees nothing
    if not again.finished:
        with pytest.raises(ValueError, match="in use by process"):
            open_run(tmp_path)
        again.close()
    assert not (tmp_path / ".lock.json").exists()


def test_a_refused_run_can_be_opened(tmp_path: Path) -> None:
    open_run(tmp_path).close()
    with pytest.raises(ValueError, match="other options") as kept:
        open_run(tmp_path, seed=1)
    open_run(tmp_path).close()
    assert kept.value.__traceback__ is not None  # it still holds the run that failed


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """Whatever the file says that it left."""
    lines = (
        "import filelock, sys, time\n"
        "lock = filelock.FileLock(sys.argv[1]); lock.acquire()\n"
        "print('locked', flush=True); time.sleep(600)\n"
    )
    words = [sys.executable, "-c", lines, str(tmp_path / ".lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "locked\n"
            holder = {"pid": process.pid, "host": "far", "since": "noon", "command": "make all"}
            (tmp_path / ".lock.json").write_text(json.dumps(holder))
            with pytest.raises(ValueError, match=rf"process {process.pid} on far .* make all$"):
                RunLock(tmp_path, "")
        finally:
            process.kill()
    RunLock(tmp_path, "").release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_run_is_waited_for_until_it_is_free(tmp_path: Path) -> None:
    def waited(seconds: float) -> float:
        began = time.monotonic()
        wait_until_free(tmp_path, seconds)
        return time.monotonic() - began

    def hold() -> None:
        lock = RunLock(tmp_path, "")
        held.set()
        free.wait()
        lock.release()

    assert waited(60) < 30 and not list(tmp_path.iterdir())  # nobody has begun it
    held, free = threading.Event(), threading.Event()
    threading.Thread(target=hold).start()
    held.wait()
    assert waited(0.2) >= 0.2  # in vain
    threading.Timer(0.2, free.set).start()
    assert waited(60) < 30
    RunLock(tmp_path, "").release()
