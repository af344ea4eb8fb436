"""The cache: made once, complete or not at all, with several processes and interruptions."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.sources.listing import ImageList
from dtram_env.datasets.storage import cache
from dtram_env.datasets.storage.cache import build_cache, open_cache
from dtram_env.datasets.storage.decode import DecodedImages
from dtram_env.datasets.storage.mapped import MappedStore, thumbnails_name, verify
from dtram_env.datasets.storage.thumbnails import box_resize
from tests.dtram_env.datasets.images import Given, black_cache, ragged_images

ROOT = Path(__file__).resolve().parents[4]
IMAGES = ragged_images(12)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listed(folder: Path, count: int) -> ImageList:
    """A list of the files 0.jpg, 1.jpg, … of a folder."""
    paths = tuple(f"{i}.jpg" for i in range(count))
    return ImageList(folder, paths, np.zeros(count, np.int64), ("a",), None, "Mend it.")


@pytest.fixture
def photographs(tmp_path: Path) -> ImageList:
    """Six small files."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(6):
        pixels = np.full((10 + i, 12, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    return listed(folder, 6)


def test_it_holds_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cache" / "train"  # the folders above are made
    store = build_cache(folder, Given(IMAGES, {"box": np.eye(12)}), [4, 2])
    for i, image in enumerate(IMAGES):
        assert np.array_equal(store.image(i), image)
    assert np.array_equal(store.metadata()["box"], np.eye(12))
    small = [box_resize(image[None], 2)[0] for image in IMAGES]
    assert np.array_equal(
        np.fromfile(folder / "thumbnails-2.bin", np.uint8).reshape(12, 2, 2, 3), small
    )
    files = ["meta.json", "metadata-box.npy", "pixels.bin", "sizes.npy"]
    assert names(folder) == [*files, "thumbnails-2.bin", "thumbnails-4.bin"]
    assert names(folder.parent) == [".train.lock", "train"]
    assert (folder / "pixels.bin").stat().st_size == sum(image.size for image in IMAGES)


def test_it_is_made_once(tmp_path: Path) -> None:
    source = Given(IMAGES)
    build_cache(tmp_path / "a", source)
    assert sorted(source.decoded) == list(range(12))
    again = Given(IMAGES)
    store = build_cache(tmp_path / "a", again, [3])
    assert again.decoded == [] and (tmp_path / "a" / thumbnails_name(3)).exists()
    assert isinstance(open_cache(tmp_path / "a", again), MappedStore)
    assert np.array_equal(store.image(11), IMAGES[11])


def test_other_images_make_it_anew(tmp_path: Path) -> None:
    build_cache(tmp_path / "a", Given(IMAGES), [3])
    others = Given(ragged_images(5, seed=1))
    assert open_cache(tmp_path / "a", others) is None
    store = build_cache(tmp_path / "a", others)
    assert len(store) == 5 and np.array_equal(store.image(4), others.images[4])
    assert not (tmp_path / "a" / thumbnails_name(3)).exists()  # it was the other images'


def test_a_changed_file_makes_it_anew(tmp_path: Path, photographs: ImageList) -> None:
    folder = tmp_path / "cache"
    build_cache(folder, DecodedImages(photographs))
    assert open_cache(folder, DecodedImages(photographs)) is not None
    path = photographs.root / "3.jpg"
    Image.new("RGB", (7, 5), (250, 250, 250)).save(path)
    assert open_cache(folder, DecodedImages(photographs)) is None
    store = build_cache(folder, DecodedImages(photographs))
    assert store.image(3).shape == (5, 7, 3) and (store.image(3) > 245).all()
    assert (store.image(2) == 80).all()


@pytest.mark.parametrize(("count", "most"), [(5, 1), (250, 3)])
def test_few_images_start_few_processes(
    count: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def threads(number: int) -> ThreadPoolExecutor:
        started.append(number)
        return ThreadPoolExecutor(number)

    monkeypatch.setattr(cache, "process_pool", threads)
    monkeypatch.setattr(cache, "CORES", 4)
    source = Given([np.zeros((2, 2, 1), np.uint8)] * count)
    build_cache(tmp_path / "a", source, processes=True)
    assert started == [most]


def test_there_is_none(tmp_path: Path) -> None:
    assert open_cache(tmp_path / "a", Given(IMAGES)) is None
    (tmp_path / "a").mkdir()
    for content in ("{", "[1]"):
        (tmp_path / "a" / "meta.json").write_text(content)
        assert open_cache(tmp_path / "a", Given(IMAGES)) is None
    assert len(build_cache(tmp_path / "a", Given(IMAGES))) == 12  # what is no cache is replaced


def test_a_cache_of_an_older_format_is_made_again(tmp_path: Path) -> None:
    source, folder = Given(IMAGES, {"box": np.eye(12)}), tmp_path / "a"
    build_cache(folder, source, [3])
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": 1}))
    (folder / "metadata-box.npy").rename(folder / "facts-box.npy")  # its name in format 1
    assert open_cache(folder, source) is None
    assert np.array_equal(build_cache(folder, source).metadata()["box"], np.eye(12))
    assert names(folder) == ["meta.json", "metadata-box.npy", "pixels.bin", "sizes.npy"]


def test_a_finished_cache_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    build_cache(tmp_path / "a", Given(IMAGES), [3])
    (tmp_path / ".a.lock").unlink()
    (tmp_path / ".a.lock").mkdir()  # so that it cannot be opened
    assert len(build_cache(tmp_path / "a", Given(IMAGES), [3])) == 12
    for ask in (
        lambda: build_cache(tmp_path / "a", Given(IMAGES), [4]),
        lambda: MappedStore(tmp_path / "a").prepare(4),
        lambda: build_cache(tmp_path / "a", Given(IMAGES[:3])),
    ):
        with pytest.raises(
            DatasetNotFoundError, match=r"cannot write into .* data_dir= or the env"
        ):
            ask()


# --- Damage


@pytest.mark.parametrize("name", ["pixels.bin", "sizes.npy", "metadata-box.npy"])
@pytest.mark.parametrize("keep", [None, 0, 100])
def test_a_short_file_is_named_with_what_to_do(tmp_path: Path, name: str, keep: int | None) -> None:
    source = Given(IMAGES, {"box": np.eye(12)})
    build_cache(tmp_path / "a", source)
    path = tmp_path / "a" / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    message = rf"^{re.escape(str(tmp_path / 'a'))}: damaged cache \(.*\)\. Delete this folder"
    for call in (open_cache, build_cache):
        with pytest.raises(DatasetCorruptError, match=message):
            call(tmp_path / "a", source)
    shutil.rmtree(tmp_path / "a")
    assert len(build_cache(tmp_path / "a", source)) == 12


DAMAGES = {
    "short": lambda content: content[:-1],
    "long": lambda content: content + b"x",
    "first bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "last bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["pixels.bin", "sizes.npy", "metadata-box.npy", "thumbnails-3.bin"]
)
def test_a_changed_file_is_found(tmp_path: Path, name: str, damage: str) -> None:
    """At once if it is small or its size changed, by `verify` in any case."""
    source, folder = Given(IMAGES, {"box": np.eye(12)}), tmp_path / "a"
    build_cache(folder, source, [3])
    verify(folder)
    path = folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DatasetCorruptError, match=re.escape(name)):
        verify(folder)
    if name.endswith(".npy") or (name == "pixels.bin" and damage in ("short", "long")):
        with pytest.raises(DatasetCorruptError, match=re.escape(name)):
            open_cache(folder, source)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", "["),
        ('"format": 3', '"format": 1e999'),
        ('"channels": 3', '"channels": 1'),
        ('"channels": 3', '"channels": null'),
        ('"images": 12', '"pictures": 12'),
        ('"bytes": ', '"bytes": 1'),
        ('"sha256": "', '"sha256": "x'),
        ('"source": {', '"source": {"x": ' + "[" * 10**5 + "]" * 10**5 + ","),
    ],
)
def test_a_changed_index_is_found(tmp_path: Path, old: str, new: str) -> None:
    source, folder = Given(IMAGES, {"box": np.eye(12)}), tmp_path / "a"
    build_cache(folder, source)
    meta = (folder / "meta.json").read_text()
    assert old in meta
    (folder / "meta.json").write_text(meta.replace(old, new, 1))
    try:
        assert open_cache(folder, source) is None
    except DatasetCorruptError as error:
        assert str(error).startswith(f"{folder}: damaged cache (")


@pytest.mark.parametrize("left", [".thumbnails-3.bin.new", "thumbnails-3.bin"])
def test_thumbnails_killed_half_way_are_made_again(tmp_path: Path, left: str) -> None:
    """In writing them, or between the two renames: then the index lacks them."""
    folder = tmp_path / "a"
    build_cache(folder, Given(IMAGES))
    (folder / left).write_bytes(b"x" * (12 * 3 * 3 * 3))
    store = build_cache(folder, Given(IMAGES), [3])
    assert names(folder) == ["meta.json", "pixels.bin", "sizes.npy", "thumbnails-3.bin"]
    np.testing.assert_array_equal(store.thumbnail(np.array([5]), 3), box_resize(IMAGES[5][None], 3))
    verify(folder)


def test_a_damaged_image_leaves_nothing(tmp_path: Path, photographs: ImageList) -> None:
    path = photographs.root / "4.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    message = rf"{re.escape(str(path))}: damaged, or no image .* Mend it\."
    with pytest.raises(DatasetCorruptError, match=message):
        build_cache(tmp_path / "cache" / "a", DecodedImages(photographs))
    assert names(tmp_path / "cache") == [".a.lock"]


class Failing(Given):
    """The fourth of many images is damaged."""

    def pixels(self, i: int) -> np.ndarray:
        if i == 3:
            raise DatasetCorruptError("image 3: damaged")
        time.sleep(0.001)
        return super().pixels(i)


def test_an_error_stops_the_rest(tmp_path: Path) -> None:
    source = Failing([IMAGES[0]] * 2000)
    with pytest.raises(DatasetCorruptError, match="image 3: damaged"):
        build_cache(tmp_path / "a", source)
    assert len(source.decoded) < 200
    assert names(tmp_path) == [".a.lock"]


def test_an_image_that_changes_under_way_is_an_error(tmp_path: Path) -> None:
    source = Given(IMAGES)
    source.size = lambda i: (9, 9)  # type: ignore[method-assign]
    source.metadata = lambda sizes: {}  # type: ignore[method-assign]
    with pytest.raises(
        DatasetCorruptError, match=r"image 0: expected uint8 \(9, 9, 3\) as its head"
    ):
        build_cache(tmp_path / "a", source)
    assert names(tmp_path) == [".a.lock"]


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cache(tmp_path / "b", Given(IMAGES))
    needed = sum(image.size for image in IMAGES)
    free = needed - 1
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    source = Given(IMAGES)
    with pytest.raises(DatasetNotFoundError, match=r"need 0 MB .* image_size=, or .* data_d"):
        build_cache(tmp_path / "a", source)
    assert source.decoded == [] and names(tmp_path) == [".a.lock", ".b.lock", "b"]
    with pytest.raises(DatasetNotFoundError, match="MB are free"):
        MappedStore(tmp_path / "b").prepare(30)
    assert names(tmp_path / "b") == ["meta.json", "pixels.bin", "sizes.npy"]
    free = needed
    assert len(build_cache(tmp_path / "a", source)) == 12


# --- More than one at a time

PROGRAM = """
import os, sys, time
from pathlib import Path
import numpy as np
from dtram_env.datasets.storage.cache import build_cache
from tests.dtram_env.datasets.images import Given

folder, log, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class Slow(Given):
    def pixels(self, i):
        with log.open("a") as file:
            file.write(f"{i}\\n")
        if i == stop:
            time.sleep(600)
        time.sleep(0.02)
        return super().pixels(i)

images = [np.full((4, 5, 3), i, np.uint8) for i in range(40)]
store = build_cache(folder, Slow(images), [2])
print(len(store), int(store.image(39)[0, 0, 0]), int(store.thumbnail(np.array([7]), 2).max()))
"""


@contextmanager
def program(folder: Path, log: Path, stop: int = -1) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", PROGRAM, str(folder), str(log), str(stop)]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_at_once_make_one_cache(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with program(tmp_path / "a", log) as one, program(tmp_path / "a", log) as other:
        said = [process.communicate(timeout=60) for process in (one, other)]
    assert [out for out, _ in said] == ["40 39 7\n"] * 2, said
    assert sorted(map(int, log.read_text().split())) == list(range(40))  # each image once
    assert names(tmp_path) == [".a.lock", "a", "log"]


def test_killed_half_way_nothing_bears_the_final_name(tmp_path: Path) -> None:
    folder, log = tmp_path / "a", tmp_path / "log"
    with program(folder, log, stop=20) as process:
        until = time.monotonic() + 60
        while "20\n" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not folder.exists() and (tmp_path / ".a.new" / "pixels.bin").exists()
    source = Given([np.full((4, 5, 3), i, np.uint8) for i in range(40)])
    store = build_cache(folder, source)  # the dead hold no lock, and what they left goes
    assert len(source.decoded) == 40 and (store.image(39) == 39).all()
    assert names(tmp_path) == [".a.lock", "a", "log"]


# --- What the user sees


def test_a_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_cache(tmp_path / "a", Given(IMAGES), [3], label="decoding birds", progress=True)
    said = capsys.readouterr().err
    assert "decoding birds: 100%" in said and "12/12" in said
    build_cache(tmp_path / "a", Given(IMAGES), [3, 5], label="decoding birds", progress=True)
    assert "decoding birds, thumbnails 5: 100%" in capsys.readouterr().err
    build_cache(tmp_path / "b", Given(IMAGES), label="decoding birds", progress=False)
    build_cache(tmp_path / "c", Given(IMAGES), label="decoding birds")  # no terminal here
    assert capsys.readouterr().err == ""


def test_a_cached_split_of_12000_files_opens_at_once(tmp_path: Path) -> None:
    files, count = tmp_path / "files", 12_000
    files.mkdir()
    Image.new("RGB", (5, 4)).save(files / "0.jpg")
    for i in range(1, count):
        os.link(files / "0.jpg", files / f"{i}.jpg")
    source = DecodedImages(listed(files, count), 512)
    black_cache(tmp_path / "a", count, 512, source=source.fingerprint())
    start = time.process_time()
    store = open_cache(tmp_path / "a", source)
    assert store is not None and len(store) == count
    assert time.process_time() - start < 1
