"""Errors and warnings about a dataset's files."""

from __future__ import annotations


class DatasetNotFoundError(FileNotFoundError):
    """Files of a dataset are missing, and were not downloaded or could not be."""


class DatasetCorruptError(RuntimeError):
    """A file of a dataset differs from the published one: it is short or was changed."""


class BuiltinDataWarning(UserWarning):
    """The images are drawn, because the requested dataset is not on this machine."""
