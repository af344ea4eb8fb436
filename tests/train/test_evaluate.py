"""The evaluation through the environment agrees with training's, image by image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.stopping import ConfidenceStop, FixedStop
from train.evaluate import Options, evaluate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("num_envs", [1000, 64, 3000])
def test_agrees_with_training_per_image(finished_run: Path, num_envs: int) -> None:
    result = evaluate(Options(finished_run, num_envs=num_envs, device="cpu"))
    written = json.loads((finished_run / "results.json").read_text())
    assert result["differs_from_training"] == 0
    assert result["test_error"] == pytest.approx(written["test_error"])
    assert result["mean_glimpses"] == pytest.approx(written["mean_glimpses"])
    assert result["histogram"] == written["histogram"]
    assert (result["dataset"], result["split"], result["images"]) == ("Signpost", "test", 2000)


def test_other_rules_agree_with_trainings_table(finished_run: Path) -> None:
    written = json.loads((finished_run / "results.json").read_text())
    for glimpses in (1, 3):
        result = evaluate(Options(finished_run, fixed=glimpses, device="cpu"))
        assert result["stopping"] == repr(FixedStop(glimpses))
        expected = written["fixed"][str(glimpses)]
        assert result["test_error"] == pytest.approx(expected["test_error"])
        assert result["mean_glimpses"] == glimpses
        assert "differs_from_training" not in result
    result = evaluate(Options(finished_run, confidence=0.7, device="cpu"))
    assert result["stopping"] == repr(ConfidenceStop(0.7))
    expected = written["confidence"]["0.7"]
    assert result["test_error"] == pytest.approx(expected["test_error"])
    assert result["mean_glimpses"] == pytest.approx(expected["mean_glimpses"], abs=1e-3)


def test_other_splits_have_no_test_error(finished_run: Path) -> None:
    result = evaluate(Options(finished_run, split="validation", device="cpu"))
    assert result["images"] == 600 and "test_error" not in result
    written = json.loads((finished_run / "results.json").read_text())
    assert 100 * result["error"] == pytest.approx(written["validation"]["error"], abs=1e-3)


def run_program(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "train" / "evaluate.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_json_is_one_object_on_standard_output(finished_run: Path) -> None:
    done = run_program(str(finished_run), "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"dataset", "split", "images", "test_error", "mean_glimpses", "command"} <= set(result)


def test_text_says_the_same(finished_run: Path) -> None:
    done = run_program(str(finished_run), "--device", "cpu")
    written = json.loads((finished_run / "results.json").read_text())
    assert f"error {written['test_error']:.2f} %" in done.stdout
    assert "answered otherwise than the training program answered them: 0" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nowhere"], 1, "error: nowhere: no saved model"),
        (["{run}", "--fixed", "0"], 2, "--fixed 0: expected at least 1"),
        (["{run}", "--fixed", "9"], 1, "--fixed 9: expected at most the budget, 4"),
        (["{run}", "--confidence", "1.5"], 2, "--confidence 1.5"),
        (["{run}", "--split", "holdout"], 1, "holdout"),
        (["{run}", "--num-envs", "0"], 2, "--num-envs 0: expected at least 1"),
        (["{run}", "--fixed", "2", "--confidence", "0.9"], 2, "--fixed and --confidence"),
    ],
)
def test_bad_input_is_named(finished_run: Path, words, status, message) -> None:
    done = run_program(*(word.format(run=finished_run) for word in words))
    assert done.returncode == status
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
