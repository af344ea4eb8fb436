"""Run folders, checkpoints, signals, provenance."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, read_json, run_program, write_json


def a_model_that_learned() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    learn(model, optimizer, 3)
    return model, optimizer


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    for _ in range(updates):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


def test_a_checkpoint_restores_weights_optimizer_and_generator(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, resume=False)
    model, optimizer = a_model_that_learned()
    run.save_checkpoint(model, optimizer, {"epoch": 2})
    learn(model, optimizer, 5)
    expected = [p.clone() for p in model.parameters()]

    again = nn.Linear(3, 2)
    restored = torch.optim.AdamW(again.parameters(), lr=0.5)
    torch.manual_seed(99)
    state = run.latest_state()
    assert state is not None and state["epoch"] == 2
    run.load_checkpoint(again, restored)
    learn(again, restored, 5)
    for a, b in zip(expected, again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_the_latest_checkpoint_stays_and_a_half_written_one_is_ignored(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, resume=False)
    model, optimizer = a_model_that_learned()
    assert run.latest_state() is None
    for epoch in range(12):
        run.save_checkpoint(model, optimizer, {"epoch": epoch})
    (tmp_path / "checkpoint.tmp").mkdir()
    (tmp_path / "checkpoint.tmp" / "state.json").write_text('{"ste')
    state = run.latest_state()
    assert state is not None and state["epoch"] == 11
    run.save_checkpoint(model, optimizer, {})
    assert [p.name for p in sorted(tmp_path.glob("checkpoint*"))] == ["checkpoint-000013"]


def test_checkpoints_hold_no_pickles(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, resume=False)
    folder = run.save_checkpoint(*a_model_that_learned(), {})
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["optimizer.safetensors", "state.json", "weights.safetensors"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    model, optimizer = a_model_that_learned()
    run = RunFolder(tmp_path, {}, resume=False)
    weights = run.save_checkpoint(model, optimizer, {}) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"weights.safetensors: missing or damaged .*start it"):
        run.load_weights(model)
    weights.unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors: missing or damaged"):
        run.load_weights(model)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("m=0"), "error: m=0"),
        (FileNotFoundError("run: no saved model"), "error: run: no saved model"),
        (PermissionError(13, "Permission denied", "a/b"), "error: a/b: Permission denied"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_programs_end_in_one_line(error: BaseException, status: object) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_program(main)
    assert stopped.value.code == status


def test_nothing_to_resume_is_said(tmp_path: Path, capsys) -> None:
    RunFolder(tmp_path / "typo", {}, resume=True)
    assert f"{tmp_path / 'typo'}: nothing to resume" in capsys.readouterr().out


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder(tmp_path, {"seed": 0}, resume=False).close()
    with pytest.raises(ValueError, match="--resume"):
        RunFolder(tmp_path, {"seed": 0}, resume=False)
    RunFolder(tmp_path, {"seed": 0}, resume=True).close()
    with pytest.raises(ValueError, match=r"--seed \(0 then, 1 now\)"):
        RunFolder(tmp_path, {"seed": 1}, resume=True)


def test_metrics_are_rows_and_can_be_rewound(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, resume=False)
    for step in (1, 2, 3):
        run.log(step, {"eval/accuracy": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "eval/acc')  # broken off
    run.rewind(2)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "eval/accuracy": 0.1}, {"step": 2, "eval/accuracy": 0.2}]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handler_restored(name: signal.Signals) -> None:
    before = signal.getsignal(name)
    with Interrupt() as interrupt:
        assert interrupt.signal is None
        os.kill(os.getpid(), name)
        assert interrupt.signal == name
        assert signal.getsignal(name) == before  # a second one acts as usual
    assert signal.getsignal(name) == before


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="--device quantum"):
        choose_device("quantum")


def test_json_is_whole_or_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, 2]})
    assert read_json(path) == {"x": [1, 2]}
    assert list(tmp_path.iterdir()) == [path]
    path.write_text('{"x": [1')
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(path)


def test_provenance_names_what_a_result_needs() -> None:
    found = provenance(torch.device("cpu"))
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["hardware"]["device"] == "cpu"
    assert found["command"].startswith("python ")
    assert found["commit"] == "unknown" or len(found["commit"].removesuffix("+changes")) == 40
