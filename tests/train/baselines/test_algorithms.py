"""The table of hyper-parameters: every row makes a model, and is what its search found."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from dtram_env.sb3 import Sb3VecEnv
from train.baselines.algorithms import (
    ALGORITHMS,
    ENV_STEPS,
    ROWS,
    SEARCHES,
    make_model,
    make_untrained_policy,
    number_of_trials,
    reinforce_options,
    settings,
    table_row,
)
from train.common.options import command_line, flags
from train.common.records import check_origin, read_records
from train.dtram.options import StopAfter
from train.dtram.recipes import RECIPES
from train.reinforce import Options as ReinforceOptions

IDS = {"policy-only": "agents:DTRAM-MNIST-Policy-v0", "whole-task": "DTRAM-MNIST-v0"}
WITH_LABELS = [name for name, algo in ALGORITHMS.items() if algo.labels]
PAIRS = [(track, algo) for track in ROWS for algo in ROWS[track]]
PAIRS += [("whole-task", algo) for algo in WITH_LABELS]
LEARNING = [(t, a) for t, a in PAIRS if a in ALGORITHMS and ALGORITHMS[a].learns]
SEARCHED = [
    (track, record)
    for track, env_id in IDS.items()
    for record in read_records(SEARCHES / f"{env_id.rpartition(':')[2]}.jsonl")
]


def test_both_tracks_have_a_row_for_everyone_who_can_act_in_them() -> None:
    """One Discrete number, as DQN's action, holds no prediction; with labels a row is shared."""
    own = {name: algo for name, algo in ALGORITHMS.items() if not algo.labels}
    predict = {name for name, algo in own.items() if algo.views != ("single",)}
    assert ROWS["policy-only"].keys() == own.keys() | {"dtram"}
    assert ROWS["whole-task"].keys() == predict | {"dtram"}


def test_with_labels_nothing_else_differs() -> None:
    for name in WITH_LABELS:
        without = name.removesuffix("_labels")
        assert table_row("whole-task", name) == table_row("whole-task", without)
        made = number_of_trials("DTRAM-MNIST-v0", name, table_row("whole-task", name))
        assert made == number_of_trials("DTRAM-MNIST-v0", without, table_row("whole-task", name))
        with pytest.raises(
            ValueError, match=f"--algo {name} learns to predict, .*--algo {without}"
        ):
            table_row("policy-only", name)


@pytest.mark.parametrize(("track", "algo"), LEARNING)
def test_a_row_makes_its_model(mnist_folder, track: str, algo: str) -> None:
    row = table_row(track, algo)
    chosen = settings(track, algo, {"buffer_size": 1000} if "buffer_size" in row else {})
    env = Sb3VecEnv(IDS[track], chosen.num_envs, show_label=ALGORITHMS[algo].labels, **chosen.env)
    model = make_model(algo, env, chosen, seed=3, device="cpu")
    env.close()
    assert type(model).__name__ == ALGORITHMS[algo].name
    assert (model.gamma, model.seed, model.n_envs) == (1.0, 3, row["num_envs"])
    assert model.policy.features_extractor_kwargs["features_dim"] == row["network"]["width"]
    first = float(row["learning_rate"].removeprefix("lin_"))
    assert [model.lr_schedule(left) for left in (1.0, 0.25, 0.0)] == pytest.approx(
        [first, first / 4, 0.0]
    )
    # Batches divide a rollout, and a replay buffer holds a batch before learning begins.
    if "n_steps" in row:
        rollout = row["num_envs"] * row["n_steps"]
        assert rollout % row.get("batch_size", rollout) == 0
    elif "buffer_size" in row:
        assert row["learning_starts"] >= row["batch_size"]


def test_a_first_stop_is_for_policies_that_sample(mnist_folder) -> None:
    """PPO has it, SAC is refused, rather than made without it."""
    for algo, fits in (("ppo", True), ("sac", False)):
        chosen = settings("whole-task", algo, {"network.first_stop": 0.01})
        env = Sb3VecEnv(IDS["whole-task"], chosen.num_envs, **chosen.env)
        with nullcontext() if fits else pytest.raises(ValueError, match="SAC: expected PPO"):
            model = make_model(algo, env, chosen, seed=0, device="cpu")
            bias = model.policy.action_net.bias
            assert bias[int(env.action_space.nvec[0]) + 1].item() == pytest.approx(np.log(1 / 99))
        env.close()


@pytest.mark.parametrize("track", ROWS)
def test_rows_that_make_no_model(track: str) -> None:
    for algo in ("random", "center", "scan"):
        chosen = settings(track, algo)
        policy = make_untrained_policy(algo, chosen, 10, seed=0)
        assert type(policy).__name__ == ALGORITHMS[algo].name
        assert chosen.row == table_row(track, algo) == ROWS[track][algo]
    words = flags(reinforce_options(table_row(track, "dtram")))
    stop = command_line(ReinforceOptions, None, RECIPES, words).stop
    assert isinstance(stop, StopAfter) and stop.max_mean_glimpses is None


@pytest.mark.parametrize(
    ("track", "record"), SEARCHED, ids=[f"{track}-{record['algo']}" for track, record in SEARCHED]
)
def test_a_row_is_the_best_that_its_search_found(track: str, record: dict[str, Any]) -> None:
    algo, env_id = record["algo"], record["env_id"]
    check_origin(record, f"{env_id} {algo}")
    assert env_id == IDS[track].rpartition(":")[2]
    assert 1 <= len(record["trials"]) <= 20 and record["steps"] <= ENV_STEPS
    returns = [trial["validation"]["return"] for trial in record["trials"]]
    assert record["best"]["validation"]["return"] == max(returns)
    assert record["best"] in record["trials"]
    best = dict(record["best"]["row"])
    assert table_row(track, algo) == best
    tries = number_of_trials(env_id, algo, best)
    assert tries == len(record["trials"])


def test_a_row_that_no_search_found_has_no_tries() -> None:
    row = table_row("policy-only", "dqn")
    assert number_of_trials("DTRAM-MNIST-Policy-v0", "dqn", row) == 10
    assert number_of_trials("DTRAM-MNIST-Policy-v0", "dqn", {**row, "batch_size": 7}) == 0
    assert number_of_trials("DTRAM-MNIST-Policy-v0", "random", {}) == 0
    assert number_of_trials("DTRAM-MNIST-v0", "dqn", row) == 0  # whose file has other searches


def test_the_grid_of_a_row_is_for_views_that_have_one() -> None:
    row = table_row("policy-only", "ppo")
    assert row["env"]["grid"] == 6
    assert "grid" not in settings("policy-only", "ppo", {"env.view": "continuous"}).env
    assert settings("policy-only", "ppo", {"env.view": "single"}).env["grid"] == 6
    given = {"env.view": "continuous", "env.grid": 3}  # is refused by the environment
    assert settings("policy-only", "ppo", given).env["grid"] == 3
    assert table_row("policy-only", "ppo") == row
