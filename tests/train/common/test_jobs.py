"""Runs in processes of their own: commands, failures, signals, finished runs."""

import json
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtram_env.optional import MissingDependencyError
from train.common import jobs, program_run
from train.common.jobs import JobOptions, run_in_order
from train.common.lock import RunLock
from train.common.program_run import ProgramRun
from train.common.signals import ENDINGS
from train.dtram.options import ACT, StopOff

COMMON = Path(program_run.__file__).parent


def script(folder: Path, lines: str, after: tuple[Path, ...] = ()) -> ProgramRun:
    """A run that is a few lines of Python."""
    program = folder.with_suffix(".py")
    program.write_text(lines)
    return ProgramRun(folder.name, str(program), folder, after=after)


def endless(saved: Path, begins: str, ends: str = "pass") -> str:
    """Lines of a run without an end, which takes a while to save when it is told to."""
    return (
        "import signal, sys, time, pathlib, os\n"
        f"sys.path.append({str(COMMON)!r})\n"
        "from signals import end_with_parent\n"
        "def leave(*_):\n"
        f"    {ends}; time.sleep(0.3); pathlib.Path({str(saved)!r}).touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "end_with_parent()\n"
        f"{begins}\n"
        "while True: time.sleep(0.01)\n"
    )


def test_the_command_of_a_run(tmp_path: Path) -> None:
    run = ProgramRun("a", "reinforce.py", tmp_path / "r", {"m": 2, "flip": True, "root": None})
    program, *rest = run.words()[1:]
    assert Path(program).name == "reinforce.py"
    assert rest == ["--m", "2", "--flip", "--run-dir", str(tmp_path / "r"), "--resume"]
    assert run.takes_gpu and not replace(run, options={"device": "cpu"}).takes_gpu
    assert not run.finished
    (tmp_path / "r").mkdir()
    (tmp_path / "r/results.json").touch()
    assert run.finished


SEED_1 = {"seed": 1, "trunk": Path("runs/a"), "stop": "act"}


def made_by(command: str, folder: Path, after: tuple[Path, ...] = ()) -> ProgramRun:
    """A finished run whose results name a command."""
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"command": command}))
    return ProgramRun("a", "reinforce.py", folder, SEED_1, after)


@pytest.mark.parametrize(
    "words",
    [
        "--seed 1 --trunk runs/a --stop act --run-dir runs/b --resume",
        "--seed 1 --trunk=elsewhere --device cuda --stop act",  # a run that was moved
        "--run-dir runs/b --seed 1 --stop act --data-dir d",
    ],
)
def test_a_finished_run_of_the_same_command_is_accepted(words: str, tmp_path: Path) -> None:
    made_by(f"python train/reinforce.py {words}", tmp_path).check_options()


@pytest.mark.parametrize("words", ["", "--seed 2 --stop act", "--seed 1 --stop act ponder_cost=1"])
def test_a_finished_run_of_another_command_is_refused(words: str, tmp_path: Path) -> None:
    job = made_by(f"python train/reinforce.py {words}", tmp_path)
    message = f"{tmp_path}: made with {words}, expected --seed 1 --stop act; delete it to run anew"
    with pytest.raises(ValueError, match=re.escape(message)):
        job.check_options()


def test_a_finished_run_of_an_earlier_recipe_is_refused(tmp_path: Path) -> None:
    """The command is the same, but the recipe's name stands for other options since."""
    results = {"command": "python train/reinforce.py --recipe r --m 2 --resume"}
    results["options"] = {"m": 2, "epochs": 24, "stop": {"name": "off"}}
    (tmp_path / "results.json").write_text(json.dumps(results))

    def job(**recipe: object) -> ProgramRun:
        return ProgramRun("a", "reinforce.py", tmp_path, {"recipe": "r", "m": 2}, recipe=recipe)

    job(m=1, epochs=24, stop=StopOff()).check_options()  # --m overrides the recipe's
    with pytest.raises(ValueError, match=re.escape("--epochs (24 then, 40 now)")):
        job(m=1, epochs=40, stop=StopOff()).check_options()
    with pytest.raises(ValueError, match=re.escape("--stop ({'name': 'off'} then, {'name'")):
        job(stop=ACT()).check_options()


def results(folder: Path) -> str:
    """Lines of Python that finish a run."""
    return f"import pathlib; pathlib.Path({str(folder / 'results.json')!r}).touch()"


@pytest.fixture
def ray_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends the Ray that a test has started."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into $HOME
    ray = pytest.importorskip("ray", reason="ray is not installed")
    yield
    ray.shutdown()


ON_RAY = JobOptions(ray="local")  # a cluster of this machine alone, whatever else is running


@pytest.mark.parametrize(
    "options", [JobOptions(), JobOptions(jobs=3), pytest.param(ON_RAY, marks=pytest.mark.slow)]
)
def test_runs_follow_those_that_they_read(
    tmp_path: Path, options: JobOptions, capsys, request: pytest.FixtureRequest
) -> None:
    """A run is left out if a run that it reads has failed; all others are made."""
    if options.ray:
        request.getfixturevalue("ray_ends")
    trunk, stop, fails, reads = (tmp_path / name for name in ("trunk", "stop", "fails", "reads"))
    runs = [
        script(reads, "exit('not to be run')", after=(trunk, fails)),
        script(stop, f"open({str(trunk / 'results.json')!r}); {results(stop)}", after=(trunk,)),
        script(trunk, f"import time; time.sleep(0.3); {results(trunk)}"),
        script(fails, "exit('error: no room')"),
    ]
    assert run_in_order([*runs, runs[2]], options) == {
        fails: "failed: error: no room",
        reads: f"not run, as {fails} is not finished",
    }
    said = capsys.readouterr().out.splitlines()
    assert sorted(line for line in said if not line.startswith("Ray: 1 machines, ")) == [
        f"fails: failed: error: no room (see {fails}.log)",
        "stop: done",
        "trunk: done",  # once, though it was asked for twice
    ]
    assert not reads.exists()


def test_as_many_runs_side_by_side_as_asked_for(tmp_path: Path) -> None:
    """Each of two waits for the other: they end only if both run at a time."""
    a, b = tmp_path / "a", tmp_path / "b"

    def meets(mine: Path, other: Path) -> ProgramRun:
        there = f"os.path.exists({str(other / 'here')!r})"
        wait = f"for _ in range(3000):\n    if {there}: break\n    time.sleep(0.01)\nelse: exit(1)"
        lines = f"import os, time\nopen({str(mine / 'here')!r}, 'w')\n{wait}\n{results(mine)}"
        return script(mine, lines)

    assert run_in_order([meets(a, b), meets(b, a)], JobOptions(jobs=2)) == {}


def test_an_error_of_a_worker_is_the_problem_of_its_run(tmp_path: Path, monkeypatch) -> None:
    """As where a machine lacks a package; the other run is made."""
    made = jobs.make

    def make(run: ProgramRun, *rest: Any, **keywords: Any) -> str:
        if run.folder.name == "a":
            raise OSError("no such\nmachine")
        return made(run, *rest, **keywords)

    monkeypatch.setattr(jobs, "make", make)
    runs = [script(tmp_path / name, results(tmp_path / name)) for name in "ab"]
    assert run_in_order(runs, JobOptions()) == {runs[0].folder: "failed: OSError: no such machine"}
    assert runs[1].finished


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("import sys; sys.exit('error: no room')", "failed: error: no room"),
        ("import sys; sys.exit(3)", "failed: exit status 3"),
        ("pass", "failed: exit status 0"),  # exit status of success, but no results
        ("import os; os.kill(os.getpid(), 9)", "failed: ended by SIGKILL"),
    ],
)
def test_the_problem_of_a_failed_run(lines: str, problem: str, tmp_path: Path) -> None:
    assert run_in_order([script(tmp_path / "a", lines)], JobOptions()) == {tmp_path / "a": problem}


def test_a_run_that_another_call_makes(tmp_path: Path, capsys) -> None:
    """It has not failed: `RunLock` refuses its folder, and names who writes."""
    folder = tmp_path / "a"
    folder.mkdir()
    lock = RunLock(folder, "python train/sb3_baselines.py")
    with pytest.raises(ValueError) as refused:
        RunLock(folder, "")
    since = json.loads((folder / ".lock.json").read_text())["since"]
    holder = f"process {os.getpid()} on {platform.node()} since {since}"
    problem = f"in use by another call ({holder}); call again when it has ended"
    run = script(folder, f"print(1); exit({f'error: {refused.value}'!r})")
    assert run_in_order([run], JobOptions()) == {folder: problem}
    assert capsys.readouterr().out == f"a: {problem} (see {run.log})\n"
    lock.release()


def test_finished_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/results.json").touch()
    assert not run_in_order([script(tmp_path / "a", "raise SystemExit(3)")], JobOptions())


def test_without_ray_the_error_has_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray is not .*pip install 'dtram\[ray\]'"):
        run_in_order([script(tmp_path / "a", "")], JobOptions(ray="auto"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ENDINGS)
def test_a_signal_is_handed_on_and_waited_for(tmp_path: Path, name) -> None:
    """The run has time to save, even if the signal comes again, and its handler is restored."""
    saved, again = tmp_path / "saved", f"os.kill(os.getppid(), {int(name)})"
    lines = endless(saved, begins=again, ends=again)

    def unhandled(*_: object) -> None:
        raise AssertionError("not handled by the runner")

    before = signal.signal(name, unhandled)  # else it might end these tests
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_order([script(tmp_path / "a", lines)], JobOptions())
        assert saved.exists()
        assert signal.getsignal(name) is unhandled
    finally:
        signal.signal(name, before)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_ends")
def test_runs_on_ray_save_when_the_program_is_interrupted(tmp_path: Path) -> None:
    begun, saved = tmp_path / "begun", tmp_path / "saved"
    lines = endless(saved, begins=f"pathlib.Path({str(begun)!r}).touch()")

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # to the main thread, which waits

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_order([script(tmp_path / "a", lines)], ON_RAY)
    assert saved.exists()


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("started\nerror: no such thing\n\n", "error: no such thing"),
        ("╭─ Parsing error ─╮\n│ unknown --wdith │\n╰─────────────────╯\n", "unknown --wdith"),
        (
            "started\n╭─ Value error ─╮\n│ --m 1: expected  │\n│ at least 2       │\n"
            "│ ────────────── │\n│ For full helptext, see a --help │\n╰──────╯\n",
            "--m 1: expected at least 2",
        ),
        ("", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_the_reason_of_a_failure_is_its_last_words(log: str, reason: str) -> None:
    assert program_run._reason(log) == reason
