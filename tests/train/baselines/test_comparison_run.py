"""The runs of a comparison: what of them is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from train.baselines import comparison_run as cells
from train.baselines.comparison_run import SECONDS_A_RUN, Cell, estimate, read
from train.reinforce import train as train_dtram
from train.sb3_baselines import Options as Baseline
from train.sb3_baselines import train as train_baseline

WHOLE = "DTRAM-Signpost-v0"
STEPS = 2048

GOOD = {
    "hyperparameters": {},
    "options": {"total_timesteps": 0, "classifier": None},
    "curve": [{"env_steps": 0, "return": 0.5}],
    "env_steps": 0,
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"env_steps": 3', "not valid JSON"),
        ("{}", "no 'options' in its results"),
        ("[1]", "results.json: expected an object"),
        (json.dumps({k: GOOD[k] for k in GOOD if k != "curve"}), "no 'curve' in its results"),
        (json.dumps(GOOD), "in its results"),
        (
            json.dumps(GOOD | {"hyperparameters": {"stop_after": 2}}),
            "made otherwise (hyper-parameters {'stop_after': 2} then, {} now); delete it to run",
        ),
        (
            json.dumps(GOOD | {"options": {"total_timesteps": 7, "classifier": "mine"}}),
            "made otherwise (env steps 7 then, 0 now, classifier 'mine' then, None now); delete",
        ),
    ],
)
def test_results_that_cannot_be_read_are_a_row_too(tmp_path: Path, text: str, said: str) -> None:
    folder = tmp_path / "random" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(text)
    found = read(Cell(WHOLE, "whole-task", "random", 0, 10, folder, None), "")
    assert found.row is None and said in found.problem and "\n" not in found.problem
    ppo = [Cell(WHOLE, "whole-task", "ppo", seed, 9, folder, None) for seed in (0, 1)]
    missing = Cell(WHOLE, "whole-task", "ppo", 2, 3400, tmp_path / "none", None)
    assert estimate([*ppo, missing], 1) == pytest.approx(SECONDS_A_RUN + 1.0)


def test_a_policy_only_dtram_is_scored_with_its_classifier(
    tmp_path: Path, policy_id: str, small_options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "table_row", lambda track, algo: {"m": 2})
    folder = tmp_path / policy_id / "dtram" / "seed-0"
    train_dtram(small_options(env_id=policy_id, env_steps=STEPS, stop_epochs=1, run_dir=folder))
    found = read(Cell(policy_id, "policy-only", "dtram", 0, STEPS, folder, None), "")
    assert found.problem == "" and found.row is not None
    run = json.loads((folder / "results.json").read_text())
    assert found.row["test_error"] == pytest.approx(run["test_error"], abs=1e-4)
    assert found.row["classifier"] == run["classifier"] != None  # noqa: E711
    baseline = Baseline(algo="scan", env_id=policy_id, run_dir=tmp_path / "scan")
    other = json.loads((train_baseline(baseline) / "results.json").read_text())
    assert found.row["classifier"] == other["classifier"]
