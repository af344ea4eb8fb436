"""The program that exports an agent; tests/agents/test_export.py has the graphs."""

from pathlib import Path
from typing import Any

import pytest

from train import export
from train.export import Options, write


@pytest.mark.parametrize("is_run", [True, False])
@pytest.mark.parametrize(("format", "name"), [("onnx", "agent.onnx"), ("torch", "agent.pt2")])
def test_the_file_goes_into_the_runs_folder_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, name: str, is_run: bool
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if is_run:
        (run / "options.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "load_agent", lambda folder, stop: folder)

    def empty(agent: Any, path: Path, format: str) -> Path:
        path.touch()
        return path

    monkeypatch.setattr(export, "export", empty)
    assert write(Options(run, format)).resolve() == (run if is_run else tmp_path) / name
    assert write(Options(run, format, out=tmp_path / "mine")) == tmp_path / "mine"
