"""CUB-200-2011: the official lists are read correctly, or one error says what is wrong."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.sources import cub
from tests.dtram_env.datasets.trees import Tree

COMMAND = r"`python -m dtram_env\.datasets download cub --data-dir [^`]*`"


def edit(path: Path, change: Callable[[str], str | bytes]) -> None:
    changed = change(path.read_text(encoding="utf-8"))
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())


def drop_line(number: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        del lines[number]
        return "".join(lines)

    return change


def test_published_counts() -> None:
    assert cub.COUNTS == {"train": 5994, "test": 5794} and cub.NUM_CLASSES == 200
    assert cub.ARCHIVE.md5 == "97eceeb196236b17998738112f37df78"
    assert cub.ARCHIVE.size == 1_150_585_339


@pytest.mark.parametrize("part", ["train", "test"])
def test_official_layout(whole: Tree, part: str) -> None:
    listed = cub.listing(whole.folder, part)
    assert listed.root == whole.folder / "CUB_200_2011"
    assert list(listed.paths) == whole.paths[part]
    assert np.array_equal(listed.labels, whole.labels[part]) and listed.labels.dtype == np.int64
    assert listed.boxes is not None and listed.boxes.dtype == np.float64
    assert np.array_equal(listed.boxes, whole.boxes[part])
    assert listed.class_names == ("Odd billed Bird 0", "Odd billed Bird 1", "Odd billed Bird 2")
    assert re.fullmatch(rf"Remove it and run {COMMAND}, which fetches it again\.", listed.fix)


def test_the_folder_itself(whole: Tree) -> None:
    assert not cub.lacking(whole.root) and not cub.lacking(whole.folder)
    assert cub.listing(whole.root, "test").paths == cub.listing(whole.folder, "test").paths


@pytest.mark.parametrize("given", ["", "CUB_200_2011", "CUB_200_2011/CUB_200_2011"])
def test_unpacked_twice(tree: Tree, given: str) -> None:
    twice = tree.folder / "CUB_200_2011" / "CUB_200_2011"
    tree.root.rename(tree.folder / "aside")
    twice.parent.mkdir()
    (tree.folder / "aside").rename(twice)
    assert not cub.lacking(tree.folder / given)
    listed = cub.listing(tree.folder / given, "test")
    assert listed.root == twice and list(listed.paths) == tree.paths["test"]


def test_a_folder_without_lists_names_them(tmp_path: Path) -> None:
    (tmp_path / "cub" / "CUB_200_2011" / "images").mkdir(parents=True)
    names = ", ".join(cub._LISTS)
    with pytest.raises(DatasetNotFoundError, match=f"cub: no CUB_200_2011 with .*{names} and im"):
        cub.listing(tmp_path / "cub", "test")


def test_class_ids_not_image_folders_give_the_label(tree: Tree) -> None:
    edit(tree.root / "image_class_labels.txt", lambda text: text.replace("1 1\n", "1 3\n", 1))
    assert cub.listing(tree.folder, "test").labels.tolist() == [2, 1, 2]


def test_nothing_there(tmp_path: Path) -> None:
    folder = tmp_path / "cub"
    assert cub.lacking(folder)
    with pytest.raises(DatasetNotFoundError, match=rf"cub: no CUB_200_2011 .*{COMMAND}, or put"):
        cub.listing(folder, "train")
    assert not folder.exists()
    folder.mkdir()
    (folder / "CUB_200_2011.tgz").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=rf"tgz: not unpacked yet\. .*{COMMAND}"):
        cub.listing(folder, "train")


@pytest.mark.parametrize("name", cub._LISTS)
def test_a_missing_list(tree: Tree, name: str) -> None:
    (tree.root / name).unlink()
    assert cub.lacking(tree.folder) == [f"CUB_200_2011/{name}"]
    with pytest.raises(DatasetNotFoundError, match=rf"{name}: no such file\. .*{COMMAND}"):
        cub.listing(tree.folder, "train")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bounding_boxes.txt", drop_line(4), r"has no line for image 5, 002\.Odd"),
        ("image_class_labels.txt", drop_line(0), "has no line for image 1, 001"),
        ("train_test_split.txt", drop_line(8), "has no line for image 9"),
        ("images.txt", drop_line(2), r".*has a line for image 3, which images\.txt does not name"),
        ("classes.txt", drop_line(2), "expected 3 classes, found 2"),
        ("classes.txt", lambda t: t.replace("3 003", "7 003"), "expected classes 1 to 3, found 7"),
        (
            "image_class_labels.txt",
            lambda t: t.replace("7 3", "7 4"),
            "expected 1 to 3 for image 7, found 4",
        ),
        (
            "train_test_split.txt",
            lambda t: t.replace("2 1", "2 0"),
            "expected 6 train images, found 5",
        ),
        (
            "train_test_split.txt",
            lambda t: t.replace("2 1", "2 2"),
            "expected 0 to 1 for image 2, found 2",
        ),
        (
            "bounding_boxes.txt",
            lambda t: t.replace("2 8.0", "2 x"),
            "line 2: expected an id .* 4 values of type float, found '2 x",
        ),
        (
            "bounding_boxes.txt",
            lambda t: t.replace("41.0 32.0", "41.0 0.0"),
            "expected a box with a width and a height above 0 for images/001",
        ),
        (
            "bounding_boxes.txt",
            lambda t: t.replace(" 24.0 16.0", " 24.0", 1),
            "line 1: expected an id that no .* and 4 values of type float, found '1 8.0 8.0",
        ),
        ("images.txt", lambda t: t.replace("2 0", "1 0", 1), "line 2: expected an id that no earl"),
        (
            "images.txt",
            lambda t: "<html>\n" + t,
            "line 1: expected an id .* 1 value of type str, found",
        ),
        ("images.txt", lambda t: b"\xff\xfe\x00", r"images\.txt: expected text"),
    ],
)
def test_lists_that_contradict_each_other(
    tree: Tree, name: str, change: Callable[[str], str | bytes], message: str
) -> None:
    before = (tree.root / name).read_bytes()
    edit(tree.root / name, change)
    assert (tree.root / name).read_bytes() != before
    with pytest.raises(DatasetCorruptError, match=rf"{message}.* Fetch it again with {COMMAND}\.$"):
        cub.listing(tree.folder, "train")
    assert not cub.lacking(tree.folder)


def test_missing_images(tree: Tree) -> None:
    first, second = tree.paths["train"][1:3]
    (tree.root / first).unlink()
    with pytest.raises(
        DatasetCorruptError, match=rf"{first}: no such file, though images\.txt names it\. Fetch"
    ):
        cub.listing(tree.folder, "train")
    (tree.root / second).unlink()
    with pytest.raises(DatasetCorruptError, match=r"names it; 2 are missing in all\. Fetch"):
        cub.listing(tree.folder, "train")
    assert len(cub.listing(tree.folder, "test")) == 3


def test_published_counts_are_required(published: Tree, tmp_path: Path) -> None:
    copy = published.copy(tmp_path / "cub")
    with pytest.raises(DatasetCorruptError, match="expected 200 classes, found 3"):
        cub.listing(copy.folder, "train")
    shutil.rmtree(copy.root / "images")
    assert cub.lacking(copy.folder)
