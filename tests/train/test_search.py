"""The search of hyper-parameters: its trials, how it continues, and what it compares."""

import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import pytest
import tyro

import dtram_env
from dtram_env.optional import MissingDependencyError
from train import search
from train.baselines.algorithms import ROWS, reinforce_options, settings, table_row
from train.common.jobs import JobOptions, run_in_order
from train.common.options import command_line, flags
from train.common.program_run import ProgramRun
from train.common.records import read_records
from train.common.run import run_program
from train.dtram.recipes import RECIPES
from train.reinforce import Options as ReinforceOptions
from train.search import SPACES, Options, as_toml, draw

WHOLE = "DTRAM-Signpost-v0"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search keeps its trials below the current folder."""
    monkeypatch.chdir(tmp_path)


def tiny(**changes: Any) -> Options:
    given: dict[str, Any] = {"algo": "scan", "env_id": WHOLE, "trials": 3, "steps": 512}
    return Options(**(given | changes))


def outcome_of(options: Options) -> dict[str, Any]:
    """What the search wrote, without its origin."""
    found = search.search(options)
    path = options.records or Path("runs/search", f"{WHOLE}.jsonl")
    (kept,) = (record for record in read_records(path) if record["algo"] == options.algo)
    assert kept == json.loads(json.dumps(found))
    assert {"command", "commit", "date", "versions", "hardware"} <= found.keys()
    return {key: found[key] for key in ("env_id", "algo", "steps", "seed", "best", "trials")}


def test_trials_are_compared_on_validation(in_this_process) -> None:
    found = outcome_of(tiny(trials=4))
    assert found["trials"][0]["changes"] == {}
    assert found["trials"][0]["row"] == table_row("whole-task", "scan")
    for trial in found["trials"][1:]:
        row = trial["row"]
        assert row == trial["changes"] and row["grid"] in (2, 3) and 3 <= row["stop_after"] <= 7
        policy = dtram_env.ScanPolicy(4, seed=search.SEED_OF_TRIALS, **row)
        scored = dtram_env.evaluate(policy, WHOLE, "validation")
        assert trial["validation"]["return"] == scored.mean_return
        assert trial["validation"]["mean_glimpses"] == scored.mean_glimpses
        assert "test" not in json.dumps(trial)
    best = max(found["trials"], key=lambda trial: trial["validation"]["return"])
    assert found["best"] == best


def test_interrupted_it_continues_with_the_trial_that_is_missing(
    in_this_process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    whole = outcome_of(tiny(records=Path("whole.jsonl")))
    assert outcome_of(tiny(records=Path("again.jsonl"))) == whole
    assert "finished already" in capsys.readouterr().out
    Path("runs/search").rename("elsewhere")
    made: list[ProgramRun] = []

    def counted(jobs: Sequence[ProgramRun], options: JobOptions) -> dict[Path, str]:
        missing = [job for job in jobs if not job.finished]
        made.extend(missing)
        if missing and len(made) == 3:
            raise KeyboardInterrupt
        return run_in_order(jobs, options)

    monkeypatch.setattr(search, "run_in_order", counted)
    monkeypatch.setattr(sys, "argv", ["search.py", "--algo", "scan", "--env-id", WHOLE])
    with pytest.raises(SystemExit) as stopped:
        search.search(tiny(records=Path("cut.jsonl")))
    assert stopped.value.code == 130 and not Path("cut.jsonl").exists()
    said = capsys.readouterr().err
    assert "interrupted; to continue: " in said
    assert f"train/search.py --algo scan --env-id {WHOLE}\n" in said
    assert outcome_of(tiny(records=Path("cut.jsonl"))) == whole
    assert len(made) == 4  # two, the interrupted one, and that one again


def test_what_defines_a_search_defines_its_trials(
    in_this_process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folders() -> set[str]:
        return {path.name for path in Path("runs/search", WHOLE, "scan").glob("trial-*")}

    first = outcome_of(tiny())
    assert outcome_of(tiny(trials=4))["trials"][:3] == first["trials"]
    other = outcome_of(tiny(seed=1))
    assert [t["changes"] for t in other["trials"]] != [t["changes"] for t in first["trials"]]
    before = folders()
    monkeypatch.setattr(search, "table_row", lambda *_: {"grid": 3})  # no trial is taken over
    outcome_of(tiny())
    assert len(folders() - before) == 3


def test_the_outcome_replaces_the_algorithms_earlier_one(tmp_path: Path, in_this_process) -> None:
    path = tmp_path / "searches.jsonl"
    path.write_text('{"algo": "ppo"}\n{"algo": "scan", "best": "an earlier one"}\n')
    outcome = outcome_of(tiny(trials=1, records=path))
    ppo, scan = read_records(path)
    assert ppo == {"algo": "ppo"} and scan["best"] == outcome["best"]


def test_a_trial_below_the_median_ends_early(
    in_this_process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one trial that learns, a trial of PPO that does not."""
    small = {"env.observe": "glimpse", "num_envs": 16, "batch_size": 64, "learning_rate": 3e-3}
    monkeypatch.setitem(ROWS["whole-task"], "ppo", settings("whole-task", "ppo", small).row)
    monkeypatch.setitem(search.SPACES, "ppo", {"learning_rate": [1e-9]})
    monkeypatch.setattr(search, "RANDOM_TRIALS", 1)
    found = outcome_of(tiny(algo="ppo", trials=2, steps=5 * 512))
    learns, worse = found["trials"]
    assert not learns["ended_early"] and len(learns["returns"]) == search.EVAL_POINTS
    last = len(worse["returns"]) - 1
    assert worse["ended_early"] and last < search.EVAL_POINTS - 1
    best = np.maximum.accumulate(worse["returns"])
    assert best[last] < learns["returns"][last] and (best[:last] >= learns["returns"][:last]).all()
    assert found["best"] == learns
    assert outcome_of(tiny(algo="ppo", trials=2, steps=5 * 512)) == found  # of the finished runs


@pytest.mark.parametrize(("algo", "steps"), [("ppo", 512), ("dtram", 4096)])
def test_a_trial_is_a_run_of_its_program(
    in_this_process, monkeypatch: pytest.MonkeyPatch, algo: str, steps: int
) -> None:
    small = {"env.observe": "glimpse", "num_envs": 16, "batch_size": 64, "n_epochs": 1}
    if algo == "dtram":
        small = {"stop": "after max_mean_glimpses=none epochs=2", "batch_size": 32}
        row = {"locator": "gaussian", "augment": "affine=0", "m": 2}  # without a map, which is slow
        monkeypatch.setitem(ROWS["whole-task"], algo, row | small)
    space = {name: [value] for name, value in small.items()}
    monkeypatch.setitem(search.SPACES, algo, space)
    found = outcome_of(tiny(algo=algo, trials=2, steps=steps))
    first, second = found["trials"]
    assert first["row"] == table_row("whole-task", algo)
    if algo == "dtram":
        assert second["row"] == first["row"] | small
    else:
        assert second["row"] == settings("whole-task", algo, small).row
    returns = []
    for folder in Path("runs/search", WHOLE, algo).glob("trial-*/"):
        made = json.loads((folder / "results.json").read_text())
        assert made["env_steps"] <= 4096 and made["options"]["seed"] == search.SEED_OF_TRIALS
        rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
        if algo == "dtram":  # its trunk takes all glimpses
            rows = [row for row in rows if "eval/stop_threshold" in row]
        key = "eval/mean_return" if algo == "dtram" else "eval/mean_reward"
        returns.append(max(row[key] for row in rows))
    assert sorted(returns) == sorted(t["validation"]["return"] for t in (first, second))


@pytest.mark.parametrize("track", ROWS)
@pytest.mark.parametrize("algo", SPACES)
def test_a_space_draws_what_the_program_takes(track: str, algo: str) -> None:
    if track == "whole-task" and algo.endswith("dqn"):
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        changes = draw(study.ask(), SPACES[algo])
        if algo == "dtram":
            row = table_row(track, algo) | changes
            command_line(ReinforceOptions, None, RECIPES, flags(reinforce_options(row)))
        else:
            chosen = settings(track, algo, changes)
            if chosen.env.get("view") != "single":  # which needs a classifier in the loop
                gym.make(WHOLE, **chosen.env).close()
            row = chosen.row
        row |= {"learning_rate": 1e-05, "use_rms_prop": True}
        assert tomllib.loads(as_toml(track, algo, row)) == {track: {algo: row}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "21"), "--trials 21: expected 1 to 20"),
        (("--trials", "0"), "--trials 0: expected 1 to 20"),
        (("--steps", "0"), "--steps 0: expected at least 1"),
        (("--algo", "random"), "--algo random: expected one of ppo, a2c, recurrent_ppo"),
        (("--algo", "dqn", "--env-id", WHOLE), "--algo dqn takes one Discrete action"),
        (("--env-id", "CartPole-v1"), "environment 'CartPole-v1': expected one of this"),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture, words, said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: search.search(tyro.cli(Options, args=words)))
    errors = capsys.readouterr().err
    text = errors if stopped.value.code == 2 else str(stopped.value.code)
    assert said in " ".join(text.replace("│", "").split())


def test_a_failed_trial_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-c", "exit('error: no room')"]
    monkeypatch.setattr(ProgramRun, "words", lambda self: words)
    with pytest.raises(ValueError, match=r"trial-.*: failed: error: no room"):
        search.search(tiny())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"optuna is .*pip install 'dtram\[search\]'"):
        search.search(tiny())
