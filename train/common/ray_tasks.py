"""Runs as tasks on a Ray cluster."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import chdir, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from dtram_env.optional import require
from train.common.lock import wait_until_free
from train.common.program_run import ProgramRun, make
from train.common.provenance import REPOSITORY

Submit = Callable[[ProgramRun], Future[str]]
"""Starts a run; the future's result is what `make` returns."""

RETRIES = 5
"""Times that a run is tried again whose machine or worker was lost."""

LEASE = 120.0
"""Seconds that a run waits for its folder: a shared disk may keep the lock of a lost machine."""


@contextmanager
def ray_tasks(address: str) -> Iterator[Submit]:
    """Makes as many runs side by side as the cluster has room for; see `JobOptions.ray`.

    Raises ValueError if there is no cluster at an address, and `MissingDependencyError` without
    Ray.
    """
    ray = require("ray", "ray")
    if not ray.is_initialized():
        connect(ray, address)
    there = ray.cluster_resources()
    machines = sum(node["Alive"] for node in ray.nodes())
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    print(f"Ray: {machines} machines, {cpus} CPUs, {gpus} GPUs", flush=True)
    task = ray.remote(max_retries=RETRIES)(make_there)
    made: list[Any] = []

    def submit(run: ProgramRun) -> Future[str]:
        needs = task.options(num_cpus=1, num_gpus=int(gpus > 0 and run.takes_gpu), name=run.name)
        made.append(needs.remote(run, Path.cwd()))
        return made[-1].future()

    try:
        yield submit
    except BaseException:
        for reference in made:
            ray.cancel(reference)
        ray.wait(made, num_returns=len(made))
        raise


def connect(ray: Any, address: str) -> None:
    """Connects this process to a cluster; its tasks find this clone and the data."""
    path = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    variables = {"PYTHONPATH": os.pathsep.join(path)}
    if data := os.environ.get("DTRAM_DATA"):
        variables["DTRAM_DATA"] = data
    try:
        ray.init(
            None if address == "auto" else address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level="warning",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        expected = "auto, or the address of a cluster's head, as `ray start --head` prints it"
        raise ValueError(f"--ray {address}: expected {expected} ({error})") from None


def make_there(run: ProgramRun, folder: Path) -> str:
    """Makes a run on the machine that Ray chose, in the working folder of the calling program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # by which Ray cancels a task
    with chdir(folder):
        wait_until_free(run.folder, LEASE)
        return make(run, Event())
