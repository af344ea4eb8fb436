"""One small finished run on drawn images, shared by the tests of the programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
