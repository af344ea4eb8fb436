"""Unpacks archives without letting them write anywhere but into the folder they are given."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from tqdm import tqdm


class UnsafeArchiveError(ValueError):
    """An archive asks for a file outside the folder that it is unpacked into, or for a link."""


def unpack_tar(
    archive: Path,
    folder: Path,
    members: Mapping[str, str] | None = None,
    *,
    progress: bool = False,
) -> tuple[Path, ...]:
    """Unpacks regular files of a tar archive, compressed or not; of an unsafe one, nothing.

    Owners, permissions and times in the archive are ignored.

    Args:
        archive: the archive.
        folder: where the files go; made if missing.
        members: names in the archive -> paths below `folder`; None: every file under its own name.
        progress: show a bar on standard error.

    Returns:
        The files written, in the archive's order.

    Raises:
        UnsafeArchiveError: a member to be unpacked has an absolute path, a ``..``, or is a link or
            a device.
        KeyError: a name of `members` is not in the archive.
        tarfile.ReadError, EOFError: not a tar archive, or a short one.
    """
    with tarfile.open(archive) as tar:
        if members is None:
            wanted = {entry.name: entry.name for entry in tar if not entry.isdir()}
        else:
            wanted = dict(members)
        entries = [entry for entry in tar.getmembers() if entry.name in wanted]
        absent = wanted.keys() - {entry.name for entry in entries}
        if absent:
            raise KeyError(f"{archive.name}: has no {', '.join(sorted(absent))}")
        for entry in entries:
            _check(archive, entry, entry.name)
            _check(archive, entry, wanted[entry.name])
        written = []
        bar = tqdm(
            entries,
            desc=f"unpacking {archive.name}",
            unit="file",
            disable=not progress,
            file=sys.stderr,
        )
        for entry in bar:
            target = folder / wanted[entry.name]
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(entry)
            assert content is not None  # `_check` let regular files pass only
            with content, target.open("wb") as out:
                shutil.copyfileobj(content, out)
            written.append(target)
    return tuple(written)


def _check(archive: Path, entry: tarfile.TarInfo, name: str) -> None:
    # Backslashes and drives are paths on Windows; no dataset of ours has them in a name.
    parts = re.split(r"[\\/]", name)
    if not parts[0] or ".." in parts or PureWindowsPath(name).drive:
        raise UnsafeArchiveError(
            f"{archive.name}: member {name!r} is not a path below the folder; nothing was unpacked"
        )
    if not entry.isreg():
        raise UnsafeArchiveError(
            f"{archive.name}: member {name!r} is a link or a device, expected a regular file; "
            "nothing was unpacked"
        )
