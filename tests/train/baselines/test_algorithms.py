"""The table of hyper-parameters: every row makes a model, and is what its search found."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from dtram_env.sb3 import Sb3VecEnv
from train import reinforce
from train.baselines.algorithms import (
    ALGORITHMS,
    TABLE,
    TRACKS,
    check_pair,
    make_model,
    make_rule,
    reinforce_settings,
    settings,
    tries_searched,
)
from train.common.training_task import Task
from train.search import SPACES

ROOT = Path(__file__).resolve().parents[3]
ROWS: dict[str, dict[str, Any]] = tomllib.loads(TABLE.read_text())
IDS = {"policy-only": "agents:DTRAM-MNIST-Policy-v0", "whole-task": "DTRAM-MNIST-v0"}
EVERYWHERE = {"ppo", "a2c", "sac", "recurrent_ppo", "maskable_ppo", "random", "center", "scan"}
CELLS = [(track, algo) for track in ROWS for algo in ROWS[track]]
LEARNING = [(t, a) for t, a in CELLS if a in ALGORITHMS and ALGORITHMS[a].learns]


def test_tries_of_an_earlier_search_count_too() -> None:
    row = settings("policy-only", "a2c").to_json()
    assert tries_searched("DTRAM-MNIST-Policy-v0", "a2c", row) == 20
    assert tries_searched("DTRAM-MNIST-Policy-v0", "a2c", {**row, "n_steps": 7}) == 0
    assert tries_searched("DTRAM-MNIST-Policy-v0", "random", {}) == 0
    ours = reinforce_settings("whole-task")
    assert tries_searched("DTRAM-MNIST-v0", "dtram", ours) == 15


def test_what_the_searches_readme_says_of_dtram() -> None:
    """Validation returns of both rows, after 100,000 env steps and after a million."""
    results = ROOT / "benchmarks/results"
    searched = results / "search/DTRAM-MNIST-v0"
    runs = [results / f"comparison/runs/DTRAM-MNIST-v0/dtram/seed-{seed}" for seed in range(3)]

    def last(folder: Path) -> float:
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return max(row["eval/mean_return"] for row in rows if "eval/stop_threshold" in row)

    earlier, later = (
        json.loads((searched / name).read_text())["best"]["validation"]["return"]
        for name in ("earlier/dtram.json", "dtram.json")
    )
    said = " ".join((results / "search/README.md").read_text().split())
    assert f"a validation return of {earlier:.3f} to {later:.3f}" in said
    assert f"it has {last(searched / 'earlier/dtram_1M'):.3f} (" in said
    assert f"three seeds have {sum(map(last, runs)) / 3:.3f} on average" in said


def test_both_tracks_have_a_row_for_everyone_who_can_act_in_them() -> None:
    assert set(ROWS) == set(TRACKS)
    assert ROWS["policy-only"].keys() == EVERYWHERE | {"dqn", "dtram"} == {*ALGORITHMS, "dtram"}
    assert ROWS["whole-task"].keys() == EVERYWHERE | {"dtram"}


@pytest.mark.parametrize(("track", "algo"), LEARNING)
def test_a_row_makes_its_model(mnist_folder: Path, track: str, algo: str) -> None:
    changes = {"buffer_size": 1000} if "buffer_size" in ROWS[track][algo] else {}
    chosen = settings(track, algo, changes)
    check_pair(algo, chosen.env["view"], track)
    env = Sb3VecEnv(IDS[track], chosen.num_envs, **chosen.env)
    model = make_model(algo, env, chosen, seed=3, device="cpu")
    env.close()
    assert type(model).__name__ == ALGORITHMS[algo].name
    assert (model.gamma, model.seed, model.n_envs) == (1.0, 3, ROWS[track][algo]["num_envs"])
    width = ROWS[track][algo]["network"]["width"]
    assert model.policy.features_extractor_kwargs["features_dim"] == width
    first = float(ROWS[track][algo]["learning_rate"].removeprefix("lin_"))
    assert model.lr_schedule(1.0) == first
    assert model.lr_schedule(0.25) == pytest.approx(first / 4)
    assert model.lr_schedule(0.0) == 0.0


@pytest.mark.parametrize(("track", "algo"), LEARNING)
def test_batches_divide_a_rollout(track: str, algo: str) -> None:
    row = ROWS[track][algo]
    if "n_steps" not in row:
        assert row["learning_starts"] >= row["batch_size"]
        return
    rollout = row["num_envs"] * row["n_steps"]
    assert rollout % row.get("batch_size", rollout) == 0


@pytest.mark.parametrize(("track", "algo"), [(t, a) for t, a in CELLS if (t, a) not in LEARNING])
def test_a_row_of_what_does_not_learn(mnist_folder: Path, track: str, algo: str) -> None:
    if algo == "dtram":
        chosen = reinforce.Options(
            env_id=IDS[track], env_steps=300_000, device="cpu", **reinforce_settings(track)
        )
        assert chosen.choose == "return"
        task = Task(chosen.env_id, torch.device("cpu"), **chosen.env_options())
        agent = reinforce.new_agent(chosen, task)
        names = [name for name, _ in reinforce.make_stages(chosen, task, agent)]
        assert names == ["trunk-7", "stopper"]
        return
    chosen_rule = settings(track, algo)
    rule = make_rule(algo, chosen_rule, 10, seed=0)
    assert type(rule).__name__ == ALGORITHMS[algo].name
    assert chosen_rule.to_json() == ROWS[track][algo]


@pytest.mark.parametrize(("track", "algo"), [(t, a) for t, a in CELLS if a in SPACES])
def test_a_row_is_the_best_that_its_search_found(track: str, algo: str) -> None:
    name = IDS[track].rpartition(":")[2]
    path = ROOT / "benchmarks" / "results" / "search" / name / f"{algo}.json"
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)}: not searched")
    outcome = json.loads(path.read_text())
    assert outcome["algo"] == algo and outcome["env_id"].rpartition(":")[2] == name
    assert 1 <= len(outcome["trials"]) <= 10 and outcome["steps"] <= 100_000
    returns = [trial["validation"]["return"] for trial in outcome["trials"]]
    assert outcome["best"]["validation"]["return"] == max(returns)
    assert outcome["best"] in outcome["trials"]
    row = reinforce_settings(track) if algo == "dtram" else settings(track, algo).to_json()
    assert row == outcome["best"]["row"]
