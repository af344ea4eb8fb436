"""Discriminative parts of drawn images: crops, answers, and the whole program."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import drawn_parts
from benchmarks.drawn_parts import KINDS, Options, answer, choose_task, draw_crops, places
from benchmarks.timing import run_benchmark
from dtram_env.datasets.storage.thumbnails import box_resize

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("profile", "every", "classes", "images"),
    [("small", 1, 20, 8000), ("full", 4, 48, None), ("scenes", 1, 20, 8000)],
)
def test_classes_and_images(profile: str, every: int, classes: int, images: int | None) -> None:
    """Whole genera, and about the dataset's shares of 0, 1 and 2 discriminative parts."""
    task = choose_task(Options(profile=profile))  # type: ignore[arg-type]
    genera = [name.split(",")[0] for name in task.drawing.class_names]
    kept = list(dict.fromkeys(genera))[::every]
    assert len(task.classes) == sum(genus in kept for genus in genera) == classes
    rows = task.indices("train")
    assert len(rows) == images or images is None
    assert np.array_equal(task.classes[task.targets("train")], task.drawing.labels("train")[rows])
    by_parts = np.bincount(task.drawing.layout("train").discriminative[rows].sum(axis=1)) / len(
        rows
    )
    assert np.abs(by_parts - [0.2, 0.5, 0.3]).max() < 0.06


@pytest.mark.parametrize("profile", ["small", "full", "scenes"])
def test_crops_show_their_parts(profile: str) -> None:
    task = choose_task(Options(profile=profile, num_train=400))  # type: ignore[arg-type]
    rows, layout = task.indices("train"), task.drawing.layout("train")
    found = places(task, "train")
    for corners in found.values():
        assert corners.shape == (len(rows), 2, 2)
        assert corners.min() >= 0 and corners.max() <= task.drawing.image_size - task.side
    boxes, discriminative = layout.part_boxes[rows], layout.discriminative[rows]
    middle = (boxes[..., :2] + boxes[..., 2:] / 2)[:, None]  # (N, 1, parts, 2)
    shows = {
        kind: np.all(np.abs(middle - corners[:, :, None] - task.side / 2) < task.side / 2, axis=3)
        for kind, corners in found.items()
    }
    # The two crops show every discriminative part, and each crop shows one.
    needed = discriminative & ~shows["parts"].any(axis=1)
    assert not needed.any()
    assert (
        (shows["parts"] & (discriminative | ~discriminative.any(axis=1, keepdims=True))[:, None])
        .any(2)
        .all()
    )
    assert (shows["random"].any(axis=1) | ~discriminative).all(axis=1).mean() < 0.7


def test_crops_are_cut_from_the_images() -> None:
    task = choose_task(Options(num_train=20, num_test=20))
    crops, where = draw_crops(task, "test"), places(task, "test")
    assert [crops[kind].shape[:2] for kind in KINDS] == [(20, 1), (20, 2), (20, 2)]
    image = task.drawing.draw("test", 7)
    assert np.array_equal(crops["thumbnail"][7, 0], box_resize(image[None], 32)[0])
    for kind in ("parts", "random"):
        for k, (left, top) in enumerate(where[kind][7]):
            assert np.array_equal(crops[kind][7, k], image[top : top + 32, left : left + 32])


class Means(nn.Module):
    """Log-probabilities known from the first pixel: its red is the chance of class 0, in %."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        p = ((pixels[:, 0, 0, 0] * 50 + 127) / 100).double()
        return torch.stack([p, (1 - p) * 0.6, (1 - p) * 0.4], dim=1).log()


def test_answer_is_the_largest_mean_log_probability() -> None:
    """By hand: 0.3 * 0.3 > 0.42 ** 2 is false; 0.9 * 0.2 > 0.06 * 0.48 is true."""
    crops = np.zeros((2, 2, 4, 4, 3), np.uint8)
    crops[:, :, 0, 0, 0] = [[30, 30], [90, 20]]
    assert answer(Means(), crops, CPU).tolist() == [1, 0]
    assert answer(Means(), crops[:, 1:], CPU).tolist() == [1, 1]


def test_the_network_learns_from_its_crops() -> None:
    """Class 1 is brighter."""
    labels = np.arange(64) % 2
    crops = np.random.default_rng(0).integers(0, 100, (64, 2, 32, 32, 3)).astype(np.uint8)
    crops[labels == 1] += 100
    net = drawn_parts.train_net(crops, labels, 2, 6, CPU)
    assert np.array_equal(answer(net, crops, CPU), labels)
    with torch.no_grad():
        for side in (32, 224):
            net = drawn_parts.make_net(side, 48)
            assert net(torch.zeros(2, 3, side, side)).shape == (2, 48)


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    options = f"--num-train 40 --num-test 40 --updates 3 --json {path}"
    monkeypatch.setattr("sys.argv", ["drawn_parts.py", *options.split()])
    run_benchmark(Options, drawn_parts.run, None)
    found = json.loads(path.read_text())
    assert list(found["results"]) == list(KINDS)
    assert found["used"] == {"classes": 20, "train_images": 40, "test_images": 40}
    assert found["options"]["updates"] == 3
    for result in found["results"].values():
        assert 0 <= result["accuracy"] <= 100
    thumbnail = found["results"]["thumbnail"]
    assert thumbnail["accuracy_of_first_look"] == thumbnail["accuracy"]


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="--updates 0: expected 1 or more"):
        Options(updates=0)
    with pytest.raises(ValueError, match="--num-test 19: expected at least 20, an image a class"):
        choose_task(Options(num_test=19))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("drawn_parts_*.json")))
def test_committed_results(path: Path) -> None:
    """The thumbnail is at least 20 points below the parts, and below their first crop alone."""
    found = json.loads(path.read_text(encoding="utf-8"))
    thumbnail, parts = found["results"]["thumbnail"], found["results"]["parts"]
    assert parts["accuracy"] - thumbnail["accuracy"] >= 20
    assert parts["accuracy_of_first_look"] - thumbnail["accuracy"] >= 20
    assert found["command"].startswith("python benchmarks/drawn_parts.py")
