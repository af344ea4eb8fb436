"""Runs made in processes of their own: command lines, several side by side, failures."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.common.files import read_json
from train.common.options import flags, json_values
from train.common.provenance import shell_command
from train.common.run import check_same, has_results
from train.common.signals import restore_handlers, set_handlers, start_child

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


def run_in_order(jobs: Sequence[ProgramRun], runner: "Runner") -> None:
    """Makes runs that are not finished, each after those that it reads; see `check_options`."""
    for job in jobs:
        if job.finished:
            job.check_options()
    waiting = [job for job in jobs if not job.finished]
    while ready := [job for job in waiting if all(map(has_results, job.after))]:
        runner.run(ready)
        waiting = [job for job in waiting if job not in ready]
    for job in waiting:
        unmade = next(folder for folder in job.after if not has_results(folder))
        runner.problems[job.folder] = f"not run, as {unmade} is not finished"


@contextmanager
def resumable(program: str) -> Iterator[None]:
    """Exits on KeyboardInterrupt with the command that continues, as of ``"train/compare.py"``."""
    try:
        yield
    except KeyboardInterrupt:
        command = shell_command(program, sys.argv[1:])
        print(f"\ninterrupted; to continue: {command}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


class Runner:
    """Makes runs, several side by side.

    Their processes save and end when this one is interrupted, or dies.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = False
        self.problems: dict[Path, str] = {}

    def run(self, jobs: Sequence[ProgramRun]) -> None:
        """Makes unfinished runs, in order; on a signal KeyboardInterrupt, when all are saved."""
        before = set_handlers(signal.default_int_handler)
        try:
            with ThreadPoolExecutor(self._jobs) as pool:
                try:
                    list(pool.map(self._make, [job for job in jobs if not job.finished]))
                except KeyboardInterrupt:
                    self._stop()
                    raise
        finally:
            restore_handlers(before)

    def _make(self, job: ProgramRun) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        log = job.folder.with_name(job.folder.name + ".log")
        threads = os.environ | ({"OMP_NUM_THREADS": "1"} if self._jobs > 1 else {})
        before = log.stat().st_size if log.exists() else 0  # what earlier attempts said
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    return
                process = start_child(job.words(), threads, stdout=output, stderr=output)
                self._processes.append(process)
            status = process.wait()
            self._close_input(process)
        if self._stopped:
            return
        if status == 0 and job.finished:
            print(f"{job.name}: done in {time.perf_counter() - began:.0f} s", flush=True)
            return
        said = log.read_bytes()[before:].decode(errors="replace")
        problem = _reason(said) or f"exit status {status}"
        if status < 0:  # killed by a signal: the log's last line is not the reason
            problem = f"ended by {signal.Signals(-status).name}"
        self.problems[job.folder] = f"failed: {problem}"
        print(f"{job.name}: failed: {problem} (see {log})", flush=True)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                self._close_input(process)

    @staticmethod
    def _close_input(process: subprocess.Popen[bytes]) -> None:
        """Ends a run that `start_child` started, after it has saved."""
        assert process.stdin is not None
        process.stdin.close()


def _reason(log: str) -> str:
    """The last line of a failed run's log, or the whole message if tyro printed an error box."""
    _, box, framed = log.rpartition("\u256d")
    lines = [re.sub("[\u2500-\u257f]+", "", line).strip() for line in framed.splitlines()]
    if box:  # the first line is its title
        said = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
        return " ".join(said)[:200]
    return next((line[:200] for line in reversed(lines) if line), "")
