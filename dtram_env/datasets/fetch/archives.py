"""Datasets in tar archives: put there by the user or downloaded, then checked and unpacked.

An archive may be larger than the memory, so it is read as a stream. It is unpacked beside its final
folder and renamed at the end: a folder under the final name is complete, whatever was interrupted.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..paths import SETTINGS
from .transfer import SourceError, reason, transfer
from .unpack import DAMAGED, unpack_tar


@dataclass(frozen=True)
class Archive:
    """A published tar archive."""

    name: str
    md5: str
    inside: str  # the folder in it that holds the dataset
    url: str = ""  # where it can be downloaded; empty if it no longer can
    size: int = 0  # bytes, if it can be downloaded


def check_md5(path: Path, md5: str, fix: str) -> None:
    """Raises `DatasetCorruptError`, ending in the advice `fix`, if a file has another MD5."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DatasetCorruptError(
            f"{path}: expected a file with MD5 {md5}, "
            f"found {path.stat().st_size} bytes with MD5 {found}. {fix}"
        )


def bring_archive(
    dataset: str, archive: Archive, folder: Path, command: str, progress: bool
) -> Path:
    """Returns the user's own archive in `folder`, or else downloads it; checks its MD5.

    A downloaded archive ends in ``.part``, and the caller removes it. `command` is for the errors.
    """
    own, part = folder / archive.name, folder / f"{archive.name}.part"
    if own.is_file():
        check_md5(own, archive.md5, f"Remove it and run {command}, which downloads it.")
        return own
    check = partial(check_md5, md5=archive.md5, fix="")
    with suppress(OSError, DatasetCorruptError):
        check(part)  # complete, if a process was killed while it unpacked
        return part
    try:  # more patience for a gigabyte from one host than for a small file with several hosts
        most = archive.size
        transfer(archive.url, part, check, progress, most=most, attempts=20, patience=20.0)
    except SourceError as error:
        raise DatasetNotFoundError(
            f"{dataset}: {archive.url} did not give {archive.name}: {error}.\n"
            f"Run {command} again, which resumes the download; or put {archive.name} (MD5 "
            f"{archive.md5}), or the folder {archive.inside} unpacked from it, into {folder} by "
            f"hand; or, if it is in ROOT/{folder.name} already, give ROOT as {SETTINGS}."
        ) from error
    return part


def unpack_archive(
    path: Path, archive: Archive, target: Path, fix: str, progress: bool = False
) -> None:
    """Unpacks an archive's folder as `target`; the caller holds the dataset's lock.

    An existing `target` keeps its other files, and files of the archive replace its own. A damaged
    or unsafe archive, or one without the folder, is a `DatasetCorruptError` that ends in the advice
    `fix`, and nothing is unpacked.
    """
    place = target if target.is_dir() else target.parent
    for stale in place.glob(".unpack-*"):  # left by a killed process, since we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place) as temp:
            unpack_tar(path, Path(temp), progress=progress)
            source = Path(temp, archive.inside)
            if not source.is_dir():
                raise tarfile.ReadError(f"it has no folder {archive.inside}")
            _move(source, target)
    except DAMAGED as error:
        raise DatasetCorruptError(
            f"{path}: not the expected archive, {reason(error)}; nothing was unpacked. {fix}"
        ) from error
    except OSError as error:
        raise DatasetNotFoundError(
            f"{path}: cannot be unpacked into {place}, {error}. Free some space there, or choose "
            f"another folder with {SETTINGS}."
        ) from error


def _move(source: Path, target: Path) -> None:
    """Renames a folder to `target`; if `target` exists, moves the files into it one by one."""
    if not target.exists():
        os.replace(source, target)
        return
    files = [path for path in source.rglob("*") if path.is_file()]
    # The lists lie at the top. Images go first, so that no list names an image not yet there.
    for path in sorted(files, key=lambda path: (-len(path.parts), path)):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
