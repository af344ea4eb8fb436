"""Unpacks tar archives; no file is written outside the given folder."""

import gzip
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)  # raised by `unpack_tar`


def unpack_tar(
    archive: Path, folder: Path, names: Collection[str] | None = None, *, progress: bool = False
) -> None:
    """Unpacks a tar archive, compressed or not; only the members `names`, unless None.

    Owners, permissions and times in the archive are ignored. An error leaves the members before it
    behind, so unpack into a temporary folder. Raises one of `DAMAGED` if a member would lie or lead
    outside the folder or is a device, or if the archive is damaged, cut off, no archive, or lacks
    one of `names`.
    """
    missing = set(names or ())
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, f"unpacking {archive.name}", unit="file", disable=not progress):
            if names is None or member.name in names:
                tar.extract(member, folder, set_attrs=False, filter="data")
                missing.discard(member.name)
    if missing:
        raise tarfile.ReadError(f"{archive.name}: has no {', '.join(sorted(missing))}")
