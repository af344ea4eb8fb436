"""CUB's archive, from a local server or put there by hand, becomes a folder of images."""

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.fetch.archives import Archive, check_md5, unpack_archive
from dtram_env.datasets.sources import cub
from tests.dtram_env.datasets.serving import Server
from tests.dtram_env.datasets.trees import Tree, make_cub, pack

NAME = "CUB_200_2011.tgz"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """The content of the archive, unpacked elsewhere."""
    tree = make_cub(tmp_path / "published")
    (tree.root / "parts").mkdir()
    (tree.root / "parts/parts.txt").write_text("1 back\n")
    tree.publish(monkeypatch, cub)
    return tree


@pytest.fixture
def data(tree: Tree, tmp_path: Path) -> bytes:
    """The archive; like the published one it has a file beside the folder."""
    (tmp_path / "attributes.txt").write_text("1 has_bill_shape::curved\n")
    pack(tmp_path / "x.tgz", tmp_path / "attributes.txt", tree.root)
    return (tmp_path / "x.tgz").read_bytes()


@pytest.fixture
def server(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server({f"/{NAME}": data}) as server:
        md5 = hashlib.md5(data).hexdigest()
        local = {"md5": md5, "url": server.url + NAME, "size": len(data)}
        monkeypatch.setattr(cub, "ARCHIVE", replace(cub.ARCHIVE, **local))
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root" / "cub"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_landed(folder: Path, tree: Tree, *others: str) -> None:
    """The published tree, whole, the lock and `others`, and nothing else."""
    assert contents(folder / "CUB_200_2011") == contents(tree.root)
    assert {path.name for path in folder.iterdir()} == {"CUB_200_2011", ".lock", *others}
    assert not cub.lacking(folder) and len(cub.listing(folder, "train")) == 6


def test_fetches_once(server: Server, folder: Path, tree: Tree) -> None:
    cub.fetch(folder)
    assert_landed(folder, tree)
    cub.fetch(folder)
    assert server.asked == [(f"/{NAME}", None)]


def test_an_endless_answer_is_cut_off(server: Server, folder: Path) -> None:
    server.endless = True
    with pytest.raises(DatasetNotFoundError, match=f"sent another {NAME} than published"):
        cub.fetch(folder)
    assert len(server.asked) == 1 and {path.name for path in folder.iterdir()} == {".lock"}


def test_a_complete_part_is_not_requested_again(
    server: Server, folder: Path, tree: Tree, data: bytes
) -> None:
    """A process was killed while it unpacked."""
    (folder / ".unpack-of-a-killed-process/CUB_200_2011").mkdir(parents=True)
    (folder / f"{NAME}.part").write_bytes(data)
    cub.fetch(folder)
    assert_landed(folder, tree)
    assert server.asked == []


def test_put_there_by_hand(server: Server, folder: Path, tree: Tree, data: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(data)
    assert cub.lacking(folder)
    cub.fetch(folder)
    assert_landed(folder, tree, NAME)
    assert server.asked == []


def test_unpacked_by_hand(server: Server, folder: Path, tree: Tree) -> None:
    tree.root.parent.rename(folder.parent)
    (folder.parent / "CUB_200_2011").rename(folder)
    cub.fetch(folder)
    assert server.asked == [] and not (folder / ".lock").exists()


def test_repairs_what_is_missing_and_keeps_the_users_files(
    server: Server, folder: Path, tree: Tree
) -> None:
    cub.fetch(folder)
    root = folder / "CUB_200_2011"
    (root / tree.paths["test"][1]).unlink()
    (root / "classes.txt").write_text("1 001.Another\n")
    (root / "notes.txt").write_text("mine")
    cub.fetch(folder)
    assert len(server.asked) == 2
    (root / "notes.txt").unlink()
    assert_landed(folder, tree)


def test_repairs_the_folder_itself(server: Server, folder: Path, tree: Tree) -> None:
    folder.parent.mkdir(parents=True)
    tree.root.rename(folder)
    (folder / tree.paths["test"][1]).unlink()
    cub.fetch(folder)
    assert len(cub.listing(folder, "test")) == 3
    assert not (folder / "CUB_200_2011").exists()


def test_the_server_sends_something_else(server: Server, folder: Path, data: bytes) -> None:
    server.content[f"/{NAME}"] = data[:-1]
    with pytest.raises(DatasetNotFoundError) as error:
        cub.fetch(folder)
    said = str(error.value)
    assert f"{server.url}{NAME} did not give {NAME}: sent another {NAME} than published" in said
    assert f"MD5 {cub.ARCHIVE.md5}" in said and f"into {folder} by hand" in said
    assert "download cub --data-dir" in said and "ROOT/cub" in said and "DTRAM_DATA" in said
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_no_answer_keeps_what_came(server: Server, folder: Path, data: bytes) -> None:
    server.content = {}
    folder.mkdir(parents=True)
    (folder / f"{NAME}.part").write_bytes(data[:100])
    with pytest.raises(DatasetNotFoundError, match=r"HTTP Error 404.*\n.*resumes the download"):
        cub.fetch(folder)
    assert (folder / f"{NAME}.part").read_bytes() == data[:100]


def test_a_truncated_archive_put_by_hand(server: Server, folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(data[:1000])
    message = rf"{NAME}: expected .*{cub.ARCHIVE.md5}, found 1000 bytes.*cub"
    with pytest.raises(DatasetCorruptError, match=message):
        cub.fetch(folder)
    assert server.asked == []


def test_a_place_that_cannot_be_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=r"cub: cannot write into .*data_dir="):
        cub.fetch(tmp_path / "file" / "cub")


def test_of_several_at_once_one_downloads(server: Server, folder: Path, tree: Tree) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(cub.fetch, [folder] * 3))
    assert_landed(folder, tree)
    assert len(server.asked) == 1


def test_progress_goes_to_standard_error(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cub.fetch(folder, progress=True)
    shown = capsys.readouterr()
    assert f"{NAME}: 100%" in shown.err and f"unpacking {NAME}" in shown.err and shown.out == ""


def test_md5_of_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    check_md5(path, "7f614da9329cd3aebf59b91aadc30bf0", "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    with pytest.raises(
        DatasetCorruptError, match=r"large: expected .*found 67108864 bytes.*Mend\."
    ):
        check_md5(path, "0" * 32, "Mend.")


def write_tar(path: Path, *entries: tuple[str, bytes | None]) -> Path:
    """Writes members with their content; None: a link to a file outside."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return path


ANY = Archive("a.tgz", "", "top")


# Noise does not compress, so half of the file is half of the content.
NOISE = hashlib.shake_128(b"").digest(100_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [("top/x", b"1"), ("../up", b"2")],
            r"'\.\./up' would be .* outside the destination",
        ),
        ([("top/x", b"1"), ("top/y", None)], "'top/y' is a link to an absolute path"),
        ([("other/x", b"1")], "it has no folder top"),
        ([], "it has no folder top"),
        ([("top/x", NOISE), ("top/y", NOISE)], ""),  # cut below
        (b"<html>please log in</html>" * 99, ""),
        (b"", ""),
    ],
)
def test_unsafe_damaged_and_other_archives(
    tmp_path: Path, content: list[tuple[str, bytes | None]] | bytes, message: str
) -> None:
    archive = tmp_path / "a.tgz"
    if isinstance(content, bytes):
        archive.write_bytes(content)
    else:
        write_tar(archive, *content)
    if not message:
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    message = rf"a\.tgz: not the expected archive, .*{message}.*; nothing was unpacked\. Mend\."
    with pytest.raises(DatasetCorruptError, match=message):
        unpack_archive(archive, ANY, tmp_path / "top", "Mend.")
    assert contents(tmp_path).keys() == {"a.tgz"}


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("top/x", b"1"))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tarfile.copyfileobj", full)
    with pytest.raises(
        DatasetNotFoundError, match=r"a\.tgz: cannot be unpacked .*No space.*data_d"
    ):
        unpack_archive(archive, ANY, tmp_path / "top", "Mend.")
    assert contents(tmp_path).keys() == {"a.tgz"}


def test_lists_land_after_the_images_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "top").mkdir()
    archive = write_tar(tmp_path / "a.tgz", ("top/a.txt", b"1"), ("top/images/k/x.jpg", b"2"))
    landed: list[str] = []
    move = "dtram_env.datasets.fetch.archives.os.replace"
    monkeypatch.setattr(move, lambda source, target: landed.append(Path(target).name))
    unpack_archive(archive, ANY, tmp_path / "top", "")
    assert landed == ["x.jpg", "a.txt"]
