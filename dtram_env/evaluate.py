"""Exact evaluation of a policy: every image of a split, once, through the environment."""

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from tqdm import tqdm

from .backends import to_host
from .policy import Policy


@dataclass(frozen=True)
class Evaluation:
    """The results of a policy on every image of a split.

    Attributes:
        env_id: the environment.
        dataset: name of the data.
        split: name of the split.
        images: number of images; each was shown once.
        accuracy: fraction of images that were classified correctly, in [0, 1].
        error: ``1 - accuracy``.
        mean_glimpses: mean number of glimpses over all images, right or wrong.
        mean_return: mean reward of an episode.
        histogram: ``(T_max,)`` int64, number of images that took 1, 2, … glimpses.
        label: ``(N,)`` int64, per image, in the order of `image_index`.
        prediction: ``(N,)`` int64, per image.
        num_glimpses: ``(N,)`` int64, per image.
        locations: ``(N, T_max, 2)`` float32, per image and glimpse, x and y in [-1, 1]; NaN for
            glimpses that were not taken, (0, 0) for a thumbnail.
        reward: ``(N,)`` float64, the return per image.
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
    locations: np.ndarray = field(repr=False)
    reward: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON. Only the split "test" has a `test_error`, in percent."""
        names = ("env_id", "dataset", "split", "images", "accuracy", "error")
        summary = {name: getattr(self, name) for name in names}
        if self.split == "test":
            summary["test_error"] = round(100 * self.error, 8)  # 1.36, not 1.3599999999999999
        summary |= {"mean_glimpses": self.mean_glimpses, "mean_return": self.mean_return}
        return summary | {"histogram": self.histogram.tolist()}


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
        policy: see `Policy`; it sees the environment's observations and nothing else. If it has a
            method `check_env`, that is called with the environment first.
        id: a registered environment.
        split: the images.
        num_envs: number of episodes side by side, at most the number of images; fewer where images
            are drawn on demand and not so many are kept, so that each is drawn once. It does not
            change the result of a policy that treats each episode independently.
        backend: "numpy" or "torch", the kind of arrays that the policy gets.
        device: device of the torch backend.
        seed: seed of the environment, for ``first_glimpse="random"``: two evaluations with the same
            seed and `num_envs` have the same first glimpses. It does not seed the policy.
        progress: whether to show a progress bar on standard error.
        **env_kwargs: more keywords of the environment.

    Raises:
        TypeError: `policy` is not a policy.
        ValueError: an action is invalid (the message names the field, the slot and the value), or
            the policy's `check_env` refuses the environment.
        RuntimeError: an image was not counted exactly once, which is a bug of the environment.
    """
    missing = [name for name in ("reset", "step") if not callable(getattr(policy, name, None))]
    if isinstance(policy, type) or missing:
        raise TypeError(
            f"policy={policy!r}: expected an object with the methods of dtram_env.Policy "
            f"({'a class was given' if isinstance(policy, type) else ' and '.join(missing)})"
        )
    make = partial(
        gym.make_vec,
        id,
        split=split,
        order="sequential",
        autoreset_mode=AutoresetMode.DISABLED,
        backend=backend,
        device=device,
        validate_actions=True,  # costs nothing here: every step waits for the device anyway
        **env_kwargs,
    )
    env: Any = make(num_envs=num_envs)
    kept = getattr(env.unwrapped.data.images, "kept", num_envs)  # of a `DrawnStore`
    slots = min(num_envs, kept, env.unwrapped.num_images)
    if slots < num_envs:
        env.close()
        env = make(num_envs=slots)
    with closing(env):
        if hasattr(policy, "check_env"):
            policy.check_env(env.unwrapped)
        return _evaluate(policy, id, env, seed, progress)


def _evaluate(policy: Policy[Any], env_id: str, env: Any, seed: int, progress: bool) -> Evaluation:
    n, total, name = env.num_envs, env.num_images, f"{env_id} {env.split}"
    parts: list[dict[str, np.ndarray]] = []
    with tqdm(total=total, desc=name, unit="image", disable=not progress) as progress_bar:
        start = env.reset(seed=seed)
        while True:
            outcome = _run_episodes(policy, env, *start)
            first_visit = ~outcome.pop("repeat")
            parts.append({key: values[first_visit] for key, values in outcome.items()})
            progress_bar.update(int(first_visit.sum()))
            if len(parts) * n >= total:
                break
            # A mask of all slots, because a plain reset would restart the pass.
            start = env.reset(options={"reset_mask": np.ones(n, dtype=np.bool_)})
    table = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(table["image_index"], kind="stable")
    table = {key: values[order] for key, values in table.items()}
    if not np.array_equal(table.pop("image_index"), np.arange(total)):
        raise RuntimeError(f"{env_id}: not every one of {total} images was counted exactly once")
    return Evaluation(
        env_id=env_id,
        dataset=env.dataset,
        split=env.split,
        images=total,
        accuracy=float(np.mean(table["prediction"] == table["label"])),
        error=float(np.mean(table["prediction"] != table["label"])),
        mean_glimpses=float(table["num_glimpses"].mean()),
        mean_return=float(table["reward"].mean()),
        histogram=np.bincount(table["num_glimpses"], minlength=env.max_glimpses + 1)[1:],
        **table,
    )


def _run_episodes(
    policy: Policy[Any], env: Any, observation: Any, infos: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Runs one episode in every slot, from its first observation to its end."""
    outcome = {key: to_host(infos[key]) for key in ("image_index", "label", "repeat")}
    prediction = np.zeros(env.num_envs, dtype=np.int64)
    reward = np.zeros(env.num_envs)
    locations = np.full((env.num_envs, env.max_glimpses, 2), np.nan, dtype=np.float32)
    state = policy.reset(env.num_envs)
    terminated = np.zeros(env.num_envs, dtype=np.bool_)
    while not to_host(terminated).all():
        taken = to_host(infos["num_glimpses"])
        slots = np.flatnonzero(taken)
        locations[slots, taken[slots] - 1] = to_host(env.location)[slots]
        action, state = policy.step(observation, state)
        observation, paid, terminated, _, infos = env.step(action)
        reward += to_host(paid)
        if "prediction" in infos:
            ended = to_host(infos["_prediction"])
            prediction = np.where(ended, to_host(infos["prediction"]), prediction)
    outcome |= {"prediction": prediction, "reward": reward, "locations": locations}
    outcome["num_glimpses"] = to_host(infos["num_glimpses"])
    return outcome
