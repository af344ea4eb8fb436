"""Unpacks tar archives; no file is written outside the given folder."""

import gzip
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)  # raised by `unpack_tar`


class UnsafeArchiveError(tarfile.TarError):
    """A member of the archive is a link or a device, or its path leaves the folder."""


def unpack_tar(
    archive: Path, folder: Path, names: Collection[str] | None = None, *, progress: bool = False
) -> None:
    """Unpacks the regular files of a tar archive, compressed or not; only `names`, unless None.

    Owners, permissions and times in the archive are ignored. An error leaves the members before it
    behind, so unpack into a temporary folder. Raises `UnsafeArchiveError`, and one of `DAMAGED` if
    it is no tar archive, a damaged or short one, or lacks one of `names`.
    """
    missing = set(names or ())
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, f"unpacking {archive.name}", unit="file", disable=not progress):
            if names is not None and member.name not in names:
                continue
            if not member.isreg() and not member.isdir():
                raise UnsafeArchiveError(
                    f"{archive.name}: member {member.name!r} is a link or a device, not a file"
                )
            try:  # the filter "data" keeps paths inside the folder
                tar.extract(member, folder, set_attrs=False, filter="data")
            except tarfile.FilterError as error:
                raise UnsafeArchiveError(f"{archive.name}: member {error}") from error
            missing.discard(member.name)
    if missing:
        raise tarfile.ReadError(f"{archive.name}: has no {', '.join(sorted(missing))}")
