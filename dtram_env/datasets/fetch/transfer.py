"""Downloads one file over HTTP: resumed after an interruption, bounded in time, then checked."""

import http.client
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ..errors import DatasetCorruptError

# Bound on DNS, connection and first line of the answer together, then on each wait for bytes.
CONNECT_SECONDS = 4.0

T = TypeVar("T")


class SourceError(Exception):
    """The reason why a source did not give a file."""


def transfer(
    url: str,
    part: Path,
    check: Callable[[Path], T],
    progress: bool,
    *,
    most: int,
    attempts: int = 4,
    patience: float | None = None,
) -> T:
    """Downloads `url` into `part` and resumes until ``check(part)`` accepts it; returns its result.

    Bytes in `part` count as the beginning of the file, and stay there on failure. An answer of more
    than `most` bytes is cut off; it is another file. `attempts` says how often the transfer may
    break off; each must add bytes. `patience` is the longest wait for the answer, and for each of
    its bytes, in seconds; None: 4. Raises `SourceError`: no answer, no progress, too many
    interruptions, or another file than published.
    """
    name = url.rsplit("/", 1)[-1]
    for _ in range(attempts):
        before = _size(part)
        try:
            _download(url, part, progress, patience or CONNECT_SECONDS, most)
            return check(part)
        except DatasetCorruptError as error:
            part.unlink(missing_ok=True)
            if before == 0:  # all bytes are from this host
                raise SourceError(f"sent another {name} than published") from error
        except (OSError, http.client.HTTPException) as error:
            if _size(part) <= before:
                raise SourceError(reason(error)) from error
    raise SourceError(f"{name}: the transfer broke {attempts} times")


def _download(url: str, part: Path, progress: bool, seconds: float, most: int) -> None:
    """Downloads `url` into `part`, after the bytes that are there; an error keeps what arrived.

    Raises `DatasetCorruptError` if there are more than `most` bytes.
    """
    have = _size(part)
    headers = {"User-Agent": "dtram"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = _open(urllib.request.Request(url, headers=headers), seconds)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # no bytes after these: `part` is complete
            return
        raise
    with response:
        if response.status != 206:  # the server sends the file from its start
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        name = url.rsplit("/", 1)[-1]
        bar = tqdm(None, name, total, initial=have, unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("ab" if have else "wb") as out:
            while chunk := response.read(1 << 16):
                have += len(chunk)
                if have > most:
                    raise DatasetCorruptError(f"{part}: more than the expected {most} bytes")
                out.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"the connection closed after {_size(part)} of {total} bytes")


def _open(request: urllib.request.Request, seconds: float) -> http.client.HTTPResponse:
    """`urlopen` within `seconds`; its own timeout leaves out DNS and counts per address."""
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()
    too_late = threading.Event()

    def work() -> None:
        try:
            response = urllib.request.urlopen(request, timeout=seconds)
        except Exception as error:
            answers.put(error)
            return
        if too_late.is_set():
            response.close()
        answers.put(response)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        too_late.set()
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def reason(error: Exception) -> str:
    """An error in one line, without the wrapper that urllib puts around it."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__
