"""Many runs: their order, side by side on this machine or on a cluster, failures."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from train.common.options import AtLeast1, Checked
from train.common.program_run import ProgramRun, make
from train.common.provenance import shell_command
from train.common.ray_tasks import Submit, ray_tasks
from train.common.run import has_results
from train.common.signals import restore_handlers, set_handlers


@dataclass(frozen=True)
class JobOptions(Checked):
    """Where a program's runs are made."""

    jobs: AtLeast1 = 1
    """runs side by side on this machine; with more than one, each has one thread"""
    ray: str | None = None
    """make the runs on a Ray cluster of any size: auto, or the address of its head, which is
    started by `ray start --head`, and other machines by `ray start --address=HEAD:6379`. All need
    this clone, its packages, the data and the runs at the same paths. A run takes one CPU, and one
    GPU if it computes on one and the cluster has any; if its machine is lost, it continues on
    another. The cluster's room, not --jobs, says how many run side by side"""


def run_in_order(runs: Sequence[ProgramRun], options: JobOptions) -> dict[Path, str]:
    """Makes runs that are not finished, each after those that it reads.

    Returns why runs have no results, by folder. On a signal KeyboardInterrupt, when all are saved.
    """
    problems: dict[Path, str] = {}
    # Two trials of a search may be the same run.
    waiting = list({run.folder: run for run in runs if not run.finished}.values())
    making: dict[Future[str], ProgramRun] = {}
    done: set[Path] = set()  # a shared disk may show their results later

    def unmade(run: ProgramRun) -> list[Path]:
        return [folder for folder in run.after if folder not in done and not has_results(folder)]

    if not waiting:
        return problems
    before = set_handlers(interrupt_once)
    try:
        with workers(options) as submit:
            while True:
                ready = [run for run in waiting if not unmade(run)]
                making |= {submit(run): run for run in ready}
                waiting = [run for run in waiting if run not in ready]
                if not making:
                    break
                for made in wait(making, return_when=FIRST_COMPLETED).done:
                    run = making.pop(made)
                    if problem := problem_of(made):
                        problems[run.folder] = problem
                        print(f"{run.name}: {problem} (see {run.log})", flush=True)
                    else:
                        done.add(run.folder)
                        print(f"{run.name}: done", flush=True)
    finally:
        restore_handlers(before)
    for run in waiting:
        problems[run.folder] = f"not run, as {unmade(run)[0]} is not finished"
    return problems


def interrupt_once(*_: object) -> None:
    """Handles a signal by KeyboardInterrupt; later signals do not disturb the saving."""
    set_handlers(lambda *_: None)
    raise KeyboardInterrupt


def problem_of(made: Future[str]) -> str:
    """Why a run has no results, or "". An error of the worker itself is a reason, too."""
    try:
        return made.result()
    except Exception as error:
        return " ".join(f"failed: {type(error).__name__}: {error}".split())


def workers(options: JobOptions) -> AbstractContextManager[Submit]:
    """A context in which runs are started. An exception that leaves it first has them save."""
    return threads(options.jobs) if options.ray is None else ray_tasks(options.ray)


@contextmanager
def threads(jobs: int) -> Iterator[Submit]:
    """Makes some runs side by side on this machine."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield lambda run: pool.submit(make, run, stop, one_thread=jobs > 1)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def resumable(program: str) -> Iterator[None]:
    """Exits on KeyboardInterrupt with the command that continues, as of ``"train/compare.py"``."""
    try:
        yield
    except KeyboardInterrupt:
        command = shell_command(program, sys.argv[1:])
        print(f"\ninterrupted; to continue: {command}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
