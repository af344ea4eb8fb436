"""The benchmark's ratio to the peer compares like with like."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "env_throughput.py"


def test_the_peer_is_compared_with_episodes_that_do_not_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("env_throughput", PROGRAM)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "env_throughput", program)
    monkeypatch.syspath_prepend(str(PROGRAM.parents[1]))  # and the program's own change is undone
    spec.loader.exec_module(program)

    def vector(options: Any, mode: str, stop: float, backend: str) -> dict[str, Any]:
        no_stop = mode == "NextStep" and stop == 0 and backend == "numpy"
        return {"per_s": 600.0 if no_stop else 7.0}

    monkeypatch.setattr(program, "vector", vector)
    monkeypatch.setattr(program, "bare_gather", lambda options: {"per_s": 1.0})
    monkeypatch.setattr(program, "scalar", lambda options, wrapped: {"per_s": 1.0})
    monkeypatch.setattr(program, "ap_gym", lambda options: {"per_s": 20.0})
    monkeypatch.setattr(program, "provenance", lambda device: {})
    result = program.main(program.Options())
    assert result["figures"][-1]["ratio_of_ours"] == 30.0
    assert "ours is 30 times as fast" in capsys.readouterr().out
