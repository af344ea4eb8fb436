"""Images that come in tar archives: put there by hand or downloaded, checked, unpacked aside.

An archive may be larger than the memory, so it is read as a stream. What it unpacks to appears by
one rename, so a folder under its own name is whole, whatever was interrupted.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DatasetCorruptError, DatasetNotFoundError
from .transfer import SourceError, reason, transfer
from .unpack import UnsafeArchiveError, unpack_tar

# For a gigabyte more patience than for a small file that has other sources.
_ATTEMPTS = 20
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Archive:
    """One published tar archive.

    Attributes:
        name: its file name.
        md5: its MD5.
        inside: the folder in it that holds all that is wanted.
        url: where it is to be had; None if nowhere any more.
    """

    name: str
    md5: str
    inside: str
    url: str | None = None


def check_md5(path: Path, md5: str, mend: str) -> None:
    """Raises `DatasetCorruptError`, which says `mend`, if a file has another MD5."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DatasetCorruptError(
            f"{path}: expected a file with MD5 {md5}, "
            f"found {path.stat().st_size} bytes with MD5 {found}. {mend}"
        )


def bring_archive(
    dataset: str, archive: Archive, folder: Path, command: str, progress: bool
) -> Path:
    """The archive, checked: the one in `folder`, put there by hand, or else downloaded.

    Args:
        dataset: the dataset's name, for messages.
        archive: which; it must have a `url`.
        folder: where it is, or is downloaded to.
        command: what the user types to fetch the dataset, for messages.
        progress: show a bar on standard error.

    Returns:
        Its path, whose name ends in ``.part`` if it was downloaded; that one is the caller's to
        remove.

    Raises:
        DatasetCorruptError: the one put there by hand is another file than published.
        DatasetNotFoundError: it could not be downloaded.
    """
    by_hand, part = folder / archive.name, folder / f"{archive.name}.part"
    if by_hand.is_file():
        check_md5(by_hand, archive.md5, f"Remove it and run {command}, which fetches it.")
        return by_hand
    assert archive.url is not None
    check = partial(check_md5, md5=archive.md5, mend="")
    try:
        check(part)  # of a process that was killed while it unpacked
        return part
    except (OSError, DatasetCorruptError):
        pass
    try:
        transfer(archive.url, part, check, progress, attempts=_ATTEMPTS, patience=_PATIENCE_SECONDS)
    except SourceError as error:
        raise DatasetNotFoundError(
            f"{dataset}: {archive.url} did not give {archive.name}: {error}.\n"
            f"Run {command} again, which goes on from what came; or put {archive.name} (MD5 "
            f"{archive.md5}), or the folder {archive.inside} unpacked from it, into {folder} by "
            f"hand; or, if it is in ROOT/{folder.name} already, give ROOT as data_dir= or the "
            "environment variable DTRAM_DATA."
        ) from error
    return part


def unpack_archive(
    path: Path, archive: Archive, target: Path, mend: str, progress: bool = False
) -> None:
    """Unpacks what `archive` holds inside as the folder `target`; the lock must be held.

    A folder that is there keeps its other files; those that the archive has too are replaced.

    Args:
        path: the archive, checked.
        archive: what it is.
        target: what the folder in it becomes.
        mend: what to do if it cannot be unpacked, for messages.
        progress: show a bar on standard error.

    Raises:
        DatasetCorruptError: it is short, no archive, has no such folder, or asks for files outside
            of its own folder, or for links; nothing was unpacked.
        DatasetNotFoundError: there is no room, or nothing can be written there.
    """
    place = target if target.is_dir() else target.parent
    for stale in place.glob(".unpack-*"):  # of a killed process
        shutil.rmtree(stale, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place) as temp:
            unpack_tar(path, Path(temp), progress=progress)
            source = Path(temp, archive.inside)
            if not source.is_dir():
                raise tarfile.ReadError(f"it holds no folder {archive.inside}")
            _land(source, target)
    except (UnsafeArchiveError, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetCorruptError(
            f"{path}: not the expected archive, {reason(error)}. {mend}"
        ) from error
    except OSError as error:
        raise DatasetNotFoundError(
            f"{path}: cannot be unpacked into {place}, {error}. Make room there, or choose another "
            "place by data_dir= or the environment variable DTRAM_DATA."
        ) from error


def _land(source: Path, target: Path) -> None:
    """Moves a folder to `target`, at once; or its files one by one into the `target` that is."""
    if not target.exists():
        os.replace(source, target)
        return
    files = [path for path in source.rglob("*") if path.is_file()]
    # The lists lie at the top: images first, so that no list names one that is yet to come.
    for path in sorted(files, key=lambda path: (-len(path.parts), path)):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
