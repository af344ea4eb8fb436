"""What a program prints, to any reader: it may stop reading, as `head` does, or lack characters."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_GONE = 141  # a shell's code for SIGPIPE, which ends other programs then


@contextmanager
def for_any_reader() -> Iterator[None]:
    """Ends the program without a message once nobody reads what it prints.

    Characters that a stream's encoding lacks are printed as escapes, such as ``\\u03b3``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:  # also after `--help`, which ends the program
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more as it ends; this takes everything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(READER_GONE) from None
