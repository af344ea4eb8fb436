"""The compared algorithms: the views that each can act in, and its hyper-parameters."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from agents.sb3 import policy_settings
from train.common.records import RESULTS, read_records

TABLE = Path(__file__).with_name("hyperparameters.toml")
SEARCHES = RESULTS / "search"
ENV_STEPS = {"policy-only": 300_000, "whole-task": 1_000_000}
"""Env steps of a run on each track, unless another number is given."""
VIEW_WORDS = {
    "continuous": "a Box action",
    "discrete": "a MultiDiscrete action",
    "single": "one Discrete action, which policy-only ids have",
    "native": "the native Dict action",
}


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of Stable-Baselines3 or sb3-contrib, or a policy that needs no training.

    Attributes:
        module: module of its class.
        name: name of its class.
        views: views of the environment whose actions it can take; the first is the default.
        recurrent: whether its policy has an LSTM.
        learns: whether it is trained.
    """

    module: str
    name: str
    views: tuple[str, ...]
    recurrent: bool = False
    learns: bool = True

    def load(self) -> type:
        """Imports the class.

        Raises:
            ValueError: its package is not installed.
        """
        try:
            return getattr(importlib.import_module(self.module), self.name)
        except ImportError:
            raise ValueError(
                f"{self.name} is in sb3-contrib, which is not installed: pip install -e '.[sb3]'"
            ) from None


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("stable_baselines3", "PPO", ("discrete", "continuous", "single")),
    "a2c": Algorithm("stable_baselines3", "A2C", ("discrete", "continuous", "single")),
    "dqn": Algorithm("stable_baselines3", "DQN", ("single",)),
    "sac": Algorithm("stable_baselines3", "SAC", ("continuous",)),
    "recurrent_ppo": Algorithm(
        "sb3_contrib", "RecurrentPPO", ("discrete", "continuous", "single"), recurrent=True
    ),
    "maskable_ppo": Algorithm("sb3_contrib", "MaskablePPO", ("discrete", "single")),
    "random": Algorithm("dtram_env", "RandomPolicy", ("native",), learns=False),
    "center": Algorithm("dtram_env", "CenterPolicy", ("native",), learns=False),
    "scan": Algorithm("dtram_env", "ScanPolicy", ("native",), learns=False),
}


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one algorithm on one track.

    Attributes:
        env: keywords of the environment: view, observe, grid ...
        num_envs: number of environments stepped side by side.
        network: keywords of `agents.sb3.policy_settings`.
        algorithm: keywords of the algorithm, or of the policy that needs no training.
    """

    env: dict[str, Any]
    num_envs: int = 1
    network: dict[str, Any] = field(default_factory=dict)
    algorithm: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The table's row: empty groups are left out."""
        groups = {"env": self.env, "num_envs": self.num_envs, "network": self.network}
        given = {name: value for name, value in groups.items() if value and value != 1}
        return given | self.algorithm


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def settings(track: str, algo: str, changes: dict[str, Any] | None = None) -> Settings:
    """Hyper-parameters of a baseline: its row of the table, with some values changed.

    Args:
        track: a key of `ENV_STEPS`.
        algo: a key of `ALGORITHMS`.
        changes: values by name; ``env.NAME`` and ``network.NAME`` change those two groups.

    Raises:
        ValueError: the table has no such row, or a name or value is none of the table's.
    """
    row = _table()[track].get(algo)
    if row is None or algo not in ALGORITHMS:
        others = ", ".join(name for name in _table()[track] if name in ALGORITHMS)
        if algo in ALGORITHMS and ALGORITHMS[algo].views == ("single",):
            raise ValueError(
                f"--algo {algo} takes {VIEW_WORDS['single']}, not those of the {track} track; "
                f"there use --algo {others}"
            )
        raise ValueError(
            f"--algo {algo}: {TABLE.name} has no row [{track}.{algo}]; add one, or use one of "
            f"{others}"
        )
    if "gamma" in (changes or {}):
        raise ValueError("--set gamma=…: expected no gamma; the environment discounts the reward")
    row = {**row, "env": dict(row.get("env", {})), "network": dict(row.get("network", {}))}
    for name, value in (changes or {}).items():
        group, _, key = name.rpartition(".")
        if group not in ("", "env", "network") or key in ("env", "network", ""):
            raise ValueError(f"--set {name}={value}: expected NAME, env.NAME or network.NAME")
        (row[group] if group else row)[key] = value
    env, network, num_envs = row.pop("env"), row.pop("network"), row.pop("num_envs", 1)
    if not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"--set num_envs={num_envs}: expected an integer of at least 1")
    return Settings(env, num_envs, network, row)


def table_row(track: str, algo: str) -> dict[str, Any]:
    """A row of the table, a baseline's or DT-RAM's.

    Raises:
        ValueError: the table has no such row.
    """
    if algo != "dtram":
        return settings(track, algo).to_json()
    if "dtram" not in _table()[track]:
        raise ValueError(f"--algos dtram: {TABLE.name} has no row [{track}.dtram]; add one")
    return _table()[track]["dtram"]


def reinforce_options(row: dict[str, Any]) -> dict[str, Any]:
    """A row of DT-RAM as options of ``train/reinforce.py``; texts become words.

    >>> reinforce_options({"m": 2, "locator": "cells grid=4"})
    {'m': 2, 'locator': ('cells', 'grid=4')}
    """
    return {k: tuple(v.split()) if isinstance(v, str) else v for k, v in row.items()}


def number_of_trials(env_id: str, algo: str, row: dict[str, Any]) -> int:
    """Number of trials in the search of ``train/search.py`` that found a row; 0 without a search.

    Args:
        env_id: without its package.
        algo: a key of `ALGORITHMS`, or "dtram".
        row: of the table.
    """
    for record in read_records(SEARCHES / f"{env_id}.jsonl"):
        if record["algo"] == algo and record["best"]["row"] == row:
            return len(record["trials"])
    return 0


def check_pair(algo: str, view: str, track: str) -> None:
    """Raises ValueError, naming alternatives, if an algorithm cannot act in a view."""
    algorithm = ALGORITHMS[algo]
    if view in algorithm.views:
        return
    takes = " or ".join(f"{VIEW_WORDS[v]} (--view {v})" for v in algorithm.views)
    fitting = {name: other for name, other in ALGORITHMS.items() if view in other.views}
    others = [name for name, other in fitting.items() if other.learns] or list(fitting)
    raise ValueError(
        f"--algo {algo} takes {takes}, not --view {view} on the {track} track; "
        f"with --view {view}: --algo {', '.join(others)}"
    )


def make_model(algo: str, env: Any, chosen: Settings, seed: int, device: Any) -> Any:
    """Makes an untrained model. Its gamma is 1, since the environment discounts the reward.

    Raises:
        ValueError: a hyper-parameter that the algorithm does not have, or a missing package.
    """
    algorithm = ALGORITHMS[algo]
    keywords = {name: _schedule(name, value) for name, value in chosen.algorithm.items()}
    policy = "MultiInputLstmPolicy" if algorithm.recurrent else "MultiInputPolicy"
    try:
        return algorithm.load()(
            policy,
            env,
            gamma=1.0,
            seed=seed,
            device=device,
            policy_kwargs=policy_settings(**chosen.network),
            **keywords,
        )
    except (TypeError, AssertionError) as error:
        raise _refused(algo, error) from None


def make_untrained_policy(algo: str, chosen: Settings, num_classes: int | None, seed: int) -> Any:
    """Makes a policy that needs no training.

    Raises:
        ValueError: a hyper-parameter that it does not have.
    """
    try:
        return ALGORITHMS[algo].load()(num_classes, seed=seed, **chosen.algorithm)
    except TypeError as error:
        raise _refused(algo, error) from None


def _refused(algo: str, error: Exception) -> ValueError:
    """The error of a class that was given other hyper-parameters than its own, in one line."""
    return ValueError(f"--algo {algo}: {' '.join(str(error).split())}; see {TABLE.name}")


def _schedule(name: str, value: Any) -> Any:
    """``"lin_1e-3"`` as a schedule that falls linearly from 1e-3 to 0, as in rl-zoo3's files."""
    if isinstance(value, str) and value.startswith("lin_"):
        try:
            first = float(value.removeprefix("lin_"))
        except ValueError:
            raise ValueError(f"--set {name}={value}: expected a number after lin_") from None
        return lambda remaining: remaining * first
    return value
