"""The root of the data, and the lock: one process writes and the others wait."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtram_env.datasets import DatasetNotFoundError, data_root
from dtram_env.datasets.paths import locked


def test_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTRAM_DATA", str(tmp_path / "env"))
    assert data_root() == tmp_path / "env"
    assert data_root(tmp_path / "given") == data_root(str(tmp_path / "given")) == tmp_path / "given"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("~/x") == tmp_path / "x"
    for unset in (
        lambda: monkeypatch.setenv("DTRAM_DATA", ""),
        lambda: monkeypatch.delenv("DTRAM_DATA"),
    ):
        unset()
        assert data_root() == tmp_path / ".cache" / "dtram"
    monkeypatch.chdir(tmp_path)
    assert data_root("relative") == tmp_path / "relative"


def test_one_at_a_time(tmp_path: Path) -> None:
    """Threads here; test_cache.py has processes, and one that is killed."""
    log: list[str] = []

    def work(_: int) -> None:
        with locked(tmp_path / "new" / ".lock"):
            log.append("begin")
            time.sleep(0.02)
            log.append("end")

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(3)))
    assert log == ["begin", "end"] * 3


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / ".lock"):
        raise KeyError
    with locked(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize(("dataset", "start"), [("cub", "^cub: cannot"), ("", "^cannot")])
def test_a_folder_that_cannot_be_written(tmp_path: Path, dataset: str, start: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = rf"{start} write into .*/file, .* Choose another folder with data_dir= or the env"
    with pytest.raises(DatasetNotFoundError, match=message), locked(tmp_path / "file/x", dataset):
        pass
