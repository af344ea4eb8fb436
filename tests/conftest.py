"""What every test shares: one thread a process, unhurried hypothesis, MNIST on disk."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Parallel test processes share the cores; torch reads this when it is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from dtram_env import datasets

# Small tensors: one thread is faster than two, and equal from run to run.
torch.set_num_threads(1)

# oneDNN 3.12 writes beyond its arrays in the gradient of a strided 1x1 convolution of under 8
# channels, where AVX2 is the best that the processor has. The tests' ResNets are that narrow.
if not torch.cpu.get_capabilities().get("avx512_f", True):
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX")

# A shell starts what runs in its background with SIGINT ignored, nohup with SIGHUP. Every process
# from there on would inherit it: the tests that interrupt a program would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

hypothesis.settings.register_profile("dtram", deadline=None)
hypothesis.settings.load_profile("dtram")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that run in this process do not change how it allocates for the tests after them."""
    monkeypatch.setattr("train.common.run.keep_freed_memory", lambda: None)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs Python from the repository's folder, on one thread; what it printed."""

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*words: str, timeout: float = 600) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of the four MNIST files, fetched if they are not there yet."""
    folder = datasets.download("mnist")
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the one that Playwright installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip(
                "no Chromium: install Debian's package, or run `playwright install chromium`"
            )
        yield made
        made.close()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster whose first machine, of one CPU, is processes of this one."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it looks for a token in $HOME
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()
