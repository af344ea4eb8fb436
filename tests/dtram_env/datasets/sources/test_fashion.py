"""Fashion-MNIST: small files of the same format, from a local server and put by hand."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtram_env import datasets
from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.fetch.download import Mirror
from dtram_env.datasets.sources import fashion, mnist
from tests.dtram_env.datasets.serving import Server
from tests.dtram_env.datasets.trees import make_fashion

FIX = "python -m dtram_env.datasets download fashionmnist"
COUNTS = {"train": 20, "test": 10}
REAL = datasets.data_root() / fashion.NAME


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {part: rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in COUNTS.items()}


@pytest.fixture
def content(images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The four files of a small Fashion-MNIST by name; `fashion` expects these."""
    content, files = make_fashion(images)
    monkeypatch.setattr(fashion, "FILES", files)
    return content


@pytest.fixture
def mirror(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only source; it has each file as ``.gz``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server({f"/{name}.gz": gzip.compress(data) for name, data in content.items()}) as server:
        monkeypatch.setattr(fashion, "SOURCES", (Mirror(server.url),))
        yield server


def test_the_format_is_mnists_and_the_content_is_not() -> None:
    for part, files in fashion.FILES.items():
        for ours, theirs in zip(files, mnist.FILES[part], strict=True):
            assert (ours.name, ours.size) == (theirs.name, theirs.size)
            assert ours.md5 != theirs.md5 and len(ours.md5) == 32


def test_names_and_mirror_are_torchvisions() -> None:
    from torchvision.datasets import FashionMNIST

    assert list(fashion.CLASS_NAMES) == FashionMNIST.classes
    assert {source.name for source in fashion.SOURCES} >= set(FashionMNIST.mirrors)
    names = {f"{file.name}.gz" for pair in fashion.FILES.values() for file in pair}
    assert names == {name for name, _ in FashionMNIST.resources}


def test_mnist_is_not_taken_for_it(mirror: Server, tmp_path: Path) -> None:
    """Both have files with the same names and sizes."""
    other = bytes([0, 0, 8, 1, 0, 0, 0, 10, *range(9, -1, -1)])
    mirror.content["/t10k-labels-idx1-ubyte.gz"] = gzip.compress(other)
    folder = tmp_path / "root" / fashion.NAME
    with pytest.raises(DatasetNotFoundError) as error:
        fashion.fetch(folder)
    assert "fashionmnist: no source gave t10k-labels-idx1-ubyte:" in str(error.value)
    assert "sent another t10k-labels-idx1-ubyte.gz than published" in str(error.value)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(other)
    assert not fashion.lacking(folder)
    message = f"t10k-labels-idx1-ubyte: expected 18 bytes.*{fashion.FILES['test'][1].md5}.*{FIX}"
    with pytest.raises(DatasetCorruptError, match=message):
        fashion.read(folder, "test")


@pytest.mark.skipif(fashion.lacking(REAL), reason=f"Fashion-MNIST is not in {REAL}")
def test_known_statistics() -> None:
    images, labels = fashion.read(REAL, "train")
    assert images.shape == (60_000, 28, 28, 1) and np.bincount(labels).tolist() == [6000] * 10
    assert labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert abs(images.mean() / 255 - 0.2860) < 1e-4 and abs(images.std() / 255 - 0.3530) < 1e-4
    assert np.bincount(fashion.read(REAL, "test")[1]).tolist() == [1000] * 10
