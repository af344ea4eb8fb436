"""The exact evaluation of a policy: every image of a split, once, through the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from .backends import to_host
from .policy import Policy


@dataclass(frozen=True)
class Evaluation:
    """What a policy did on every image of a split.

    Attributes:
        env_id: the environment.
        dataset: the data's name.
        split: the split's name.
        images: how many images were shown, each once.
        accuracy: share of images answered rightly, in [0, 1].
        error: ``1 - accuracy``.
        mean_glimpses: glimpses an image, over all images, right or wrong.
        mean_return: reward an episode.
        histogram: ``(T_max,)`` int64, how many images took 1, 2, … glimpses.
        label: ``(N,)`` int64, per image, in the order of `image_index`.
        prediction: ``(N,)`` int64.
        num_glimpses: ``(N,)`` int64.
        reward: ``(N,)`` float64, the return.
    """

    env_id: str
    dataset: str
    split: str
    images: int
    accuracy: float
    error: float
    mean_glimpses: float
    mean_return: float
    histogram: np.ndarray
    label: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    num_glimpses: np.ndarray = field(repr=False)
    reward: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON takes it; `test_error` is in percent, and there on "test" only."""
        summary: dict[str, Any] = {
            "env_id": self.env_id,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "accuracy": self.accuracy,
            "error": self.error,
        }
        if self.split == "test":
            summary["test_error"] = round(100 * self.error, 8)  # no 1.3599999999999999
        summary["mean_glimpses"] = self.mean_glimpses
        summary["mean_return"] = self.mean_return
        summary["histogram"] = self.histogram.tolist()
        return summary


def evaluate(
    policy: Policy[Any],
    id: str,
    split: str = "test",
    *,
    num_envs: int = 1000,
    backend: str = "numpy",
    device: Any = "cpu",
    seed: int = 0,
    progress: bool = False,
    **env_kwargs: Any,
) -> Evaluation:
    """Runs a policy on every image of a split, each exactly once.

    Args:
        policy: see `Policy`; it sees what the environment shows and nothing else. If it has a
            method `check_env`, that is called with the environment first.
        id: a registered environment.
        split: the images.
        num_envs: episodes run side by side; it does not change the result of a policy that treats
            each episode by itself.
        backend: "numpy" or "torch": what the policy is given.
        device: of the torch backend.
        seed: of the environment's random numbers, which ``first_glimpse="random"`` uses: two passes
            with one seed and one `num_envs` look first at the same places. A policy's own random
            numbers are its own.
        progress: show a bar on standard error.
        **env_kwargs: more keywords of the environment.

    Raises:
        TypeError: `policy` is no policy.
        ValueError: an action is not one, on either backend; the message names the field, the slot
            and the value. Or the policy's `check_env` refuses the environment.
        RuntimeError: an image was not counted exactly once: the environment is at fault.
    """
    missing = [name for name in ("reset", "step") if not callable(getattr(policy, name, None))]
    if isinstance(policy, type) or missing:
        raise TypeError(
            f"policy={policy!r}: expected an object with the methods of dtram_env.Policy "
            f"({'a class was given' if isinstance(policy, type) else ' and '.join(missing)})"
        )
    env = gym.make_vec(
        id,
        num_envs=num_envs,
        split=split,
        order="sequential",
        autoreset_mode=AutoresetMode.DISABLED,
        backend=backend,
        device=device,
        validate_actions=True,  # a step ends with a question to the device in any case
        **env_kwargs,
    )
    try:
        check_env = getattr(policy, "check_env", None)
        if check_env is not None:
            check_env(env.unwrapped)
        return _evaluate(policy, id, env, seed, progress)
    finally:
        env.close()


def _evaluate(policy: Policy[Any], env_id: str, env: Any, seed: int, progress: bool) -> Evaluation:
    n, total = env.num_envs, env.num_images
    waves = -(-total // n)
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=total, desc=f"{env_id} {env.split}", unit="image")
    observation, infos = env.reset(seed=seed)
    columns: list[dict[str, np.ndarray]] = []
    for wave in range(waves):
        if wave:
            everyone = np.ones(n, dtype=np.bool_)
            observation, infos = env.reset(options={"reset_mask": everyone})
        outcome = _episode(policy, env, observation, infos)
        first_visit = ~outcome.pop("repeat")
        columns.append({key: values[first_visit] for key, values in outcome.items()})
        if bar is not None:
            bar.update(int(first_visit.sum()))
    if bar is not None:
        bar.close()
    table = {key: np.concatenate([part[key] for part in columns]) for key in columns[0]}
    order = np.argsort(table["image_index"], kind="stable")
    table = {key: values[order] for key, values in table.items()}
    if not np.array_equal(table["image_index"], np.arange(total)):
        raise RuntimeError(f"{env_id}: not every one of {total} images was counted exactly once")
    accuracy = float(np.mean(table["prediction"] == table["label"]))
    return Evaluation(
        env_id=env_id,
        dataset=env.dataset,
        split=env.split,
        images=total,
        accuracy=accuracy,
        error=float(np.mean(table["prediction"] != table["label"])),
        mean_glimpses=float(table["num_glimpses"].mean()),
        mean_return=float(table["reward"].mean()),
        histogram=np.bincount(table["num_glimpses"], minlength=env.max_glimpses + 1)[1:],
        label=table["label"],
        prediction=table["prediction"],
        num_glimpses=table["num_glimpses"],
        reward=table["reward"],
    )


def _episode(
    policy: Policy[Any], env: Any, observation: Any, infos: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Runs one episode in every slot, from its first observation to its end."""
    outcome = {key: to_host(infos[key]) for key in ("image_index", "label", "repeat")}
    prediction = np.zeros(env.num_envs, dtype=np.int64)
    reward = np.zeros(env.num_envs)
    state = policy.reset(env.num_envs)
    running = True
    while running:
        action, state = policy.step(observation, state)
        observation, paid, terminated, _, infos = env.step(action)
        reward += to_host(paid)
        if "prediction" in infos:
            prediction = np.where(
                to_host(infos["_prediction"]), to_host(infos["prediction"]), prediction
            )
        running = not to_host(terminated).all()
    outcome |= {
        "prediction": prediction,
        "num_glimpses": to_host(infos["num_glimpses"]),
        "reward": reward,
    }
    return outcome
