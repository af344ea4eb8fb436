"""Errors and warnings about a dataset and its files."""

from collections.abc import Iterator
from contextlib import contextmanager


class DatasetNotFoundError(FileNotFoundError):
    """Files of a dataset are missing, and were not downloaded or could not be."""


class DatasetCorruptError(RuntimeError):
    """A file of a dataset differs from the published one: it is short or was changed."""


class ImageRefusedError(ValueError):
    """An intact image that cannot be used, because of its size or its range of values."""


class BuiltinDataWarning(UserWarning):
    """The images are drawn, because the requested dataset is not on this machine."""


@contextmanager
def advising(fix: str) -> Iterator[None]:
    """Adds `fix`, what to do, to the messages of the block's errors about files."""
    try:
        yield
    except (DatasetNotFoundError, DatasetCorruptError) as error:
        raise type(error)(f"{error} {fix}") from error.__cause__
