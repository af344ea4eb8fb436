"""What is wrong with any split of the user's images stops a program before it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from train import classifier, one_look, reinforce, sb3_baselines
from train.common.options import PlainEncoder

PROGRAMS: dict[str, Callable[..., object]] = {
    **{
        program.__name__.rpartition(".")[2]: lambda program=program, **keywords: program.train(
            program.Options(
                **keywords, encoder=PlainEncoder("cnn"), epochs=1, batch_size=8, device="cpu"
            )
        )
        for program in (reinforce, one_look, classifier)
    },
    "sb3_baselines": lambda **keywords: sb3_baselines.train(
        sb3_baselines.Options(**keywords, algo="ppo", observe="glimpse", total_timesteps=8)
    ),
    "scan": lambda **keywords: sb3_baselines.train(
        sb3_baselines.Options(**keywords, algo="scan", set=("stop_after=1",))
    ),
}


def write(root: Path, part: str, count: int) -> None:
    for name in "ab":
        for i in range(count):
            path = root / part / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flatten(test: Path) -> None:
    for i, path in enumerate(sorted(test.rglob("*.png"))):
        path.rename(test / f"{i}.png")
    for name in "ab":
        (test / name).rmdir()


def keep_four(train: Path) -> None:
    for path in train.rglob("*.png"):
        if path.stem > "1":
            path.unlink()


FAULTS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "flat test folder": (
        lambda root: flatten(root / "test"),
        DatasetNotFoundError,
        r"test has no images in folders of classes, but 4 images lie in it directly.* use root='.*/"
        r"photos/train'",
    ),
    "truncated test image": (
        lambda root: truncate(root / "test/a/1.png"),
        DatasetCorruptError,
        r"test/a/1\.png: damaged, or no image .* remove it from",
    ),
    "test image that is text": (
        lambda root: (root / "test/b/0.png").write_text("no image", encoding="utf-8"),
        DatasetCorruptError,
        r"test/b/0\.png: damaged, or no image",
    ),
    "class of the test part alone": (
        lambda root: (root / "test/a").rename(root / "test/z"),
        ValueError,
        r"test has a class 'z' that train lacks\..* use root='.*/photos/train'",
    ),
    "empty test part": (
        lambda root: [path.unlink() for path in (root / "test").rglob("*.png")],
        DatasetNotFoundError,
        "no image for the test part. Add images to .*/photos/test",
    ),
    "empty validation part": (
        lambda root: keep_four(root / "train"),
        ValueError,
        "split 'validation': it has no images; it is a tenth of the training images.* are 10",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bad_split_stops_a_program_before_it_trains(
    tmp_path: Path, program: str, fault: str
) -> None:
    root, run = tmp_path / "photos", tmp_path / "run"
    write(root, "train", 8)
    write(root, "test", 2)
    do, error, message = FAULTS[fault]
    do(root)
    keywords: dict[str, Any] = {"root": root, "data_dir": tmp_path / "data", "run_dir": run}
    env = ("image_size=none", "glimpse_size=8")
    with pytest.raises(error, match=message):
        PROGRAMS[program](env_id="DTRAM-ImageFolder-v0", env=env, **keywords)
    assert not run.exists()
