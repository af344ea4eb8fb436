"""`load`, `build` and `download`: by name and split, with options, and the rule of stand-ins."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dtram_env import datasets
from dtram_env.datasets import (
    DATASETS,
    SPLITS,
    BuiltinDataWarning,
    DatasetNotFoundError,
    ImageOptions,
    build,
    load,
)
from dtram_env.datasets.catalog import DRAWINGS, Part, drawn_cache
from dtram_env.datasets.drawn import BIRDS
from dtram_env.datasets.sources import mnist
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.store import Pictures
from tests.dtram_env.datasets.trees import PHOTOGRAPHS, make_folder

FEW = ImageOptions(image_size=96, num_classes=10, num_train=30, num_test=6)
FEW_BIRDS = replace(BIRDS, image_size=96, num_classes=10, num_train=30, num_test=6)


def pictures(data: datasets.Dataset) -> Pictures:
    assert not isinstance(data.images, np.ndarray)
    return data.images


# --- Loading


@pytest.mark.parametrize("split", SPLITS)
def test_loaded_once(split: str, tmp_path: Path) -> None:
    data = load("signpost", split)
    assert data is load("signpost", split, data_dir=tmp_path, download=False)  # needs no folder
    assert (data.name, data.split, data.drawn) == ("Signpost", split, True)
    assert list(tmp_path.iterdir()) == []


def test_a_split_selects_metadata_too(tmp_path: Path) -> None:
    whole, train, validation = (
        load("birds", split, data_dir=tmp_path, options=FEW)
        for split in ("train+validation", "train", "validation")
    )
    indices = datasets.stratified_split(whole.labels, 3)
    for part, index in zip((train, validation), indices, strict=True):
        assert len(part) == len(index)
        assert np.array_equal(part.labels, whole.labels[index])
        for name in ("part_boxes", "discriminative"):
            assert np.array_equal(part.metadata[name], whole.metadata[name][index])
        assert np.array_equal(part.image(0), whole.image(int(index[0])))
        assert np.array_equal(part.image(0), FEW_BIRDS.draw("train", int(index[0])))
    # The same where images are an array.
    paths = tuple("0123")
    part = Part(np.arange(4), np.arange(4) % 2, ("a", "b"), {"box": np.eye(4)}, paths=paths)
    chosen = part.select(np.array([2]))
    assert (chosen.metadata["box"].tolist(), chosen.paths) == ([[0, 0, 1, 0]], ("2",))


def test_files_have_names_and_other_images_numbers(tmp_path: Path) -> None:
    """A colour shows which file an image was read from."""
    for place in (f"{name}/caf\udce9{k}.png" for name in "ab" for k in range(10)):
        path = tmp_path / "mine" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), ord(place[0]) + int(place[-5])).save(path)
    options = ImageOptions(root=str(tmp_path / "mine"))
    for split in SPLITS:
        data = load("imagefolder", split, data_dir=tmp_path, options=options)
        assert len(data.paths) == len(data)
        for i, path in enumerate(data.paths):
            assert (data.image(i) == ord(path[0]) + int(path[-5])).all()
        assert data.caption(0) == f"0, {data.paths[0][0]}/caf\\xe9{data.paths[0][-5]}.png"
        assert pickle.loads(pickle.dumps(data)).paths == data.paths
    assert load("signpost", "test").caption(3) == "3"


def test_metadata_of_drawn_birds_are_their_layout(tmp_path: Path) -> None:
    data, layout = load("birds", "test", data_dir=tmp_path, options=FEW), FEW_BIRDS.layout("test")
    assert np.array_equal(data.metadata["part_boxes"], layout.part_boxes)
    assert np.array_equal(data.metadata["discriminative"], layout.discriminative)
    assert np.array_equal(data.labels, FEW_BIRDS.labels("test"))
    assert data.class_names == FEW_BIRDS.class_names
    assert (data.name, data.drawn, data.image_shape) == ("Birds (drawn)", True, (96, 96, 3))


def test_names_in_any_case(tmp_path: Path) -> None:
    assert load("SignPost", "test") is load("signpost", "test")
    for do in (datasets.verify, datasets.is_ready):
        found = []
        for name in ("birds", "Birds"):
            try:
                found.append(do(name, data_dir=tmp_path))
            except DatasetNotFoundError as error:
                found.append(str(error).lower())
        assert found[0] == found[1]


def test_the_table_agrees_with_the_environments() -> None:
    import gymnasium as gym

    for name, info in DATASETS.items():
        kwargs = gym.spec(info.env_id).kwargs
        assert str(kwargs["dataset"]).lower() == name
        assert info.stand_in is None or DATASETS[info.stand_in].drawn
        # The dataset and its stand-in accept the options that the id is registered with.
        for accepting in (name, info.stand_in or name):
            given = {key for key in vars(ImageOptions()) if kwargs.get(key) is not None}
            assert given <= DATASETS[accepting].options


# --- Options


def test_given_options() -> None:
    assert ImageOptions().given() == set()
    given = ImageOptions(image_size=3, crop_to_box=True).given()
    assert given == {"image_size", "crop_to_box"}


UNKNOWN_SPLIT = r"'valid': expected one of 'train', 'validation', 'test', 'train\+validation'"


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("mnits", {}, {}, "dataset 'mnits': expected one of 'mnist', 'signpost'"),
        ("signpost", {"split": "valid"}, {}, UNKNOWN_SPLIT),
        ("signpost", {"data": "fake"}, {}, "'fake': expected one of 'auto', 'real', 'builtin'"),
        ("mnist", {"data": "builtin"}, {}, "MNIST has no drawn stand-in; use 'auto'"),
        ("signpost", {}, {"crop_to_box": True}, "=True: Signpost does not accept .* none of them"),
        ("signpost", {}, {"root": "/x"}, "root='/x': Signpost does not accept it"),
        ("mnist", {}, {"num_classes": 3}, "num_classes=3: MNIST does not accept it"),
        ("birds", {}, {"crop_to_box": True}, r"Birds \(drawn\) does not .*image_size, num_classes"),
        ("imagefolder", {}, {"num_test": 3}, "ImageFolder does not .* image_size, root$"),
        ("imagefolder", {}, {}, r'root=None: .* folder .*gym.make\("DTRAM-ImageFolder-v0", r'),
        ("birds", {}, {"num_classes": 1}, "num_classes=1: expected"),
        (
            "cub",
            {"data": "builtin"},
            {"crop_to_box": True},
            r"Birds \(drawn\), the drawn stand-in for CUB-200-2011, does not accept it",
        ),
    ],
)
def test_load_refuses(
    name: str, arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, **arguments, options=ImageOptions(**options))


def test_an_image_size_of_images_in_memory_is_left_to_the_task() -> None:
    assert load("signpost", "test", options=ImageOptions(image_size=28)).image_shape == (28, 28, 1)


def test_a_relative_root_counts_from_where_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        make_folder(tmp_path / name / "photos", classes=2 if name == "one" else 3)
    for name, classes in (("one", 2), ("two", 3)):
        monkeypatch.chdir(tmp_path / name)
        data = load("imagefolder", data_dir=tmp_path / "data", options=ImageOptions(root="photos"))
        assert (data.num_classes, data.name) == (classes, "photos")
    # Folders of one name have caches of their own.
    assert len(list((tmp_path / "data" / "imagefolder").iterdir())) == 2


def test_a_folder_too_small_for_a_validation_part(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", classes=2, train=2, test=1)
    options = ImageOptions(root=str(tmp_path / "photos"))
    assert len(load("imagefolder", "train", data_dir=tmp_path, options=options)) == 4
    assert len(load("imagefolder", "validation", data_dir=tmp_path, options=options)) == 0


# --- Stand-ins: DESIGN's rule

STAND_INS = {
    "cub": ("CUB-200-2011", "Birds (drawn)", "birds", "DTRAM-Birds-v0", 200, (5395, 599, 5794)),
    "cars": ("Stanford Cars", "Autos (drawn)", "autos", "DTRAM-Autos-v0", 196, (7330, 814, 8041)),
}
AT_512 = ImageOptions(image_size=512)


@pytest.mark.parametrize("name", STAND_INS)
def test_auto_without_the_data_warns_and_takes_the_drawn(name: str, tmp_path: Path) -> None:
    title, drawn_title, drawn, drawn_id, classes, counts = STAND_INS[name]
    with pytest.warns(BuiltinDataWarning) as caught:
        data = load(name, "train", data_dir=tmp_path, options=AT_512)
    (warning,) = caught
    for words in (
        f"{title} is not in {tmp_path / name}: these are drawn images, not {title}",
        f"{drawn_title}, {DATASETS[drawn].description}, the same as {drawn_id}",
        f"`python -m dtram_env.datasets download {name}`",
        "data='real' makes their absence an error",
    ):
        assert words in str(warning.message)
    assert warning.filename == __file__  # it points at who asked
    assert (data.name, data.drawn, data.stands_in_for) == (drawn_title, True, title)
    # As many classes and images as the real one has.
    assert data.num_classes == classes
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        found = load(name, split, data_dir=tmp_path, data="builtin", options=AT_512)
        itself = load(drawn, split, data_dir=tmp_path, options=AT_512)
        assert len(found) == len(itself) == count
        assert np.array_equal(found.labels, itself.labels) and itself.stands_in_for is None
    assert np.array_equal(found.image(3), itself.image(3))
    assert list(tmp_path.iterdir()) == []  # nothing was fetched or written


def test_cache_folders_name_what_changes_pixels() -> None:
    options = ImageOptions(image_size=1024, num_test=7)
    for name, expected in (
        ("birds", "test-1024-200classes-7-seed0"),
        ("scenes", "test-1024-figures128-20classes-7-seed0"),
    ):
        cache, store = drawn_cache(name, options, Path("data"), "test")
        assert cache == Path("data/cache") / expected
        assert store.drawing == replace(DRAWINGS[name], image_size=1024, num_test=7)


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("download", [True, False])
def test_real_without_the_data_is_an_error_with_the_way_out(
    name: str, download: bool, tmp_path: Path
) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        load(name, data_dir=tmp_path, data="real", download=download)
    first = {"cub": "CUB_200_2011/images.txt", "cars": "cars_train"}[name]
    for words in (
        f"{name}: not all its files are in {tmp_path / name}: it has no {first}, ",
        f"`python -m dtram_env.datasets download {name}`",
        f"Drawn images in its place are {STAND_INS[name][3]}, which gym.make also uses "
        "with data='auto'",
        "Environments that need no data: DTRAM-Signpost-v0, DTRAM-NoisySignpost-v0, ",
    ):
        assert words in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", STAND_INS)
def test_builtin_takes_the_drawn_in_any_case(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, make = PHOTOGRAPHS[name]
    make(tmp_path / name).publish(monkeypatch, reader)
    data = load(name, "test", data_dir=tmp_path, data="builtin", options=FEW)
    assert (data.name, data.stands_in_for) == (STAND_INS[name][1], STAND_INS[name][0])


@pytest.mark.parametrize("name", STAND_INS)
def test_once_the_real_data_is_there_it_is_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, make = PHOTOGRAPHS[name]
    small = ImageOptions(image_size=96)
    with pytest.warns(BuiltinDataWarning):
        before = load(name, "test", data_dir=tmp_path, options=small)
    tree = make(tmp_path / name)
    tree.publish(monkeypatch, reader)
    for data in ("auto", "real"):  # no warning, which were an error
        found = load(name, "test", data_dir=tmp_path, data=data, options=small)
        assert (found.name, found.drawn, found.stands_in_for) == (STAND_INS[name][0], False, None)
        assert found.labels.tolist() == tree.labels["test"].tolist() != before.labels.tolist()
        assert found.class_names == tree.class_names
    shutil.rmtree(tree.root)
    with pytest.warns(BuiltinDataWarning):
        assert load(name, "test", data_dir=tmp_path, options=small) is before


def test_others_have_no_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "SOURCES", ())
    for data in ("auto", "real"):
        with pytest.raises(DatasetNotFoundError, match="mnist: no source gave train-images"):
            load("mnist", data_dir=tmp_path, data=data)
        with pytest.raises(DatasetNotFoundError, match=r"and download=False\. Fetch them with"):
            load("mnist", data_dir=tmp_path, data=data, download=False)


def test_a_drawn_dataset_is_never_replaced(tmp_path: Path) -> None:
    for data in datasets.DATA:
        assert load("birds", "test", data_dir=tmp_path, data=data, options=FEW).name == (
            "Birds (drawn)"
        )


# --- Building


def test_build_draws_once_and_what_was_loaded_is_overtaken(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"data_dir": tmp_path, "options": FEW}
    drawn = load("birds", "validation", **keywords)
    stand_in = load("cub", "test", data="builtin", **keywords)
    assert isinstance(drawn.images, DrawnStore) and isinstance(stand_in.images, DrawnStore)
    folder = build("birds", **keywords, thumbnail_sizes=(8,))
    assert folder == tmp_path / "birds" / "cache"
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
        "test-96-10classes-6-seed0",
        "train-96-10classes-30-seed0",
    ]
    built = load("birds", "validation", **keywords)
    assert isinstance(built.images, MappedStore)
    assert (built.images.folder / "thumbnails-8.bin").exists()
    again = load("cub", "test", data="builtin", **keywords)
    assert isinstance(again.images, MappedStore) and again.stands_in_for == "CUB-200-2011"
    for before, after in ((drawn, built), (stand_in, again)):
        index = np.arange(len(before))
        assert np.array_equal(
            pictures(before).thumbnail(index, 96), pictures(after).thumbnail(index, 96)
        )
        assert np.array_equal(before.labels, after.labels)
        for name, values in before.metadata.items():
            assert np.array_equal(values, after.metadata[name])


@pytest.mark.parametrize(
    ("do", "name", "error", "message"),
    [
        (build, "mnits", ValueError, "'mnits'"),
        (datasets.download, "mnits", ValueError, "'mnits'"),
        (build, "signpost", ValueError, "dataset 'signpost': it is held in memory"),
        (build, "cub", DatasetNotFoundError, "cub: not all its files"),  # never a stand-in
    ],
)
def test_build_and_download_refuse(
    do: Any, name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        do(name, data_dir=tmp_path)
