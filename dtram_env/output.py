"""What a program prints, to any reader: it may stop reading, as `head` does, or lack characters."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_GONE = 141  # a shell's code for SIGPIPE, which ends other programs then


def in_one_line(error: BaseException) -> str:
    """An error's text; the system stores the file of its errors beside the text."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def for_any_reader() -> Iterator[None]:
    """Ends the program without a message once nobody reads what it prints.

    Streams that were closed before it began, as by ``2>&-``, take everything. Characters that a
    stream's encoding lacks are printed as escapes, such as ``\\u03b3``.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the new file gets the stream's number, which is free
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:  # also after `--help`, which ends the program
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more as it ends; this takes everything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(READER_GONE) from None
