"""The batched environment as Stable-Baselines3's `VecEnv`: all slots in one step.

    from dtram_env.sb3 import Sb3VecEnv

    env = VecMonitor(Sb3VecEnv("DTRAM-MNIST-v0", num_envs=256, view="discrete"))
    PPO("MultiInputPolicy", env, gamma=1.0).learn(1_000_000)

`VecMonitor` is SB3's own; without it no return or length is logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from .vector_env import GlimpseVectorEnv

FREE = {"metadata", "validate_actions"}  # public attributes that are read anew at each use


class Sb3VecEnv(VecEnv):
    """A `GlimpseVectorEnv` behind the interface that every SB3 algorithm takes.

    A slot starts anew in the step that ends its episode. That slot's info then holds the whole
    last info (`label`, `prediction`, `is_success`, …), `terminal_observation`, and
    ``TimeLimit.truncated``, which is always False; the infos of other slots are empty. Action masks
    are there for MaskablePPO in the views of a grid.

    All slots are one environment: `seed` seeds it by its first number, and `set_attr` sets an
    attribute of it, for all slots, or raises: what the task is is fixed when it is made.

    Args:
        env_id: a registered id, as ``"DTRAM-MNIST-v0"`` or ``"agents:DTRAM-MNIST-Policy-v0"``.
        num_envs: number of slots.
        **env_kwargs: keywords of the environment; `view` must be given, and not "native".

    Attributes:
        venv: the `GlimpseVectorEnv`.

    Raises:
        ValueError: an argument is not what it must be.
    """

    def __init__(self, env_id: str, num_envs: int = 1, **env_kwargs: Any) -> None:
        for name, only in (("autoreset_mode", AutoresetMode.SAME_STEP), ("backend", "numpy")):
            if env_kwargs.pop(name, only) != only:
                raise ValueError(f"{name}: Sb3VecEnv works with {only} only; leave it out")
        try:
            made = gym.make_vec(
                env_id, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs
            ).unwrapped
        except TypeError as error:
            raise ValueError(
                f"env_id={env_id!r}: {error}; expected an environment of this package, and its "
                "keywords"
            ) from error
        if not isinstance(made, GlimpseVectorEnv):
            raise ValueError(f"env_id={env_id!r}: expected an environment of this package")
        if made.view == "native":
            raise ValueError(
                "view='native': Stable-Baselines3 takes no Dict action; expected "
                "view='continuous' (PPO, A2C, SAC, TD3), 'discrete' (PPO, A2C, MaskablePPO), or, "
                "for policy-only ids, 'single' (DQN)"
            )
        self.venv = made
        self._made = set(vars(made))
        self._actions: Any = None
        super().__init__(num_envs, made.single_observation_space, made.single_action_space)

    def reset(self) -> VecEnvObs:
        """Starts episodes in all slots, with the seeds and options that were set before.

        Raises:
            ValueError: an option is not what it must be; the options are forgotten.
        """
        given = self._options
        self._reset_options()
        if len(given) != self.num_envs:
            raise ValueError(f"options: expected one dict, or {self.num_envs}, got {len(given)}")
        indices = [option.get("image_index") for option in given]
        for key in {key for option in given for key in option} - {"image_index"}:
            raise ValueError(f"options[{key!r}]: unknown; expected 'image_index'")
        options = None
        if any(index is not None for index in indices):
            if None in indices:
                raise ValueError("options['image_index']: expected for every slot, or for none")
            options = {"image_index": np.array(indices)}
        observation, infos = self.venv.reset(seed=self._seeds[0], options=options)
        self.reset_infos = _split(infos, range(self.num_envs))
        self._reset_seeds()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all slots.

        Returns:
            Observations of arrays ``(n, …)``, rewards ``(n,)`` float32, dones ``(n,)`` bool, and a
            list of n dicts.
        """
        observation, rewards, dones, _, found = self.venv.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if "final_info" in found:
            ended = np.flatnonzero(dones)
            last = found["final_obs"]
            for i, info in zip(ended.tolist(), _split(found["final_info"], ended), strict=True):
                info["terminal_observation"] = last[i]
                info["TimeLimit.truncated"] = False
                infos[i] = info
        return observation, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Closes the environment."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environment, once for every slot asked for."""
        value = getattr(self.venv, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the environment; it belongs to all slots.

        Raises:
            ValueError: only some of the slots were named, or the attribute is one of those that the
                environment was made with, as `discount`, or one of its methods.
        """
        own = attr_name in self._made or hasattr(type(self.venv), attr_name)
        if own and attr_name not in FREE:
            raise ValueError(
                f"set_attr({attr_name!r}): fixed when the environment is made; make another with "
                f"Sb3VecEnv(…, {attr_name}=…) if it is a keyword"
            )
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(
                f"set_attr({attr_name!r}, indices={indices!r}): the slots are one environment; "
                "expected all of them (indices=None)"
            )
        setattr(self.venv, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls a method of the environment once; each slot asked for gets its part of the result.

        Its part is its row, if the result has one for every slot (`action_masks`, `render`), else
        the whole.
        """
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        rows = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[i] if rows else result for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False for every slot: there is no wrapper inside."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Frames ``(h, w, 3)`` uint8 of the first slots."""
        return self.venv.render() or ()

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        if indices is None:
            return range(self.num_envs)
        slots = [indices] if isinstance(indices, int | np.integer) else list(indices)
        for i in slots:
            if not 0 <= i < self.num_envs:
                raise ValueError(f"indices={indices!r}: expected slots 0 to {self.num_envs - 1}")
        return slots


def _split(infos: dict[str, Any], slots: Iterable[int]) -> list[dict[str, Any]]:
    """Gymnasium's infos, arrays with masks, as a dict for each of some slots that have them all."""
    rows = list(slots)
    keys = [key for key in infos if not key.startswith("_")]
    columns = [np.asarray(infos[key])[rows].tolist() for key in keys]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
