"""The benchmarks of images run, and their figures add up; on tiny settings, so not to be quoted."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import dynamic_saving as saving
from benchmarks import image_side as side
from benchmarks.timing import run_benchmark


def run_main(program: Any, monkeypatch: pytest.MonkeyPatch, json_file: Path, words: str) -> Any:
    """The figures that a command line writes."""
    command = [program.__file__, *words.split(), "--json", str(json_file)]
    monkeypatch.setattr(sys, "argv", command)
    run_benchmark(program.Options, program.run, None)
    return json.loads(json_file.read_text(encoding="utf-8"))


# -- dynamic_saving -------------------------------------------------------------------------------

TINY = (
    "--encoder resnet10 --width 8 --image-size 64 --glimpse-size 32 "
    "--images 16 --batch-size 8 --repeats 2"
)


@pytest.mark.parametrize("first_look", [32, 48])
def test_saving_is_time_over_operations(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first_look: int,
) -> None:
    words = f"{TINY} --first-look {first_look} --shares 0.5 0.25 0.25"
    result = run_main(saving, monkeypatch, tmp_path / "out.json", words)
    figures = result["figures"]
    assert figures["mean_glimpses"] == {"dynamic": 1.75, "fixed": 3.0}
    first, other = figures["flops_of_first_glimpse"], figures["flops_per_glimpse"]
    assert first == other if first_look == 32 else first > 1.8 * other
    assert figures["mean_flops"]["dynamic"] == pytest.approx(first + 0.75 * other, abs=1)
    assert figures["mean_flops"]["fixed"] == first + 2 * other
    assert figures["flop_ratio"] == pytest.approx(
        (first + 0.75 * other) / (first + 2 * other), abs=1e-4
    )
    assert figures["time_ratio"] > 0 and len(figures["quotients"]) == 2
    assert figures["quotient"] == pytest.approx(np.median(figures["quotients"]), abs=2e-3)
    assert result["options"]["first_look"] == first_look and "hardware" in result
    assert json.loads(capsys.readouterr().out)["figures"] == figures


# -- image_side -----------------------------------------------------------------------------------


@pytest.mark.slow  # starts four processes
def test_an_answer_costs_the_same_at_every_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "--sides 64 128 --encoders resnet10 --look 32 --looks 3 --repeats 1"
    figures = run_main(side, monkeypatch, tmp_path / "out.json", words)["figures"]["resnet10"]
    small, large = figures["64"], figures["128"]
    assert small["dtram"]["mflop"] == large["dtram"]["mflop"]
    assert large["one_look"]["mflop"] == pytest.approx(4 * small["one_look"]["mflop"], rel=0.01)


def test_peak_memory_is_that_of_the_largest_array_since_the_start() -> None:
    device = torch.device("cpu")
    np.ones(60_000_000, dtype=np.uint8)  # before the start
    before = side.start_of_peak(device)
    np.ones(30_000_000, dtype=np.uint8)
    np.ones(20_000_000, dtype=np.uint8)
    assert side.peak_memory(device) - before == pytest.approx(30, abs=5)


# -- the rule of dynamic_saving -------------------------------------------------------------------


def test_the_rule_stops_the_given_shares() -> None:
    rule = saving.ShareStop((0.35, 0.4, 0.25))
    left, stopped = 64, []
    for t in (1, 2, 3):
        time = torch.full((left,), t)
        stops = rule.stops(time, torch.zeros(left, 5), torch.zeros(left))
        stopped.append(int(stops.sum()))
        left -= stopped[-1]
    assert stopped == [22, 26, 16] and left == 0  # a mean of 1.906


def test_those_that_stop_are_spread_over_the_batch() -> None:
    stops = saving.ShareStop((0.5, 0.5)).stops(torch.ones(8), torch.zeros(8, 5), torch.zeros(8))
    assert stops.tolist() == [True, False] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "mlp"}, "--encoder mlp: expected one of resnet10"),
        ({"shares": (0.5, 0.4)}, "--shares .*expected shares"),
        ({"shares": ()}, "--shares .*expected shares"),
        ({"shares": (1.5, -0.5)}, "--shares .*expected shares"),
        ({"batch_size": 0}, "--batch-size 0: expected 1 or more"),
        ({"repeats": 0}, "--repeats 0: expected 1 or more"),
    ],
)
def test_bad_options_of_saving_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saving.Options(**options)
