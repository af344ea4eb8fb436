"""Archives write where they are told, or not at all."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtram_env.datasets.fetch.unpack import UnsafeArchiveError, unpack_tar


def write_tar(path: Path, *entries: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_everything(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tgz", ("d", special(tarfile.DIRTYPE)), ("d/x", b"one"), ("y", b"two")
    )
    written = unpack_tar(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"d/x": b"one", "y": b"two"}
    assert written == (tmp_path / "out/d/x", tmp_path / "out/y")


def test_chosen_members_under_new_names(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("d/x", b"one"), ("../evil", b"two"))
    unpack_tar(archive, tmp_path / "out", {"d/x": "x"})
    assert files_below(tmp_path / "out") == {"x": b"one"}


def test_archive_permissions_are_ignored(tmp_path: Path) -> None:
    info = tarfile.TarInfo()
    info.mode = 0o6777
    unpack_tar(write_tar(tmp_path / "a.tgz", ("x", info)), tmp_path / "out")
    assert (tmp_path / "out/x").stat().st_mode & 0o6111 == 0


@pytest.mark.parametrize("name", ["/abs", "../up", "d/../../up", "..", "d\\..\\up", "C:\\x", "\\x"])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("fine", b"1"), (name, b"2"))
    with pytest.raises(UnsafeArchiveError, match="not a path below the folder"):
        unpack_tar(archive, tmp_path / "out")
    with pytest.raises(UnsafeArchiveError, match="not a path below the folder"):
        unpack_tar(archive, tmp_path / "out", {"fine": name})
    assert files_below(tmp_path).keys() == {"a.tgz"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("fine", b"1"), ("odd", special(kind, "fine")))
    with pytest.raises(UnsafeArchiveError, match="'odd' is a link or a device"):
        unpack_tar(archive, tmp_path / "out")
    assert files_below(tmp_path).keys() == {"a.tgz"}


def test_a_link_cannot_lead_a_later_file_out(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tgz", ("d", special(tarfile.SYMTYPE, str(tmp_path))), ("d/x", b"1")
    )
    with pytest.raises(UnsafeArchiveError):
        unpack_tar(archive, tmp_path / "out")
    unpack_tar(archive, tmp_path / "out", {"d/x": "d/x"})
    assert files_below(tmp_path).keys() == {"a.tgz", "out/d/x"}


def test_absent_member(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("x", b"1"))
    with pytest.raises(KeyError, match=r"a\.tgz: has no y"):
        unpack_tar(archive, tmp_path / "out", {"x": "x", "y": "y"})
    assert not (tmp_path / "out").exists()


def test_short_archive(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("x", bytes(range(256)) * 400))
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises((EOFError, tarfile.ReadError)):
        unpack_tar(archive, tmp_path / "out")


@given(name=st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=5))
def test_nothing_is_ever_written_outside(
    tmp_path_factory: pytest.TempPathFactory, name: list[str]
) -> None:
    top = tmp_path_factory.mktemp("unpack")
    archive = write_tar(top / "a.tgz", ("/".join(["a", *name]), b"1"), ("/".join(name), b"2"))
    with contextlib.suppress(UnsafeArchiveError, OSError):  # OSError: a name that is a folder too
        unpack_tar(archive, top / "in" / "out")
    outside = [p for p in files_below(top) if not p.startswith("in/out/")]
    assert outside == ["a.tgz"]
