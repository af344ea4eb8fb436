"""Runs in processes of their own: commands, failures, signals, finished runs."""

import json
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from train.common import jobs
from train.common.jobs import ProgramRun, Runner, run_in_order
from train.common.signals import ENDINGS
from train.dtram.options import ACT, StopOff

COMMON = Path(jobs.__file__).parent


class Script(NamedTuple):
    """A run that is a few lines of Python."""

    name: str
    folder: Path
    lines: str

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()

    def words(self) -> list[str]:
        return [sys.executable, "-c", self.lines]


def test_the_command_of_a_run(tmp_path: Path) -> None:
    run = ProgramRun("a", "reinforce.py", tmp_path / "r", {"m": 2, "flip": True, "root": None})
    program, *rest = run.words()[1:]
    assert Path(program).name == "reinforce.py"
    assert rest == ["--m", "2", "--flip", "--run-dir", str(tmp_path / "r"), "--resume"]
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
    with pytest.raises(ValueError, match=re.escape(message)):
        run_in_order([job], Runner(1))


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


def test_runs_follow_those_that_they_read(tmp_path: Path, monkeypatch) -> None:
    """A run is left out if a run that it reads has failed."""
    made: list[list[str]] = []

    class FakeRunner(Runner):
        def run(self, ready) -> None:
            made.append([job.name for job in ready])
            for job in ready:
                if job.name != "fails":
                    job.folder.mkdir()
                    (job.folder / "results.json").touch()

    folders = {name: tmp_path / name for name in ("trunk", "stop", "fails", "reads")}
    after = {"stop": (folders["trunk"],), "reads": (folders["trunk"], folders["fails"])}
    runs = [
        ProgramRun(name, "reinforce.py", folders[name], after=after.get(name, ()))
        for name in ("reads", "stop", "trunk", "fails")
    ]
    runner = FakeRunner(1)
    run_in_order(runs, runner)
    assert made == [["trunk", "fails"], ["stop"]]
    assert runner.problems == {
        folders["reads"]: f"not run, as {folders['fails']} is not finished",
    }


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
    made = Runner(jobs=1)
    script = Script("a", tmp_path / "a", lines)
    made.run([script])
    assert made.problems == {script.folder: problem}


def test_finished_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/results.json").touch()
    made = Runner(jobs=1)
    made.run([Script("a", tmp_path / "a", "raise SystemExit(3)")])
    assert not made.problems


@pytest.mark.parametrize("name", ENDINGS)
def test_a_signal_is_handed_on_and_waited_for(tmp_path: Path, name) -> None:
    """The run has time to save, and the signal's handler is restored."""
    saved = tmp_path / "saved"
    lines = (
        "import signal, sys, time, pathlib, os\n"
        f"sys.path.append({str(COMMON)!r})\n"
        "from signals import end_with_parent\n"
        "def leave(*_):\n"
        f"    time.sleep(0.3); pathlib.Path({str(saved)!r}).touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "end_with_parent()\n"
        f"os.kill(os.getppid(), {int(name)})\n"
        "while True: time.sleep(0.01)\n"
    )

    def unhandled(*_: object) -> None:
        raise AssertionError("not handled by the runner")

    before = signal.signal(name, unhandled)  # else it might end these tests
    try:
        with pytest.raises(KeyboardInterrupt):
            Runner(jobs=1).run([Script("a", tmp_path / "a", lines)])
        assert saved.exists()
        assert signal.getsignal(name) is unhandled
    finally:
        signal.signal(name, before)


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
    assert jobs._reason(log) == reason
