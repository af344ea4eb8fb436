"""Unpacks tar archives; no file is written outside the given folder."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm


class UnsafeArchiveError(tarfile.TarError):
    """A member of the archive is a link or a device, or its path leaves the folder."""


def unpack_tar(
    archive: Path, folder: Path, names: Collection[str] | None = None, *, progress: bool = False
) -> None:
    """Unpacks the regular files of a tar archive, in one pass; compressed or not.

    tarfile's "data" filter keeps paths inside the folder. Owners, permissions and times in the
    archive are ignored. An error leaves the members before it behind, so unpack into a temporary
    folder.

    Args:
        archive: the archive.
        folder: where the files go; created if it is missing.
        names: the members to unpack; None: all.
        progress: whether to show a bar on standard error.

    Raises:
        UnsafeArchiveError: a member is a link or a device, or its path leaves the folder.
        tarfile.ReadError: not a tar archive, or a short one, or it lacks one of `names`.
        EOFError, zlib.error, gzip.BadGzipFile: a damaged or short archive.
    """
    missing = set(names or ())
    with tarfile.open(archive) as tar:
        label = f"unpacking {archive.name}"
        for member in tqdm(tar, label, unit="file", disable=not progress, file=sys.stderr):
            if names is not None and member.name not in names:
                continue
            if not member.isreg() and not member.isdir():
                raise UnsafeArchiveError(
                    f"{archive.name}: member {member.name!r} is a link or a device, "
                    "expected a regular file"
                )
            try:
                tar.extract(member, folder, set_attrs=False, filter="data")
            except tarfile.FilterError as error:
                raise UnsafeArchiveError(f"{archive.name}: member {error}") from error
            missing.discard(member.name)
    if missing:
        raise tarfile.ReadError(f"{archive.name}: has no {', '.join(sorted(missing))}")
