"""Stanford Cars: torchvision's layout, 1-based boxes, the user's archives, or what to put where."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.sources import cars
from tests.dtram_env.datasets.trees import Tree, annotations, pack

COMMAND = r"`python -m dtram_env\.datasets download cars --data-dir [^`]*`"
TEST_LABELS = "cars_test_annos_withlabels.mat"
TRAIN_LABELS = "devkit/cars_train_annos.mat"


def edit(path: Path, change: Callable[[np.ndarray], None]) -> None:
    table = loadmat(path)["annotations"]
    change(table)
    savemat(path, {"annotations": table})


def test_published_counts() -> None:
    assert cars.COUNTS == {"train": 8144, "test": 8041} and cars.NUM_CLASSES == 196
    assert [archive.md5[:4] for archive in cars.ARCHIVES] == ["065e", "4ce7", "c3b1"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_official_layout(whole: Tree, part: str) -> None:
    listed = cars.listing(whole.folder, part)
    assert listed.root == whole.root and list(listed.paths) == whole.paths[part]
    assert np.array_equal(listed.labels, whole.labels[part]) and listed.labels.dtype == np.int64
    assert listed.boxes is not None and listed.boxes.dtype == np.float64
    assert np.array_equal(listed.boxes, whole.boxes[part])
    assert listed.class_names == ("Odd Car Sedan 2000", "Odd Car Sedan 2001", "Odd Car Sedan 2002")
    assert re.fullmatch(
        rf"Remove it, put cars_{part}\.tgz into .*stanford_cars and run {COMMAND}\.", listed.fix
    )


def test_equal_to_torchvisions_reader(whole: Tree) -> None:
    from torchvision.datasets import StanfordCars

    for part in ("train", "test"):
        theirs = StanfordCars(str(whole.folder), split=part)
        ours = cars.listing(whole.folder, part)
        assert [path for path, _ in theirs._samples] == [str(ours.root / p) for p in ours.paths]
        assert [label for _, label in theirs._samples] == ours.labels.tolist()
        assert tuple(theirs.classes) == ours.class_names


def test_corners_are_counted_from_1_and_inside_the_box(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole of a 53x37 image, then one pixel of it: the left top one.
    rows = [(1, 1, 53, 37, 1, "00001.jpg"), (np.uint8(1), np.uint8(1), 1, 1, 3, "00002.jpg")]
    savemat(tree.root / TRAIN_LABELS, {"annotations": annotations(rows)})
    monkeypatch.setitem(cars.COUNTS, "train", 2)
    listed = cars.listing(tree.folder, "train")
    assert listed.boxes is not None
    assert listed.boxes.tolist() == [[0, 0, 53, 37], [0, 0, 1, 1]]
    assert listed.labels.tolist() == [0, 2]


def test_one_image_is_a_row_too(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(1, 1, 53, 37, 2, "00001.jpg")]
    savemat(tree.root / TEST_LABELS, {"annotations": annotations(rows)})
    monkeypatch.setitem(cars.COUNTS, "test", 1)
    assert cars.listing(tree.folder, "test").labels.tolist() == [1]


def test_other_places(tree: Tree) -> None:
    expected = cars.listing(tree.folder, "test")
    (tree.root / TEST_LABELS).rename(tree.root / "devkit" / TEST_LABELS)
    assert not cars.lacking(tree.folder)
    assert cars.listing(tree.folder, "test").paths == expected.paths
    itself = cars.listing(tree.root, "test")
    assert itself.paths == expected.paths and itself.root == tree.root
    # As copies on the web have it: the folder once more in itself.
    (tree.root / "cars_test").rename(tree.root / "x")
    (tree.root / "cars_test").mkdir()
    (tree.root / "x").rename(tree.root / "cars_test/cars_test")
    assert cars.listing(tree.folder, "test").paths[0] == "cars_test/cars_test/00001.jpg"


@pytest.mark.parametrize(
    "name", ["cars_train", "cars_test", "devkit/cars_meta.mat", TRAIN_LABELS, TEST_LABELS]
)
def test_something_is_missing(tree: Tree, name: str) -> None:
    path = tree.root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert cars.lacking(tree.folder)
    with pytest.raises(DatasetNotFoundError, match=rf"has no {name} of .* {COMMAND} says which"):
        cars.listing(tree.folder, "train")


def put(field: str, value: Any) -> Callable[[np.ndarray], None]:
    def change(table: np.ndarray) -> None:
        table[0, 1][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("class", 4), r"expected class 1 to 3 for 00002\.jpg, found 4"),
        (put("class", 0), r"expected class 1 to 3 for 00002\.jpg, found 0"),
        (put("bbox_x2", []), r"expected a number as bbox_x2 of 00002\.jpg, found \[\]"),
        (put("bbox_y1", "top"), r"expected a number as bbox_y1 of 00002\.jpg, found 'top'"),
        (put("bbox_y2", 1), r"a width and a height above 0 for 00002\.jpg, found left.*-15\.0\]"),
        (put("fname", "00009.jpg"), r"cars_train/00009\.jpg: no such file, though cars_train_ann"),
    ],
)
def test_a_wrong_row(tree: Tree, change: Callable[[np.ndarray], None], message: str) -> None:
    edit(tree.root / TRAIN_LABELS, change)
    with pytest.raises(DatasetCorruptError, match=rf"{message}.* Put \w+\.tgz into .*{COMMAND}"):
        cars.listing(tree.folder, "train")


def test_wrong_counts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cars.COUNTS, "test", 4)
    with pytest.raises(
        DatasetCorruptError, match=rf"expected 4 test images, found 3\. .*published {TEST_LABELS}"
    ):
        cars.listing(tree.folder, "test")
    monkeypatch.setattr(cars, "NUM_CLASSES", 2)
    with pytest.raises(DatasetCorruptError, match=r"cars_meta\.mat: expected 2 classes, found 3"):
        cars.listing(tree.folder, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or no MATLAB file"),
        (b"<html>not found</html>" * 50, "damaged, or no MATLAB file"),
        (None, "damaged, or no MATLAB file"),
        ({"labels": [1]}, "has no variable annotations"),
        ({"annotations": [1]}, "its annotations have no bbox_x1, .*, fname"),
    ],
)
def test_damaged_annotations(tree: Tree, content: Any, message: str) -> None:
    path = tree.root / TRAIN_LABELS
    if isinstance(content, dict):
        savemat(path, content)
    else:
        path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(DatasetCorruptError, match=rf"cars_train_annos\.mat: {message}"):
        cars.listing(tree.folder, "train")


def test_test_annotations_without_labels(tree: Tree) -> None:
    # The devkit has these too, under another name.
    table = loadmat(tree.root / TEST_LABELS)["annotations"]
    rest = np.empty(table.shape, dtype=[(f, object) for f in cars._FIELDS if f != "class"])
    for field in rest.dtype.names:
        rest[field] = table[field]
    savemat(tree.root / TEST_LABELS, {"annotations": rest})
    with pytest.raises(DatasetCorruptError, match="its annotations have no class"):
        cars.listing(tree.folder, "test")


@pytest.fixture
def packed(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder "cars" with the three archives and the labels of the test images."""
    folder = tmp_path / "root" / "cars"
    folder.mkdir(parents=True)
    archives = tuple(
        replace(archive, md5=pack(folder / archive.name, tree.root / archive.inside))
        for archive in cars.ARCHIVES
    )
    monkeypatch.setattr(cars, "ARCHIVES", archives)
    shutil.copy(tree.root / TEST_LABELS, folder)
    md5 = hashlib.md5((folder / TEST_LABELS).read_bytes()).hexdigest()
    monkeypatch.setattr(cars, "TEST_LABELS_MD5", md5)
    return folder


def test_the_users_archives_are_unpacked_and_stay(packed: Path, tree: Tree) -> None:
    names = {path.name for path in packed.iterdir()}
    cars.fetch(packed)
    for part in ("train", "test"):
        assert list(cars.listing(packed, part).paths) == tree.paths[part]
    now = {path.name for path in packed.iterdir()}
    assert now == names | {"cars_train", "cars_test", "devkit", ".lock"}


def test_archives_beside_folders(packed: Path, tree: Tree) -> None:
    """The user unpacked one part into torchvision's folder; the archives lie above it."""
    (packed / "stanford_cars").mkdir()
    shutil.copytree(tree.root / "cars_train", packed / "stanford_cars/cars_train")
    (packed / "cars_train.tgz").unlink()
    cars.fetch(packed)
    assert len(cars.listing(packed, "train")) == 6
    assert {path.name for path in (packed / "stanford_cars").iterdir()} == {
        *("cars_train", "cars_test", "devkit")
    }


def test_fetch_brings_back_what_is_missing(packed: Path) -> None:
    cars.fetch(packed)
    (packed / "cars_train/00002.jpg").unlink()
    (packed / "devkit/cars_meta.mat").unlink()
    (packed / "cars_train/own.txt").write_text("kept")
    assert cars.lacking(packed)
    cars.fetch(packed)
    assert len(cars.listing(packed, "train")) == 6
    assert (packed / "cars_train/own.txt").read_text() == "kept"


def test_a_whole_tree_is_left_alone(tree: Tree) -> None:
    (tree.root / "cars_train.tgz").write_bytes(b"whatever")
    cars.fetch(tree.folder)
    assert not list(tree.folder.rglob(".lock"))


def test_says_which_files_to_put_where(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        cars.fetch(tmp_path / "empty" / "cars")
    said = str(error.value)
    for archive in cars.ARCHIVES:
        assert f"\n  {archive.name} (MD5 {archive.md5})" in said
    assert f"\n  {TEST_LABELS} (MD5 {cars.TEST_LABELS_MD5})" in said
    assert f"into {tmp_path / 'empty/cars'} by hand" in said
    assert re.search(COMMAND, said) and "DTRAM_DATA" in said and "ROOT/cars" in said

    (packed / "cars_test.tgz").unlink()
    with pytest.raises(DatasetNotFoundError) as error:
        cars.fetch(packed)
    assert "  cars_test.tgz (MD5" in str(error.value)
    assert "  cars_train.tgz (MD5" not in str(error.value)
    assert not (packed / "cars_train").exists()  # all or nothing


def test_a_broken_tree_without_its_archive(tree: Tree) -> None:
    (tree.root / "cars_train/00002.jpg").unlink()
    with pytest.raises(DatasetCorruptError, match=r"00002\.jpg: .* Put cars_train\.tgz into"):
        cars.fetch(tree.folder)
    (tree.root / "devkit/cars_meta.mat").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"(?s)gone\..*  car_devkit\.tgz \(MD5"):
        cars.fetch(tree.folder)


@pytest.mark.parametrize("name", ["cars_test.tgz", TEST_LABELS])
def test_another_file_than_published(packed: Path, name: str) -> None:
    with (packed / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        DatasetCorruptError, match=rf"{name}: expected .* MD5 .*Replace it with the"
    ):
        cars.fetch(packed)
    assert not (packed / "cars_train").exists()
