"""MNIST: the published images, or an error that names the wrong file and the way out."""

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtram_env import datasets
from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError, load
from dtram_env.datasets.sources import mnist

FIX = "python -m dtram_env.datasets download mnist"
NAMES = [file.name for pair in mnist.FILES.values() for file in pair]


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    """A root whose MNIST files are links to the real ones; a test replaces one of them."""
    (tmp_path / "mnist").mkdir()
    for name in NAMES:
        source = mnist_folder / name
        suffix = "" if source.exists() else ".gz"
        (tmp_path / "mnist" / (name + suffix)).symlink_to(mnist_folder / (name + suffix))
    return tmp_path


@pytest.mark.parametrize("present", [*combinations(NAMES, 0), *combinations(NAMES, 1)])
def test_some_of_the_files_are_not_all(tmp_path: Path, present: tuple[str, ...]) -> None:
    for name in present:
        (tmp_path / name).touch()
    assert mnist.lacking(tmp_path)
    for name in NAMES[:-1]:
        (tmp_path / name).touch()
    assert mnist.lacking(tmp_path) == [name for name in NAMES[-1:] if name not in present]
    (tmp_path / f"{NAMES[-1]}.gz").touch()
    assert not mnist.lacking(tmp_path)


def replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@pytest.mark.usefixtures("mnist_folder")
def test_known_statistics() -> None:
    whole, test = load("mnist", "train+validation"), load("mnist", "test")
    assert whole.images.shape == (60_000, 28, 28, 1) and test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(whole.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert whole.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:3].tolist() == [7, 2, 1]
    assert abs(whole.images.mean() / 255 - 0.1307) < 5e-5
    assert abs(whole.images.std() / 255 - 0.3081) < 5e-5
    assert whole.class_names[7] == "7" and whole.image_shape == (28, 28, 1)


@pytest.mark.usefixtures("mnist_folder")
def test_validation_is_5000_proportional_rows_of_the_training_part() -> None:
    whole, train, validation = (
        load("mnist", s) for s in ("train+validation", "train", "validation")
    )
    assert (len(train), len(validation)) == (55_000, 5_000)
    # count / 12 by hand: the whole parts sum to 4994; one more for the six largest remainders, of
    # which classes 0 and 8 tie for the last.
    assert np.bincount(validation.labels).tolist() == [
        *(494, 562, 496, 511, 487),
        *(452, 493, 522, 487, 496),
    ]
    rows = datasets.stratified_split(whole.labels, 5000)
    for part, index in zip((train, validation), rows, strict=True):
        assert np.array_equal(part.images, whole.images[index])
        assert np.array_equal(part.labels, whole.labels[index])


def test_gzipped_by_hand(folder: Path, mnist_folder: Path) -> None:
    for name in NAMES[2:]:
        data = (folder / "mnist" / name).read_bytes()
        (folder / "mnist" / name).unlink()
        (folder / "mnist" / f"{name}.gz").write_bytes(gzip.compress(data, 1))
    given, real = load("mnist", "test", data_dir=folder, download=False), load("mnist", "test")
    assert given is not real
    assert np.array_equal(given.images, real.images) and np.array_equal(given.labels, real.labels)


def test_altered_byte(folder: Path) -> None:
    path = folder / "mnist" / "t10k-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[1_234_567] ^= 1
    replace(path, bytes(data))
    with pytest.raises(DatasetCorruptError) as error:
        load("mnist", "test", data_dir=folder)
    for part in (str(path), "7840016 bytes", "2646ac647ad5339dbf082846283269ea", FIX, ".gz"):
        assert part in str(error.value)


@pytest.mark.parametrize("change", ["short", "long", "empty"])
def test_another_length(folder: Path, change: str) -> None:
    path = folder / "mnist" / "t10k-labels-idx1-ubyte"
    data = path.read_bytes()
    data = {"short": data[:-1], "long": data + bytes(99), "empty": b""}[change]
    replace(path, data)
    with pytest.raises(DatasetCorruptError, match=f"10008 bytes.*found {len(data)} bytes.*{FIX}"):
        load("mnist", "test", data_dir=folder)


@pytest.mark.parametrize("change", ["short", "not gzip", "altered"])
def test_bad_gz(folder: Path, change: str) -> None:
    path = folder / "mnist" / "t10k-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    altered = packed[:2000] + bytes([packed[2000] ^ 255]) + packed[2001:]
    data = {"short": packed[:-100], "not gzip": b"<html>", "altered": altered}[change]
    replace(path.with_name(f"{path.name}.gz"), data)
    with pytest.raises(DatasetCorruptError, match=rf"t10k-labels-idx1-ubyte\.gz: expected.*{FIX}"):
        load("mnist", "test", data_dir=folder)


def test_missing_files_and_no_download(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        load("mnist", "test", data_dir=tmp_path, download=False)
    for part in (str(tmp_path / "mnist"), FIX, "DTRAM-Signpost-v0", "download=False"):
        assert part in str(error.value)
    assert isinstance(error.value, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_idx_of_any_shape(shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    data = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + array.tobytes()
    parsed = mnist.parse_idx(data)
    assert np.array_equal(parsed, array) and parsed.shape == array.shape
    assert not parsed.flags.writeable


@pytest.mark.slow
def test_arrives_from_a_real_source(tmp_path: Path) -> None:
    """The only test that needs a network."""
    assert len(load("mnist", "test", data_dir=tmp_path)) == 10_000
    assert sorted(p.name for p in (tmp_path / "mnist").iterdir()) == sorted([".lock", *NAMES])
