"""The evaluation through the environment agrees with training's, image by image."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.dtram import DTRAM
from agents.files import save_stop
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop
from train import evaluate as program
from train.common.run import run_program
from train.evaluate import Options, evaluate


@pytest.fixture(scope="module")
def written(finished_run: Path) -> dict[str, Any]:
    """The results of the training program."""
    return json.loads((finished_run / "results.json").read_text())


@pytest.mark.parametrize("num_envs", [64, 3000])
def test_agrees_with_training_per_image(finished_run: Path, written, num_envs: int) -> None:
    result = evaluate(Options(finished_run, num_envs=num_envs, device="cpu"))
    assert result["differs_from_training"] == 0
    assert result["test_error"] == pytest.approx(written["test_error"])
    assert result["mean_glimpses"] == pytest.approx(written["mean_glimpses"])
    assert result["histogram"] == written["histogram"]
    assert (result["dataset"], result["split"], result["images"]) == ("Signpost", "test", 2000)


@pytest.mark.parametrize(
    ("options", "rule", "family", "key"),
    [
        ({"fixed": 1}, FixedStop(1), "fixed", "1"),
        ({"fixed": 3}, FixedStop(3), "fixed", "3"),
        ({"confidence": 0.7}, ConfidenceStop(0.7), "confidence", "0.7"),
        ({"threshold": 0.8}, LearnedStop(0.8), "learned", "0.8"),
    ],
)
def test_other_rules_agree_with_trainings_table(
    finished_run: Path, written, options, rule, family, key
) -> None:
    result = evaluate(Options(finished_run, device="cpu", **options))
    assert result["stopping"] == repr(rule)
    assert result["test_error"] == pytest.approx(written[family][key]["test_error"])
    expected = written[family][key]["mean_glimpses"]
    assert result["mean_glimpses"] == pytest.approx(expected, abs=1e-3)
    assert "differs_from_training" not in result


def test_a_stop_is_chosen_by_its_name(finished_run: Path, written, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(finished_run, folder)
    agent = DTRAM.load(folder)
    agent.stopping = agent.learned_stop(0.8)
    save_stop(folder, "eager", agent)
    for options in ({}, {"threshold": 0.8}):
        result = evaluate(Options(folder, stop="eager", device="cpu", **options))
        assert result["stopping"] == repr(LearnedStop(0.8))
        assert result["test_error"] == pytest.approx(written["learned"]["0.8"]["test_error"])
        assert "differs_from_training" not in result
    save_stop(folder, "patient", agent, discount=0.5)
    patient = evaluate(Options(folder, stop="patient", device="cpu"))
    assert patient["test_error"] == result["test_error"]
    assert patient["mean_return"] < result["mean_return"]


def test_other_splits_have_no_test_error(finished_run: Path, written) -> None:
    result = evaluate(Options(finished_run, split="validation", device="cpu"))
    assert result["images"] == 600 and "test_error" not in result
    assert 100 * result["error"] == pytest.approx(written["validation"]["error"], abs=1e-3)


def test_json_is_one_object_on_standard_output(
    finished_run: Path, run_python: Callable[..., str]
) -> None:
    said = run_python("train/evaluate.py", str(finished_run), "--json", "--device", "cpu")
    result = json.loads(said)
    assert {"dataset", "split", "images", "test_error", "mean_glimpses", "command"} <= set(result)


def test_text_says_the_same(finished_run: Path, written, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(finished_run), "--device", "cpu"])
    program.main()
    said = capsys.readouterr().out
    assert f"error {written['test_error']:.2f} %" in said
    assert "images with another answer than the training program wrote: 0" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "error: nowhere: no saved model"),
        (["{run}", "--fixed", "0"], "--fixed 0: expected at least 1"),
        (["{run}", "--fixed", "9"], "error: --fixed 9: expected at most the budget, 4"),
        (["{run}", "--confidence", "1.5"], "--confidence 1.5: expected a probability"),
        (["{run}", "--split", "holdout"], "holdout"),
        (["{run}", "--stop", "2.4"], "error: stop='2.4': "),
        (["{run}", "--num-envs", "0"], "--num-envs 0: expected at least 1"),
        (["{run}", "--fixed", "2", "--confidence", "0.9"], "--fixed and --confidence: expected at"),
    ],
)
def test_bad_input_is_named(finished_run: Path, monkeypatch, capsys, words, message) -> None:
    """An option out of range ends the parser with status 2, other errors are one line."""
    monkeypatch.setattr(sys, "argv", ["x", *(word.format(run=finished_run) for word in words)])
    with pytest.raises(SystemExit) as stopped:
        run_program(program.main)
    said = capsys.readouterr()
    text = said.err if stopped.value.code == 2 else str(stopped.value.code)
    assert message in " ".join(text.replace("│", "").split()) and said.out == ""
