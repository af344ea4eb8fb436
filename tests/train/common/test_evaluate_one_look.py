"""One-look networks that halt, through the program that trains them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.halting.act_resnet import ACTResNet
from agents.halting.sact import SACTResNet
from agents.loading import load_one_look
from agents.one_look import OneLook
from train.common.evaluate_one_look import answers_and_rate, halting_of
from train.common.training_task import Task
from train.one_look import Options, train

SMALL: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "encoder": "resnet34",
    "resnet_width": 8,
    "small_stem": True,
    "side": 8,
    "epochs": 1,
    "batch_size": 300,
    "learning_rate": 5e-3,
    "augment": 0.0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("DTRAM-Signpost-v0", torch.device("cpu"))


@pytest.mark.parametrize(("halting", "kind"), [("act", ACTResNet), ("sact", SACTResNet)])
def test_results_are_those_of_the_saved_network(
    tmp_path: Path, task: Task, halting: str, kind: type[ACTResNet]
) -> None:
    run = train(Options(**SMALL, halting=halting, run_dir=tmp_path / halting))
    results = json.loads((run / "results.json").read_text())
    network = load_one_look(run)
    assert type(network) is kind
    test = task.images("test")
    prediction, _ = answers_and_rate(network, test)
    assert torch.equal(load_file(run / "test_images.safetensors")["prediction"].long(), prediction)
    wrong = (prediction != test.labels).double().mean().item()
    assert results["test_error"] == pytest.approx(100 * wrong, abs=1e-4)
    found = halting_of(network, test)
    assert results["units_of_each_block"] == [3, 4, 6, 3]
    assert {name: results[name] for name in found} == found
    assert f"{found['units'][2]:.2f} of 6" in (run / "results.txt").read_text()
    assert (run / "ponder-0.png").exists() == (halting == "sact")


def test_a_plain_network_is_read_back_as_one(tmp_path: Path) -> None:
    settings = {**SMALL, "encoder": "mlp", "resnet_width": 64, "small_stem": False}
    run = train(Options(**settings, run_dir=tmp_path / "plain"))
    assert type(load_one_look(run)) is OneLook


def test_dearer_units_are_fewer(tmp_path: Path) -> None:
    units = []
    for cost in (0.0, 1.0):
        run = train(
            Options(
                **{**SMALL, "epochs": 3},
                halting="act",
                ponder_cost=cost,
                run_dir=tmp_path / f"{cost}",
            )
        )
        units.append(sum(json.loads((run / "results.json").read_text())["units"]))
    assert units[1] < units[0] - 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "mlp", "resnet_width": 64, "small_stem": False}, "with --encoder resnet"),
        ({"side": None, "flops": 1e6}, "--flops 1000000.0: expected none beside --halting"),
        ({"frozen_norms": True}, "--frozen-norms True: expected not given beside --halting"),
        ({"ponder_cost": -0.1}, "--ponder-cost -0.1"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options(**{**SMALL, "halting": "act", **changes})
