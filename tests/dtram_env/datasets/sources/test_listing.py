"""Lists of images: their invariants, and the command in their messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets.sources.listing import ImageList, fetch_command


def make(
    labels: np.ndarray, boxes: np.ndarray | None = None, paths: tuple[str, ...] = ("a/1", "b/2")
) -> ImageList:
    return ImageList(Path("root"), paths, labels, ("a", "b"), boxes, "Mend it.")


def test_length() -> None:
    assert len(make(np.array([0, 1]))) == 2
    assert len(make(np.array([], dtype=np.int64), np.zeros((0, 4)), ())) == 0


@pytest.mark.parametrize(
    ("labels", "boxes", "message"),
    [
        (np.array([0, 1, 1]), None, r"labels: expected int64 of shape \(2,\).*got int64 \(3,\)"),
        (np.array([0.0, 1.0]), None, "labels: expected int64 .*got float64"),
        (np.array([0, 2]), None, "labels: expected 0 to 1, as there are 2 class names, got 0 to 2"),
        (np.array([-1, 0]), None, "got -1 to 0"),
        (np.array([0, 1]), np.zeros((2, 2)), r"boxes: expected shape \(2, 4\).*got \(2, 2\)"),
    ],
)
def test_invariants(labels: np.ndarray, boxes: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(labels, boxes)


def test_fetch_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "`python -m dtram_env.datasets download cub`"
    monkeypatch.setenv("DTRAM_DATA", str(tmp_path))
    assert fetch_command("cub", tmp_path / "cub") == plain
    other = tmp_path / "two words" / "cub"
    assert fetch_command("cub", other) == f"{plain[:-1]} --data-dir '{other.parent}'`"
    # The command cannot fetch into a folder of another name.
    assert fetch_command("cub", tmp_path / "two words" / "birds") == plain
