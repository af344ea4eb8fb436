"""The check list: numbers by hand, and what each of them says to change."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.unroll import GlimpseSensor
from train import check
from train.check import (
    QUESTIONS,
    Options,
    answers,
    covering,
    guessing,
    learning_by_heart,
    looking_once,
    main,
)
from train.common.run import run_program
from train.common.training_task import TrainingTask

SIGNPOST = "DTRAM-Signpost-v0"


def options(**changes: Any) -> Options:
    return Options(env_id=SIGNPOST, device="cpu", **changes)


def test_guessing_and_covering_by_hand(
    signpost: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four classes of equal size; crops of 8 of 28 pixels, (8 / 28) ** 2 = 0.0816 of an image."""
    answer = guessing(options(), signpost)
    assert "error 75.0%" in answer.number and "4 classes of 1,350 training" in answer.number
    assert answer.change == "nothing"
    monkeypatch.setattr(check, "FEW", 1351)
    assert "weights=DEFAULT" in guessing(options(), signpost).change
    answer = covering(options(), signpost)
    assert "8x8 of 28x28 pixels, 8% of the image; 4 of them at most 33%" in answer.number
    assert "wider than 8 of 28 pixels: --env glimpse_size=" in answer.change


@pytest.mark.parametrize(
    ("glimpse", "number", "change"),
    [
        (64, "50% of the known boxes fit into a glimpse", "--env glimpse_size="),
        (65, "100% of the known boxes fit into a glimpse", "nothing"),
        (128, "100% of the image", "a glimpse shows everything"),
    ],
)
def test_known_boxes_must_fit_into_a_glimpse(glimpse: int, number: str, change: str) -> None:
    """Boxes of 64x64 and of 65x10 in images of 128 pixels, whose first look is a thumbnail."""
    boxes = np.array([[0, 0, 64, 64], [5, 5, 65, 10]])
    data = SimpleNamespace(typical_size=(128, 128), metadata={"box": boxes})
    task: Any = SimpleNamespace(
        images=lambda split: SimpleNamespace(data=data),
        sensor=GlimpseSensor(glimpse, 1, "thumbnail"),
        max_glimpses=3,
    )
    answer = covering(options(), task)
    assert number in answer.number and answer.change.startswith(change)
    assert f"the first look shrinks the image by {128 / glimpse:.1f}" in answer.number


@pytest.mark.parametrize(("rate", "learns"), [(5e-3, True), (1e-9, False)])
def test_a_batch_is_learned_by_heart_at_a_sound_rate(
    signpost: TrainingTask, rate: float, learns: bool
) -> None:
    answer = learning_by_heart(options(learning_rate=rate, updates=120 if learns else 2), signpost)
    assert "on 32 training images after" in answer.number
    assert (answer.change == "nothing") == learns
    if not learns:
        assert "--learning-rate 2.5e-10 and 4e-09" in answer.change


@pytest.mark.parametrize(
    ("first", "full", "change"),
    [
        (0.7, 0.69, "not where it looks"),
        (0.3, 0.28, "the first glimpse says as much"),
        (0.7, 0.3, "nothing: there is something to look for"),
    ],
)
def test_what_one_look_says_by_hand(
    signpost: TrainingTask, monkeypatch: pytest.MonkeyPatch, first: float, full: float, change: str
) -> None:
    """Guessing errs on 75 %."""
    asked: list[GlimpseSensor] = []

    def error(given: Options, one: TrainingTask) -> float:
        asked.append(one.sensor)
        return (first, full)[len(asked) - 1]

    monkeypatch.setattr(check, "_error_of_one_look", error)
    answer = looking_once(options(), signpost)
    assert answer.change.startswith(change)
    assert f"{first:.1%} after the first" in answer.number and f"{full:.1%} after" in answer.number
    assert asked == [GlimpseSensor(8), GlimpseSensor(28, 1, "thumbnail")]  # a glimpse, the image


def test_every_question_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env-id", SIGNPOST, "--updates", "1", "--device", "cpu", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", ["check.py", *words])
    run_program(main)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(QUESTIONS)
    questions = ("guessing give?", "cover the object?", "learned by heart?", "one look already do?")
    for number, question in enumerate(questions):
        asked, change = lines[2 * number : 2 * number + 2]
        assert asked.startswith(f"{number + 1}. ") and question in asked
        assert change.startswith("   To change: ")


def test_a_policy_only_id_is_refused() -> None:
    with pytest.raises(ValueError, match="a frozen classifier answers there"):
        next(answers(Options(env_id="agents:DTRAM-MNIST-Policy-v0", device="cpu")))
