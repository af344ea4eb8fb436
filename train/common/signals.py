"""Signals that end a program, and programs that end with the one that started them."""

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

Handlers = dict[signal.Signals, Any]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
ENDINGS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Ctrl-C, `kill`, a closed terminal and Ctrl-backslash, as far as the system has them."""

_WATCH = "DTRAM_ENDS_WITH_STDIN"  # environment variable of a child


def set_handlers(handler: Callable[[int, FrameType | None], object]) -> Handlers:
    """Sets the handler of `ENDINGS`, but for ignored ones (nohup); returns those before."""

    def handle(number: int, frame: FrameType | None) -> None:
        _leave_closed_terminal()
        handler(number, frame)

    wanted = [name for name in ENDINGS if signal.getsignal(name) is not signal.SIG_IGN]
    return {name: signal.signal(name, handle) for name in wanted}


def restore_handlers(before: Handlers) -> None:
    """Sets the handlers that `set_handlers` returned."""
    for name, handler in before.items():
        signal.signal(name, handler)


def _leave_closed_terminal() -> None:
    """Drops what is printed on a terminal that was closed; an error would prevent saving."""
    for number in (1, 2):
        try:
            os.get_terminal_size(number)
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def start_child(
    words: Sequence[str], env: Mapping[str, str], **streams: Any
) -> subprocess.Popen[bytes]:
    """Starts a program that calls `end_with_parent`.

    It saves and ends when its standard input closes: by the caller, or because the caller died.
    """
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        env={**env, _WATCH: "1"},
        start_new_session=True,  # Ctrl-C in the terminal is for the caller alone
        **streams,
    )


def end_with_parent() -> None:
    """Sends this process SIGTERM when its standard input closes, if `start_child` started it."""
    if os.environ.pop(_WATCH, None) is not None:
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1):  # nothing is ever written; the end of file is what counts
        pass
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGTERM)  # it interrupts what the main thread waits for
    else:
        signal.raise_signal(signal.SIGTERM)
