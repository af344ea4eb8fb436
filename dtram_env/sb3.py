"""The vector environment as a `VecEnv` of Stable-Baselines3: all slots in one step.

    from dtram_env.sb3 import Sb3VecEnv

    env = VecMonitor(Sb3VecEnv("DTRAM-MNIST-v0", num_envs=256, view="discrete"))
    PPO("MultiInputPolicy", env, gamma=1.0).learn(1_000_000)

`VecMonitor` is SB3's own wrapper; without it SB3 logs no returns and lengths. Importing this module
without Stable-Baselines3 raises an `ImportError` with the install line.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from .checks import check_options
from .optional import require
from .vector_env import GlimpseVectorEnv

require("stable_baselines3", "train")

from stable_baselines3.common.vec_env import VecEnv, base_vec_env  # noqa: E402

LABEL = "label"  # key of the true class in observations for training


class Sb3VecEnv(VecEnv):
    """A `GlimpseVectorEnv` (`venv`) with the interface that every SB3 algorithm accepts.

    The step that ends an episode also starts the slot's next one. The slot's info then holds the
    episode's last info (`label`, `prediction`, `is_success`, …), `terminal_observation`, and
    ``TimeLimit.truncated``, which is always False; the infos of other slots are empty. In the grid
    views `action_masks` serves MaskablePPO.

    All slots are one environment, which cannot change after it is made; the first number of `seed`
    seeds it.

    Args:
        env_id: a registered id, as ``"DTRAM-MNIST-v0"`` or ``"agents:DTRAM-MNIST-Policy-v0"``.
        num_envs: number of slots.
        show_label: whether observations have the true class, too, as ``label``, one-hot
            ``(num_classes,)`` float32: for training alone (`agents.sb3.learn_labels`).
        **env_kwargs: keywords of the environment; `view` must be given, and not "native".

    Raises:
        ValueError: an argument has a wrong value; the message names it.
    """

    def __init__(
        self, env_id: str, num_envs: int = 1, *, show_label: bool = False, **env_kwargs: Any
    ) -> None:
        for name, only in (("autoreset_mode", AutoresetMode.SAME_STEP), ("backend", "numpy")):
            if env_kwargs.pop(name, only) != only:
                raise ValueError(f"{name}: Sb3VecEnv works with {only} only; leave it out")
        try:
            made = gym.make_vec(
                env_id, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs
            ).unwrapped
        except TypeError as error:
            raise ValueError(
                f"env_id={env_id!r}: {error}; expected an environment of this package"
            ) from error
        if not isinstance(made, GlimpseVectorEnv):
            raise ValueError(f"env_id={env_id!r}: expected an environment of this package")
        if made.view == "native":
            raise ValueError(
                "view='native': Stable-Baselines3 accepts no Dict actions; expected "
                "view='continuous' (PPO, A2C, SAC, TD3), 'discrete' (PPO, A2C, MaskablePPO), or, "
                "for policy-only ids, 'single' (DQN)"
            )
        self.venv = made
        self._actions: Any = None
        self._one_hot = np.eye(made.num_classes, dtype=np.float32) if show_label else None
        space: Any = made.single_observation_space
        if show_label:
            space = spaces.Dict({**space, LABEL: spaces.Box(0, 1, (made.num_classes,), np.float32)})
        super().__init__(num_envs, space, made.single_action_space)

    def reset(self) -> base_vec_env.VecEnvObs:
        """Starts episodes in all slots, with the seed and options set by `seed` and `set_options`.

        Raises:
            ValueError: an option is invalid. The options are dropped.
        """
        given = self._options
        self._reset_options()
        if len(given) != self.num_envs:
            raise ValueError(f"options: expected one dict, or {self.num_envs}, got {len(given)}")
        for option in given:
            check_options(option, "image_index")
        fixed = [option["image_index"] for option in given if option]
        if len(fixed) not in (0, self.num_envs):
            raise ValueError("options['image_index']: expected for every slot, or for none")
        options = {"image_index": np.array(fixed)} if fixed else None
        observation, infos = self.venv.reset(seed=self._seeds[0], options=options)
        data = {"dataset": self.venv.dataset}  # as of one environment
        self.reset_infos = [info | data for info in _split(infos, range(self.num_envs))]
        self._reset_seeds()
        return self._with_label(observation, infos["label"])

    def step_async(self, actions: np.ndarray) -> None:
        """Stores the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> base_vec_env.VecEnvStepReturn:
        """Steps all slots: observations, rewards and dones are arrays ``(n, …)``, infos n dicts."""
        observation, rewards, dones, _, found = self.venv.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if "final_info" in found:
            ended = np.flatnonzero(dones)
            for i, info in zip(ended.tolist(), _split(found["final_info"], ended), strict=True):
                final = self._with_label(found["final_obs"][i], info["label"])
                infos[i] = info | {"terminal_observation": final, "TimeLimit.truncated": False}
        observation = self._with_label(observation, found["label"])
        return observation, rewards.astype(np.float32), dones, infos

    def _with_label(self, observation: dict[str, Any], label: Any) -> dict[str, Any]:
        """An observation, of all slots or of one, with the label if it is to be shown."""
        if self._one_hot is None:
            return observation
        return {**observation, LABEL: self._one_hot[label]}

    def close(self) -> None:
        self.venv.close()

    def get_attr(self, attr_name: str, indices: base_vec_env.VecEnvIndices = None) -> list[Any]:
        """An attribute of the environment, repeated for every slot in `indices`."""
        return [getattr(self.venv, attr_name) for _ in self._get_indices(indices)]

    def set_attr(
        self, attr_name: str, value: Any, indices: base_vec_env.VecEnvIndices = None
    ) -> None:
        """Raises `ValueError`: the environment does not change after it is made."""
        raise ValueError(
            f"set_attr({attr_name!r}): expected no set_attr; the environment does not change after "
            f"it is made. If it is a keyword, make another with Sb3VecEnv(…, {attr_name}=…)"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: base_vec_env.VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls a method of the environment once; returns one result for each slot in `indices`.

        If the method's result has one item per slot (`action_masks`, `render`), a slot gets its own
        item, otherwise the whole result.
        """
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        per_slot = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[i] if per_slot else result for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: base_vec_env.VecEnvIndices = None
    ) -> list[bool]:
        """False for every slot: the environment has no wrappers."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Frames ``(h, w, 3)`` uint8 of the first slots."""
        return self.venv.render() or ()


def _split(infos: dict[str, Any], slots: Iterable[int]) -> list[dict[str, Any]]:
    """Gymnasium's infos (arrays with masks) as one dict per slot; the slots must have all keys."""
    keys = [key for key in infos if not key.startswith("_")]
    columns = [np.asarray(infos[key])[list(slots)].tolist() for key in keys]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
