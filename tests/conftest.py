"""What every test shares: one thread a process, unhurried hypothesis, MNIST on disk."""

from __future__ import annotations

import os
from pathlib import Path

# Parallel test processes share the cores; torch reads this when it is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from dtram_env import datasets

hypothesis.settings.register_profile("dtram", deadline=None)
hypothesis.settings.load_profile("dtram")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of the four MNIST files, fetched if they are not there yet."""
    folder = datasets.fetch("mnist")
    assert folder is not None
    return folder
