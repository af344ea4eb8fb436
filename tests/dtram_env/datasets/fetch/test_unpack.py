"""Archives write only into the given folder."""

import io
import tarfile
from pathlib import Path

import pytest

from dtram_env.datasets.fetch.unpack import DAMAGED, unpack_tar


def write_tar(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
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
    unpack_tar(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"d/x": b"one", "y": b"two"}


def test_chosen_members(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tgz", ("d/x", b"one"), ("../evil", b"two"), ("z", special(tarfile.FIFOTYPE))
    )
    unpack_tar(archive, tmp_path / "out", ["d/x"])
    assert files_below(tmp_path).keys() == {"a.tgz", "out/d/x"}


SHORT = bytes(range(256)) * 400


@pytest.mark.parametrize(
    ("member", "names", "error", "message"),
    [
        (("../up", b"2"), None, tarfile.FilterError, "outside the destination"),
        (("d/../../up", b"2"), None, tarfile.FilterError, "outside the destination"),
        (
            ("l", special(tarfile.SYMTYPE, "/x")),
            None,
            tarfile.FilterError,
            "'l' is a link to an abs",
        ),
        (("f", special(tarfile.FIFOTYPE)), None, tarfile.FilterError, "'f' is a special file"),
        (("y", b"1"), ["x", "z"], tarfile.ReadError, r"a\.tgz: has no z"),
        (("y", SHORT), None, (EOFError, tarfile.ReadError), "end"),  # cut below
    ],
)
def test_archives_that_are_refused(
    tmp_path: Path,
    member: tuple[str, bytes | tarfile.TarInfo],
    names: list[str] | None,
    error: type[Exception],
    message: str,
) -> None:
    archive = write_tar(tmp_path / "a.tgz", ("x", b"1"), member)
    if member[1] is SHORT:
        archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(error, match=message):
        unpack_tar(archive, tmp_path / "out", names)
    assert {path.split("/")[0] for path in files_below(tmp_path)} <= {"a.tgz", "out"}


def test_a_link_cannot_lead_a_later_file_out(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tgz", ("d", special(tarfile.SYMTYPE, str(tmp_path))), ("d/x", b"1")
    )
    with pytest.raises(DAMAGED):
        unpack_tar(archive, tmp_path / "out")
    unpack_tar(archive, tmp_path / "out", ["d/x"])
    assert files_below(tmp_path).keys() == {"a.tgz", "out/d/x"}
