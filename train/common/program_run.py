"""A run of a program, made in a process of its own: its command line, and why it failed."""

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.common.files import read_json
from train.common.lock import IN_USE
from train.common.options import flags, json_values
from train.common.run import check_same, has_results
from train.common.signals import start_child

PROGRAMS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ProgramRun:
    """A run of a training program."""

    name: str  # for messages
    program: str  # file name in train/
    folder: Path  # --run-dir
    options: Mapping[str, Any] = field(default_factory=dict)  # by name, see `options.flags`
    after: tuple[Path, ...] = ()  # folders of the runs that it reads, which must be finished first
    recipe: Mapping[str, Any] = field(default_factory=dict)  # what its --recipe stands for

    @property
    def finished(self) -> bool:
        return has_results(self.folder)

    @property
    def log(self) -> Path:
        """What its program printed, one attempt after another."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def takes_gpu(self) -> bool:
        """Whether it computes on a GPU where there is one."""
        return self.options.get("device") != "cpu"

    def check_options(self) -> None:
        """Raises ValueError if the finished run was made with other options, but for `PLACES`, or
        with another recipe of the same name."""
        results = read_json(self.folder / "results.json")
        made = str(results.get("command", ""))
        before, wanted = defining_words(shlex.split(made)[2:]), defining_words(self.words()[2:])
        way_out = "delete it to run anew, or choose other --runs"
        if before != wanted:
            expected = f"expected {shlex.join(wanted)}; {way_out}"
            raise ValueError(f"{self.folder}: made with {shlex.join(before)}, {expected}")
        recipe = {k: v for k, v in self.recipe.items() if self.options.get(k) is None}
        then = results.get("options", {})
        named = {name: then.get(name) for name in recipe}
        check_same(self.folder, named, json_values(recipe), way_out)

    def words(self) -> list[str]:
        """The command that makes it, or continues it."""
        given = flags({**self.options, "run_dir": self.folder})
        return [sys.executable, str(PROGRAMS / self.program), *given, "--resume"]


PLACES = (
    *("--run-dir", "--data-dir", "--trunk", "--resume", "--save-minutes"),
    *("--device", "--compile", "--no-compile"),
)
"""Flags that say where something is or what computes it; a run that was moved is still the same."""


def defining_words(words: Sequence[str]) -> list[str]:
    """The words of a command line that define a run.

    >>> defining_words(["--seed", "1", "--run-dir", "runs/a", "--stop", "act", "--resume"])
    ['--seed', '1', '--stop', 'act']
    """
    kept, keeps = [], True
    for word in words:
        if word.startswith("--"):
            keeps = word.partition("=")[0] not in PLACES
        if keeps:
            kept.append(word)
    return kept


def make(run: ProgramRun, stop: threading.Event, one_thread: bool = True) -> str:
    """Makes a run by its program, or continues it; returns why it has no results, "" if it has.

    If another call is making the run, that begins with `IN_USE`.

    The program saves and ends if `stop` is set, or if this process is interrupted or dies.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    before = run.log.stat().st_size if run.log.exists() else 0  # what earlier attempts said
    with run.log.open("ab") as output:
        process = start_child(run.words(), environment, stdout=output, stderr=output)
        assert process.stdin is not None
        try:
            while process.poll() is None and not stop.wait(0.05):
                pass
        finally:
            process.stdin.close()  # see `start_child`
            status = process.wait()
    if status == 0 and run.finished:
        return ""
    if status < 0:  # killed by a signal: the log's last line is not the reason
        return f"failed: ended by {signal.Signals(-status).name}"
    said = run.log.read_bytes()[before:].decode(errors="replace")
    _, in_use, holder = said.rstrip().rpartition("\n")[2].partition(f": {IN_USE} ")
    if in_use:
        return f"{IN_USE} another call ({holder.partition(';')[0]}); call again when it has ended"
    return f"failed: {_reason(said) or f'exit status {status}'}"


def _reason(log: str) -> str:
    """The last line of a failed run's log, or the whole message if tyro printed an error box."""
    _, box, framed = log.rpartition("\u256d")
    lines = [re.sub("[\u2500-\u257f]+", "", line).strip() for line in framed.splitlines()]
    if box:  # the first line is its title
        said = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
        return " ".join(said)[:200]
    return next((line[:200] for line in reversed(lines) if line), "")
