"""The program answers files as the environment does, and names those it cannot read."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dtram_env
from agents.dtram import DTRAM
from dtram_env.rendering import COLOURS
from train.common.run import run_program
from train.common.training_task import TrainingTask
from train.predict import Options, given_images, main, picture_names, predict

ENV_ID = "DTRAM-ImageFolder-v0"
SIZES = [(60, 60), (64, 133), (200, 60)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own images, as DTRAM-ImageFolder-v0 takes it."""
    root = tmp_path_factory.mktemp("images") / "own"
    for part in ("train", "test"):
        for label, name in enumerate(("heron", "owl")):
            (root / part / name).mkdir(parents=True)
            for i, (height, width) in enumerate(SIZES):
                rng = np.random.default_rng(10 * label + i)
                patches = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
                patches.resize((width, height)).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model for that folder, saved as training saves it."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    task = TrainingTask(
        ENV_ID,
        torch.device("cpu"),
        root=str(images),
        data_dir=str(folder.parent / "data"),
        image_size=40,
        glimpse_size=16,
    )
    torch.manual_seed(0)
    agent = task.new_agent(encoder="cnn", hidden_size=32)
    torch.nn.init.normal_(agent.stopper[-1].weight)
    agent.save(folder, **task.metadata)
    return folder


def test_files_are_answered_as_the_environment_does(
    images: Path, model: Path, tmp_path: Path, run_python: Callable[..., str]
) -> None:
    words = [str(model), str(images / "test"), "--json", "--device", "cpu"]
    said = run_python("train/predict.py", *words, "--out", str(tmp_path / "out"))
    result = json.loads(said)
    expected = dtram_env.evaluate(
        DTRAM.load(model),
        ENV_ID,
        "test",
        data_dir=str(model.parent / "data"),
        **DTRAM.load(model).about["env_options"],
    )
    answers = result["answers"]
    assert [one["image"] for one in answers] == [str(p) for p in sorted(images.glob("test/*/*"))]
    assert [one["class_index"] for one in answers] == expected.prediction.tolist()
    assert [one["num_glimpses"] for one in answers] == expected.num_glimpses.tolist()
    assert [one["class_name"] for one in answers] == [
        ("heron", "owl")[k] for k in expected.prediction
    ]
    assert result["images"] == len(answers) == 6 and result["failed"] == []
    assert result["mean_glimpses"] == pytest.approx(expected.mean_glimpses)
    assert result["mean_flops"] == pytest.approx(np.mean([one["flops"] for one in answers]))
    assert result["env_id"] == ENV_ID and result["model"] == str(model)
    for one in answers:
        assert len(one["boxes"]) == len(one["locations"]) == one["num_glimpses"]
        assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_pictures_have_numbered_boxes(images: Path, model: Path, tmp_path: Path) -> None:
    path = images / "test" / "owl" / "1.png"
    result = predict(Options(model, (path,), out=tmp_path, device="cpu", json=True))
    assert result["answers"][0]["picture"] == str(tmp_path / "1.png")
    picture = np.asarray(Image.open(tmp_path / "1.png"))
    assert picture.shape[1] == 266 and picture.shape[0] > 128  # 133x64 pixels, doubled, and a line
    corners = picture[[0, 127, 127], [265, 0, 265]]  # of the thumbnail, the first glimpse
    assert (corners == COLOURS[0]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


def test_a_large_image_is_shrunk_for_its_picture(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1200, 960)).save(tmp_path / "large.png")
    predict(Options(model, (tmp_path / "large.png",), out=tmp_path / "out", device="cpu"))
    with Image.open(tmp_path / "out" / "large.png") as picture:
        assert picture.width == 600


@pytest.mark.parametrize("is_run", [True, False])
def test_pictures_go_into_the_runs_folder_or_here(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_run: bool
) -> None:
    run = shutil.copytree(model, tmp_path / "run")
    if is_run:
        (run / "options.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    predict(Options(run, (images / "test",), device="cpu"))
    folder = (run if is_run else tmp_path) / "predictions"
    made = sorted(folder.rglob("*.png"))
    assert [str(p.relative_to(folder)) for p in made] == [
        f"{name}/{i}.png" for name in ("heron", "owl") for i in range(3)
    ]
    before = {path: path.stat().st_mtime_ns for path in made}
    result = predict(Options(run, (images / "test",), device="cpu", pictures=False))
    assert all(one["picture"] is None for one in result["answers"])
    assert before == {path: path.stat().st_mtime_ns for path in made}


def test_the_threshold_decides_when_it_stops(images: Path, model: Path) -> None:
    def glimpses(threshold: float) -> float:
        options = Options(
            model, (images / "test",), pictures=False, device="cpu", threshold=threshold
        )
        return predict(options)["mean_glimpses"]

    assert glimpses(0.0) == 1 and glimpses(1.0) == 4


def test_text_names_every_image(
    images: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = predict(Options(model, (images / "test",), pictures=False, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for text, one in zip(lines, result["answers"], strict=True):
        assert text.startswith(f"{one['image']}: {one['class_name']}, {one['probability']:.3f}, ")
        assert f"{one['num_glimpses']} glimpse" in text
        assert text.endswith(f"{one['flops'] / 1e6:.2f} MFLOP")


def run_main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int | str | None:
    """The exit status of the program, or the line that it ends with; None is success."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words), "--device", "cpu"])
    try:
        run_program(main)
    except SystemExit as left:
        return left.code
    return None


def test_unreadable_files_are_named_and_skipped(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(images / "test" / "owl", mixed / "deep")
    (mixed / "bad.png").write_text("not an image")
    missing = tmp_path / "missing.jpg"
    status = run_main(monkeypatch, model, mixed, missing, "--json", "--no-pictures")
    printed = capsys.readouterr()
    assert status == 1
    result = json.loads(printed.out)
    assert result["images"] == 3
    assert [one["image"] for one in result["failed"]] == [str(mixed / "bad.png"), str(missing)]
    assert f"{mixed / 'bad.png'}: damaged, or no image" in printed.err
    assert f"{missing}: no such file" in printed.err


def test_a_summary_ends_the_text(
    images: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (model, images / "test", "--no-pictures", "--threshold", "0")
    assert run_main(monkeypatch, *words) is None
    assert "6 images: 1.00 glimpses and " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}", "{empty}"], "error: {empty}: expected images in it, files in .jpg"),
        (["{empty}", "a.png"], "error: {empty}: no saved model, model.json is missing"),
        (["{model}", "a.png", "--out", "{model}/model.json"], "model.json: File exists"),
        (["{odd}", "a.png"], "{odd}/model.json: about['sensor'].num_scales=0: expected"),
    ],
)
def test_an_error_is_one_line(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    shutil.copytree(model, odd := tmp_path / "odd")
    header = json.loads((odd / "model.json").read_text())
    header["sensor"]["num_scales"] = 0
    (odd / "model.json").write_text(json.dumps(header))
    (empty := tmp_path / "empty").mkdir()
    places: dict[str, Any] = {"model": model, "empty": empty, "odd": odd}
    status = run_main(monkeypatch, *(word.format(**places) for word in words))
    assert isinstance(status, str) and "\n" not in status
    assert message.format(**places) in status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ()}, "at least one image or folder"),
        ({"threshold": 1.5}, "--threshold 1.5: expected a probability"),
        ({"out": Path("x"), "pictures": False}, "--out x: expected with pictures"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**{"run_dir": Path("run"), "images": (Path("a.png"),), **options})


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    names = ("b.JPG", "a.png", "sub/c.webp", "sub/.hidden.png", ".dot/d.png", "notes.txt")
    for name in (*names, "@eaDir/a.png/thumb.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    single = Path("elsewhere.img")
    expected = [tmp_path / "a.png", tmp_path / "b.JPG", tmp_path / "sub" / "c.webp"]
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    with pytest.warns(UserWarning, match=r"left out 1 file: 1 \.txt"):
        assert given_images([single, tmp_path]) == [single, *expected]


def test_no_two_pictures_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = tmp_path / "photos"
    paths = [photos / "a.png", photos / "a.jpg", photos / "sub" / "a.png", tmp_path / "a.gif"]
    names = picture_names([photos, paths[3]], paths)
    assert names == [Path("a.png"), Path("a-2.png"), Path("sub/a.png"), Path("a-3.png")]
