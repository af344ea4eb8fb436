"""Runs made in processes of their own: command lines, several side by side, failures."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from train.common.run import read_json

HERE = Path(__file__).resolve().parents[1]


class Job(Protocol):
    """A run to be made."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def folder(self) -> Path: ...

    @property
    def finished(self) -> bool: ...

    def words(self) -> list[str]:
        """The command that makes it, or goes on with it."""
        ...


@dataclass(frozen=True)
class ProgramRun:
    """A run of a program of this folder.

    Attributes:
        name: for messages.
        program: as in ``"reinforce.py"``.
        folder: the run's; ``--run-dir``.
        options: of the program by name, see `flags`.
        after: folders of the runs that it reads, which must be finished before it.
    """

    name: str
    program: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Path, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it has its results."""
        return has_results(self.folder)

    def check_options(self) -> None:
        """Raises one ValueError if the finished run was made with other options than these.

        What is not named here is the program's default. An option that came after the run was made
        is taken to have changed nothing as long as it is not named, those of `NOT_AS_BEFORE` apart.
        """
        made = read_json(self.folder / "results.json").get("options", {})
        defaults = self._defaults()
        wanted = {**defaults, **self.options}
        wanted = {name: _plain(v) for name, v in wanted.items() if name not in PLACES}
        if not wanted.get("side"):  # chosen by the run, which notes what it is
            wanted.pop("side", None)
        before = {name: _plain(value) for name, value in {**defaults, **made}.items()}
        differ = [
            f"{name} {before.get(name)!r} then, {value!r} now"
            for name, value in wanted.items()
            if before.get(name) != value
        ]
        differ += [
            f"--{name.replace('_', '-')} came later, and with it another default"
            for name, stop in NOT_AS_BEFORE.items()
            if name not in made and wanted.get("stop") == stop
        ]
        if differ:
            raise ValueError(
                f"{self.folder}: made otherwise ({', '.join(differ)}); delete it to run anew, or "
                "choose other --runs"
            )

    def _defaults(self) -> dict[str, Any]:
        """The program's options where none is given."""
        module = importlib.import_module(f".{Path(self.program).stem}", __package__)
        return {o.name: o.default for o in fields(module.Options) if o.default is not MISSING}

    def words(self) -> list[str]:
        """The command that makes it, or goes on with it."""
        given = flags({**self.options, "run_dir": self.folder})
        return [sys.executable, str(HERE / self.program), *given, "--resume"]


PLACES = ("run_dir", "data_dir", "trunk", "like", "device", "resume")
"""Options that say where something is, which may change."""
NOT_AS_BEFORE = {"stopper_prior": "after"}
"""Options whose default is not what was done before there were any, and with which --stop."""


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def run_in_order(jobs: Sequence[ProgramRun], runner: Runner) -> None:
    """Makes runs that are not finished, each after those that it reads.

    Raises:
        KeyboardInterrupt: as `Runner.run`.
        ValueError: a finished run was made with other options than are asked for now.
    """
    for job in jobs:
        if job.finished:
            job.check_options()
    waiting = [job for job in jobs if not job.finished]
    while waiting:
        ready = [job for job in waiting if all(map(has_results, job.after))]
        if not ready:
            break
        runner.run(ready)
        waiting = [job for job in waiting if job not in ready]
    for job in waiting:
        unmade = next(folder for folder in job.after if not has_results(folder))
        runner.problems[job.folder] = f"not run, as {unmade} is not finished"


def has_results(folder: Path) -> bool:
    """Whether a run is finished: its results are written last."""
    return (folder / "results.json").exists()


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line; those that are None are left out.

    >>> flags({"env_id": "X", "flip": True, "per_step": False, "curriculum": (1, 3), "root": None})
    ['--env-id', 'X', '--flip', '--no-per-step', '--curriculum', '1', '3']
    """
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        elif isinstance(value, tuple | list):
            words += [f"--{flag}", *map(str, value)]
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words


class Runner:
    """Makes runs, several side by side, and ends their processes when it is interrupted."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = False
        self.problems: dict[Path, str] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Makes the runs that are not finished, in order.

        Raises:
            KeyboardInterrupt: a signal came; the runs have saved what they had.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with ThreadPoolExecutor(self._jobs) as pool:
                try:
                    list(pool.map(self._make, [job for job in jobs if not job.finished]))
                except KeyboardInterrupt:
                    self._stop()
                    raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def _make(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        log = job.folder.with_name(job.folder.name + ".log")
        threads = os.environ | ({"OMP_NUM_THREADS": "1"} if self._jobs > 1 else {})
        before = log.stat().st_size if log.exists() else 0  # what earlier attempts said
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    return
                # In a session of its own: Ctrl-C reaches it from here, once, and not the terminal.
                process = subprocess.Popen(
                    job.words(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=threads,
                    start_new_session=True,
                )
                self._processes.append(process)
            status = process.wait()
        if self._stopped:
            return
        if status == 0 and job.finished:
            print(f"{job.name}: done in {time.perf_counter() - began:.0f} s", flush=True)
            return
        problem = (
            _reason(log.read_bytes()[before:].decode(errors="replace")) or f"exit status {status}"
        )
        if status < 0:  # nobody could say why: the last line is of something else
            problem = f"ended by {signal.Signals(-status).name}"
        self.problems[job.folder] = f"failed: {problem}"
        print(f"{job.name}: failed: {problem} (see {log})", flush=True)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)


def _reason(log: str) -> str:
    """What a failed run said last; of a box of the command line's parser all that it says."""
    _, box, framed = log.rpartition("\u256d")
    lines = [re.sub("[\u2500-\u257f]+", "", line).strip() for line in framed.splitlines()]
    if box:  # the first line is its title
        said = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
        return " ".join(said)[:200]
    return next((line[:200] for line in reversed(lines) if line), "")
