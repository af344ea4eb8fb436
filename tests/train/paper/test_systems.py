"""Every system's command is a program's, and a run that it made is recognised."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from train import one_look, reinforce
from train.common.options import command_line, to_json
from train.paper.systems import ONE_LOOK, PROTOCOLS, RECIPES

PROGRAMS: dict[str, Any] = {"reinforce.py": reinforce.Options, ONE_LOOK: one_look.Options}


@pytest.mark.parametrize(
    ("protocol", "system"),
    [(name, system) for name, each in PROTOCOLS.items() for system in each.systems],
)
def test_a_finished_run_is_recognised(protocol: str, system: str, tmp_path: Path) -> None:
    run = PROTOCOLS[protocol].run(tmp_path, system, seed=2)
    words = run.words()[2:]
    options = command_line(PROGRAMS[run.program], None, RECIPES[run.program], words)
    run.folder.mkdir(parents=True)
    results = {"command": shlex.join(["python", run.program, *words]), "options": to_json(options)}
    (run.folder / "results.json").write_text(json.dumps(results))
    run.check_options()
