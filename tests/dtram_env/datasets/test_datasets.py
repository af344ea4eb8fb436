"""`load` and `Dataset`: one read-only object for each split, checked, shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtram_env import datasets
from dtram_env.datasets import DATASETS, SPLITS, Dataset, data_root, load
from dtram_env.datasets.__main__ import main


def make(**changes: object) -> Dataset:
    fields: dict = {
        "name": "toy",
        "split": "test",
        "images": np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1),
        "labels": np.array([0, 1]),
        "class_names": ("a", "b"),
    }
    return Dataset(**(fields | changes))


def test_properties() -> None:
    data = make()
    assert (len(data), data.num_classes, data.image_shape) == (2, 2, (3, 4, 1))


def test_arrays_are_read_only_and_the_callers_are_not_touched() -> None:
    images = np.zeros((2, 3, 4, 1), dtype=np.uint8)
    data = make(images=images)
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.labels[0] = 1
    images[0] = 1
    assert images.flags.writeable


def test_store_is_shared_by_margin() -> None:
    data = make()
    assert data.store(2) is data.store(2)
    assert data.store(2) is not data.store(3)
    assert data.store(2).padded.shape == (2, 7, 8, 1)
    assert np.array_equal(data.store(3).images, data.images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 3, 4), np.uint8)}, r"images: .*\(N, H, W, C\), got uint8 \(2, 3"),
        ({"images": np.zeros((2, 3, 4, 1))}, "images: expected uint8 .* got float64"),
        ({"labels": np.array([0])}, r"labels: expected int64 of shape \(2,\)"),
        ({"labels": np.array([0, 1], np.int32)}, "labels: expected int64 .* got int32"),
        ({"labels": np.array([0, 2])}, "labels: expected 0 to 1, .* got 0 to 2"),
        ({"labels": np.array([-1, 1])}, "labels: expected 0 to 1, .* got -1 to 1"),
    ],
)
def test_bad_arrays(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("split", SPLITS)
def test_loaded_once(split: str, tmp_path: Path) -> None:
    data = load("signpost", split)
    assert data is load("signpost", split, data_dir=tmp_path, download=False)  # needs no folder
    assert (data.name, data.split) == ("Signpost", split)
    assert list(tmp_path.iterdir()) == []


def test_train_and_validation_part_the_whole() -> None:
    whole, train, validation = (
        load("signpost", split) for split in ("train+validation", "train", "validation")
    )
    rows = datasets.stratified_split(whole.labels, 600)
    for part, index in zip((train, validation), rows, strict=True):
        assert np.array_equal(part.images, whole.images[index])
        assert np.array_equal(part.labels, whole.labels[index])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="dataset 'mnits': expected one of 'mnist', 'signpost'"):
        load("mnits")
    with pytest.raises(ValueError, match="'mnits'"):
        datasets.fetch("mnits")
    with pytest.raises(
        ValueError, match=r"'valid': expected one of 'train', 'validation', 'test', 'train\+valid"
    ):
        load("signpost", "valid")


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


def test_command_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["list", "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for name, info in DATASETS.items():
        assert name in shown and info.env_id in shown
    assert f"not fetched ({tmp_path / 'mnist'})" in shown and "drawn, needs no files" in shown


def test_command_download(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["download", "signpost", "--data-dir", str(tmp_path)]) == 0
    assert "signpost: drawn, needs no files" in capsys.readouterr().out
    monkeypatch.setattr(datasets.mnist, "SOURCES", ())
    assert main(["download", "mnist", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in said and str(tmp_path / "mnist") in said
    assert "DTRAM-Signpost-v0" in said and "Traceback" not in said


def test_command_with_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["download", "mnits"])
    assert stopped.value.code == 2
    assert "'mnits' (choose from" in capsys.readouterr().err
