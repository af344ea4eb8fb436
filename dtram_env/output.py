"""What a program prints, to a reader that may stop reading, as `head` does."""

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
    """Ends the program without a message once nobody reads what it prints."""
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
