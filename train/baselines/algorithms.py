"""The baselines by name: what each one can act in, and its hyper-parameters."""

from __future__ import annotations

import importlib
import json
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from agents.sb3 import policy_settings

TABLE = Path(__file__).with_name("hyperparameters.toml")
OUTCOMES = TABLE.parents[2] / "benchmarks" / "results" / "search"  # of train/search.py
TRACKS = ("policy-only", "whole-task")
VIEW_WORDS = {
    "continuous": "a Box action",
    "discrete": "a MultiDiscrete action",
    "single": "one Discrete action, which policy-only ids have",
    "native": "the native Dict action",
}


@dataclass(frozen=True)
class Algorithm:
    """One baseline.

    Attributes:
        module: where its class is.
        name: of the class.
        views: whose actions it can take; the first is the default.
        recurrent: whether its policy has an LSTM.
        learns: whether there is anything to train.
    """

    module: str
    name: str
    views: tuple[str, ...]
    recurrent: bool = False
    learns: bool = True

    def load(self) -> type:
        """Its class.

        Raises:
            ValueError: the package that has it is not installed.
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
        env: keywords of the environment: view, observe, grid, …
        num_envs: environments that are stepped side by side.
        network: keywords of `agents.sb3.policy_settings`.
        algorithm: keywords of the algorithm itself, or of the policy that needs no learning.
    """

    env: dict[str, Any]
    num_envs: int = 1
    network: dict[str, Any] = field(default_factory=dict)
    algorithm: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the table has it: what is empty is left out."""
        groups = {"env": self.env, "num_envs": self.num_envs, "network": self.network}
        given = {name: value for name, value in groups.items() if value and value != 1}
        return given | self.algorithm


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())


def settings(track: str, algo: str, changes: dict[str, Any] | None = None) -> Settings:
    """The row of the table, with some values changed.

    Args:
        track: one of `TRACKS`.
        algo: a key of `ALGORITHMS`.
        changes: values by name; ``env.NAME`` and ``network.NAME`` are those of the two groups.

    Raises:
        ValueError: the table has no such row.
    """
    row = _table().get(track, {}).get(algo)
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
        raise ValueError("--set gamma=…: the environment discounts; gamma is 1 for everyone")
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


def reinforce_settings(track: str) -> dict[str, Any]:
    """Options of `train/reinforce.py` for DT-RAM's row of a comparison.

    Raises:
        ValueError: the table has no such row.
    """
    if "dtram" not in _table().get(track, {}):
        raise ValueError(f"--algos dtram: {TABLE.name} has no row [{track}.dtram]; add one")
    return _table()[track]["dtram"]


def table_row(track: str, algo: str) -> dict[str, Any]:
    """A row as the table has it, a baseline's or DT-RAM's.

    Raises:
        ValueError: the table has no such row.
    """
    return reinforce_settings(track) if algo == "dtram" else settings(track, algo).to_json()


def tries_searched(env_id: str, algo: str, row: dict[str, Any]) -> int:
    """How many tries of `train/search.py` led to a row of the table; 0 without a search.

    Those of an earlier search, whose space was then changed, count too: they are in ``earlier/``.

    Args:
        env_id: without its package.
        algo: a key of `ALGORITHMS`, or "dtram".
        row: of the table.
    """
    outcome = OUTCOMES / env_id / f"{algo}.json"
    if not outcome.exists() or json.loads(outcome.read_text())["best"]["row"] != row:
        return 0
    outcomes = [outcome, OUTCOMES / env_id / "earlier" / outcome.name]
    return sum(len(json.loads(path.read_text())["trials"]) for path in outcomes if path.exists())


def check_pair(algo: str, view: str, track: str) -> None:
    """Raises ValueError, naming the way out, if an algorithm cannot act in a view."""
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
    """An untrained model; its own gamma is 1, since the environment discounts the reward.

    Raises:
        ValueError: a hyper-parameter that the algorithm does not have, or a missing package.
    """
    algorithm = ALGORITHMS[algo]
    keywords = {name: _read(name, value) for name, value in chosen.algorithm.items()}
    more = dict(chosen.network)
    policy = "MultiInputLstmPolicy" if algorithm.recurrent else "MultiInputPolicy"
    try:
        return algorithm.load()(
            policy,
            env,
            gamma=1.0,
            seed=seed,
            device=device,
            policy_kwargs=policy_settings(**more),
            **keywords,
        )
    except (TypeError, AssertionError) as error:
        raise _wrong(algo, error) from None


def make_rule(algo: str, chosen: Settings, num_classes: int | None, seed: int) -> Any:
    """A policy that needs no learning.

    Raises:
        ValueError: a hyper-parameter that it does not have.
    """
    try:
        return ALGORITHMS[algo].load()(num_classes, seed=seed, **chosen.algorithm)
    except TypeError as error:
        raise _wrong(algo, error) from None


def _wrong(algo: str, error: Exception) -> ValueError:
    """What a class says of hyper-parameters that it cannot take, in one line."""
    return ValueError(f"--algo {algo}: {' '.join(str(error).split())}; see {TABLE.name}")


def _read(name: str, value: Any) -> Any:
    """``"lin_1e-3"`` as a schedule that falls linearly from 1e-3 to 0, as in rl-zoo3's files."""
    if isinstance(value, str) and value.startswith("lin_"):
        try:
            first = float(value.removeprefix("lin_"))
        except ValueError:
            raise ValueError(f"--set {name}={value}: expected a number after lin_") from None
        return lambda remaining: remaining * first
    return value
