"""The user's own images: which files, which classes, and a reproducible draw of the test part."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dtram_env.datasets import (
    DatasetCorruptError,
    DatasetNotFoundError,
    ImageOptions,
    load,
)
from dtram_env.datasets.sources.folder import _draw, listing
from dtram_env.datasets.storage.decode import DecodedImages
from tests.dtram_env.datasets.trees import make_folder


def touch(root: Path, *paths: str) -> Path:
    """Files that are no images: a listing does not open them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def both(root: Path) -> tuple[list[str], list[str]]:
    train, test = (listing(root, part) for part in ("train", "test"))
    assert train.class_names == test.class_names
    return list(train.paths), list(test.paths)


def test_folders_of_parts(tmp_path: Path) -> None:
    tree = make_folder(tmp_path)
    for part in ("train", "test"):
        listed = listing(tmp_path, part)
        assert list(listed.paths) == tree.paths[part] and listed.root == tmp_path
        assert np.array_equal(listed.labels, tree.labels[part])
        assert listed.labels.dtype == np.int64 and listed.boxes is None
        assert listed.class_names == ("kind_a", "kind_b", "kind_c")
        assert str(tmp_path) in listed.fix


def test_a_drawn_test_part(tmp_path: Path) -> None:
    tree = make_folder(tmp_path, classes=3, train=8, test=2, parts=False)
    train, test = both(tmp_path)
    assert sorted(train + test) == sorted(tree.paths["all"])
    # A fifth of 10 images of each class.
    assert np.bincount(listing(tmp_path, "test").labels).tolist() == [2, 2, 2]
    assert np.bincount(listing(tmp_path, "train").labels).tolist() == [8, 8, 8]
    assert train == sorted(train) and test == sorted(test)
    for part in ("train", "test"):
        listed = listing(tmp_path, part)
        names = [listed.class_names[label] for label in listed.labels]
        assert names == [path.split("/")[0] for path in listed.paths]


def test_the_draw_never_changes() -> None:
    """A changed digest means that every user's drawn test part changes."""
    labels = np.sort(np.arange(1000) * 7919 % 10)
    digest = hashlib.sha256(np.flatnonzero(_draw(labels, 0.2, 0)).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "bb99dc94cf8ae3b5"


def test_the_draw_depends_on_the_paths_alone(tmp_path: Path) -> None:
    one = touch(tmp_path / "one", *(f"{c}/{i:02}.png" for c in "ab" for i in range(40)))
    two = touch(tmp_path / "two", *(f"{c}/{i:02}.png" for c in "ba" for i in range(39, -1, -1)))
    assert both(one) == both(two)
    assert [len(paths) for paths in both(one)] == [64, 16]


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**64),
)
def test_every_class_keeps_a_training_image(labels: list[int], share: float, seed: int) -> None:
    array = np.sort(np.unique(labels, return_inverse=True)[1])
    in_test = _draw(array, share, seed)
    counts, drawn = np.bincount(array), np.bincount(array, weights=in_test)
    assert (drawn < counts).all()
    exact = counts * int(share * len(array) + 0.5) / len(array)
    assert (np.abs(drawn - exact) <= 1).all()


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        *("a/1.jpg", "a/2.JPEG", "a/3.Png", "a/4.webp", "a/5.bmp", "a/6.tif", "a/7.TIFF"),
        *("a/8.gif", "a/9.jfif", "a/.hidden.jpg", "a/.cache/9.jpg"),
        *("b/1.jpg", ".thumbnails/1.jpg", "loose.jpg"),
    )
    train, test = both(root)
    names = ("1.jpg", "2.JPEG", "3.Png", "4.webp", "5.bmp", "6.tif", "7.TIFF", "8.gif", "9.jfif")
    assert sorted(train + test) == [*(f"a/{name}" for name in names), "b/1.jpg"]
    assert listing(root, "train").class_names == ("a", "b")


def test_one_line_counts_the_files_that_are_left_out(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        *("a/1.jpg", "b/1.jpg", "a/notes.txt", "b/jpg", "b/x.jpg.json", "a/deep/y.json"),
        *("a/1.mp4", "a/2.MP4", "a/3.mp4", "a/.DS_Store", "b/@eaDir/1.jpg/thumb.db"),
    )
    with pytest.warns(UserWarning, match="left out") as warned:
        listing(root, "train")
    assert len(warned) == 1
    message = str(warned[0].message)
    kinds = ("3 .mp4", "2 .json", "1 .txt", "1 without a suffix")
    assert message.startswith(f"{root}: left out 7 files: ")
    assert set(message.split(": ")[2].split(". ")[0].split(", ")) == set(kinds)


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_kinds_that_pillow_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    root = touch(tmp_path, "a/1.jpg", "b/1.jpg", f"b/2{suffix}")
    monkeypatch.setattr(Image, "registered_extensions", lambda: {suffix: "X"})
    train, test = both(root)
    assert sorted(train + test) == ["a/1.jpg", "b/1.jpg", f"b/2{suffix}"]
    monkeypatch.setattr(Image, "registered_extensions", lambda: {})
    with pytest.warns(UserWarning, match=rf"left out 1 file: 1 \{suffix}\. Images end in"):
        assert listing(root, "train").paths == ("a/1.jpg", "b/1.jpg")


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"])
def test_folders_of_file_servers_hold_no_images(tmp_path: Path, name: str) -> None:
    paths = (f"{name}/a/1.jpg", f"a/{name}/1.jpg/thumb.jpg", f"a/x/{name}/1.jpg")
    root = touch(tmp_path, "a/1.jpg", "b/1.jpg", *paths)
    assert listing(root, "train").class_names == ("a", "b")
    assert listing(root, "train").paths == ("a/1.jpg", "b/1.jpg")


def test_nested_folders_and_links(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/x/y/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    other = touch(tmp_path / "other", "3.jpg", "deep/4.jpg")
    (root / "a/link.jpg").symlink_to(other / "3.jpg")
    (root / "a/linked").symlink_to(other)
    (root / "c").symlink_to(other)
    train, test = both(root)
    assert sorted(train + test) == [
        *("a/2.jpg", "a/link.jpg", "a/linked/3.jpg", "a/linked/deep/4.jpg", "a/x/y/1.jpg"),
        *("b/1.jpg", "b/2.jpg", "c/3.jpg", "c/deep/4.jpg"),
    ]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("a/x/up", "root/a"),
        ("a/x/root", "root"),
        ("a/above", "."),
        ("itself", "root"),  # among the classes
        ("a/loop", "root/a/loop"),
        ("a/loop.jpg", "root/a/loop.jpg"),
        ("a/there", "other"),  # other/back leads to root/a
        ("a/beside", "other/sub"),  # other/sub/back leads to root
    ],
)
def test_links_that_lead_round(tmp_path: Path, link: str, target: str) -> None:
    root = touch(tmp_path / "root", "a/x/1.jpg", "b/1.jpg")
    (tmp_path / "other" / "sub").mkdir(parents=True)
    (tmp_path / "other" / "back").symlink_to(root / "a")
    (tmp_path / "other" / "sub" / "back").symlink_to(root)
    (root / link).symlink_to(tmp_path / target)
    assert listing(root, "train").paths == ("a/x/1.jpg", "b/1.jpg")


def test_classes_are_sorted_by_their_characters(tmp_path: Path) -> None:
    root = touch(
        tmp_path, *(f"{name}/{i}.jpg" for name in ("b", "B", "10", "9", "é") for i in "12")
    )
    assert listing(root, "train").class_names == ("10", "9", "B", "b", "é")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """They are read, and what is not UTF-8 becomes an escape in the names of classes."""
    names = [b"caf\xe9", "niño".encode(), "鳥".encode(), b"\xff\xfe"]
    for name in map(os.fsdecode, names):
        make = tmp_path / "mine" / name
        make.mkdir(parents=True)
        for i in range(5):
            Image.new("L", (4, 3)).save(make / os.fsdecode(b"\xe9%d.png" % i))
    listed = listing(tmp_path / "mine", "train")
    assert listed.class_names == ("caf\\xe9", "niño", "鳥", "\\xff\\xfe")
    paths = [os.fsencode(path) for part in both(tmp_path / "mine") for path in part]
    assert sorted(paths) == sorted(b"%b/\xe9%d.png" % (name, i) for name in names for i in range(5))
    images = DecodedImages(listed)
    assert images.fingerprint() and images.pixels(0).shape == (3, 4, 3)
    (tmp_path / "mine" / listed.paths[0]).write_bytes(b"")
    with pytest.raises(DatasetCorruptError, match=r"caf\udce9/\udce9\d\.png: damaged"):
        images.pixels(0)
    (tmp_path / "mine" / listed.paths[0]).unlink()
    with pytest.raises(DatasetNotFoundError, match=r"caf\udce9/\udce9\d\.png: no such file"):
        images.fingerprint()


def test_a_root_of_any_bytes(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"n\xed\xf1os")
    make_folder(root)
    options = ImageOptions(root=str(root))
    data = load("imagefolder", "test", data_dir=tmp_path / "data", options=options)
    assert data.name == "n\\xed\\xf1os" and len(data) == 6


@pytest.mark.parametrize(
    ("folders", "test_folder"),
    [
        (("train", "test"), "test"),
        (("train", "test", "val", "extra"), "test"),
        (("Train", "Test"), "Test"),
        (("Training", "Testing"), "Testing"),
        (("train", "val"), "val"),
        (("train", "VALID"), "VALID"),
        (("train", "validation"), "validation"),
        (("train", "valid", "val"), "val"),
    ],
)
def test_names_of_the_parts(tmp_path: Path, folders: tuple[str, ...], test_folder: str) -> None:
    root = touch(tmp_path, *(f"{name}/{c}/1.jpg" for name in folders for c in "ab"))
    train, test = both(root)
    assert train == [f"{folders[0]}/a/1.jpg", f"{folders[0]}/b/1.jpg"]
    assert test == [f"{test_folder}/a/1.jpg", f"{test_folder}/b/1.jpg"]


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.jpg", "train/2.jpg", "bus/1.jpg", "bus/2.jpg")
    assert listing(root, "train").class_names == ("bus", "train")


def test_the_test_part_may_lack_a_class(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "test/c/1.jpg")
    listed = listing(root, "test")
    assert listed.labels.tolist() == [2] and listed.class_names == ("a", "b", "c")


@pytest.mark.filterwarnings("ignore:.* left out:UserWarning")
@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "expected at least two classes, as folders in .*, found none. Expected ROOT/CLASS"),
        (("1.jpg", "2.jpg"), "found none.* 2 images lie in it directly: put them into a folder"),
        (("a/1.jpg",), "found one, 'a'"),
        (("train/a/1.jpg", "train/b/1.jpg"), "found one, 'train'.* use root='.*/train'"),
        (("train/1.jpg", "test/1.jpg"), r"folders in .*train, found none\..* 1 images lie in it"),
        (("a/1.jpg", "b/notes.txt"), "the class 'b' has no training image. Put files that end in"),
        (("train/a/1.jpg", "train/b/x", "test/a/1.jpg"), "the class 'b' has no training image"),
    ],
)
def test_other_layouts(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(ValueError, match=message):
        listing(tmp_path, "train")


def test_a_class_of_the_test_part_that_is_not_trained(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/z/1.jpg")
    with pytest.raises(ValueError, match=r"test has a class 'z' that train lacks\. Add a folder"):
        listing(tmp_path, "test")


@pytest.mark.filterwarnings("ignore:.* left out:UserWarning")
@pytest.mark.parametrize(
    ("paths", "root", "part", "message"),
    [
        ((), "none", "train", r"root='.*none': no such folder\. Expected ROOT"),
        (("file",), "file", "train", "no such folder"),
        (("a/1.txt", "b/2.txt"), "", "train", r"no image in the folders a, b\. .* end in \.jpg"),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "test/a/1.txt"),
            "",
            "test",
            r"no image for the test part.* to .*/test\.",
        ),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg"),
            "",
            "test",
            r"test has no images in folders of classes, but 2 images lie in it .*root='.*/train'",
        ),
        (("a/1.jpg", "b/1.jpg"), "", "test", r"for the test part\. Add images\."),
    ],
)
def test_nothing_there(
    tmp_path: Path, paths: tuple[str, ...], root: str, part: str, message: str
) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(DatasetNotFoundError, match=message):
        listing(tmp_path / root, part)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    assert listing(Path("~/photos"), "train").root == tmp_path / "photos"
