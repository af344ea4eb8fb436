"""How two runs are compared."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def read(run: Path) -> dict[str, Any]:
    """The results of a finished run."""
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def metrics(run: Path) -> list[dict[str, Any]]:
    """The logged epochs of a run, times left out."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("time/fps", "time/time_elapsed")}
        for line in lines
    ]


def assert_same_run(whole: Path, cut: Path) -> None:
    """Same weights and same metrics, bit for bit."""
    before, after = (load_file(run / "model.safetensors") for run in (whole, cut))
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
    assert metrics(cut) == metrics(whole)
