"""Worker processes, which end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def process_pool(count: int, **more: Any) -> ProcessPoolExecutor:
    """A pool of `count` processes, which end even if this one is killed.

    Ctrl-C in the terminal is for this process alone, which then ends them. `more` are further
    arguments of the pool.
    """
    context = multiprocessing.get_context("spawn")  # threads, as of torch, do not survive a fork
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker, **more)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # waits for a pipe, which the system closes however the parent ends
    os._exit(1)
