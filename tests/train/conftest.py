"""Shared by the tests of the programs: small finished runs on drawn images, interruptions."""

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
import tyro

from agents.policy_only import POLICY_IDS
from dtram_env.datasets.storage import cache
from dtram_env.registration import TABLE
from train import classifier, one_look, reinforce
from train.common import jobs, training
from train.common.options import command_line
from train.common.program_run import ProgramRun
from train.common.run import Interrupt
from train.common.signals import ENDINGS, restore_handlers
from train.common.training_task import TrainingTask
from train.dtram.options import StopAfter, StopOff
from train.dtram.recipes import RECIPES
from train.reinforce import Options

SMALL: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "epochs": 2,
    "batch_size": 180,
    "learning_rate": 2e-3,
    "device": "cpu",
}
SMALL_STOP = StopAfter(epochs=2, batch_size=900)


@pytest.fixture(scope="session")
def signpost() -> TrainingTask:
    """One task for all tests, which only read it."""
    return TrainingTask("DTRAM-Signpost-v0", torch.device("cpu"))


@pytest.fixture
def draw_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws datasets in threads: for few images that is faster than starting processes."""
    monkeypatch.setattr(cache, "process_pool", ThreadPoolExecutor)


@pytest.fixture(scope="session")
def small_options() -> Callable[..., Options]:
    """Options of a run of a few seconds, changed by keywords."""

    def options(**changes: Any) -> Options:
        small = {**SMALL, "stop": SMALL_STOP}
        if changes.get("trunk") is not None:
            small = {name: small[name] for name in ("env_id", "device", "stop")}
        return Options(**{**small, **changes})

    return options


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, small_options) -> Path:
    """The folder of a finished DT-RAM."""
    return reinforce.train(small_options(run_dir=tmp_path_factory.mktemp("runs") / "small"))


@pytest.fixture(scope="session")
def finished_ram(tmp_path_factory: pytest.TempPathFactory, small_options) -> Path:
    """The folder of a finished RAM, trained by a curriculum of 2 and 4 glimpses."""
    folder = tmp_path_factory.mktemp("runs") / "ram"
    return reinforce.train(
        small_options(run_dir=folder, stop=StopOff(), curriculum=(2, 4), env_steps=40_000)
    )


@pytest.fixture(scope="session")
def small_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished classifier for the drawn images."""
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    return classifier.train(classifier.Options(**SMALL, run_dir=folder))


@pytest.fixture(scope="session")
def policy_id(small_classifier: Path) -> Iterator[str]:
    """A policy-only id of the drawn images, answered by the small classifier."""
    name = "DTRAM-Signpost-Policy-v0"
    gym.register(
        name,
        entry_point="agents.policy_only:make_env",
        vector_entry_point="agents.policy_only:make_vector_env",
        kwargs={**TABLE["DTRAM-Signpost-v0"], "classifier": str(small_classifier)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.common.training_task.POLICY_IDS", (*POLICY_IDS, name))
        yield name
    del gym.registry[name]


class InterruptAfter(Interrupt):
    """A signal that comes by itself, after the flag was read some times."""

    remaining = 0

    @property  # type: ignore[override]
    def signal(self) -> signal.Signals | None:
        type(self).remaining -= 1
        return signal.SIGTERM if type(self).remaining < 0 else None

    @signal.setter
    def signal(self, value: object) -> None:
        pass


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls a program and interrupts it after some batches."""

    def call(program: Callable[[], object], batches: int, module: Any = training) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, "Interrupt", InterruptAfter)
            InterruptAfter.remaining = batches
            with pytest.raises(SystemExit) as stopped:
                program()
        assert stopped.value.code == 128 + signal.SIGTERM

    return call


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made in this process, which saves the time of their start."""
    from train import sb3_baselines  # a GPU's machine may lack Stable-Baselines3

    calls: dict[str, Callable[[], object]] = {
        "reinforce.py": lambda: reinforce.train(command_line(Options, None, RECIPES)),
        "one_look.py": lambda: one_look.train(
            command_line(one_look.Options, None, one_look.RECIPES)
        ),
        "sb3_baselines.py": lambda: sb3_baselines.train(tyro.cli(sb3_baselines.Options)),
    }

    def submit(run: ProgramRun) -> Future[str]:
        made: Future[str] = Future()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", run.words()[1:])
            calls[run.program]()
        made.set_result("")
        return made

    monkeypatch.setattr(jobs, "workers", lambda options: nullcontext(submit))


@pytest.fixture
def no_signal_ignored() -> Iterator[None]:
    """As in a terminal; what a shell starts in the background ignores Ctrl-C."""
    before = {name: signal.signal(name, signal.default_int_handler) for name in ENDINGS}
    yield
    restore_handlers(before)
