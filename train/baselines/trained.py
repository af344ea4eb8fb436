"""The policy of a run of ``train/sb3_baselines.py``, to be shown or evaluated."""

from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import torch
from stable_baselines3.common.save_util import load_from_zip_file

from agents.sb3 import Sb3Policy
from dtram_env.sb3 import Sb3VecEnv
from train.baselines.algorithms import ALGORITHMS, make_model, make_untrained_policy, read_row
from train.baselines.callback import DAMAGE
from train.baselines.facts import SHOWN_OTHERWISE
from train.common.files import WAY_OUT, read_json
from train.common.options import EnvOptions
from train.common.training_task import describe_env, read_task


class Row(TypedDict, total=False):
    """Hyper-parameters that are groups."""

    env: dict[str, Any]
    network: dict[str, Any]


class Saved(TypedDict):
    """What is read of a run's ``options.json``."""

    algo: str
    env_id: str
    seed: int
    root: str | None
    classifier: str | None
    hyperparameters: Row


def is_baseline(folder: Path) -> bool:
    """Whether a folder holds a run of ``train/sb3_baselines.py``."""
    path = folder / "options.json"
    return path.exists() and "algo" in read_json(path)


def load_baseline(
    folder: Path, device: torch.device, data_dir: Path | None = None
) -> tuple[Any, str, dict[str, Any]]:
    """A baseline with its best weights so far; the id and keywords of its environment follow.

    Nothing is unpickled. Raises ValueError if the run was not validated yet, is damaged, or is of
    an unknown algorithm or environment.
    """
    path = folder / "options.json"
    saved = read_json(path, Saved)
    algo = saved["algo"]
    if algo not in ALGORITHMS:
        raise ValueError(f"{path}: algo={algo!r}: expected one of {', '.join(ALGORITHMS)}")
    chosen = read_row(saved["hyperparameters"])
    views = {name: value for name, value in chosen.env.items() if name in SHOWN_OTHERWISE}
    changed = {name: value for name, value in chosen.env.items() if name not in views}
    env_id, task = read_task({"env_id": saved["env_id"], "env_options": changed}, path)
    root = None if saved["root"] is None else Path(saved["root"])
    folders = EnvOptions(root=root, data_dir=data_dir).env_folders()
    keywords: dict[str, Any] = {"data": "real", **folders, **task, **views}
    if saved["classifier"] is not None:
        keywords["classifier"] = saved["classifier"]
    try:
        about = describe_env(env_id, **keywords)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if about["grid"] is not None:  # of the training split, as in training
        keywords["grid"] = about["grid"]
    if not ALGORITHMS[algo].learns:
        classes = None if about["track"] == "policy-only" else about["num_classes"]
        return make_untrained_policy(algo, chosen, classes, saved["seed"]), env_id, keywords
    weights = folder / "best_model.zip"
    if not weights.exists():
        raise ValueError(f"{weights}: missing; expected a run that was validated once")
    bare = chosen._replace(algorithm={"_init_setup_model": False})  # no buffers
    with closing(Sb3VecEnv(env_id, split="train", **keywords)) as env:
        model = make_model(algo, env, bare, saved["seed"], device)
    spaces = model.observation_space, model.action_space
    try:
        policy = model.policy_class(*spaces, lambda remaining: 0.0, **model.policy_kwargs)
        _, parameters, _ = load_from_zip_file(weights, load_data=False, device=device)
        policy.load_state_dict((parameters or {})["policy"])
    except DAMAGE as error:
        why = " ".join(str(error).split())[:200]
        problem = f"damaged, or not of options.json beside it ({why})"
        raise ValueError(f"{weights}: {problem}; {WAY_OUT}") from None
    policy.to(device).set_training_mode(False)
    return Sb3Policy(policy), env_id, keywords
