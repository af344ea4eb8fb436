"""What can be wrong with a dataset on disk."""

from __future__ import annotations


class DatasetNotFoundError(FileNotFoundError):
    """A dataset's files are not there, and could not be fetched or were not to be."""


class DatasetCorruptError(RuntimeError):
    """A dataset's file is there, but is not what was published: short or altered."""
