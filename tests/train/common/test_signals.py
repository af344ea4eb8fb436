"""Signals that end a program: ignored ones, a closed terminal, the death of the parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from train.common.signals import ENDINGS, restore_handlers, set_handlers

ROOT = Path(__file__).resolve().parents[3]

SAVES = """
import pathlib, signal, sys, time
sys.path.append("train/common")  # `import train` would import torch
import signals
signals.end_with_parent()
seen = []
signals.set_handlers(lambda number, frame: seen.append(number))
print("ready", flush=True)
while not seen:
    time.sleep(0.01)
print("a line", flush=True)
time.sleep(0.3)
pathlib.Path(sys.argv[1]).write_text(signal.Signals(seen[0]).name)
"""
"""A program that saves the name of the signal that ended it."""

PARENT = """
import os, sys, time
sys.path.append("train/common")
import signals
child = signals.start_child([sys.executable, "-c", *sys.argv[1:]], os.environ)
time.sleep(600)
"""


@contextmanager
def python(lines: str, *words: str, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the repository's folder, which is killed at the end."""
    command = [sys.executable, "-c", lines, *words]
    with subprocess.Popen(command, cwd=ROOT, text=True, **settings) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("no_signal_ignored")
@pytest.mark.parametrize("name", ENDINGS)
def test_a_signal_that_is_ignored_stays_ignored(name: signal.Signals) -> None:
    """As nohup ignores SIGHUP."""
    original = signal.signal(name, signal.SIG_IGN)
    try:
        before = set_handlers(lambda number, frame: None)
        assert name not in before and len(before) == len(ENDINGS) - 1
        assert signal.getsignal(name) is signal.SIG_IGN
        restore_handlers(before)
    finally:
        signal.signal(name, original)


def test_a_program_saves_and_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with python(PARENT, SAVES, str(tmp_path / "saved"), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        parent.kill()
        # The output ends when nobody has it open any more: the child has ended, too.
        assert parent.communicate(timeout=60) == ("a line\n", None)
    assert (tmp_path / "saved").read_text() == "SIGTERM"


def test_a_program_that_nobody_started_reads_no_input(tmp_path: Path) -> None:
    """Only `start_child` makes it end with its input; a user's may be closed."""
    saved = tmp_path / "saved"
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with python(SAVES, str(saved), **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
    assert not saved.exists()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals")
def test_a_program_saves_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """What it still prints there is no error."""
    terminal, inside = os.openpty()
    lines = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + SAVES
    streams = {name: inside for name in ("stdin", "stdout", "stderr")}
    with python(lines, str(tmp_path / "saved"), start_new_session=True, **streams) as process:
        os.close(inside)
        with open(terminal, "rb", buffering=0) as reader:
            assert reader.readline() == b"ready\r\n"
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"
