"""What the tests of the programs share: one small finished run on drawn images, a classifier."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
import tyro

from agents.policy_only import POLICY_IDS
from dtram_env.registration import TABLE
from train import classifier, one_look, reinforce
from train.common import run
from train.common.jobs import ProgramRun, Runner
from train.reinforce import Options, train

SMALL: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "hidden_size": 24,
    "epochs": 2,
    "batch_size": 180,
    "learning_rate": 5e-3,
    "m": 2,
    "stop_epochs": 2,
    "stop_batch_size": 900,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_options() -> Callable[..., Options]:
    """Options of a run of a few seconds, changed by keywords."""
    return lambda **changes: Options(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the small options."""
    torch.set_num_threads(1)
    return train(Options(**SMALL, run_dir=tmp_path_factory.mktemp("runs") / "small"))


CLASSIFIER: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "hidden_size": 24,
    "epochs": 2,
    "batch_size": 180,
    "learning_rate": 5e-3,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def classifier_options() -> Callable[..., classifier.Options]:
    """Options of a classifier for the drawn images, changed by keywords."""
    return lambda **changes: classifier.Options(**{**CLASSIFIER, **changes})


@pytest.fixture(scope="session")
def small_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished classifier for the drawn images."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    return classifier.train(classifier.Options(**CLASSIFIER, run_dir=folder))


@pytest.fixture(scope="module")
def policy_id(small_classifier: Path) -> Iterator[str]:
    """A policy-only id of the drawn images, answered by the small classifier."""
    name = "DTRAM-Signpost-Policy-v0"
    gym.register(
        name,
        entry_point="agents.policy_only:make_env",
        vector_entry_point="agents.policy_only:make_vector_env",
        kwargs={**asdict(TABLE["DTRAM-Signpost-v0"]), "classifier": str(small_classifier)},
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in ("train.common.training_task", "train.evaluate"):
            patch.setattr(f"{module}.POLICY_IDS", (*POLICY_IDS, name))
        yield name
    del gym.registry[name]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of `train.common.jobs.Runner` are made here, one after another."""

    def here(self: Runner, jobs: list[ProgramRun]) -> None:
        for job in jobs:
            if not job.finished:
                program: Any = {"reinforce.py": reinforce, "one_look.py": one_look}[job.program]
                program.train(tyro.cli(program.Options, args=job.words()[2:]))

    monkeypatch.setattr(Runner, "run", here)


class InterruptAfter(run.Interrupt):
    """A signal that comes by itself, after it was asked for some times."""

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
    """Calls a program whose module is given, and interrupts it after some looks at the flag."""

    def call(module: Any, program: Callable[[], object], looks: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, "Interrupt", InterruptAfter)
            InterruptAfter.remaining = looks
            with pytest.raises(SystemExit) as stopped:
                program()
        assert stopped.value.code == 128 + signal.SIGTERM

    return call
