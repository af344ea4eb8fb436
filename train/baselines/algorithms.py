"""The compared algorithms: the views that each can act in, and its hyper-parameters."""

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from agents.sb3 import ignore_unread, learn_labels, policy_settings, set_first_stop
from dtram_env.optional import require
from dtram_env.views import GRID_VIEWS
from train.common.records import RESULTS, read_records

TABLE = Path(__file__).with_name("hyperparameters.toml")
ROWS: dict[str, dict[str, Any]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
SEARCHES = RESULTS / "search"
ENV_STEPS = 1_000_000
"""Env steps of a run, unless another number is given."""
LABELS = "_labels"
"""How the name of an algorithm that learns from labels, too, ends."""
VIEW_WORDS = {
    "continuous": "a Box action",
    "discrete": "a MultiDiscrete action",
    "single": "one Discrete action, which policy-only ids have",
    "native": "the native Dict action",
}


class Algorithm(NamedTuple):
    """An algorithm of Stable-Baselines3 or sb3-contrib, or a policy that needs no training."""

    module: str
    name: str  # of its class
    views: tuple[str, ...]  # whose actions it can take
    recurrent: bool = False  # whether its policy has an LSTM
    learns: bool = True
    labels: bool = False  # whether it learns from labels, too

    def load(self) -> type:
        """Imports the class. Raises MissingDependencyError if its package is not installed."""
        return getattr(require(self.module, "sb3"), self.name)


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("stable_baselines3", "PPO", ("discrete", "continuous", "single")),
    "a2c": Algorithm("stable_baselines3", "A2C", ("discrete", "continuous", "single")),
    "dqn": Algorithm("stable_baselines3", "DQN", ("single",)),
    "qr_dqn": Algorithm("sb3_contrib", "QRDQN", ("single",)),
    "sac": Algorithm("stable_baselines3", "SAC", ("continuous",)),
    "tqc": Algorithm("sb3_contrib", "TQC", ("continuous",)),
    "recurrent_ppo": Algorithm(
        "sb3_contrib", "RecurrentPPO", ("discrete", "continuous", "single"), recurrent=True
    ),
    "maskable_ppo": Algorithm("sb3_contrib", "MaskablePPO", ("discrete", "single")),
    "ars": Algorithm("train.baselines.ars", "Ars", ("continuous",)),
    "random": Algorithm("dtram_env", "RandomPolicy", ("native",), learns=False),
    "center": Algorithm("dtram_env", "CenterPolicy", ("native",), learns=False),
    "scan": Algorithm("dtram_env", "ScanPolicy", ("native",), learns=False),
}
ALGORITHMS |= {
    name + LABELS: ALGORITHMS[name]._replace(views=("discrete",), labels=True)
    for name in ("ppo", "a2c", "recurrent_ppo", "maskable_ppo")
}


class Settings(NamedTuple):
    """Hyper-parameters of one algorithm on one track."""

    row: dict[str, Any]  # all of them, as the table has them
    env: dict[str, Any]  # keywords of the environment: view, observe, grid ...
    num_envs: int  # stepped side by side
    network: dict[str, Any]  # keywords of `agents.sb3.policy_settings`
    algorithm: dict[str, Any]  # keywords of the class, see `Algorithm`


def table_row(track: str, algo: str) -> dict[str, Any]:
    """A row of the table, a baseline's or DT-RAM's; with labels it is the same.

    Raises ValueError if there is none.
    """
    rows, name = ROWS[track], algo.removesuffix(LABELS)
    if name != algo and track == "policy-only":
        raise ValueError(
            f"--algo {algo} learns to predict, but on policy-only ids a frozen classifier does; "
            f"use --algo {name}, or an id of the whole task as --env-id DTRAM-MNIST-v0"
        )
    if name not in rows:
        takes = " or ".join(VIEW_WORDS[view] for view in ALGORITHMS[algo].views)
        others = ", ".join(other for other in rows if other in ALGORITHMS)
        raise ValueError(
            f"--algo {algo} takes {takes}; {TABLE.name} has no row [{track}.{algo}]; use --algo "
            f"{others}, or add a row"
        )
    return rows[name]


def settings(track: str, algo: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """Hyper-parameters of a baseline: its row of the table, with some values changed.

    Names ``env.NAME`` and ``network.NAME`` change those two groups. Raises ValueError if the table
    has no such row, a change is invalid, or the algorithm cannot act in the view.
    """
    row = deepcopy(table_row(track, algo))
    for name, value in (changes or {}).items():
        group, _, key = name.rpartition(".")
        if group not in ("", "env", "network") or key in ("env", "network", ""):
            raise ValueError(f"--set {name}={value}: expected NAME, env.NAME or network.NAME")
        if name == "gamma":
            raise ValueError(f"--set {name}={value}: expected no gamma; the environment discounts")
        (row.setdefault(group, {}) if group else row)[key] = value
    if row.get("env", {}).get("view") not in GRID_VIEWS and "env.grid" not in (changes or {}):
        row.get("env", {}).pop("grid", None)  # it is for the row's own view
    found = read_row(row)
    if not isinstance(found.num_envs, int) or found.num_envs < 1:
        raise ValueError(f"--set num_envs={found.num_envs}: expected an integer of at least 1")
    view, views = found.env.get("view", "native"), ALGORITHMS[algo].views
    if view not in views:
        takes = " or ".join(f"{VIEW_WORDS[v]} (--view {v})" for v in views)
        fitting = {name: other for name, other in ALGORITHMS.items() if view in other.views}
        others = [name for name, other in fitting.items() if other.learns] or fitting
        raise ValueError(
            f"--algo {algo} takes {takes}, not --view {view} on the {track} track; "
            f"with --view {view}: --algo {', '.join(others)}"
        )
    return found


def read_row(row: dict[str, Any]) -> Settings:
    """The groups of hyper-parameters in a row."""
    rest = dict(row)
    env, num_envs, network = rest.pop("env", {}), rest.pop("num_envs", 1), rest.pop("network", {})
    return Settings(row, env, num_envs, network, rest)


def reinforce_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of DT-RAM as options of ``train/reinforce.py``; texts become words.

    >>> reinforce_options({"m": 2, "locator": "cells grid=4"})
    {'m': 2, 'locator': ('cells', 'grid=4')}
    """
    return {k: tuple(v.split()) if isinstance(v, str) else v for k, v in row.items()}


def number_of_trials(env_name: str, algo: str, row: Mapping[str, Any]) -> int:
    """Number of trials in the search that found a row of the table; 0 without a search."""
    searches = read_records(SEARCHES / f"{env_name}.jsonl")
    name = algo.removesuffix(LABELS)
    found = (s for s in searches if s["algo"] == name and s["best"]["row"] == row)
    return next((len(search["trials"]) for search in found), 0)


def make_model(algo: str, env: Any, chosen: Settings, seed: int, device: Any) -> Any:
    """Makes an untrained model; its gamma is 1, since the environment discounts the reward.

    One that learns by policy gradient learns from what the environment reads of its actions; one
    that learns from labels, too, needs an environment that shows them.
    """
    policy = "MultiInputLstmPolicy" if ALGORITHMS[algo].recurrent else "MultiInputPolicy"
    keywords = {name: _schedule(name, value) for name, value in chosen.algorithm.items()}
    network = dict(chosen.network)
    first_stop = network.pop("first_stop", None)
    keywords["policy_kwargs"] = policy_settings(**network)
    model = _make(algo, policy, env, gamma=1.0, seed=seed, device=device, **keywords)
    made = getattr(model, "policy", None)  # none if the model is only to act
    if made is not None and first_stop is not None:
        set_first_stop(model, first_stop)
    if hasattr(made, "action_dist"):
        ignore_unread(model)
        if ALGORITHMS[algo].labels:
            learn_labels(model)
    return model


def make_untrained_policy(algo: str, chosen: Settings, num_classes: int | None, seed: int) -> Any:
    """Makes a policy that needs no training."""
    return _make(algo, num_classes, seed=seed, **chosen.algorithm)


def _make(algo: str, *arguments: Any, **keywords: Any) -> Any:
    """Calls the algorithm's class; ValueError, which names the algorithm, if that fails."""
    try:
        return ALGORITHMS[algo].load()(*arguments, **keywords)
    except (TypeError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"--algo {algo}: {text}; see {TABLE.name}") from None


def _schedule(name: str, value: Any) -> Any:
    """``"lin_1e-3"`` as a schedule that falls linearly from 1e-3 to 0, as in rl-zoo3's files."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    try:
        first = float(value.removeprefix("lin_"))
    except ValueError:
        raise ValueError(f"--set {name}={value}: expected a number after lin_") from None
    return lambda remaining: remaining * first
