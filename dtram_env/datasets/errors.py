"""What can be wrong with a dataset on disk, and what a user is warned of."""

from __future__ import annotations


class DatasetNotFoundError(FileNotFoundError):
    """A dataset's files are not there, and could not be fetched or were not to be."""


class DatasetCorruptError(RuntimeError):
    """A dataset's file is there, but is not what was published: short or altered."""


class BuiltinDataWarning(UserWarning):
    """The images are a drawn stand-in, as the dataset that was asked for is not on this machine."""
