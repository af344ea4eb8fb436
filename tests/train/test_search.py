"""The search of hyper-parameters: its tries, going on, and what it never looks at."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tyro

import dtram_env
from train import reinforce, sb3_baselines, search
from train.baselines.algorithms import TRACKS, reinforce_settings, settings, table_row
from train.common.run import run_program
from train.search import SPACES, SearchOptions, as_toml

WHOLE = "DTRAM-Signpost-v0"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search keeps its tries below the current folder. Nor may anyone look at the test split.

    Every row of these tests is changed to a quick one.
    """
    monkeypatch.chdir(tmp_path)
    score = dtram_env.evaluate

    def watched(policy: Any, env_id: str, split: str = "test", **keywords: Any) -> Any:
        assert split == "validation", f"the search looked at the {split} split"
        return score(policy, env_id, split, **keywords)

    monkeypatch.setattr(dtram_env, "evaluate", watched)
    quick = {"network.width": 16, "num_envs": 16, "batch_size": 64}

    def quickly(track: str, algo: str, changes: Any = None) -> Any:
        return settings(track, algo, (changes or {}) | (quick if algo == "ppo" else {}))

    monkeypatch.setattr(sb3_baselines, "settings", quickly)


def tiny(**changes: Any) -> SearchOptions:
    given: dict[str, Any] = {"algo": "ppo", "env_id": WHOLE, "trials": 2, "steps": 512}
    return SearchOptions(**(given | changes))


def outcome_of(options: SearchOptions) -> dict[str, Any]:
    """What the search wrote, its date and command apart."""
    found = search.search(options)
    path = options.json or Path("runs/search", WHOLE, options.algo, "outcome.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))
    return {key: found[key] for key in ("env_id", "algo", "steps", "seed", "best", "trials")}


def test_two_tries_interrupted_after_the_first_are_the_same_two(
    interrupted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    whole = outcome_of(tiny(json=Path("whole.json")))
    first, second = whole["trials"]
    assert first["changes"] == {}
    assert second["changes"].keys() == {
        *("learning_rate", "n_steps", "ent_coef", "gae_lambda", "n_epochs", "env.view")
    }
    base = sb3_baselines.settings("whole-task", "ppo").to_json()
    assert first["row"] == base  # the table's own
    for name, value in second["changes"].items():
        group, _, key = name.rpartition(".")
        assert (second["row"][group] if group else second["row"])[key] == value
    best = max(whole["trials"], key=lambda trial: trial["validation"]["return"])
    assert whole["best"] == best

    Path("runs/search").rename("elsewhere")
    monkeypatch.setattr("sys.argv", ["search.py", "--algo", "ppo", "--env-id", WHOLE])
    log = Path("runs/search", WHOLE, "ppo", "trials.json")

    def cut_in_the_second(*arguments: Any) -> Any:
        if not log.exists():
            return sb3_baselines.learn(*arguments)
        interrupted(sb3_baselines, lambda: sb3_baselines.learn(*arguments), 1)
        raise SystemExit(128 + signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(search, "learn", cut_in_the_second)
        with pytest.raises(SystemExit):
            search.search(tiny(json=Path("cut.json")))
    assert len(json.loads(log.read_text())["trials"]) == 1
    said = capsys.readouterr().err
    assert f"train/search.py --algo ppo --env-id {WHOLE}\n" in said and "--resume" not in said
    assert not Path("cut.json").exists()
    tried: list[Any] = []

    def counted(*arguments: Any) -> Any:
        tried.append(arguments)
        return sb3_baselines.learn(*arguments)

    monkeypatch.setattr(search, "learn", counted)
    again = outcome_of(tiny(json=Path("cut.json")))
    assert len(tried) == 1
    assert without_times(again) == without_times(whole)
    capsys.readouterr()
    assert without_times(outcome_of(tiny(json=Path("cut.json")))) == without_times(whole)
    assert len(tried) == 1  # all were there
    assert "nothing to run: all 2 tries are in" in capsys.readouterr().out


def without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if key != "seconds"}
    return [without_times(value) for value in found] if isinstance(found, list) else found


def test_a_scan_is_searched_without_training() -> None:
    found = outcome_of(tiny(algo="scan", trials=4))
    assert found["trials"][0]["row"] == settings("whole-task", "scan").to_json()
    for trial in found["trials"][1:]:
        row = trial["row"]
        assert row == trial["changes"] and row["grid"] in (2, 3) and 3 <= row["stop_after"] <= 7
        policy = dtram_env.ScanPolicy(4, seed=search.SEED_OF_TRIALS, **row)
        scored = dtram_env.evaluate(policy, WHOLE, "validation")
        assert trial["validation"]["return"] == scored.mean_return
        assert trial["validation"]["mean_glimpses"] == scored.mean_glimpses
    assert not list(Path("runs/search", WHOLE, "scan").glob("trial-*"))


def test_another_search_begins_anew() -> None:
    first = outcome_of(tiny(algo="scan", trials=3))
    more = outcome_of(tiny(algo="scan", trials=4))
    assert more["trials"][:3] == first["trials"]
    other = outcome_of(tiny(algo="scan", trials=3, seed=1))
    assert [t["changes"] for t in other["trials"]] != [t["changes"] for t in first["trials"]]


def test_tries_of_another_row_or_space_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    judged: list[dict[str, Any]] = []
    judge = search.judged_baseline

    def counted(options: Any, track: str, changes: dict[str, Any], folder: Path) -> Any:
        judged.append(changes)
        return judge(options, track, changes, folder)

    monkeypatch.setattr(search, "judged_baseline", counted)
    scan = tiny(algo="scan", trials=3)
    first = outcome_of(scan)
    with monkeypatch.context() as patch:
        narrow = {"scan": lambda trial: {"grid": 2, "stop_after": 1 + len(trial.params)}}
        patch.setattr(search, "SPACES", narrow)
        assert [t["changes"] for t in outcome_of(scan)["trials"]] == [
            {},
            *[{"grid": 2, "stop_after": 1}] * 2,
        ]
    assert len(judged) == 5  # the table's row was not tried again
    assert outcome_of(scan) == first and len(judged) == 7
    capsys.readouterr()
    monkeypatch.setattr(search, "table_row", lambda *_: {"another": "row"})
    outcome_of(scan)
    assert len(judged) == 10
    assert "tries of another row, length or seed; the search begins anew" in capsys.readouterr().out


def test_dtram_tries_no_grid_in_the_whole_task(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = {"return": 0.5, "error": 0.5, "mean_glimpses": 1.0}
    monkeypatch.setattr(search, "judged_dtram", lambda *words: (words[2], scored))
    for track, grids in (("whole-task", {0}), ("policy-only", {0, 4, 6})):
        monkeypatch.setattr(search, "track_of", lambda options, track=track: track)
        found = outcome_of(tiny(algo="dtram", trials=10, json=Path(f"{track}.json")))
        tried = [trial["changes"] for trial in found["trials"]]
        assert tried[0] == {} and {changes["locator_grid"] for changes in tried[1:]} == grids


def test_dtram_is_judged_by_its_own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"batch_size": 32, "m": 2, "stop_batch_size": 64, "stop_epochs": 2, "hidden_size": 12}
    monkeypatch.setattr(
        search, "table_row", lambda track, algo: {**table_row(track, algo), **quick}
    )
    monkeypatch.setattr(
        reinforce, "report", lambda *_: pytest.fail("the search looked at the test split")
    )
    found = outcome_of(tiny(algo="dtram", trials=1, steps=4096))
    (trial,) = found["trials"]
    assert trial["row"] == reinforce_settings("whole-task") | quick
    folder = Path("runs/search", WHOLE, "dtram", "trial-0")
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["time/total_timesteps"] <= 4096
    judged = [row for row in rows if "eval/stop_threshold" in row]
    assert trial["validation"]["return"] == max(row["eval/mean_return"] for row in judged)
    assert json.loads((folder / "options.json").read_text())["seed"] == search.SEED_OF_TRIALS


@pytest.mark.parametrize("track", TRACKS)
@pytest.mark.parametrize("algo", SPACES)
def test_a_printed_row_is_toml(track: str, algo: str) -> None:
    if (track, algo) == ("whole-task", "dqn"):
        return
    row = table_row(track, algo)
    changed = {**row, "learning_rate": 1e-05, "use_rms_prop": True, "learning": "lin_1.0e-03"}
    assert tomllib.loads(as_toml(track, algo, changed)) == {track: {algo: changed}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 11}, "--trials 11: expected 1 to 10"),
        ({"trials": 0}, "--trials 0: expected 1 to 10"),
        ({"steps": 0}, "--steps 0: expected at least 1"),
        ({"algo": "random"}, "--algo random: expected one of ppo, a2c, recurrent_ppo"),
    ],
)
def test_impossible_options_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--algo", "dqn", "--env-id", WHOLE), "error: --algo dqn takes one Discrete action"),
        (("--env-id", "CartPole-v1"), "error: environment 'CartPole-v1': expected one of this"),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: search.search(tyro.cli(SearchOptions, args=words)))
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith(said)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"needs optuna: pip install -e '\.\[search\]'"):
        search.search(tiny())
